package engine_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

func proving(cfg dpop.Config) func(*config) {
	return func(c *config) {
		v, err := dpop.New(cfg)
		if err != nil {
			panic(err)
		}
		c.DPoP = v
	}
}

// send posts a form with proofs.
func (s *site) send(t testing.TB, path, id string, f url.Values, proofs ...string) answer {
	t.Helper()
	r, err := http.NewRequest("POST", s.url+path, strings.NewReader(f.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !f.Has("client_id") {
		r.SetBasicAuth(id, "secret-of-"+id)
	}
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	res, err := http.DefaultClient.Do(r)
	return read(t, res, err)
}

func (s *site) proof(k *valetkeytest.ProofKey, opts ...valetkeytest.Option) string {
	return k.Proof("POST", s.url+"/oauth2/token", "", opts...)
}

func boundTo(t testing.TB, access string) any {
	t.Helper()
	confirmation, _ := part(t, access, 1)["cnf"].(map[string]any)
	return confirmation["jkt"]
}

var bare = form("grant_type", "client_credentials")

func TestProofsAtTheTokenEndpoint(t *testing.T) {
	s := start(t, proving(dpop.Config{}), with(clients.Client{
		ID: "bound", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-bound")}, DPoPBound: true,
		GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
	}))
	iss := valetkeytest.NewIssuer(t)
	key, other := iss.ProofKey("ES256"), iss.ProofKey("EdDSA")
	used := s.proof(key)
	require.Equal(t, 200, s.send(t, "/oauth2/token", "service", bare, used).status)
	for _, c := range []struct {
		name   string
		proofs []string
	}{
		{"no JWT", []string{"x"}},
		{"empty", []string{""}},
		{"two proofs", []string{s.proof(key), s.proof(key)}},
		{"one that was used", []string{used}},
		{"for another URL", []string{key.Proof("POST", s.url+"/oauth2/par", "")}},
		{"for another method", []string{key.Proof("GET", s.url+"/oauth2/token", "")}},
		{"an old one", []string{s.proof(key, valetkeytest.Claim("iat", time.Now().Unix()-600))}},
		{"of another type", []string{s.proof(key, valetkeytest.Header("typ", "JWT"))}},
		{"not signed with its key", []string{s.proof(key, valetkeytest.UnknownKey())}},
	} {
		t.Run("AS-DPOP-02 a bad proof: "+c.name, func(t *testing.T) {
			refused(t, s.send(t, "/oauth2/token", "service", bare, c.proofs...), 400, "invalid_dpop_proof")
		})
	}
	t.Run("a client that is registered for DPoP and sends no proof", func(t *testing.T) {
		refused(t, s.send(t, "/oauth2/token", "bound", bare), 400, "invalid_request")
		assert.Equal(t, 200, s.send(t, "/oauth2/token", "bound", bare, s.proof(key)).status)
	})
	t.Run("a wrong secret uses no proof up", func(t *testing.T) {
		p := s.proof(key)
		refused(t, s.send(t, "/oauth2/token", "", append2(form("client_id", "service", "client_secret", "x"), "grant_type", "client_credentials"), p), 401, "invalid_client")
		assert.Equal(t, 200, s.send(t, "/oauth2/token", "service", bare, p).status)
	})
	t.Run("AS-DPOP-01, AS-INTRO-04 a JWT is bound to the key", func(t *testing.T) {
		a := s.send(t, "/oauth2/token", "service", bare, s.proof(key))
		assert.Equal(t, "DPoP", a.body["token_type"])
		assert.Equal(t, key.Thumbprint(), boundTo(t, a.tokens(t).access))
		said := s.introspect(t, "orders-api", a.tokens(t).access).body
		assert.Equal(t, "DPoP", said["token_type"])
		assert.Equal(t, map[string]any{"jkt": key.Thumbprint()}, said["cnf"])
	})
	t.Run("AS-DPOP-01, AS-INTRO-04 an opaque token is", func(t *testing.T) {
		a := s.send(t, "/oauth2/token", "service", append2(form("scope", "vault:open"), "grant_type", "client_credentials"), s.proof(other))
		assert.Equal(t, "DPoP", a.body["token_type"])
		said := s.introspect(t, "vault-api", a.tokens(t).access).body
		assert.Equal(t, "DPoP", said["token_type"])
		assert.Equal(t, map[string]any{"jkt": other.Thumbprint()}, said["cnf"])
	})
	t.Run("without a proof it is not", func(t *testing.T) {
		a := s.send(t, "/oauth2/token", "service", bare)
		assert.Equal(t, "Bearer", a.body["token_type"])
		assert.Nil(t, boundTo(t, a.tokens(t).access))
		assert.Equal(t, "Bearer", s.introspect(t, "orders-api", a.tokens(t).access).body["token_type"])
	})
	t.Run("AS-DPOP-07 an unknown resource", func(t *testing.T) {
		f := append2(form("resource", "https://x.example.com"), "grant_type", "client_credentials")
		refused(t, s.send(t, "/oauth2/token", "service", f, s.proof(key)), 400, "invalid_target")
	})
	t.Run("the metadata name the algorithms", func(t *testing.T) {
		assert.Contains(t, s.Metadata().ProofAlgs, "ES256")
		assert.Empty(t, start(t).Metadata().ProofAlgs)
	})
	t.Run("a server without DPoP does not look at proofs", func(t *testing.T) {
		a := start(t).send(t, "/oauth2/token", "service", bare, "x")
		assert.Equal(t, "Bearer", a.body["token_type"])
	})
}

func TestNonces(t *testing.T) {
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{Key: []byte(strings.Repeat("k", 32))})
	require.NoError(t, err)
	s := start(t, proving(dpop.Config{Nonces: nonces}))
	key := valetkeytest.NewIssuer(t).ProofKey("ES256")
	t.Run("AS-DPOP-03 a proof without a nonce", func(t *testing.T) {
		a := s.send(t, "/oauth2/token", "service", bare, s.proof(key))
		refused(t, a, 400, "use_dpop_nonce")
		next := a.header.Get("DPoP-Nonce")
		require.NotEmpty(t, next)
		a = s.send(t, "/oauth2/token", "service", bare, s.proof(key, valetkeytest.Claim("nonce", next)))
		assert.Equal(t, "DPoP", a.body["token_type"])
		assert.Empty(t, a.header.Get("DPoP-Nonce"), "the one that was used will do")
	})
	t.Run("AS-DPOP-03 at the endpoint of pushed requests", func(t *testing.T) {
		f := request()
		f.Del("client_id")
		a := s.send(t, "/oauth2/par", "web", f, key.Proof("POST", s.url+"/oauth2/par", ""))
		refused(t, a, 400, "use_dpop_nonce")
		assert.NotEmpty(t, a.header.Get("DPoP-Nonce"))
	})
}

func TestBoundCodes(t *testing.T) {
	s := start(t, proving(dpop.Config{}), with(devices()...))
	iss := valetkeytest.NewIssuer(t)
	key, other := iss.ProofKey("ES256"), iss.ProofKey("ES256")
	for _, bad := range []string{"x", key.Thumbprint() + "A", "+" + key.Thumbprint()[1:]} {
		t.Run("AS-DPOP-05 dpop_jkt that is not a thumbprint", func(t *testing.T) {
			assert.Equal(t, "invalid_request", newBrowser().get(t, s.authorizeURL(request("dpop_jkt", bad))).back.Get("error"))
		})
	}
	t.Run("AS-DPOP-05 another key than that of dpop_jkt, or none", func(t *testing.T) {
		code := s.code(t, "dpop_jkt", key.Thumbprint())
		refused(t, s.send(t, "/oauth2/token", "web", redemption(code)), 400, "invalid_grant")
		refused(t, s.send(t, "/oauth2/token", "web", redemption(code), s.proof(other)), 400, "invalid_grant")
		a := s.send(t, "/oauth2/token", "web", redemption(code), s.proof(key))
		assert.Equal(t, key.Thumbprint(), boundTo(t, a.tokens(t).access), "and a thief does not burn the code")
	})
	push := func(pairs ...string) answer {
		f := request(pairs...)
		f.Del("client_id")
		return s.send(t, "/oauth2/par", "web", f, key.Proof("POST", s.url+"/oauth2/par", ""))
	}
	t.Run("AS-PAR-11 a proof of another key than dpop_jkt names", func(t *testing.T) {
		refused(t, push("dpop_jkt", other.Thumbprint()), 400, "invalid_request")
	})
	t.Run("AS-PAR-11 a bad proof", func(t *testing.T) {
		f := request()
		f.Del("client_id")
		refused(t, s.send(t, "/oauth2/par", "web", f, s.proof(key)), 400, "invalid_dpop_proof")
	})
	for name, pairs := range map[string][]string{"alone": nil, "with dpop_jkt": {"dpop_jkt", key.Thumbprint()}} {
		t.Run("AS-PAR-11 AS-DPOP-05 the proof of a pushed request binds the code, "+name, func(t *testing.T) {
			a := push(pairs...)
			require.Equal(t, 201, a.status, a.text)
			q := form("client_id", "web", "request_uri", a.body["request_uri"].(string), "dpop_jkt", other.Thumbprint())
			code := newBrowser().get(t, s.authorizeURL(q)).back.Get("code")
			refused(t, s.send(t, "/oauth2/token", "web", redemption(code), s.proof(other)), 400, "invalid_grant")
			a = s.send(t, "/oauth2/token", "web", redemption(code), s.proof(key))
			assert.Equal(t, key.Thumbprint(), boundTo(t, a.tokens(t).access))
		})
	}
	t.Run("AS-DPOP-01 the tokens of a device are bound to the key that it polls with", func(t *testing.T) {
		code, userCode := s.begin(t)
		refused(t, s.send(t, "/oauth2/token", "", poll(code), s.proof(key)), 400, "authorization_pending")
		s.letIn(t, userCode)
		a := s.send(t, "/oauth2/token", "", poll(code), s.proof(key))
		assert.Equal(t, "DPoP", a.body["token_type"])
		assert.Equal(t, key.Thumbprint(), boundTo(t, a.tokens(t).access))
	})
}

func TestBoundRefreshTokens(t *testing.T) {
	s := start(t, proving(dpop.Config{}))
	iss := valetkeytest.NewIssuer(t)
	key, other := iss.ProofKey("ES256"), iss.ProofKey("ES256")
	spa := func(pairs ...string) url.Values { return form(append(pairs, "client_id", "spa")...) }
	refresh := func(token string, proofs ...string) answer {
		return s.send(t, "/oauth2/token", "", spa("grant_type", "refresh_token", "refresh_token", token), proofs...)
	}
	begin := func(proofs ...string) tokens {
		code := s.code(t, "client_id", "spa", "redirect_uri", spaURI)
		f := spa("grant_type", "authorization_code", "code", code, "redirect_uri", spaURI, "code_verifier", verifier)
		return s.send(t, "/oauth2/token", "", f, proofs...).tokens(t)
	}
	t.Run("AS-DPOP-04 a public client's is bound to its key", func(t *testing.T) {
		first := begin(s.proof(key))
		refused(t, refresh(first.refresh), 400, "invalid_grant")
		refused(t, refresh(first.refresh, s.proof(other)), 400, "invalid_grant")
		assert.True(t, s.active(t, first.access), "a thief without the key ends nothing")
		a := refresh(first.refresh, s.proof(key))
		assert.Equal(t, "DPoP", a.body["token_type"])
		second := a.tokens(t)
		assert.Equal(t, key.Thumbprint(), boundTo(t, second.access))
		refused(t, refresh(second.refresh, s.proof(other)), 400, "invalid_grant")
		assert.Equal(t, 200, refresh(second.refresh, s.proof(key)).status)
	})
	t.Run("AS-DPOP-04 one that was not bound is, from the first proof on", func(t *testing.T) {
		first := begin()
		assert.Nil(t, boundTo(t, first.access))
		second := refresh(first.refresh, s.proof(key)).tokens(t)
		assert.Equal(t, key.Thumbprint(), boundTo(t, second.access))
		refused(t, refresh(second.refresh, s.proof(other)), 400, "invalid_grant")
	})
	t.Run("a confidential client may use another key, and needs one", func(t *testing.T) {
		first := s.send(t, "/oauth2/token", "web", redemption(s.code(t)), s.proof(key)).tokens(t)
		f := form("grant_type", "refresh_token", "refresh_token", first.refresh)
		refused(t, s.send(t, "/oauth2/token", "web", f), 400, "invalid_grant")
		second := s.send(t, "/oauth2/token", "web", f, s.proof(other)).tokens(t)
		assert.Equal(t, other.Thumbprint(), boundTo(t, second.access))
		assert.Equal(t, key.Thumbprint(), s.introspect(t, "orders-api", first.access).body["cnf"].(map[string]any)["jkt"], "the old one stays what it was")
	})
}

type brokenReplays struct{}

func (brokenReplays) Use(context.Context, [32]byte, time.Time) (bool, error) { return false, errBroken }

func TestProofOutage(t *testing.T) {
	s := start(t, proving(dpop.Config{ReplayStore: brokenReplays{}}))
	key := valetkeytest.NewIssuer(t).ProofKey("ES256")
	refused(t, s.send(t, "/oauth2/token", "service", bare, s.proof(key)), 500, "server_error")
}

// startTLS makes a site over TLS that asks clients for a certificate.
func startTLS(t *testing.T, change ...func(*config)) (s *site, client func(...tls.Certificate) *http.Client) {
	web := httptest.NewUnstartedServer(nil)
	web.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s = build(t, "https://"+web.Listener.Addr().String()+"/as", change...)
	mux := http.NewServeMux()
	s.Routes(mux)
	web.Config.Handler = mux
	web.StartTLS()
	t.Cleanup(web.Close)
	return s, func(shown ...tls.Certificate) *http.Client {
		c := web.Client()
		transport := c.Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = shown
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
}

func digestOf(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestCertificates(t *testing.T) {
	own, stranger := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	require.NoError(t, err)
	keySet := keySetOf(t, leaf)
	grants := []string{"client_credentials", "authorization_code", "refresh_token"}
	all := with(
		clients.Client{ID: "cert", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-cert")}, GrantTypes: grants, RedirectURIs: []string{webURI}, Scopes: []string{"orders:read", "vault:open"}, DefaultAPI: orders, CertBound: true},
		clients.Client{ID: "cert-app", AuthMethod: "none", GrantTypes: grants, RedirectURIs: []string{webURI}, Scopes: []string{"orders:read"}, CertBound: true},
		clients.Client{ID: "self-signed", AuthMethod: "self_signed_tls_client_auth", JWKS: keySet, GrantTypes: grants, Scopes: []string{"orders:read"}, CertBound: true},
	)
	s, client := startTLS(t, all, func(c *config) { c.Certificate = engine.TLSCertificate })
	post := func(path string, f url.Values, shown ...tls.Certificate) answer {
		res, err := client(shown...).PostForm(s.url+path, f)
		return read(t, res, err)
	}
	ask := func(id string, shown ...tls.Certificate) answer {
		return post("/oauth2/token", form("grant_type", "client_credentials", "client_id", id, "client_secret", "secret-of-"+id), shown...)
	}
	confirmed := func(access string) any {
		confirmation, _ := part(t, access, 1)["cnf"].(map[string]any)
		return confirmation["x5t#S256"]
	}
	t.Run("AS-DPOP-06 a client that is registered so, without a certificate", func(t *testing.T) {
		refused(t, ask("cert"), 400, "invalid_request")
	})
	t.Run("AS-DPOP-06 a JWT is bound to the certificate", func(t *testing.T) {
		a := ask("cert", own)
		assert.Equal(t, "Bearer", a.body["token_type"]) // RFC 8705, section 3
		assert.Equal(t, digestOf(own), confirmed(a.tokens(t).access))
	})
	t.Run("AS-DPOP-06 an opaque one is", func(t *testing.T) {
		f := form("grant_type", "client_credentials", "client_id", "cert", "client_secret", "secret-of-cert", "scope", "vault:open")
		access := post("/oauth2/token", f, own).tokens(t).access
		said := post("/oauth2/introspect", form("token", access, "client_id", "vault-api", "client_secret", "secret-of-vault-api")).body
		assert.Equal(t, map[string]any{"x5t#S256": digestOf(own)}, said["cnf"])
	})
	t.Run("other clients' tokens are not, whatever they show", func(t *testing.T) {
		assert.Nil(t, confirmed(ask("service", own).tokens(t).access))
	})
	t.Run("AS-DPOP-06 a public client's refresh token is bound to it, too", func(t *testing.T) {
		b := client()
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, err := b.Get(s.authorizeURL(request("client_id", "cert-app")))
		code := read(t, res, err).back.Get("code")
		first := post("/oauth2/token", redemption(code, "client_id", "cert-app"), own).tokens(t)
		f := form("grant_type", "refresh_token", "client_id", "cert-app", "refresh_token", first.refresh)
		refused(t, post("/oauth2/token", f, stranger), 400, "invalid_grant")
		assert.Equal(t, digestOf(own), confirmed(post("/oauth2/token", f, own).tokens(t).access))
	})
	for name, shown := range map[string][]tls.Certificate{"none": nil, "another one": {stranger}} {
		t.Run("self_signed_tls_client_auth with "+name, func(t *testing.T) {
			refused(t, ask("self-signed", shown...), 401, "invalid_client")
			f := form("grant_type", "client_credentials", "client_id", "self-signed")
			refused(t, post("/oauth2/token", f, shown...), 401, "invalid_client")
		})
	}
	t.Run("self_signed_tls_client_auth, and a secret", func(t *testing.T) { refused(t, ask("self-signed", own), 401, "invalid_client") })
	t.Run("self_signed_tls_client_auth with the certificate of the client", func(t *testing.T) {
		a := post("/oauth2/token", form("grant_type", "client_credentials", "client_id", "self-signed"), own)
		assert.Equal(t, digestOf(own), confirmed(a.tokens(t).access))
	})
	t.Run("the metadata tell of it", func(t *testing.T) {
		assert.True(t, s.Metadata().CertBound)
		assert.Contains(t, s.Metadata().TokenAuth, "self_signed_tls_client_auth")
		assert.False(t, start(t).Metadata().CertBound)
		assert.NotContains(t, start(t).Metadata().TokenAuth, "self_signed_tls_client_auth")
	})
	t.Run("a server that looks at none, or cannot read it", func(t *testing.T) {
		for _, find := range []func(*http.Request) ([]byte, error){nil, func(*http.Request) ([]byte, error) { return nil, errors.New("malformed") }} {
			s := start(t, all, func(c *config) { c.Certificate = find })
			refused(t, s.send(t, "/oauth2/token", "cert", bare), 400, "invalid_request")
			refused(t, s.send(t, "/oauth2/token", "", form("grant_type", "client_credentials", "client_id", "self-signed")), 401, "invalid_client")
		}
	})
}

// keySetOf is how a client registers a certificate (RFC 8705, section 2.2.2).
func keySetOf(t *testing.T, leaf *x509.Certificate) string {
	point, err := leaf.PublicKey.(*ecdsa.PublicKey).Bytes()
	require.NoError(t, err)
	text := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:]), "x5c": []string{base64.StdEncoding.EncodeToString(leaf.Raw)},
	}}})
	require.NoError(t, err)
	return string(set)
}
