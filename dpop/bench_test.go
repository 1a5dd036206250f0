package dpop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

// BenchmarkVerify measures Verify, with a proof that is new each time, against the bare verification of its ES256 signature,
// by turns, and reports the median of the ratios.
func BenchmarkVerify(b *testing.B) {
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{})
	require.NoError(b, err)
	for _, c := range []struct {
		name string
		cfg  dpop.Config
		keys int // of clients, by turns
	}{
		{"a client seen before", dpop.Config{}, 1},
		{"a client seen before, with nonces", dpop.Config{Nonces: nonces}, 1},
		{"a client never seen", dpop.Config{}, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			iss := valetkeytest.NewIssuer(b, valetkeytest.InMemory())
			v, client := newVerifier(b, c.cfg), iss.ProofKey("ES256")
			token := iss.Token(valetkeytest.Scopes("orders:read", "orders:write"))
			var ratios []float64
			var total time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				const turn = 8
				var requests [turn]dpop.Request
				var bare [turn]func() bool
				for i := range requests {
					if c.keys == 0 {
						client = iss.ProofKey("ES256")
					}
					proof := client.Proof(method, target, token, valetkeytest.Claim("nonce", v.Nonce()))
					requests[i] = dpop.Request{Proofs: []string{proof}, Method: method, URL: target, Token: token, Thumbprint: client.Thumbprint()}
					bare[i] = bareVerification(b, proof)
				}
				b.StartTimer()
				start := time.Now()
				for i := range bare {
					if !bare[i]() {
						b.Fatal("refused")
					}
				}
				middle := time.Now()
				for i := range requests {
					if _, err := v.Verify(b.Context(), requests[i]); err != nil {
						b.Fatal(err)
					}
				}
				end := time.Now()
				ratios = append(ratios, float64(end.Sub(middle))/float64(middle.Sub(start)))
				total += end.Sub(middle) / turn
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-bare")
			b.ReportMetric(float64(total.Nanoseconds())/float64(len(ratios)), "ns/proof")
		})
	}
}

// bareVerification does what cannot be left out: the hash and the signature, of parts that are already decoded.
func bareVerification(b *testing.B, proof string) func() bool {
	point := []byte{4} // uncompressed
	for _, name := range []string{"x", "y"} {
		coordinate, err := base64.RawURLEncoding.DecodeString(jwkOf(b, proof)[name].(string))
		require.NoError(b, err)
		point = append(point, coordinate...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	require.NoError(b, err)
	dot := strings.LastIndexByte(proof, '.')
	signature, err := base64.RawURLEncoding.DecodeString(proof[dot+1:])
	require.NoError(b, err)
	input := []byte(proof[:dot])
	return func() bool {
		digest := sha256.Sum256(input)
		return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
}

// BenchmarkRefusal is what a refusal costs that comes before the signature: what a flood of bad proofs can cause.
func BenchmarkRefusal(b *testing.B) {
	iss := valetkeytest.NewIssuer(b, valetkeytest.InMemory())
	v := newVerifier(b, dpop.Config{Now: iss.Now})
	stranger := request(iss.ProofKey("ES256"))
	stranger.Thumbprint = rfcThumbprint
	for name, r := range map[string]dpop.Request{
		"another key, never seen": stranger,
		"16 kB of dots":           {Proofs: []string{strings.Repeat(".", 16<<10)}},
		"1 MB":                    {Proofs: []string{strings.Repeat("A", 1<<20)}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), r); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
