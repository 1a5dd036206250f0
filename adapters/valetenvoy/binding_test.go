package valetenvoy_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestProofs(t *testing.T) {
	start := func(t *testing.T, nonces *dpop.Nonces) *gateway {
		return newGateway(t, func(cfg *middleware.Config, _ *valetenvoy.Config) {
			cfg.Resource.ID = "https://api.example.com"
			var err error
			cfg.DPoP, err = dpop.New(dpop.Config{Now: cfg.Now, Nonces: nonces})
			require.NoError(t, err)
		})
	}
	sent := func(in *authv3.CheckRequest, token, proof string) *authv3.CheckRequest {
		in.Attributes.Request.Http.Scheme = "http" // the last hop has no TLS
		in.Attributes.Request.Http.Headers["authorization"] = "DPoP " + token
		in.Attributes.Request.Http.Headers["dpop"] = proof
		return in
	}
	t.Run("without nonces", func(t *testing.T) {
		g := start(t, nil)
		key := g.iss.ProofKey("ES256")
		token := g.iss.Token(valetkeytest.BoundTo(key))
		proof := func() string { return key.Proof("GET", "https://api.example.com/me", token) }
		for _, c := range []struct {
			name   string
			in     *authv3.CheckRequest
			status int
		}{
			{"a proof for the scheme and host that the gateway reports", sent(check("GET", "/me"), token, key.Proof("GET", "http://api.example.com/me", token)), 401},
			{"a proof for the host of a forwarding header", sent(check("GET", "/me", "x-forwarded-host: other.example", "x-forwarded-proto: https", "forwarded: host=other.example"), token, key.Proof("GET", "https://other.example/me", token)), 401},
			{"two proofs in one line", sent(check("GET", "/me"), token, proof()+","+proof()), 401},
			{"two proofs in header_map", raw(sent(check("GET", "/me"), token, proof()), "dpop: "+proof()), 401},
			{"a bound token as a bearer token", check("GET", "/me", bearer(token)), 401},
			{"EXT-22 a proof for the configured origin", sent(check("GET", "/me"), token, proof()), 200},
			{"EXT-22 a proof for the configured origin, in header_map", raw(sent(check("GET", "/me?page=2"), token, proof())), 200},
		} {
			t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.status, g.ask(c.in).status) })
		}
		t.Run("EXT-23 the same proof twice", func(t *testing.T) {
			in := sent(check("GET", "/me"), token, proof())
			assert.Equal(t, 200, g.ask(in).status)
			again := g.ask(in)
			assert.Equal(t, 401, again.status)
			assert.Equal(t, codes.Unauthenticated, again.code)
			assert.Contains(t, again.denial.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`)
		})
	})
	t.Run("EXT-24 a nonce is needed", func(t *testing.T) {
		const every = 2 * time.Minute
		nonces, err := dpop.NewNonces(dpop.NoncesConfig{Every: every})
		require.NoError(t, err)
		g := start(t, nonces)
		key := g.iss.ProofKey("ES256")
		token := g.iss.Token(valetkeytest.BoundTo(key))
		refused := g.ask(sent(check("GET", "/me"), token, key.Proof("GET", "https://api.example.com/me", token)))
		assert.Equal(t, 401, refused.status)
		assert.Contains(t, refused.denial.Get("WWW-Authenticate"), `error="use_dpop_nonce"`)
		nonce := refused.denial.Get("DPoP-Nonce")
		require.NotEmpty(t, nonce)
		g.iss.Advance(every) // the nonce is still valid, and there is a newer one
		accepted := g.ask(sent(check("GET", "/me"), token, key.Proof("GET", "https://api.example.com/me", token, valetkeytest.Claim("nonce", nonce))))
		assert.Equal(t, 200, accepted.status)
		assert.NotEmpty(t, accepted.response.Get("DPoP-Nonce"))
		assert.NotEqual(t, nonce, accepted.response.Get("DPoP-Nonce"))
		assert.Equal(t, "no-store", accepted.response.Get("Cache-Control"))
	})
}

func TestCertificates(t *testing.T) {
	g := newGateway(t, func(cfg *middleware.Config, _ *valetenvoy.Config) {
		cfg.ClientCertificate = middleware.TLSCertificate()
	})
	certificate := valetkeytest.ClientCertificate(t)
	block := func(of []byte) string { return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of})) }
	mine, other := block(certificate.Certificate[0]), block(valetkeytest.ClientCertificate(t).Certificate[0])
	token := g.iss.Token(valetkeytest.BoundToCertificate(certificate))
	for _, c := range []struct {
		name        string
		certificate string
		headers     []string
		status      int
	}{
		{"no certificate", "", nil, 401},
		{"EXT-25 x-forwarded-client-cert alone", "", []string{`x-forwarded-client-cert: Cert="` + url.QueryEscape(mine) + `"`}, 401},
		{"client-cert alone", "", []string{"client-cert: :" + mine + ":"}, 400}, // with line breaks
		{"another certificate", url.PathEscape(other), nil, 401},
		{"EXT-25 a certificate that cannot be parsed", url.PathEscape(block([]byte("x"))), nil, 400},
		{"EXT-25 text that is not PEM", "x", nil, 400},
		{"EXT-25 a bad escape", "%zz", nil, 400},
		{"EXT-25 two certificates", url.PathEscape(mine + mine), nil, 400},
		{"EXT-25 a key", url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: certificate.Certificate[0]}))), nil, 400},
		{"EXT-25 the certificate of the token", url.PathEscape(mine), nil, 200},
		{"EXT-25 the certificate of the token beside another in a header", url.PathEscape(mine), []string{`x-forwarded-client-cert: Cert="` + url.QueryEscape(other) + `"`}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := check("GET", "/me", append([]string{bearer(token)}, c.headers...)...)
			in.Attributes.Source = &authv3.AttributeContext_Peer{Certificate: c.certificate, Principal: "spiffe://example.com/app"}
			assert.Equal(t, c.status, g.ask(in).status)
		})
	}
}

// A guard that trusts proxies, of whom the gateway has the address, must not trust headers of the client.
func TestForwardingHeaders(t *testing.T) {
	certificate := valetkeytest.ClientCertificate(t)
	text := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	start := func(t *testing.T, place middleware.ClientCertificate, need valetkey.Requirement) *gateway {
		return newGatewayFor(t, routes.Table{"GET /me": need}, func(cfg *middleware.Config, _ *valetenvoy.Config) {
			cfg.Proxies = middleware.Proxies{Trusted: loopback, UnixSocket: true, Forwarded: middleware.XForwarded, XForwardedPort: true, XForwardedPrefix: true}
			cfg.ClientCertificate = place
			var err error
			cfg.DPoP, err = dpop.New(dpop.Config{Now: cfg.Now})
			require.NoError(t, err)
		})
	}
	for name, place := range map[string]middleware.ClientCertificate{
		"x-forwarded-client-cert: Cert=%q": middleware.XFCCHeader(),
		"x-client-cert: %s":                middleware.PEMHeader("X-Client-Cert"),
	} {
		t.Run("EXT-25 a certificate in a header, "+name, func(t *testing.T) {
			g := start(t, place, valetkey.AnyToken)
			token := g.iss.Token(valetkeytest.BoundToCertificate(certificate))
			assert.Equal(t, 401, g.ask(check("GET", "/me", bearer(token), fmt.Sprintf(name, text))).status)
		})
	}
	t.Run("the URL of a proof", func(t *testing.T) {
		g := start(t, middleware.ClientCertificate{}, valetkey.AnyToken)
		key := g.iss.ProofKey("ES256")
		token := g.iss.Token(valetkeytest.BoundTo(key))
		got := g.ask(check("GET", "/me", "authorization: DPoP "+token, "dpop: "+key.Proof("GET", "https://other.example/me", token),
			"x-forwarded-host: other.example", "x-forwarded-proto: https", "x-forwarded-for: 192.0.2.7"))
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.denial.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`)
	})
	t.Run("requirements do not see them", func(t *testing.T) {
		var seen http.Header
		g := start(t, middleware.ClientCertificate{}, valetkey.RequirementFunc(func(a valetkey.Access) error {
			seen = a.Request.Header
			return nil
		}))
		for _, in := range []func(*authv3.CheckRequest) *authv3.CheckRequest{
			func(in *authv3.CheckRequest) *authv3.CheckRequest { return in },
			func(in *authv3.CheckRequest) *authv3.CheckRequest { return raw(in) },
		} {
			seen = nil
			require.Equal(t, 200, g.ask(in(check("GET", "/me", bearer(g.iss.Token()), ":path: /", ":x: y", "Host: a", "x-forwarded-for: a", "X_Forwarded_Host: a",
				"forwarded: host=a", "x-envoy-original-path: /", "x-valetkey-subject: a", "x-forwards: b", "forwarded-by: b", "accept: b"))).status)
			delete(seen, "Authorization")
			assert.Equal(t, http.Header{"X-Forwards": {"b"}, "Forwarded-By": {"b"}, "Accept": {"b"}}, seen)
		}
	})
}
