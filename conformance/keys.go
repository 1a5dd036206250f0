package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/jose"
)

// A key is a key pair of a run. Its name is that of its owner and its own, such as main/es256 or client/eddsa-2: keys with a number
// are further keys of the same kind.
type key struct {
	id     string
	alg    string
	signer crypto.Signer
	jwk    map[string]any // public, with kid, alg and use
	spki   []byte         // the public key in DER
}

// algorithms maps the kinds of keys to their algorithms. rsa1024 is too short for every algorithm.
var algorithms = map[string]string{"es256": "ES256", "es384": "ES384", "es512": "ES512", "rs256": "RS256", "rs384": "RS384", "rs512": "RS512",
	"ps256": "PS256", "eddsa": "EdDSA", "rsa1024": "RS256"}

// keyPool holds all keys of the process, since making an RSA key takes long. Its size is the number of names in the cases.
var keyPool = struct {
	sync.Mutex
	of map[string]func() (*key, error)
}{of: map[string]func() (*key, error){}}

// findKey returns the key with this name. owner applies to a name without one.
func findKey(owner, name string) (*key, error) {
	if !strings.Contains(name, "/") {
		name = owner + "/" + name
	}
	keyPool.Lock()
	get := keyPool.of[name]
	if get == nil {
		get = sync.OnceValues(func() (*key, error) { return makeKey(name) })
		keyPool.of[name] = get
	}
	keyPool.Unlock()
	return get()
}

func makeKey(name string) (*key, error) {
	_, kind, _ := strings.Cut(name, "/")
	kind, _, _ = strings.Cut(kind, "-")
	alg := algorithms[kind]
	if alg == "" {
		return nil, fmt.Errorf("unknown key %q", name)
	}
	k := &key{id: strings.ReplaceAll(name, "/", "-"), alg: alg}
	if kind == "rsa1024" {
		short, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			return nil, fmt.Errorf("making the key %s: %w", name, err)
		}
		k.signer = short
		k.jwk = map[string]any{"kty": "RSA", "use": "sig", "alg": alg, "kid": k.id,
			"n": encode(short.N.Bytes()), "e": encode(big.NewInt(int64(short.E)).Bytes())}
	} else {
		made, err := jose.GenerateKey(alg, k.id)
		if err != nil {
			return nil, fmt.Errorf("making the key %s: %w", name, err)
		}
		k.signer = made.Signer()
		if err := json.Unmarshal(made.PublicJWK(), &k.jwk); err != nil {
			return nil, fmt.Errorf("reading the key %s: %w", name, err)
		}
	}
	var err error
	k.spki, err = x509.MarshalPKIXPublicKey(k.signer.Public())
	return k, err
}

// bare returns the JWK without kid, alg and use, as clients send it in proofs.
func (k *key) bare() map[string]any {
	jwk := maps.Clone(k.jwk)
	for _, name := range []string{"kid", "alg", "use"} {
		delete(jwk, name)
	}
	return jwk
}

// thumbprint returns the SHA-256 thumbprint of RFC 7638.
func (k *key) thumbprint() string {
	required := map[string]any{}
	for _, name := range []string{"crv", "e", "k", "kty", "n", "x", "y"} { // of section 3.2 and RFC 8037, section 2
		if v, ok := k.jwk[name]; ok {
			required[name] = v
		}
	}
	text, err := json.Marshal(required) // sorted, without spaces, as section 3.3 requires
	if err != nil {
		panic(err) // the members are strings
	}
	sum := sha256.Sum256(text)
	return encode(sum[:])
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

var certificatePool = struct {
	sync.Mutex
	of map[string]*tls.Certificate
}{of: map[string]*tls.Certificate{}}

// findCertificate returns the self-signed client certificate with this name.
func findCertificate(name string) (*tls.Certificate, error) {
	certificatePool.Lock()
	defer certificatePool.Unlock()
	if c := certificatePool.of[name]; c != nil {
		return c, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(certificatePool.of)) + 1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	certificatePool.of[name] = c
	return c, nil
}

// certificateThumbprint returns x5t#S256 of RFC 8705, section 3.1.
func certificateThumbprint(c *tls.Certificate) [32]byte { return sha256.Sum256(c.Certificate[0]) }
