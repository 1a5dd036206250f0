// Package api makes the guard that the servers of this module share, each with its own framework, so that the conformance suite compares frameworks.
package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
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

// An API is a guard and what it requires of each route.
type API struct {
	Guard  *middleware.Guard
	Routes map[string]valetkey.Requirement // by path, with those of conformance.DefaultRoutes; nil: any token

	open []interface{ Close() }
}

// Any is the path that any token opens.
const Any = "/any"

// Close releases what a has opened.
func (a *API) Close() {
	for _, o := range a.open {
		o.Close()
	}
}

// Main runs a server that is configured by flags until it gets a signal, and exits.
func Main(handler func(*API) http.Handler) {
	MainServe(func(ctx context.Context, s conformance.Setup, a *API) error {
		server := &http.Server{Addr: s.Listen, Handler: handler(a), ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { server.Close() })
		if s.Profile != conformance.ProfileMTLS {
			return server.ListenAndServe()
		}
		certificate, err := selfSigned()
		if err != nil {
			return err
		}
		// The guard compares the certificate with the token, and does not need its signature (RFC 8705, section 2.2).
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert}
		return server.ListenAndServeTLS("", "")
	})
}

// MainServe is Main for frameworks that listen by themselves.
func MainServe(serve func(context.Context, conformance.Setup, *API) error) {
	var s conformance.Setup
	flag.StringVar(&s.Issuer, "issuer", "", "issuer to trust")
	flag.StringVar(&s.SecondIssuer, "second-issuer", "", "another issuer to trust")
	flag.StringVar(&s.Introspection, "introspection", "", "introspection endpoint")
	flag.StringVar(&s.ClientID, "client-id", "", "ID at the introspection endpoint")
	flag.StringVar(&s.ClientSecret, "client-secret", "", "secret at the introspection endpoint")
	flag.Func("signed", "true: require signed introspection responses", func(text string) error { s.Signed = text == "true"; return nil })
	flag.StringVar(&s.Audience, "audience", conformance.DefaultAudience, "name of this server in tokens")
	flag.StringVar(&s.Listen, "listen", "127.0.0.1:8080", "address")
	flag.Func("profile", "mtls, fapi2, or anything else", func(text string) error { s.Profile = conformance.Profile(text); return nil })
	flag.Func("nonce", "true: require DPoP nonces", func(text string) error { s.Nonce = text == "true"; return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	scheme := "http://"
	if s.Profile == conformance.ProfileMTLS {
		scheme = "https://"
	}
	a, err := New(s, scheme+s.Listen, slog.Default())
	if err == nil {
		defer a.Close()
		err = serve(ctx, s, a)
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// New returns a guard with every feature switched on that needs no other service. origin is the address of the server as clients see it.
func New(s conformance.Setup, origin string, log *slog.Logger) (*API, error) {
	a := &API{}
	guard, err := a.guard(s, origin, log)
	if err != nil {
		a.Close()
		return nil, err
	}
	a.Guard = guard
	routes := conformance.DefaultRoutes()
	scope := func(name conformance.Feature) valetkey.Requirement {
		return scopes.All(strings.Fields(routes[string(name)].Scope)...)
	}
	a.Routes = map[string]valetkey.Requirement{Any: nil}
	for name, need := range map[conformance.Feature]valetkey.Requirement{
		conformance.FeatureScope:    scope(conformance.FeatureScope),
		conformance.FeatureScopes:   scope(conformance.FeatureScopes),
		conformance.FeatureACR:      middleware.ACR(routes[string(conformance.FeatureACR)].ACR),
		conformance.FeatureMaxAge:   middleware.MaxAge(time.Duration(routes[string(conformance.FeatureMaxAge)].MaxAge) * time.Second),
		conformance.FeatureOptional: valetkey.Optional,
		conformance.FeatureRAR:      rar.Requirement{Type: "payment", Actions: []string{"initiate"}},
	} {
		a.Routes[routes[string(name)].Path] = need
	}
	return a, nil
}

// Needs returns the requirements of a path, for the functions of adapters.
func (a *API) Needs(path string) []valetkey.Requirement {
	if need := a.Routes[path]; need != nil {
		return []valetkey.Requirement{need}
	}
	return nil
}

func (a *API) guard(s conformance.Setup, origin string, log *slog.Logger) (*middleware.Guard, error) {
	fapi := s.Profile == conformance.ProfileFAPI2
	var algorithms []string
	if fapi { // package fapi sets the same, but requires an issuer with https
		algorithms = []string{"PS256", "ES256", "EdDSA", "Ed25519"}
	}
	keysOf := func(issuer string) (*jwks.Verifier, error) {
		v, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{s.Audience}, Algorithms: algorithms, Now: s.Now, Logger: log})
		if err == nil {
			a.open = append(a.open, v)
		}
		return v, err
	}
	keys, err := keysOf(s.Issuer)
	if err != nil {
		return nil, err
	}
	all := []*jwks.Verifier{keys}
	if s.SecondIssuer != "" {
		second, err := keysOf(s.SecondIssuer)
		if err != nil {
			return nil, err
		}
		all = append(all, second)
	}
	verifier, err := jwks.ByIssuer(all...)
	if err != nil {
		return nil, err
	}
	statuses, err := statuslist.New(statuslist.Config{Verifier: verifier, Issuer: s.Issuer, Logger: log})
	if err != nil {
		return nil, err
	}
	a.open = append(a.open, statuses)
	verifier = statuses
	if s.Introspection != "" {
		cfg := introspect.Config{URL: s.Introspection, Issuer: s.Issuer, Audience: []string{s.Audience},
			Auth: introspect.BasicAuth(s.ClientID, s.ClientSecret), Now: s.Now, Logger: log}
		if s.Signed {
			cfg.Signed = &introspect.Signed{Algorithm: "ES256"}
		}
		opaque, err := introspect.New(cfg)
		if err != nil {
			return nil, err
		}
		a.open = append(a.open, opaque)
		verifier = valetkey.First(verifier, opaque)
	}
	proofs := dpop.Config{Algorithms: algorithms, Now: s.Now}
	if s.Nonce {
		if proofs.Nonces, err = dpop.NewNonces(dpop.NoncesConfig{}); err != nil {
			return nil, err
		}
	}
	possession, err := dpop.New(proofs)
	if err != nil {
		return nil, err
	}
	return middleware.New(middleware.Config{
		Verifier: verifier, DPoP: possession, SenderConstrained: fapi, ExposeChallenge: true, Now: s.Now,
		ClientCertificate: middleware.TLSCertificate(),
		URL:               func(r *http.Request) string { return origin + r.URL.EscapedPath() },
		Resource:          middleware.Resource{ID: s.Audience, AuthorizationServers: []string{s.Issuer}},
	})
}

// Caller returns the caller of the request with ctx, for the feature identity.
func Caller(ctx context.Context) map[string]any {
	caller := map[string]any{}
	if t := valetkey.FromContext(ctx); t != nil {
		caller["sub"], caller["client_id"], caller["scope"] = t.Subject(), t.ClientID(), t.Scopes().String()
	}
	return caller
}

// Identity responds with the caller.
func Identity(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(Caller(r.Context()))
}
