package jose_test

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

// fastPrime returns a prime of 1024 bits as the faulty library chose it: k*M + (65537^a mod M), where M is the product of the first
// 39 primes. Nemec et al., "The Return of Coppersmith's Attack", section 2.2; the library used more primes for longer keys.
func fastPrime(t testing.TB, seed int64) *big.Int {
	product := big.NewInt(2)
	for p := int64(3); p <= 167; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	rest := new(big.Int).Exp(big.NewInt(65537), big.NewInt(seed), product)
	k := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(3), 1022), product) // so that the product of two has 2048 bits
	for range 100_000 {
		p := new(big.Int).Add(new(big.Int).Mul(k, product), rest)
		if p.ProbablyPrime(10) {
			return p
		}
		k.Add(k, big.NewInt(1))
	}
	t.Fatal("no prime found")
	return nil
}

func TestROCA(t *testing.T) {
	weakKey := func(n *big.Int) []byte { return jwk(t, rfc7515A2Key, map[string]any{"n": b64(n.Bytes())}) }
	p, q := fastPrime(t, 1234567), fastPrime(t, 7654321)
	weak := new(big.Int).Mul(p, q)
	require.Equal(t, 2048, weak.BitLen())
	for name, refuse := range map[string]func() error{
		"in a key set": func() error { _, err := jose.ParseKey(weakKey(weak)); return err },
		"in a certificate": func() error {
			_, err := jose.ParsePEM("a", publicPEM(t, &rsa.PublicKey{N: weak, E: 65537}))
			return err
		},
		"in a proof": func() error { _, err := jose.ParseProof(proofWith(t, weakKey(weak))); return err },
	} {
		t.Run("a modulus of the faulty library is refused "+name, func(t *testing.T) { require.ErrorContains(t, refuse(), "ROCA") })
	}
	good, err := rand.Prime(rand.Reader, 1024)
	require.NoError(t, err)
	// The published test has a list of bits for each prime: 1026, those for 11, are the bits 1 and 10. The rest of the division of
	// such a modulus by 11 becomes 2 when the modulus is doubled and made odd again.
	almost := new(big.Int).Add(weak, new(big.Int).Mul(allPrimesBut(11), big.NewInt(2)))
	for name, n := range map[string]*big.Int{
		"one prime of it and one other": new(big.Int).Mul(p, good),
		"the rests of all but one":      almost,
	} {
		t.Run("a modulus is accepted with "+name, func(t *testing.T) {
			_, err := jose.ParseKey(weakKey(n))
			require.NoError(t, err)
		})
	}
}

// allPrimesBut returns the product of the primes up to 167 without one.
func allPrimesBut(without int64) *big.Int {
	product := big.NewInt(1)
	for p := int64(3); p <= 167; p++ {
		if p != without && big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	return product
}
