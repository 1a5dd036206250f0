package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A client holds the key that its tokens are bound to, and proves it with each request (RFC 9449).
type client struct {
	*issuer // its key; and what verifies its signatures
	jwk     map[string]any
}

func newClient() (*client, error) {
	key, err := newIssuer("ES256")
	if err != nil {
		return nil, err
	}
	c := &client{issuer: key}
	if err := json.Unmarshal(key.key.PublicJWK(), &c.jwk); err != nil {
		return nil, fmt.Errorf("reading the client's key: %w", err)
	}
	for _, name := range []string{"kid", "alg", "use"} {
		delete(c.jwk, name)
	}
	return c, nil
}

// request returns the token with a request that carries it and a new proof. What raw verifies is the proof's signature.
func (c *client) request(raw string) (*token, error) {
	hash := sha256.Sum256([]byte(raw))
	payload, err := json.Marshal(map[string]any{
		"jti": rand.Text(), "htm": "GET", "htu": "https://api.example.com/orders", "iat": time.Now().Unix(),
		"ath": base64.RawURLEncoding.EncodeToString(hash[:]),
	})
	if err != nil {
		return nil, err
	}
	proof, err := c.key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": c.jwk, "kid": nil}, payload)
	if err != nil {
		return nil, fmt.Errorf("signing a proof: %w", err)
	}
	t := newToken(proof)
	t.request.Header = http.Header{"Authorization": {"DPoP " + raw}, "Dpop": {proof}}
	return t, nil
}

// replays are a memory of proofs that can be emptied.
type replays struct{ *dpop.MemoryReplayStore }

func (r *replays) forget() { r.MemoryReplayStore = dpop.NewReplayStore(0) }

func newProver() (*dpop.Verifier, *replays, error) {
	used := &replays{dpop.NewReplayStore(0)}
	v, err := dpop.New(dpop.Config{ReplayStore: used})
	return v, used, err
}

var errReplayed = errors.New("a proof was accepted twice")

// proofs asks what a request with a remembered token and a new proof costs beside the proof's signature.
func proofs(b *bench) error {
	t := b.table("dpop", "DPoP (RFC 9449)",
		"A request with an ES256 token that was seen before and a proof that never was: one token, one client, a proof for each request. The ratio is to "+
			"the raw verification of the proof's signature with its hash. Proofs are remembered, and refused the second time.", "candidate")
	iss, _, err := b.issuer("ES256")
	if err != nil {
		return err
	}
	c, err := newClient()
	if err != nil {
		return err
	}
	claims := iss.claims()
	claims["cnf"] = map[string]any{"jkt": c.key.Public().Thumbprint()}
	raw, err := iss.sign(claims)
	if err != nil {
		return err
	}
	requests := make([]*token, manyTokens)
	for i := range requests {
		if requests[i], err = c.request(raw); err != nil {
			return err
		}
	}

	v, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	if err != nil {
		return err
	}
	guarding, usedByGuard, err := newProver()
	if err != nil {
		return err
	}
	alone, usedAlone, err := newProver()
	if err != nil {
		return err
	}
	g, err := middleware.New(middleware.Config{Verifier: v, DPoP: guarding, Resource: middleware.Resource{ID: audience}})
	if err != nil {
		return err
	}
	handler := g.Handler(nothing, scopes.All(needed))
	if err := requests[0].serve(handler); err != nil {
		return err
	}
	if err := requests[0].serve(handler); err == nil {
		return errReplayed
	}
	proofAlone := func(t *token) error {
		_, err := alone.Verify(context.Background(), dpop.Request{
			Proofs: t.request.Header["Dpop"], Method: "GET", URL: "https://api.example.com/orders", Token: raw, Thumbprint: c.key.Public().Thumbprint(),
		})
		return err
	}
	server := make([]byte, 64<<20)
	results, err := race(b.budget, requests,
		&entrant{name: "raw signature", do: c.raw()},
		&entrant{name: ours + ", a guarded request", do: func(t *token) error { return t.serve(handler) }, reset: usedByGuard.forget},
		&entrant{name: ours + ", the proof alone", do: proofAlone, reset: usedAlone.forget},
	)
	if err != nil {
		return err
	}
	runtime.KeepAlive(server)
	for _, r := range results {
		t.add(r, "")
	}
	b.goalAtMost("a DPoP request with a remembered token / raw verification of its proof, ES256", results[1].ratio, 1.15)
	return nil
}
