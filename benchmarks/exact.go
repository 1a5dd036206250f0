package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// An exact guard takes the steps of ours with the text of the token as the key of its memory. The memory is a map that was
// filled before, without a lock and a bound: what a real one would take comes on top.
type exact struct {
	guard  *middleware.Guard
	memory map[string]*valetkey.Token
	hits   atomic.Uint64
	needs  []valetkey.Requirement
}

func newExact(g *middleware.Guard, tokens []*token) (*exact, error) {
	x := &exact{guard: g, memory: map[string]*valetkey.Token{}, needs: []valetkey.Requirement{scopes.All(needed)}}
	for _, t := range tokens {
		d := g.DecideToken(context.Background(), t.raw)
		if err := d.Err(); err != nil {
			return nil, fmt.Errorf("filling the memory by text: %w", err)
		}
		x.memory[t.raw] = d.Token()
	}
	return x, nil
}

// carrier is as large as the context of our guard.
type carrier struct {
	context.Context
	token *valetkey.Token
}

func (c *carrier) Value(key any) any {
	if _, ok := key.(contextKey); ok {
		return c.token
	}
	return c.Context.Value(key)
}

func (x *exact) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := x.serve(w, r); err != nil {
		x.guard.Reject(r, err).Apply(w, r)
	}
}

func (x *exact) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Context().Value(contextKey{}) != nil { // as ours asks whether it has looked already
		return nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme != "Bearer" {
		return &valetkey.Error{Code: valetkey.NoCredentials}
	}
	t := x.memory[token]
	if t == nil || !time.Now().Before(t.Freshness().Until) || t.Freshness().While != nil && !t.Freshness().While.Holds() || !t.Binding().IsZero() {
		return &valetkey.Error{Code: valetkey.InvalidToken}
	}
	x.hits.Add(1)
	r = r.WithContext(&carrier{r.Context(), t})
	if err := valetkey.AllOf(x.needs).Check(valetkey.Access{Token: t, Time: time.Now(), Request: r}); err != nil {
		return err
	}
	nothing.ServeHTTP(w, r)
	return nil
}
