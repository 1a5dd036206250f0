package jose

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// The reasons for which [ParseKey] refuses a key, and [Key.Verify] a token.
var (
	ErrPrivate     = errors.New("the key holds private parts")
	ErrSymmetric   = errors.New("the key is a shared secret")
	ErrUnsupported = errors.New("the key cannot be used")
	ErrForeign     = fmt.Errorf("%w here", ErrUnsupported) // well-formed, but of another kind or for another use
	ErrUnfit       = errors.New("the key does not fit the algorithm")
	ErrSignature   = errors.New("the signature does not verify")
)

// The limits of an RSA modulus, in bits. RFC 7518, section 3.3, sets the lower one. The upper one, which crypto/tls also
// uses, bounds the cost of verifying a signature.
const (
	minRSA = 2048
	maxRSA = 8192
)

// Key is a public key or a shared secret. It is immutable and safe for concurrent use.
type Key struct {
	id, alg    string // "": none
	x5t        string // if id is ""; "": none
	issuer     string // "": none
	thumbprint string
	family     family
	curve      elliptic.Curve // of familyEC
	size       int            // of an RSA modulus or a secret, in bytes
	material   any            // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
}

// ID returns the key id (kid), or "" if the key has none.
func (k *Key) ID() string { return k.id }

// CertificateThumbprint returns the x5t or else the x5t#S256 of a key without an ID, as sent; "" if it has neither. Issuers that
// leave out the kid name the key by it in their tokens.
func (k *Key) CertificateThumbprint() string { return k.x5t }

// Issuer returns the issuer whose tokens the key may verify, from the member issuer of its JWK; "" if it may verify those of every
// issuer of the key set. Entra ID has such a member; {tenantid} in it stands for the ID of any tenant.
func (k *Key) Issuer() string { return k.issuer }

// Modulus returns the modulus of an RSA key, big-endian; nil for other keys.
func (k *Key) Modulus() []byte {
	if public, is := k.material.(*rsa.PublicKey); is {
		return public.N.Bytes()
	}
	return nil
}

// Thumbprint returns the identity of the key's material. For a public key, it is the SHA-256 thumbprint of RFC 7638 in
// base64url. For a secret, it is a value that reveals nothing about the secret and differs in each process (RFC 7638, section
// 7).
func (k *Key) Thumbprint() string { return k.thumbprint }

// Fits reports whether a signature of alg may be verified with k: alg is supported, suits the kind, curve and size of the
// key, and equals the key's alg if it has one (RFC 8725, section 3.1; EdDSA and Ed25519 count as equal). A key without an alg
// fits several, such as RS256 and PS256. The list of allowed algorithms then decides.
func (k *Key) Fits(alg string) bool {
	_, fits := k.fit(alg)
	return fits
}

// Algorithms returns the supported algorithms that k [Key.Fits].
func (k *Key) Algorithms() (fit []string) {
	for _, alg := range slices.Concat(asymmetric, symmetric) {
		if k.Fits(alg) {
			fit = append(fit, alg)
		}
	}
	return fit
}

func (k *Key) fit(alg string) (algorithm, bool) {
	a := algorithms[alg] // of no family if alg is unknown
	switch {
	case a.family != k.family, a.curve != k.curve:
		return a, false
	case k.family == familySecret && k.size < a.hashSize: // RFC 7518, section 3.2
		return a, false
	case k.alg == "" || k.alg == alg:
		return a, true
	default:
		return a, k.family == familyEd25519 // has two names
	}
}

// Verify returns nil if the token is signed with k by the algorithm in its header. The caller must already have checked that
// this algorithm is allowed. The error is [ErrUnfit] or [ErrSignature].
func (k *Key) Verify(c *Compact) error {
	a, fits := k.fit(c.Header.Algorithm)
	if !fits {
		return ErrUnfit
	}
	// RFC 7515, section 5.2, step 8.
	if !k.wellFormed(a, c.signature) || a.verifier.Verify(c.input(), c.signature, k.material) != nil {
		return ErrSignature
	}
	if c.fresh != nil {
		c.fresh.remember()
	}
	return nil
}

