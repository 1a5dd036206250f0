package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// cheap accepts every text. It costs next to nothing, so that what is measured is the memory of tokens and not the
// verification of signatures. The claims are those of a real token.
type cheap struct {
	claims func(raw string) []byte
	until  time.Time
}

func (v cheap) Verify(_ context.Context, raw string) (*valetkey.Token, error) {
	claims := v.claims(raw)
	text := string(claims)
	value := func(name string) string { // as a verifier does, a separate string
		_, rest, _ := strings.Cut(text, `"`+name+`":"`)
		s, _, _ := strings.Cut(rest, `"`)
		return strings.Clone(s)
	}
	return valetkey.NewToken(valetkey.TokenFields{
		Issuer: value("iss"), Subject: value("sub"), ClientID: value("client_id"), ID: value("jti"), Audience: valetkey.ListOf(value("aud")),
		Scopes: valetkey.NewScopes(strings.Fields(value("scope"))...), Expiry: v.until, Raw: string(claims),
		Freshness: valetkey.Freshness{Until: v.until},
	}), nil
}

// typical are the claims of RFC 9068 with four scopes.
func typical(raw string) []byte {
	return fmt.Appendf(nil, `{"aud":%q,"client_id":"s6BhdRkqt3","exp":1790000000,"iat":1789999100,"iss":%q,"jti":"b2f3c1e7-6a4d-4f0b-%s",`+
		`"scope":%q,"sub":"248289761001-7f3c-4d1e-9a53-1c2b3d4e5f60"}`, audience, issuerURL, raw, scope)
}

// lean are short claims.
func lean(raw string) []byte {
	return fmt.Appendf(nil, `{"aud":"api","client_id":"app","exp":1790000000,"iat":1789999100,"iss":"https://as.example","jti":%q,"scope":"orders:read","sub":"alice"}`, raw)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// memory asks what a remembered token costs when there are a million.
func memory(b *bench) error {
	n := 1_000_000
	if b.quick {
		n = 100_000
	}
	t := &table{
		id: "memory", title: "Memory", unit: "bytes an entry", head: []string{"what", "bytes an entry", "as the guard counts them", "a full GC"},
		note: fmt.Sprintf("%d tokens remembered by a guard; the heap after a collection less the heap before. The verifier is a cheap fake, "+
			"since the memory is what is measured; the claims are whole, %d and %d bytes of JSON, and at hand as fields and by `Token.Claims`. "+
			"Of tokens that are seen again, at most 16,384 lie ready to be handed out; the others are made again from what is kept, in one allocation.",
			n, len(typical("000000000000")), len(lean("000000000000"))),
	}
	b.tables = append(b.tables, t)
	for _, c := range []struct {
		name   string
		claims func(string) []byte
		times  int // that each token comes
	}{
		{ours + ", claims of RFC 9068 with four scopes", typical, 1},
		{ours + ", the same, each token seen again", typical, 2},
		{ours + ", lean claims", lean, 1},
	} {
		before := heap()
		g, err := guardWith(cheap{c.claims, time.Now().Add(time.Hour)}, middleware.Cache{Entries: 2 * n, Bytes: 1 << 40, MaxAge: time.Hour})
		if err != nil {
			return err
		}
		for i := range c.times * n {
			if err := g.guard.DecideToken(context.Background(), fmt.Sprintf("%012d", i%n)).Err(); err != nil {
				return err
			}
		}
		held := float64(heap()-before) / float64(n)
		start := time.Now()
		runtime.GC()
		pause := time.Since(start)
		status := g.guard.Status().Cache
		if status.Entries != n {
			return fmt.Errorf("%d entries in place of %d", status.Entries, n)
		}
		said := float64(status.Bytes) / float64(n)
		runtime.KeepAlive(g)
		t.rows = append(t.rows, []string{c.name, number(held), number(said), pause.Round(time.Millisecond).String()})
		t.bars = append(t.bars, bar{c.name, quartiles{held, held, held}})
		b.count(fmt.Sprintf("memory at %d entries: %s", n, c.name), held, 600, " B")
	}

	// What a program that keeps tokens in a map does.
	before := heap()
	m := map[string]map[string]any{}
	for i := range n / 10 {
		id := fmt.Sprintf("%012d", i)
		var claims map[string]any
		if err := json.Unmarshal(typical(id), &claims); err != nil {
			return err
		}
		m[strings.Repeat("e", 837)+id] = claims
	}
	held := float64(heap()-before) / float64(n/10)
	runtime.KeepAlive(m)
	name := "a map from the token's text to its claims as map[string]any"
	t.rows = append(t.rows, []string{name, number(held), "", ""})
	t.bars = append(t.bars, bar{"map of text to map of claims", quartiles{held, held, held}})
	return nil
}
