// Command nethttp is a resource server with net/http and the guard of this module, for the conformance suite:
//
//	valetkey conform --profile bearer,rfc9068,introspection,metadata,dpop,step-up,mcp \
//		--start "nethttp --issuer {issuer} --audience {audience} --listen {listen} --introspection {introspection}"
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/statuslist"
)

func main() {
	var s conformance.Setup
	flag.StringVar(&s.Issuer, "issuer", "", "issuer to trust")
	flag.StringVar(&s.SecondIssuer, "second-issuer", "", "another issuer to trust")
	flag.StringVar(&s.Introspection, "introspection", "", "introspection endpoint")
	flag.StringVar(&s.ClientID, "client-id", "", "ID at the introspection endpoint")
	flag.StringVar(&s.ClientSecret, "client-secret", "", "secret at the introspection endpoint")
	flag.Func("signed", "true: require signed introspection responses", func(text string) error { s.Signed = text == "true"; return nil })
	flag.StringVar(&s.Audience, "audience", conformance.DefaultAudience, "name of this server in tokens")
	flag.StringVar(&s.Listen, "listen", "127.0.0.1:8080", "address")
	flag.Func("profile", "fapi2, or anything else", func(text string) error { s.Profile = conformance.Profile(text); return nil })
	flag.Func("nonce", "true: require DPoP nonces", func(text string) error { s.Nonce = text == "true"; return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "nethttp:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, s conformance.Setup) error {
	api, closeAPI, err := newAPI(s, "http://"+s.Listen, slog.Default())
	if err != nil {
		return err
	}
	defer closeAPI()
	server := &http.Server{Addr: s.Listen, Handler: api, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newAPI returns a server with the routes of [conformance.DefaultRoutes]. origin is its own address as clients see it.
func newAPI(s conformance.Setup, origin string, log *slog.Logger) (http.Handler, func(), error) {
	var open []interface{ Close() }
	closeAll := func() {
		for _, o := range open {
			o.Close()
		}
	}
	fapi := s.Profile == conformance.ProfileFAPI2
	var algorithms []string
	if fapi { // package fapi sets the same, but requires an issuer with https
		algorithms = []string{"PS256", "ES256", "EdDSA", "Ed25519"}
	}
	keysOf := func(issuer string) (*jwks.Verifier, error) {
		v, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{s.Audience}, Algorithms: algorithms, Now: s.Now, Logger: log})
		if err == nil {
			open = append(open, v)
		}
		return v, err
	}
	keys, err := keysOf(s.Issuer)
	if err != nil {
		return nil, nil, err
	}
	all := []*jwks.Verifier{keys}
	if s.SecondIssuer != "" {
		second, err := keysOf(s.SecondIssuer)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, second)
	}
	verifier, err := jwks.ByIssuer(all...)
	if err != nil {
		return nil, nil, err
	}
	statuses, err := statuslist.New(statuslist.Config{Verifier: verifier, Issuer: s.Issuer, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	open = append(open, statuses)
	verifier = statuses
	if s.Introspection != "" {
		cfg := introspect.Config{URL: s.Introspection, Issuer: s.Issuer, Audience: []string{s.Audience},
			Auth: introspect.BasicAuth(s.ClientID, s.ClientSecret), Now: s.Now, Logger: log}
		if s.Signed {
			cfg.Signed = &introspect.Signed{Algorithm: "ES256"}
		}
		opaque, err := introspect.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		open = append(open, opaque)
		verifier = valetkey.First(verifier, opaque)
	}
	proofs := dpop.Config{Algorithms: algorithms, Now: s.Now}
	if s.Nonce {
		if proofs.Nonces, err = dpop.NewNonces(dpop.NoncesConfig{}); err != nil {
			return nil, nil, err
		}
	}
	possession, err := dpop.New(proofs)
	if err != nil {
		return nil, nil, err
	}
	guard, err := middleware.New(middleware.Config{
		Verifier: verifier, DPoP: possession, SenderConstrained: fapi, ExposeChallenge: true, Now: s.Now,
		ClientCertificate: middleware.TLSCertificate(),
		URL:               func(r *http.Request) string { return origin + r.URL.EscapedPath() },
		Resource:          middleware.Resource{ID: s.Audience, AuthorizationServers: []string{s.Issuer}},
	})
	if err != nil {
		return nil, nil, err
	}
	routes := conformance.DefaultRoutes()
	scope := func(name conformance.Feature) valetkey.Requirement {
		return scopes.All(strings.Fields(routes[string(name)].Scope)...)
	}
	mux := http.NewServeMux()
	mux.Handle("/any", guard.Handler(http.HandlerFunc(identity)))
	for name, need := range map[conformance.Feature]valetkey.Requirement{
		conformance.FeatureScope:    scope(conformance.FeatureScope),
		conformance.FeatureScopes:   scope(conformance.FeatureScopes),
		conformance.FeatureACR:      middleware.ACR(routes[string(conformance.FeatureACR)].ACR),
		conformance.FeatureMaxAge:   middleware.MaxAge(time.Duration(routes[string(conformance.FeatureMaxAge)].MaxAge) * time.Second),
		conformance.FeatureOptional: valetkey.Optional,
		conformance.FeatureRAR:      rar.Requirement{Type: "payment", Actions: []string{"initiate"}},
	} {
		mux.Handle(routes[string(name)].Path, guard.Handler(http.HandlerFunc(identity), need))
	}
	mux.Handle(guard.Metadata())
	return mux, closeAll, nil
}

// identity responds with the caller.
func identity(w http.ResponseWriter, r *http.Request) {
	caller := map[string]any{}
	if t := valetkey.FromContext(r.Context()); t != nil {
		caller["sub"], caller["client_id"], caller["scope"] = t.Subject(), t.ClientID(), t.Scopes().String()
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(caller)
}
