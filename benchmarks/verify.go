package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"runtime"
	"slices"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// raw returns what no verifier can leave out: the hash and the signature, of parts that are already decoded.
func (iss *issuer) raw() func(t *token) error {
	bad := errors.New("the signature is wrong")
	switch public := iss.public().(type) {
	case *rsa.PublicKey:
		return func(t *token) error {
			digest := sha256.Sum256(t.input)
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], t.signature)
		}
	case *ecdsa.PublicKey:
		return func(t *token) error {
			digest := sha256.Sum256(t.input)
			r, s := new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:])
			if !ecdsa.Verify(public, digest[:], r, s) {
				return bad
			}
			return nil
		}
	case ed25519.PublicKey:
		return func(t *token) error {
			if !ed25519.Verify(public, t.input, t.signature) {
				return bad
			}
			return nil
		}
	default:
		return func(*token) error { return fmt.Errorf("no raw verification for a %T", public) }
	}
}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// A guarded is one of our guards and the handler behind it.
type guarded struct {
	guard   *middleware.Guard
	handler http.Handler
}

func guardWith(v valetkey.Verifier, cache middleware.Cache) (guarded, error) {
	g, err := middleware.New(middleware.Config{Verifier: v, Cache: cache})
	if err != nil {
		return guarded{}, err
	}
	return guarded{g, g.Handler(nothing, scopes.All(needed))}, nil
}

func (iss *issuer) guarded(cache middleware.Cache) (guarded, error) {
	v, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	if err != nil {
		return guarded{}, err
	}
	return guardWith(v, cache)
}

func (g guarded) entrant(name string) *entrant {
	return &entrant{name: name, do: func(t *token) error { return t.serve(g.handler) }}
}

// cold is an entrant that never sees a token twice: it forgets all, off the clock, when they begin anew.
func (g guarded) cold(name string) *entrant {
	e := g.entrant(name)
	e.reset = func() { g.guard.Purge(nil) }
	return e
}

// coldVerifiers asks what verifying a token costs beside its signature.
func coldVerifiers(b *bench) error {
	t := b.table("cold-verifiers", "Cold: a token never seen, verifier alone",
		"The ratio is to the raw verification of the signature with its hash, in the same round. Every token is another one.",
		"candidate")
	goals := map[string]float64{"RS256": 1.12, "ES256": 1.06, "EdDSA": 1.10}
	return b.eachAlgorithm(t, manyTokens, func(iss *issuer) ([]*entrant, error) {
		all, err := candidates(iss)
		if err != nil {
			return nil, err
		}
		entrants := []*entrant{{name: "raw signature", do: iss.raw()}}
		for _, c := range all {
			if c.verify != nil {
				entrants = append(entrants, &entrant{name: c.name, do: func(t *token) error { return c.verify(t.raw) }})
			}
		}
		return entrants, nil
	}, func(iss *issuer, results []result) {
		mine := find(results, ours)
		b.goalAtMost(fmt.Sprintf("cold / raw verification, %s", iss.algorithm), mine.ratio, goals[iss.algorithm])
		b.notSlower(fmt.Sprintf("cold, verifier alone, %s: not slower than any peer", iss.algorithm), mine, results, "raw signature")
	})
}

// coldGuards asks the same of the whole way of a request.
func coldGuards(b *bench) error {
	t := b.table("cold-guards", "Cold: a token never seen, whole middleware",
		"From the request to the handler, which does nothing. The ratio is to ours. gin-jwt and echo-jwt run behind their router, "+
			"which adds 0.2 to 0.5 µs. Ours remembers each token, which costs the memory's work too; \"no memory\" is ours with it switched off.",
		"candidate")
	return b.eachAlgorithm(t, manyTokens, func(iss *issuer) ([]*entrant, error) {
		remembering, err := iss.guarded(middleware.Cache{})
		if err != nil {
			return nil, err
		}
		forgetful, err := iss.guarded(middleware.Cache{Entries: -1})
		if err != nil {
			return nil, err
		}
		peers, err := peerGuards(iss)
		return append([]*entrant{remembering.cold(ours), forgetful.entrant(ours + ", no memory")}, peers...), err
	}, func(iss *issuer, results []result) {
		b.notSlower(fmt.Sprintf("cold, whole middleware, %s: not slower than any peer", iss.algorithm), find(results, ours), results, ours+", no memory")
	})
}

// peerGuards are the middlewares of others.
func peerGuards(iss *issuer) ([]*entrant, error) {
	all, err := candidates(iss)
	if err != nil {
		return nil, err
	}
	var entrants []*entrant
	for _, c := range all {
		if c.guard == nil || c.name == ours {
			continue
		}
		h, err := c.guard(nothing)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		entrants = append(entrants, &entrant{name: c.name, do: func(t *token) error { return t.serve(h) }})
	}
	return entrants, nil
}

// warmGuards asks what a token costs that was seen before.
func warmGuards(b *bench) error {
	t := b.table("warm-guards", "Warm: a token seen before, whole middleware",
		"64 tokens in turn. The ratio is to ours. No peer remembers tokens as it is configured: each verifies every request anew.",
		"candidate")
	t.logarithmic = true
	return b.eachAlgorithm(t, fewTokens, func(iss *issuer) ([]*entrant, error) {
		g, err := iss.guarded(middleware.Cache{})
		if err != nil {
			return nil, err
		}
		peers, err := peerGuards(iss)
		return append([]*entrant{g.entrant(ours)}, peers...), err
	}, func(iss *issuer, results []result) {
		if iss.algorithm != "RS256" {
			return
		}
		for _, r := range results[1:] {
			least := 125.0
			if slices.Contains(onGolangJWT, r.name) {
				least = 75
			}
			b.goalAtLeast(fmt.Sprintf("warm, RS256: %s / valetkey", r.name), r.ratio, least)
		}
	})
}

