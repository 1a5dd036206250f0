package gateways_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
)

// conformRows are the routes of conformance.DefaultRoutes.
const conformRows = `
drain: 0s
routes:
  "/any": "@any"
  "/scope": orders:read
  "/scopes": orders:read orders:write
  "/acr": {acr: phr}
  "/max-age": {max_age: 300s}
  "/optional": "@optional"
  "/rar": {authorization_details: {type: payment, actions: initiate}}
`

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

var allCases = flag.Bool("all-cases", false, "run all cases of TestConformance, which takes a minute")

// aboutGateways are the groups of cases that a gateway can affect, because they are about more than the text of a token.
var aboutGateways = []string{"bearer", "challenges", "identity", "mcp", "metadata", "paths", "places", "scopes", "step-up", "transport"}

// TestConformance runs the cases of package conformance through the real gateways with their examples. With -all-cases, it runs all of
// them, by default those that a gateway can affect:
//
//	go test -run TestConformance -v ./internal/gateways -all-cases
func TestConformance(t *testing.T) {
	cases, enough := conformance.Cases(), 1000
	if !*allCases {
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return !slices.Contains(aboutGateways, c.Group) })
		enough = 200
	}
	each(t, func(t *testing.T, g gateway) {
		report, err := conformance.Check(t.Context(), conformance.Target{
			URL:    "/any",
			Routes: conformance.DefaultRoutes(),
			Profiles: []conformance.Profile{conformance.ProfileBearer, conformance.ProfileRFC9068, conformance.ProfileIntrospection, conformance.ProfileMetadata,
				conformance.ProfileDPoP, conformance.ProfileStepUp, conformance.ProfileMCP},
			Features: []conformance.Feature{conformance.FeatureIdentity, conformance.FeatureSecondIssuer, conformance.FeatureReplay, conformance.FeatureNonce,
				conformance.FeatureStatusList, conformance.FeatureSigned},
			Start: func(_ context.Context, setup conformance.Setup) (*conformance.Server, error) {
				in := &scope{TB: t}
				s := start(in, g, conforming(setup))
				return &conformance.Server{URL: "http://" + s.addr, Close: in.close}, nil
			},
		}, conformance.Options{Rate: -1, Cases: cases})
		require.NoError(t, err)
		for _, result := range report.Failures(true) {
			t.Errorf("%s", result.String())
		}
		assert.Greater(t, report.Count(conformance.Passed), enough)
		t.Logf("%d passed, %d differ, %d not offered, %d skipped, in %v", report.Count(conformance.Passed), len(report.Failures(false)),
			report.Count(conformance.NotOffered), report.Count(conformance.Skipped), report.Took)
	})
}

// conforming returns a site with the routes and the issuer of a setup.
func conforming(s conformance.Setup) setup {
	return setup{
		listen:   s.Listen,
		upstream: http.HandlerFunc(caller),
		file: func(config string) string {
			head, _, _ := strings.Cut(config, "\n\n") // where it listens
			signed, nonce := "", "off"
			if s.Signed {
				signed = ", signed: {algorithm: ES256}"
			}
			if s.Nonce {
				nonce = "on"
			}
			return head + fmt.Sprintf(`
resource: %s
verifiers:
  - jwks: {issuer: %q, status_list: {}}
  - jwks: {issuer: %q}
  - introspection: {issuer: %q, url: %q, client_id: %q, client_secret: %q%s}
dpop: {origin: "http://%s", nonce: %s}
`, s.Audience, s.Issuer, s.SecondIssuer, s.Issuer, s.Introspection, s.ClientID, s.ClientSecret, signed, s.Listen, nonce) + conformRows
		},
	}
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