// wellFormed reports whether signature has exactly the required length and, for ECDSA, numbers in range.
func (k *Key) wellFormed(a algorithm, signature []byte) bool {
	switch k.family {
	case familyRSA: // RFC 8017, sections 8.1.2 and 8.2.2, step 1
		return len(signature) == k.size
	case familyEC: // RFC 7518, section 3.4: r and s one after the other, each as long as a coordinate
		size, order := coordinateSize(k.curve), k.curve.Params().N
		if len(signature) != 2*size {
			return false
		}
		for _, half := range [][]byte{signature[:size], signature[size:]} {
			n := new(big.Int).SetBytes(half)
			if n.Sign() == 0 || n.Cmp(order) >= 0 { // FIPS 186-5, section 6.4.2, step 1
				return false
			}
		}
		return true
	case familyEd25519: // RFC 8032, section 5.1.6
		return len(signature) == ed25519.SignatureSize
	default:
		return len(signature) == a.hashSize
	}
}

func coordinateSize(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

// SecretKey returns a shared secret for the HMAC algorithms. The secret must be random (RFC 8725, section 3.5) and at least
// as long as the hash of the algorithm it is used with: 32 bytes for HS256 (RFC 7518, section 3.2). A secret is always
// configured and never comes from a key set. SecretKey does not retain the slice.
func SecretKey(id string, secret []byte) (*Key, error) {
	if !validKeyID(id) {
		return nil, fmt.Errorf("the key id has more than %d bytes or a control character", maxKeyID)
	}
	if least := algorithms["HS256"].hashSize; len(secret) < least {
		return nil, fmt.Errorf("the secret has %d bytes, at least %d are needed (RFC 7518, section 3.2)", len(secret), least)
	}
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return nil, errors.New("the secret is a PEM file, which holds a key pair's public or private key")
	}
	mac := hmac.New(sha256.New, processKey)
	mac.Write(secret)
	return &Key{
		id:         id,
		thumbprint: base64url.EncodeToString(mac.Sum(nil)),
		family:     familySecret,
		size:       len(secret),
		material:   bytes.Clone(secret),
	}, nil
}

var processKey = []byte(rand.Text())

// ParseKey parses one key of an issuer's key set (RFC 7517, section 4): RSA with a modulus of 2048 to 8192 bits, EC with
// P-256, P-384 or P-521, or OKP with Ed25519. The key must be for verifying signatures. Unknown and unneeded members are
// ignored.
//
// Numbers may be in the standard base64 alphabet, padded, or of another length than RFC 7518 requires, as long as they have one
// meaning only. Without them, the key is that of the first certificate in x5c (RFC 7517, section 4.7); with both, the two must
// agree. Nothing else in the certificate counts, neither its validity nor who issued it: the key is trusted because the issuer
// publishes it in its key set, over TLS, as it would be without a certificate.
//
// The error wraps [ErrPrivate], [ErrSymmetric], [ErrForeign] or [ErrUnsupported], and never contains the key.
func ParseKey(data []byte) (*Key, error) {
	m, err := readMembers(data)
	if err != nil {
		return nil, err
	}
	m.lenient = true
	return m.public()
}

// parseProofKey parses the key in the header of a proof, exactly as RFC 7517 and RFC 7518 require it.
func parseProofKey(data []byte) (*Key, error) {
	m, err := readMembers(data)
	if err != nil {
		return nil, err
	}
	return m.public()
}

func (m *members) public() (*Key, error) {
	if m.private {
		return nil, ErrPrivate
	}
	return m.key("verify")
}

// members holds the members of a JWK that are used.
type members struct {
	text    map[string]string // kty, crv, n, e, x, y, kid, use, alg, issuer; x5t and x5t#S256 if they are strings
	x5c     []string          // if it is an array of strings
	ops     []string          // key_ops
	hasOps  bool
	private bool
	lenient bool // see ParseKey
}

// jwkMembers are the members that readMembers looks at. None may occur in two letter cases.
var jwkMembers = []string{
	"kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "key_ops", "k", "d", "p", "q", "dp", "dq", "qi", "priv", "oth",
	"issuer",
}

