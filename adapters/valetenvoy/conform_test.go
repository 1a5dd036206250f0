package valetenvoy_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/statuslist"
)

var allCases = flag.Bool("all-cases", false, "run all cases of TestConformance")

// aboutGateways are the groups of cases that a gateway can affect, because they are about more than the text of a token.
var aboutGateways = []string{"bearer", "challenges", "identity", "paths", "places", "scopes", "step-up", "transport"}

// TestConformance runs the cases of package conformance through the generated client of Envoy: with -all-cases all, by default those that a
// gateway can affect. The metadata is not offered: Envoy gets it from elsewhere.
func TestConformance(t *testing.T) {
	cases, enough := conformance.Cases(), 1000
	if !*allCases {
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return !slices.Contains(aboutGateways, c.Group) })
		enough = 200
	}
	report, err := conformance.Check(t.Context(), conformance.Target{
		URL:    "/any",
		Routes: conformance.DefaultRoutes(),
		Profiles: []conformance.Profile{conformance.ProfileBearer, conformance.ProfileRFC9068, conformance.ProfileIntrospection, conformance.ProfileDPoP,
			conformance.ProfileStepUp},
		Features: []conformance.Feature{conformance.FeatureIdentity, conformance.FeatureSecondIssuer, conformance.FeatureReplay, conformance.FeatureNonce,
			conformance.FeatureStatusList, conformance.FeatureSigned, conformance.FeatureClock},
		Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
			return startConforming(t, s)
		},
	}, conformance.Options{Rate: -1, Cases: cases})
	require.NoError(t, err)
	for _, result := range report.Failures(true) {
		t.Errorf("%s", result.String())
	}
	assert.Greater(t, report.Count(conformance.Passed), enough)
	t.Logf("%d passed, %d differ, %d not offered, %d skipped, in %v", report.Count(conformance.Passed), len(report.Failures(false)),
		report.Count(conformance.NotOffered), report.Count(conformance.Skipped), report.Took)
}

// A scope ends with its close function instead of with the test.
type scope struct {
	testing.TB
	ends []func()
}

func (s *scope) Cleanup(f func()) { s.ends = append(s.ends, f) }

func (s *scope) close() {
	for _, f := range slices.Backward(s.ends) {
		f()
	}
}

// startConforming starts a gateway that asks a Server, which is configured for s, and an upstream.
func startConforming(t *testing.T, s conformance.Setup) (*conformance.Server, error) {
	in := &scope{TB: t}
	front := httptest.NewUnstartedServer(nil)
	guard, err := conformingGuard(in, s, "http://"+front.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	table := routes.Table{"/any": valetkey.AnyToken}
	for name, route := range conformance.DefaultRoutes() {
		table[route.Path] = map[conformance.Feature]valetkey.Requirement{
			conformance.FeatureScope: scopes.All(strings.Fields(route.Scope)...), conformance.FeatureScopes: scopes.All(strings.Fields(route.Scope)...),
			conformance.FeatureACR: middleware.ACR(strings.Fields(route.ACR)...), conformance.FeatureMaxAge: middleware.MaxAge(time.Duration(route.MaxAge) * time.Second),
			conformance.FeatureOptional: valetkey.Optional, conformance.FeatureRAR: rar.Requirement{Type: "payment", Actions: []string{"initiate"}},
		}[conformance.Feature(name)]
	}
	decider, err := table.Decider(guard)
	if err != nil {
		return nil, err
	}
	server, err := valetenvoy.New(valetenvoy.Config{Decider: decider, Callers: loopback, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ask := asking{authv3.NewAuthorizationClient(dial(in, serve(in, server))), true}
	upstream := httptest.NewServer(http.HandlerFunc(caller))
	in.Cleanup(upstream.Close)
	to, err := url.Parse(upstream.URL)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			for _, h := range r.Request.Context().Value(mutations{}).([]*corev3.HeaderValueOption) {
				mutate(r.Header, h)
			}
			return nil
		},
	}
	front.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ask.serve(w, r, proxy) })
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.Start()
	in.Cleanup(front.Close)
	return &conformance.Server{URL: front.URL, Close: in.close}, nil
}

// conformingGuard returns the guard of a setup.
func conformingGuard(t testing.TB, s conformance.Setup, origin string) (*middleware.Guard, error) {
	log := slog.New(slog.DiscardHandler)
	keysOf := func(issuer string) (*jwks.Verifier, error) {
		v, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{s.Audience}, Now: s.Now, Logger: log})
		if err == nil {
			t.Cleanup(v.Close)
		}
		return v, err
	}
	first, err1 := keysOf(s.Issuer)
	second, err2 := keysOf(s.SecondIssuer)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	both, err := jwks.ByIssuer(first, second)
	if err != nil {
		return nil, err
	}
	statuses, err := statuslist.New(statuslist.Config{Verifier: both, Issuer: s.Issuer, Logger: log})
	if err != nil {
		return nil, err
	}
	t.Cleanup(statuses.Close)
	asks := introspect.Config{URL: s.Introspection, Issuer: s.Issuer, Audience: []string{s.Audience},
		Auth: introspect.BasicAuth(s.ClientID, s.ClientSecret), Now: s.Now, Logger: log}
	if s.Signed {
		asks.Signed = &introspect.Signed{Algorithm: "ES256"}
	}
	opaque, err := introspect.New(asks)
	if err != nil {
		return nil, err
	}
	proofs := dpop.Config{Now: s.Now}
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
		Verifier: valetkey.First(statuses, opaque), DPoP: possession, Now: s.Now, Logger: log,
		URL:      func(r *http.Request) string { return origin + r.URL.EscapedPath() },
		Resource: middleware.Resource{ID: s.Audience, AuthorizationServers: []string{s.Issuer}},
	})
}

// caller responds with the caller that the gateway has reported.
func caller(w http.ResponseWriter, r *http.Request) {
	known := map[string]string{}
	for member, header := range map[string]string{"sub": "X-Valetkey-Subject", "client_id": "X-Valetkey-Client", "scope": "X-Valetkey-Scope"} {
		if value, err := url.PathUnescape(r.Header.Get(header)); err == nil && value != "" {
			known[member] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(known)
}
