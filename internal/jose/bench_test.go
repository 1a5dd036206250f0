package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

// claims are those of an RFC 9068 token with four scopes.
const claims = `{"iss":"https://as.example.com/tenants/4711","sub":"248289761001-7f3c-4d1e-9a53-1c2b3d4e5f60","aud":"https://api.example.com/orders",` +
	`"exp":1790000000,"iat":1789999100,"jti":"b2f3c1e7-6a4d-4f0b-9a53-5b1d2c3e4f60","client_id":"s6BhdRkqt3","scope":"orders:read orders:write billing:read profile"}`

// BenchmarkVerify measures Parse and Verify against the bare signature verification of the same token, by turns, and
// reports the median of the ratios.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			k := keys()[alg]
			raw, err := k.Sign(map[string]any{"typ": "at+jwt"}, []byte(claims))
			require.NoError(b, err)
			ours := func() {
				c, err := jose.Parse(raw)
				if err != nil || k.Public().Verify(c) != nil {
					b.Fatal("refused")
				}
			}
			bare := bareVerification(b, k, raw)
			var ratios []float64
			var total time.Duration
			b.ReportAllocs()
			for b.Loop() {
				const turn = 8
				start := time.Now()
				for range turn {
					bare()
				}
				middle := time.Now()
				for range turn {
					ours()
				}
				end := time.Now()
				ratios = append(ratios, float64(end.Sub(middle))/float64(middle.Sub(start)))
				total += end.Sub(middle) / turn
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-bare")
			b.ReportMetric(float64(total.Nanoseconds())/float64(len(ratios)), "ns/token")
		})
	}
}

// bareVerification does what cannot be left out: the hash and the signature, of parts that are already decoded.
func bareVerification(b *testing.B, k *jose.PrivateKey, raw string) func() {
	dot := strings.LastIndexByte(raw, '.')
	input, signature := []byte(raw[:dot]), decode(b, raw[dot+1:])
	check := func(ok bool) {
		if !ok {
			b.Fatal("refused")
		}
	}
	switch public := k.Signer().Public().(type) {
	case *rsa.PublicKey:
		if k.Algorithm() == "PS256" {
			return func() {
				digest := sha256.Sum256(input)
				check(rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, nil) == nil)
			}
		}
		return func() {
			digest := sha256.Sum256(input)
			check(rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil)
		}
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		hash := crypto.SHA256
		if k.Algorithm() == "ES384" {
			hash = crypto.SHA384
		}
		return func() {
			h := hash.New()
			h.Write(input)
			check(ecdsa.Verify(public, h.Sum(nil), new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])))
		}
	case ed25519.PublicKey:
		return func() { check(ed25519.Verify(public, input, signature)) }
	default:
		b.Fatalf("%T", public)
		return nil
	}
}

func BenchmarkParse(b *testing.B) {
	k := keys()["RS256"]
	for _, name := range []string{"a header never seen", "a remembered header"} {
		b.Run(name, func(b *testing.B) {
			raw, err := k.Sign(map[string]any{"typ": "at+jwt", "kid": name + rand.Text()}, []byte(claims))
			require.NoError(b, err)
			if name == "a remembered header" {
				require.NoError(b, k.Public().Verify(parse(b, raw)))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jose.Parse(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