// readMembers decodes a JWK and refuses a shared secret.
func readMembers(data []byte) (*members, error) {
	m := &members{text: map[string]string{}}
	secret := false
	err := strictjson.Entries(data, func(name string, v strictjson.Value) (err error) {
		ok := true
		switch name {
		case "d", "p", "q", "dp", "dq", "qi", "priv": // also an empty one
			m.private = true
			return nil
		}
		if v.IsEmpty() { // as if it were not there
			return nil
		}
		switch name {
		case "kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "issuer":
			m.text[name], ok = v.Text()
		case "x5t", "x5t#S256":
			m.text[name], _ = v.Text()
		case "x5c":
			m.x5c, _ = v.Strings()
		case "key_ops":
			m.hasOps = true
			m.ops, ok = v.Strings()
		case "k":
			secret = true
		case "oth":
			m.private = true
		}
		if !ok {
			return fmt.Errorf("%s has another type", name)
		}
		return nil
	}, jwkMembers...)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	case secret || m.text["kty"] == "oct":
		return nil, ErrSymmetric
	}
	return m, nil
}

// key returns the public key, if the JWK allows it to be used for op.
func (m *members) key(op string) (*Key, error) {
	// RFC 7517, sections 4.2 and 4.3. The keys of a SPIFFE bundle that verify JWTs have a special use: SPIFFE Trust Domain and
	// Bundle, section 4.2.2.
	if use, has := m.text["use"]; has && use != "sig" && (use != "jwt-svid" || op != "verify") {
		return nil, fmt.Errorf("%w: its use is not sig", ErrForeign)
	}
	if m.hasOps && !slices.Contains(m.ops, op) {
		return nil, fmt.Errorf("%w: its key_ops do not have %s", ErrForeign, op)
	}
	if alg, has := m.text["alg"]; has && !Known(alg) {
		return nil, fmt.Errorf("%w: its alg is unknown", ErrForeign)
	}
	if !validKeyID(m.text["kid"]) {
		return nil, fmt.Errorf("%w: its kid has more than %d bytes or a control character", ErrUnsupported, maxKeyID)
	}
	k := &Key{id: m.text["kid"]}
	if m.lenient {
		k.issuer = m.text["issuer"]
		if x5t := cmp.Or(m.text["x5t"], m.text["x5t#S256"]); k.id == "" && validKeyID(x5t) {
			k.x5t = x5t
		}
	}
	canonical, err := m.canonical(k)
	if err == nil {
		err = k.load(canonical)
	}
	if errors.Is(err, ErrForeign) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if alg, has := m.text["alg"]; has {
		if !k.Fits(alg) { // RFC 7517, section 4.4
			return nil, fmt.Errorf("%w: its alg is not one for such a key", ErrUnsupported)
		}
		k.alg = alg
	}
	return k, nil
}

// canonical checks the members that make up the public key, and sets the kind of key in k. It returns the key in the form of
// RFC 7638, section 3.3, which contains only these members.
func (m *members) canonical(k *Key) (string, error) {
	if !m.lenient || len(m.x5c) == 0 {
		return m.numbers(k)
	}
	certified, certErr := new(Key).certified(m.x5c[0])
	if m.text["n"] == "" && m.text["x"] == "" {
		canonical, err := k.certified(m.x5c[0])
		if kty := m.text["kty"]; err == nil && kty != "" && families[kty] != k.family {
			err = errors.New("its kty is not that of its certificate in x5c")
		}
		return canonical, err
	}
	own, err := m.numbers(k)
	// A certificate that cannot be read, such as one with a negative serial number, is of no use, but it is not needed either.
	if err == nil && certErr == nil && certified != own {
		return "", errors.New("its x5c has the certificate of another key (RFC 7517, section 4.7)")
	}
	return own, err
}