type contextKey struct{}

// warmFloor holds the guarded request against the least that attaching a token to a request costs.
func warmFloor(b *bench) error {
	t := b.table("warm-floor", "Warm: against the floor",
		"The floor is `next.ServeHTTP(w, r.WithContext(context.WithValue(...)))`: what any middleware pays that hands a token on. Half of it is "+
			"the garbage of the copied request, so it depends on how often the collector runs: with the 64 MiB of a server, or with the least heap a "+
			"program can have. With 1,000 tokens and as many requests in turn, the processor's caches hold neither. \"Decision alone\" reads the "+
			"credentials, looks up, checks expiry and scope, and does not attach. \"By its text\" takes the same steps with the token's text as the key "+
			"of a plain map, which has no bound and keeps every token: what the digest costs, at most. Allocations are counted, not timed.",
		"candidate", "allocations", "bytes")
	iss, tokens, err := b.issuer("RS256")
	if err != nil {
		return err
	}
	g, err := iss.guarded(middleware.Cache{})
	if err != nil {
		return err
	}
	var (
		value = new(valetkey.Token)
		needs = []valetkey.Requirement{scopes.All(needed)}
		floor = &entrant{name: "the floor", do: func(t *token) error {
			nothing.ServeHTTP(t.response, t.request.WithContext(context.WithValue(t.request.Context(), contextKey{}, value)))
			return nil
		}}
		guard    = g.entrant(ours)
		decision = &entrant{name: ours + ", decision alone", do: func(t *token) error {
			return g.guard.Decide(t.request, needs...).Err()
		}}
	)
	byText, err := newExact(g.guard, tokens)
	if err != nil {
		return err
	}
	exact := &entrant{name: ours + ", by its text", do: func(t *token) error { return t.serve(byText) }}
	for _, c := range []struct {
		name  string
		heap  int
		count int
	}{{"", 64 << 20, fewTokens}, {", least heap", 0, fewTokens}, {", 1,000 tokens", 64 << 20, 1000}} {
		server := make([]byte, c.heap)
		results, err := race(b.budget*3/4, tokens[:c.count], floor, guard, decision, exact)
		if err != nil {
			return err
		}
		runtime.KeepAlive(server)
		for i, e := range []*entrant{floor, guard, decision, exact} {
			n, bytes := allocations(func() error { return e.do(tokens[0]) })
			r := results[i]
			r.name += c.name
			t.add(r, "", fmt.Sprint(n), fmt.Sprint(bytes))
			switch {
			case e == guard:
				b.goalAtMost("warm guarded request / WithContext(WithValue)"+c.name, r.ratio, 1.6)
			case e == exact:
				b.goalAtMost("the same with the exact text as key"+c.name, r.ratio, 1.35)
			case e == decision:
				b.goalAtMost("look-up, expiry and scope, ns (260 and 240 for the digest)"+c.name, r.ns, 500)
			}
			if c.name != "" {
				continue
			}
			switch e {
			case guard:
				b.count("warm guarded request: allocations", float64(n), 2, "")
				b.count("warm guarded request: bytes", float64(bytes), 344, " B")
			case decision:
				b.count("look-up, expiry and scope: allocations", float64(n), 0, "")
			}
		}
	}
	return nil
}

// allocations counts those of one call of f.
func allocations(f func() error) (count, bytes int) {
	const runs = 1000
	count = int(testing.AllocsPerRun(runs, func() { f() }))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return count, int((after.TotalAlloc - before.TotalAlloc) / runs)
}

// parallel asks whether two cores do twice the work.
func parallel(b *bench) error {
	t := b.table("parallel", "One core and two",
		"Time of the machine an operation, so half is perfect. The ratio is to the same work on one core. "+
			"\"The same token\" is one token on both cores: they share its entry. Goroutines are started every millisecond, which both pay. "+
			"The raw signature shares nothing: where it does not come to half, the second core was busy with something else.",
		"candidate", "cores")
	iss, tokens, err := b.issuer("ES256")
	if err != nil {
		return err
	}
	g, err := iss.guarded(middleware.Cache{})
	if err != nil {
		return err
	}
	v, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	if err != nil {
		return err
	}
	same := make([]*token, fewTokens)
	for i := range same {
		same[i] = newToken(tokens[0].raw)
	}
	attach := func(t *token) error {
		nothing.ServeHTTP(t.response, t.request.WithContext(context.WithValue(t.request.Context(), contextKey{}, t)))
		return nil
	}
	warm := func(t *token) error { return t.serve(g.handler) }
	cold := func(t *token) error { _, err := v.Verify(context.Background(), t.raw); return err }
	server := make([]byte, 64<<20)
	defer runtime.KeepAlive(server)
	for _, c := range []struct {
		name   string
		tokens []*token
		do     func(*token) error
	}{
		{"r.WithContext(context.WithValue)", tokens[:fewTokens], attach},
		{"warm guarded request", tokens[:fewTokens], warm},
		{"warm guarded request, the same token", same, warm},
		{"cold, verifier alone, ES256", tokens, cold},
		{"raw signature, ES256", tokens, iss.raw()},
	} {
		results, err := race(b.budget/3, c.tokens, &entrant{name: c.name, do: c.do}, &entrant{name: c.name, do: c.do, workers: 2})
		if err != nil {
			return err
		}
		for i, r := range results {
			t.add(r, fmt.Sprintf(", %d", i+1), fmt.Sprint(i+1))
		}
	}
	return nil
}

func find(results []result, name string) result {
	i := slices.IndexFunc(results, func(r result) bool { return r.name == name })
	return results[i]
}
