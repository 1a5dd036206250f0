package jose

import "math/big"

// The primes of keys from a faulty library (ROCA, CVE-2017-15361: smart cards and TPMs of one vendor, 2012 to 2017) are powers of
// 65537 modulo each of the first primes, and so is their product, the modulus. Nemec et al., "The Return of Coppersmith's Attack",
// CCS 2017, section 2.3. A random modulus passes for one of them once in 2^27.
var rocaPrimes = func() (all []rocaPrime) {
	for p := uint64(3); p <= 167; p += 2 {
		if !big.NewInt(int64(p)).ProbablyPrime(0) {
			continue
		}
		r := rocaPrime{prime: new(big.Int).SetUint64(p)}
		for power := uint64(1); !r.powers[power]; power = power * 65537 % p {
			r.powers[power] = true
		}
		all = append(all, r)
	}
	return all
}()

type rocaPrime struct {
	prime  *big.Int
	powers [168]bool // whether the index is a power of 65537 modulo prime
}

// roca reports whether n has the fingerprint of the faulty library.
func roca(n *big.Int) bool {
	rest := new(big.Int)
	for i := range rocaPrimes {
		if p := &rocaPrimes[i]; !p.powers[rest.Mod(n, p.prime).Uint64()] {
			return false
		}
	}
	return true
}