// numbers is canonical without regard to x5c.
func (m *members) numbers(k *Key) (string, error) {
	switch kty, crv := m.text["kty"], m.text["crv"]; {
	case kty == "":
		return "", errors.New("it has no kty")
	case crv == "" && (kty == "EC" || kty == "OKP"):
		return "", errors.New("it has no crv")
	case kty == "RSA": // RFC 7518, section 6.3.1
		n, err := m.bytes("n", 0)
		if err != nil {
			return "", err
		}
		e, err := m.bytes("e", 0)
		if err != nil {
			return "", err
		}
		// RFC 7518, section 6.3.1.1, forbids leading zeros, but they occur in practice and are harmless in a value.
		return k.setRSA(new(big.Int).SetBytes(n), new(big.Int).SetBytes(e))
	case kty == "EC" && curves[crv] != nil: // RFC 7518, section 6.2.1
		size := coordinateSize(curves[crv])
		x, err := m.bytes("x", size)
		if err != nil {
			return "", err
		}
		y, err := m.bytes("y", size)
		if err != nil {
			return "", err
		}
		return k.setEC(crv, x, y)
	case kty == "OKP" && crv == "Ed25519": // RFC 8037, section 2
		x, err := m.bytes("x", ed25519.PublicKeySize)
		if err != nil {
			return "", err
		}
		return k.setEd25519(x), nil
	default:
		return "", fmt.Errorf("%w: its kty or crv is unknown", ErrForeign)
	}
}

func (k *Key) setRSA(n, e *big.Int) (string, error) {
	k.family, k.size = familyRSA, (n.BitLen()+7)/8
	if n.BitLen() < minRSA || n.BitLen() > maxRSA || n.Bit(0) == 0 {
		return "", fmt.Errorf("its modulus is even or not of %d to %d bits", minRSA, maxRSA)
	}
	// RFC 8017, section 3.1: odd, 3 at least; the upper bound is that of crypto/rsa.
	if e.BitLen() > 31 || e.Bit(0) == 0 || e.Cmp(big.NewInt(3)) < 0 {
		return "", errors.New("its exponent is not an odd number from 3 to 2^31-1")
	}
	if roca(n) {
		return "", errors.New("its modulus can be factored, since a faulty library has chosen its primes (ROCA, CVE-2017-15361)")
	}
	return fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, encode(e.Bytes()), encode(n.Bytes())), nil
}

func (k *Key) setEC(crv string, x, y []byte) (string, error) {
	k.family, k.curve = familyEC, curves[crv]
	// The point must be on the curve: RFC 8725, section 3.4.
	if _, err := ecdsa.ParseUncompressedPublicKey(k.curve, slices.Concat([]byte{4}, x, y)); err != nil {
		return "", errors.New("its point is not on the curve")
	}
	return fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, crv, encode(x), encode(y)), nil
}

func (k *Key) setEd25519(x []byte) string {
	k.family = familyEd25519
	return fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, encode(x))
}

var families = map[string]family{"RSA": familyRSA, "EC": familyEC, "OKP": familyEd25519}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func encode(b []byte) string { return base64url.EncodeToString(b) }

// bytes decodes size bytes of base64url, or any number of bytes if size is 0. From a lenient key, it also takes padding, the
// standard alphabet (RFC 4648, section 4), and a number whose leading zeros are too few or too many.
func (m *members) bytes(name string, size int) ([]byte, error) {
	text := m.text[name]
	if m.lenient {
		if bare := strings.TrimRight(text, "="); len(text)%4 == 0 && len(text)-len(bare) < 3 {
			text = bare
		}
		text = strings.NewReplacer("+", "-", "/", "_").Replace(text)
	}
	// A line break is not base64url, though encoding/base64 skips it.
	b, err := base64url.DecodeString(text)
	if err != nil || len(b) == 0 || base64url.EncodedLen(len(b)) != len(text) {
		return nil, fmt.Errorf("its %s is missing or not canonical base64url", name)
	}
	if m.lenient && m.text["kty"] == "EC" {
		if number := bytes.TrimLeft(b, "\x00"); len(number) <= size {
			b = append(make([]byte, size-len(number)), number...)
		}
	}
	if size != 0 && len(b) != size {
		return nil, fmt.Errorf("its %s has %d bytes in place of %d", name, len(b), size)
	}
	return b, nil
}

// load sets the material of the key from its canonical form.
func (k *Key) load(canonical string) error {
	parsed, err := jwk.ParseKey([]byte(canonical))
	if err != nil {
		return err
	}
	sum, err := parsed.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	k.thumbprint = encode(sum)
	var material any
	if err := parsed.Raw(&material); err != nil {
		return err
	}
	switch public := material.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		k.material = public
		return nil
	default:
		return fmt.Errorf("it came out as a %T", material)
	}
}
