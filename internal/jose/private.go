package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// PrivateKey signs with one algorithm. It is immutable and safe for concurrent use.
type PrivateKey struct {
	alg        string
	raw        crypto.Signer // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	public     *Key
	publicJWK  json.RawMessage
	privateJWK json.RawMessage
}

// GenerateKey returns a new key for one of [Algorithms]. An RSA key has 2048 bits. If id is empty, the key's thumbprint is
// its ID.
func GenerateKey(alg, id string) (*PrivateKey, error) {
	var (
		raw crypto.Signer
		err error
	)
	switch a := algorithms[alg]; a.family {
	case familyRSA:
		raw, err = rsa.GenerateKey(rand.Reader, minRSA)
	case familyEC:
		raw, err = ecdsa.GenerateKey(a.curve, rand.Reader)
	case familyEd25519:
		_, raw, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("%q is not an asymmetric algorithm known here", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("generating a key for %s: %w", alg, err)
	}
	parsed, err := jwk.FromRaw(raw)
	if err != nil {
		return nil, fmt.Errorf("generating a key for %s: %w", alg, err)
	}
	data, err := json.Marshal(parsed)
	if err != nil {
		return nil, fmt.Errorf("generating a key for %s: %w", alg, err)
	}
	return newPrivateKey(data, alg, id)
}

// ParsePrivateKey parses the private JWK of a key pair, which will sign with alg. If alg is empty, the alg member of the JWK
// applies; otherwise the two must agree. A key without an ID gets its thumbprint as ID. The errors are those of [ParseKey],
// except ErrPrivate. A key without a private part is an error.
func ParsePrivateKey(data []byte, alg string) (*PrivateKey, error) {
	return newPrivateKey(data, alg, "")
}

// newPrivateKey returns the private key of a JWK; id applies if the JWK has no ID.
func newPrivateKey(data []byte, alg, id string) (*PrivateKey, error) {
	m, err := readMembers(data)
	if err != nil {
		return nil, err
	}
	public, err := m.key("sign")
	if err != nil {
		return nil, err
	}
	if alg == "" {
		alg = public.alg
	}
	if !public.Fits(alg) {
		return nil, fmt.Errorf("%w: it is not one for the algorithm %q", ErrUnsupported, alg)
	}
	public.alg = alg
	if public.id == "" {
		public.id = id
	}
	if public.id == "" {
		public.id = public.thumbprint
	}
	parsed, err := jwk.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: reading its private part: %w", ErrUnsupported, err)
	}
	var material any
	if err := parsed.Raw(&material); err != nil {
		return nil, fmt.Errorf("%w: reading its private part: %w", ErrUnsupported, err)
	}
	raw, ok := material.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: it has no private part", ErrUnsupported)
	}
	p := &PrivateKey{alg: alg, raw: raw, public: public}
	if err := p.prove(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if p.privateJWK, err = p.jwk(raw); err != nil {
		return nil, err
	}
	if p.publicJWK, err = p.jwk(public.material); err != nil {
		return nil, err
	}
	return p, nil
}

// prove checks that the private part belongs to the public part.
func (p *PrivateKey) prove() error {
	if r, is := p.raw.(*rsa.PrivateKey); is {
		if err := r.Validate(); err != nil {
			return errors.New("its private part is not one of an RSA key")
		}
	}
	raw, err := p.Sign(nil, []byte("{}"))
	if err != nil {
		return errors.New("its private part does not sign")
	}
	c, err := Parse(raw)
	if err != nil {
		return err
	}
	if p.public.Verify(c) != nil {
		return errors.New("its private part belongs to another public one")
	}
	return nil
}

// jwk returns the JWK of the public or the private part.
func (p *PrivateKey) jwk(part any) (json.RawMessage, error) {
	parsed, err := jwk.FromRaw(part)
	if err != nil {
		return nil, fmt.Errorf("writing a JWK: %w", err)
	}
	text, err := json.Marshal(parsed)
	if err != nil {
		return nil, fmt.Errorf("writing a JWK: %w", err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("writing a JWK: %w", err)
	}
	members["kid"], members["alg"], members["use"] = p.public.id, p.alg, "sig"
	return json.Marshal(members)
}

// ID returns the key id (kid), which is never empty.
func (p *PrivateKey) ID() string { return p.public.id }

// Algorithm returns the algorithm that the key signs with.
func (p *PrivateKey) Algorithm() string { return p.alg }

// Public returns the public key, which verifies what p signs.
func (p *PrivateKey) Public() *Key { return p.public }

// PublicJWK returns the public key as a JWK with kid, alg and use. It must not be modified.
func (p *PrivateKey) PublicJWK() json.RawMessage { return p.publicJWK }

// PrivateJWK returns the whole key, including the private part, as a JWK with kid, alg and use. It must be neither modified
// nor disclosed.
func (p *PrivateKey) PrivateJWK() json.RawMessage { return p.privateJWK }

// Signer returns the bare private key.
func (p *PrivateKey) Signer() crypto.Signer { return p.raw }

// Sign returns payload as a signed token in compact form. The header contains alg and kid; the given members are added or
// replace them, and a nil value removes a member. The signature is always made with the key's own algorithm, even if alg
// differs.
func (p *PrivateKey) Sign(header map[string]any, payload []byte) (string, error) {
	return sign(algorithms[p.alg], p.raw, map[string]any{"alg": p.alg, "kid": p.public.id}, header, payload)
}

// SignSecret returns payload as a token signed with a shared secret, as [PrivateKey.Sign] does. By default, the header
// contains only alg. The secret must be at least as long as the hash of alg (RFC 7518, section 3.2).
func SignSecret(secret []byte, alg string, header map[string]any, payload []byte) (string, error) {
	a := algorithms[alg]
	if a.family != familySecret {
		return "", fmt.Errorf("%q is not an HMAC algorithm known here", alg)
	}
	if len(secret) < a.hashSize {
		return "", fmt.Errorf("the secret has %d bytes, %s needs %d", len(secret), alg, a.hashSize)
	}
	return sign(a, secret, map[string]any{"alg": alg}, header, payload)
}

// sign writes the header with encoding/json, since jwx does not escape the names of members (GHSA-4cf7-xm37-g63h).
func sign(a algorithm, key any, base, header map[string]any, payload []byte) (string, error) {
	for name, v := range header {
		if base[name] = v; v == nil {
			delete(base, name)
		}
	}
	object, err := json.Marshal(base)
	if err != nil {
		return "", fmt.Errorf("writing the header: %w", err)
	}
	input := encode(object) + "." + encode(payload)
	signature, err := a.signer.Sign([]byte(input), key)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return input + "." + encode(signature), nil
}
