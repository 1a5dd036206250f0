package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetcel"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/scopes"
)

// policy asks what is paid for rules on claims, audit records and exchanged tokens.
func policy(b *bench) error {
	iss, tokens, err := b.issuer("RS256")
	if err != nil {
		return err
	}
	if err := rules(b, iss, tokens[:fewTokens]); err != nil {
		return err
	}
	return exchanged(b, iss, tokens[:fewTokens])
}

// rules asks what conditions beside a scope, and an auditor of refusals, add to a warm guarded request.
func rules(b *bench, iss *issuer, tokens []*token) error {
	t := b.table("policy", "Rules on claims and audit records",
		"The request is the warm guarded one, with one scope required. The ratio is to it. The audit records those who are refused, "+
			"and all these requests are accepted. \"CEL, alone\" is the check of one rule without the request.", "candidate", "allocations")
	v, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	if err != nil {
		return err
	}
	defer v.Close()
	audit, err := middleware.Audit(slog.NewJSONHandler(io.Discard, nil), middleware.AuditOptions{})
	if err != nil {
		return err
	}
	defer audit.Close(context.Background())
	guarded := func(name string, observer valetkey.Observer, more ...valetkey.Requirement) (*entrant, error) {
		g, err := middleware.New(middleware.Config{Verifier: v, Observer: observer})
		if err != nil {
			return nil, err
		}
		h := g.Handler(nothing, append(valetkey.AllOf{scopes.All(needed)}, more...))
		return &entrant{name: name, do: func(t *token) error { return t.serve(h) }}, nil
	}
	written, err := valetcel.Require(valetcel.Rule{Expression: fmt.Sprintf(`request.method == "GET" && claims.client_id == %q && claims.exp - claims.iat <= 3600`, clientID)})
	if err != nil {
		return err
	}
	one, err := v.Verify(context.Background(), tokens[0].raw)
	if err != nil {
		return err
	}
	access := valetkey.Access{Token: one, Time: time.Now(), Request: tokens[0].request}
	plain, err1 := guarded("one scope", nil)
	rule, err2 := guarded("and a rule on a claim", nil, claims.Equal("client_id", clientID))
	recorded, err3 := guarded("one scope, with an audit of refusals", audit)
	cel, err4 := guarded("and a rule in CEL with three clauses", nil, written)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	alone := &entrant{name: "CEL, alone", do: func(*token) error { return written.Check(access) }}
	all := []*entrant{plain, rule, recorded, cel, alone}
	server := make([]byte, 64<<20) // the heap of a server
	results, err := race(b.budget, tokens, all...)
	if err != nil {
		return err
	}
	runtime.KeepAlive(server)
	counts := make([]int, len(all))
	for i, e := range all {
		counts[i], _ = allocations(func() error { return e.do(tokens[0]) })
		t.add(results[i], "", fmt.Sprint(counts[i]))
	}
	b.goalAtMost("a request with a rule on a claim / without", results[1].ratio, 1.10)
	b.goalAtMost("an accepted request with an audit of refusals / without", results[2].ratio, 1.02)
	b.count("allocations that an audit of refusals adds to it", float64(counts[2]-counts[0]), 0, "")
	b.goalAtMost("a rule in CEL on the access, ns", results[4].ns, 5000)
	return nil
}

// exchanged asks what a call costs with a cached token that was exchanged, beside one that has a constant token.
func exchanged(b *bench, iss *issuer, tokens []*token) error {
	t := b.table("onbehalf", "Calls on behalf of the user",
		"A call over loopback HTTP, on one kept connection, to a service that answers 6 bytes. The exchanged tokens of 64 users are cached, "+
			"so the authorization server is not asked. The ratio is to a call with a constant token in Authorization.", "candidate")
	addr, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") }))
	if err != nil {
		return err
	}
	defer end()
	asked := 0
	at, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`, tokens[0].raw)
	}))
	if err != nil {
		return err
	}
	defer end()
	v, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	if err != nil {
		return err
	}
	defer v.Close()
	guard, err := middleware.New(middleware.Config{Verifier: v, OnBehalf: true})
	if err != nil {
		return err
	}
	c, err := onbehalf.New(onbehalf.Config{TokenURL: "http://" + at + "/token", Issuer: issuerURL, Auth: introspect.BasicAuth("orders", "secret"),
		InputAudience: []string{audience}, Targets: []string{"http://" + addr}})
	if err != nil {
		return err
	}
	defer c.Close()
	contexts := map[*token]context.Context{}
	for _, t := range tokens {
		contexts[t] = guard.DecideToken(context.Background(), t.raw).Context(context.Background())
	}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	call := func(name string, via http.RoundTripper, own bool) *entrant {
		client := &http.Client{Transport: via}
		return &entrant{name: name, do: func(t *token) error {
			r, err := http.NewRequestWithContext(contexts[t], "GET", "http://"+addr+"/stock", nil)
			if err != nil {
				return err
			}
			if own {
				r.Header.Set("Authorization", "Bearer "+tokens[0].raw)
			}
			resp, err := client.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}}
	}
	results, err := race(b.budget, tokens, call("a constant token", base, true), call("valetkey, an exchanged token", c.Transport(base), false))
	if err != nil {
		return err
	}
	for _, r := range results {
		t.add(r, "")
	}
	b.goalAtMost("a call with a cached exchanged token / with a constant one", results[1].ratio, 1.05)
	b.count("exchanges for the calls of 64 users", float64(asked), fewTokens, "")
	return nil
}
