package jose

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// The supported algorithms, the recommended one of each family first.
var (
	asymmetric = []string{
		"RS256", "RS384", "RS512", // RFC 7518, section 3.3
		"PS256", "PS384", "PS512", // RFC 7518, section 3.5
		"ES256", "ES384", "ES512", // RFC 7518, section 3.4
		"EdDSA",   // RFC 8037, section 3.1; with the curve Ed25519 only
		"Ed25519", // RFC 9864, section 2.2: the same, fully specified
	}
	symmetric = []string{"HS256", "HS384", "HS512"} // RFC 7518, section 3.2
)

// Algorithms returns the supported asymmetric signature algorithms.
func Algorithms() []string { return slices.Clone(asymmetric) }

// DefaultAlgorithms returns the algorithms that issuers use today and that no profile advises against.
func DefaultAlgorithms() []string {
	return []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"}
}

// HMACAlgorithms returns the supported algorithms whose key is a shared secret. Use them only together with a configured
// secret: in a list of algorithms for public keys, one of them turns a public key into a secret that everyone knows (RFC
// 8725, section 2.1).
func HMACAlgorithms() []string { return slices.Clone(symmetric) }

// Known reports whether alg is in either list. Names are compared byte by byte (RFC 7515, section 4.1.1).
func Known(alg string) bool {
	_, known := algorithms[alg]
	return known
}

// A family is the kind of key that an algorithm is for.
type family int

const (
	familyRSA family = iota + 1
	familyEC
	familyEd25519
	familySecret
)

// An algorithm holds the parameters for verifying and making a signature.
type algorithm struct {
	family   family
	curve    elliptic.Curve // of familyEC
	hashSize int            // bytes
	verifier verifier
	signer   jws.Signer
}

type verifier interface {
	Verify(input, signature []byte, key any) error
}

var algorithms = map[string]algorithm{
	"RS256":   {family: familyRSA, hashSize: 32, verifier: verifierOf(jwa.RS256), signer: signerOf(jwa.RS256)},
	"RS384":   {family: familyRSA, hashSize: 48, verifier: verifierOf(jwa.RS384), signer: signerOf(jwa.RS384)},
	"RS512":   {family: familyRSA, hashSize: 64, verifier: verifierOf(jwa.RS512), signer: signerOf(jwa.RS512)},
	"PS256":   {family: familyRSA, hashSize: 32, verifier: pss{crypto.SHA256, sha256.New}, signer: signerOf(jwa.PS256)},
	"PS384":   {family: familyRSA, hashSize: 48, verifier: pss{crypto.SHA384, sha512.New384}, signer: signerOf(jwa.PS384)},
	"PS512":   {family: familyRSA, hashSize: 64, verifier: pss{crypto.SHA512, sha512.New}, signer: signerOf(jwa.PS512)},
	"ES256":   {family: familyEC, curve: elliptic.P256(), hashSize: 32, verifier: verifierOf(jwa.ES256), signer: signerOf(jwa.ES256)},
	"ES384":   {family: familyEC, curve: elliptic.P384(), hashSize: 48, verifier: verifierOf(jwa.ES384), signer: signerOf(jwa.ES384)},
	"ES512":   {family: familyEC, curve: elliptic.P521(), hashSize: 64, verifier: verifierOf(jwa.ES512), signer: signerOf(jwa.ES512)},
	"EdDSA":   {family: familyEd25519, verifier: verifierOf(jwa.EdDSA), signer: signerOf(jwa.EdDSA)},
	"Ed25519": {family: familyEd25519, verifier: verifierOf(jwa.EdDSA), signer: signerOf(jwa.EdDSA)},
	"HS256":   {family: familySecret, hashSize: 32, verifier: verifierOf(jwa.HS256), signer: signerOf(jwa.HS256)},
	"HS384":   {family: familySecret, hashSize: 48, verifier: verifierOf(jwa.HS384), signer: signerOf(jwa.HS384)},
	"HS512":   {family: familySecret, hashSize: 64, verifier: verifierOf(jwa.HS512), signer: signerOf(jwa.HS512)},
}

func verifierOf(alg jwa.SignatureAlgorithm) verifier {
	v, err := jws.NewVerifier(alg)
	if err != nil {
		panic(fmt.Sprintf("jose: %v", err)) // at program start, for a name in the list above
	}
	return v
}

func signerOf(alg jwa.SignatureAlgorithm) jws.Signer {
	s, err := jws.NewSigner(alg)
	if err != nil {
		panic(fmt.Sprintf("jose: %v", err))
	}
	return s
}

// A pss verifies RSASSA-PSS with a salt as long as the hash, as RFC 7518, section 3.5, requires; jwx accepts any length.
type pss struct {
	hash crypto.Hash
	new  func() hash.Hash
}

func (p pss) Verify(input, signature []byte, key any) error {
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return errors.New("not an RSA key")
	}
	h := p.new()
	h.Write(input)
	return rsa.VerifyPSS(public, p.hash, h.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}
