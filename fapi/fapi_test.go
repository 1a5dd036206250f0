package fapi_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/statuslist"
	"github.com/valetkey/valetkey/valetkeytest"
)

var quiet = slog.New(slog.DiscardHandler)

func short() fapi.Revocation { return fapi.ShortLived(10 * time.Minute) }

// config is a good one for the tokens of iss.
func config(iss *valetkeytest.Issuer) fapi.Config {
	return fapi.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(),
		Revocation: short(), DPoP: &dpop.Config{Now: iss.Now},
		Guard: middleware.Config{Now: iss.Now, Logger: quiet, Resource: middleware.Resource{ID: valetkeytest.DefaultAudience}},
	}
}

func newGuard(t *testing.T, iss *valetkeytest.Issuer, change ...func(*fapi.Config)) *fapi.Guard {
	t.Helper()
	cfg := config(iss)
	for _, f := range change {
		f(&cfg)
	}
	guard, err := fapi.New(cfg)
	require.NoError(t, err)
	t.Cleanup(guard.Close)
	return guard
}

func TestOwnClient(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	usual := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = usual })
	http.DefaultTransport = struct{ http.RoundTripper }{usual} // as who traces all requests does
	assert.NotPanics(t, func() { newGuard(t, iss, func(c *fapi.Config) { c.Client = nil }) })
}

func TestContradictions(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	for _, c := range []struct {
		name, text string
		change     func(*fapi.Config)
	}{
		{"FAPI-02 the query", "Guard.Methods", func(c *fapi.Config) { c.Guard.Methods = []middleware.BearerMethod{middleware.Query()} }},
		{"FAPI-05 refusals that are not enforced", "Guard.InsecureReportOnly", func(c *fapi.Config) { c.Guard.InsecureReportOnly = true }},
		{"the form", "Guard.Methods", func(c *fapi.Config) { c.Guard.Methods = []middleware.BearerMethod{middleware.Form(0)} }},
		{"FAPI-03 no way to learn of revocations", "Revocation: required", func(c *fapi.Config) { c.Revocation = fapi.Revocation{} }},
		{"FAPI-03 tokens that are not short-lived", "Revocation.ShortLived: 11m0s", func(c *fapi.Config) { c.Revocation = fapi.ShortLived(11 * time.Minute) }},
		{"FAPI-03 a lifetime of zero", "Revocation.ShortLived: 0s", func(c *fapi.Config) { c.Revocation = fapi.ShortLived(0) }},
		{"FAPI-05 no sender constraint", "DPoP, Guard.ClientCertificate: one of them", func(c *fapi.Config) { c.DPoP = nil }},
		{"FAPI-06 RS256 for tokens", `Algorithms[1]: "RS256"`, func(c *fapi.Config) { c.Algorithms = []string{"PS256", "RS256"} }},
		{"FAPI-06 ES384 for tokens", `Algorithms[0]: "ES384"`, func(c *fapi.Config) { c.Algorithms = []string{"ES384"} }},
		{"FAPI-06 RS256 for proofs", `DPoP.Algorithms[0]: "RS256"`, func(c *fapi.Config) { c.DPoP.Algorithms = []string{"RS256"} }},
		{"FAPI-06 RS256 for signed introspection", `Signed.Algorithm[0]: ""`, func(c *fapi.Config) {
			c.Revocation = fapi.Introspection(introspect.Config{URL: iss.Introspection.URL, Auth: introspect.BasicAuth("a", "b"), Signed: &introspect.Signed{}})
		}},
		{"FAPI-06 RS512 for status lists", `StatusList.Algorithms[0]: "RS512"`, func(c *fapi.Config) {
			c.Revocation = fapi.StatusList(statuslist.Config{Algorithms: []string{"RS512"}})
		}},
		{"FAPI-12 an issuer without TLS", "Issuer: is not an https URL", func(c *fapi.Config) { c.Issuer = "http://localhost" }},
		{"FAPI-12 introspection without TLS", "InsecureHTTP", func(c *fapi.Config) {
			c.Revocation = fapi.OpaqueTokens(introspect.Config{URL: iss.Introspection.URL, Auth: introspect.BasicAuth("a", "b"), InsecureHTTP: true})
		}},
		{"FAPI-12 certificates that are not verified", "InsecureSkipVerify", func(c *fapi.Config) {
			c.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		}},
		{"FAPI-12 TLS 1.1", "MinVersion", func(c *fapi.Config) {
			c.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS11}}}
		}},
		{"FAPI-13 high value without nonces", "DPoP.Nonces: required", func(c *fapi.Config) { c.RequireNonce = true }},
		{"FAPI-13 high value without DPoP", "RequireNonce: DPoP is required", func(c *fapi.Config) {
			c.RequireNonce, c.DPoP, c.Guard.ClientCertificate = true, nil, middleware.TLSCertificate()
		}},
		{"FAPI-13 proofs that are good more than once", "DPoP.ReplayStore", func(c *fapi.Config) { c.DPoP.ReplayStore = dpop.InsecureAllowReplays{} }},
		{"another verifier", "Guard.Verifier", func(c *fapi.Config) { c.Guard.Verifier = valetkey.First() }},
		{"an issuer for the guard alone", "Guard.Issuer, Guard.Audience", func(c *fapi.Config) { c.Guard.Issuer = c.Issuer }},
		{"an audience for the guard alone", "Guard.Issuer, Guard.Audience", func(c *fapi.Config) { c.Guard.Audience = c.Audience }},
		{"an audience is missing", "Audience", func(c *fapi.Config) { c.Audience = nil }},
		{"another issuer is asked", "is another than that of the tokens", func(c *fapi.Config) {
			c.Revocation = fapi.Introspection(introspect.Config{Issuer: "https://other.example.com", Auth: introspect.BasicAuth("a", "b")})
		}},
		{"a list of another issuer", "are set by the profile", func(c *fapi.Config) {
			c.Revocation = fapi.StatusList(statuslist.Config{Issuer: "https://other.example.com"})
		}},
		{"keys for opaque tokens", "nothing to verify", func(c *fapi.Config) {
			c.JWKSURL = iss.KeySet.URL
			c.Revocation = fapi.OpaqueTokens(introspect.Config{URL: iss.Introspection.URL, Auth: introspect.BasicAuth("a", "b")})
		}},
		{"clients for opaque tokens", "SoleAudience, Clients, Rules: opaque tokens", func(c *fapi.Config) {
			c.Clients = []string{"a"}
			c.Revocation = fapi.OpaqueTokens(introspect.Config{URL: iss.Introspection.URL, Auth: introspect.BasicAuth("a", "b")})
		}},
		{"a zero rule", "Rules[0]: the zero Rule", func(c *fapi.Config) { c.Rules = make([]claims.Rule, 1) }},
		{"DPOP-20 a URL that only the client states", "URL: required with DPoP, unless Resource.ID", func(c *fapi.Config) { c.Guard.Resource = middleware.Resource{} }},
		{"a mistake in the rest", "Realm", func(c *fapi.Config) { c.Guard.Realm = `"` }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(iss)
			c.change(&cfg)
			_, err := fapi.New(cfg)
			assert.ErrorContains(t, err, c.text)
		})
	}
	t.Run("all at once", func(t *testing.T) {
		_, err := fapi.New(fapi.Config{Guard: middleware.Config{Methods: []middleware.BearerMethod{middleware.Query()}}})
		for _, want := range []string{"Issuer", "Audience", "Revocation", "DPoP, Guard.ClientCertificate", "Guard.Methods"} {
			assert.ErrorContains(t, err, want)
		}
	})
}

// get sends a token with a proof by key, or as a bearer token where there is none.
func get(h http.Handler, iss *valetkeytest.Issuer, key *valetkeytest.ProofKey, token string) *httptest.ResponseRecorder {
	r := valetkeytest.Request("GET", "https://api.example.com/payments", token)
	if key != nil {
		key.Authorize(r, token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestProfile(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS(), valetkeytest.SignWith("ES256", "PS256", "EdDSA", "RS256", "ES384", "ES512", "RS512", "PS384"))
	key := iss.ProofKey("ES256")
	guard := newGuard(t, iss)
	api := guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), scopes.All("payments"))
	token := func(opts ...valetkeytest.Option) string {
		return iss.Token(append([]valetkeytest.Option{valetkeytest.BoundTo(key), valetkeytest.Scopes("payments")}, opts...)...)
	}
	code := func(t *testing.T, w *httptest.ResponseRecorder) string {
		return valetkeytest.Challenge(t, w.Header(), "DPoP")["error"]
	}
	for _, alg := range []string{"RS256", "ES384", "ES512", "RS512", "PS384"} {
		t.Run("FAPI-06 a token signed with "+alg, func(t *testing.T) {
			assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.Algorithm(alg))).Code)
		})
	}
	t.Run("FAPI-06 a token signed with HS256 or not at all", func(t *testing.T) {
		assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.Secret(bytes.Repeat([]byte("s"), 32)))).Code)
		assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.Unsigned())).Code)
	})
	for _, alg := range []string{"RS256", "ES384", "ES512"} {
		t.Run("FAPI-06 a proof signed with "+alg, func(t *testing.T) {
			other := iss.ProofKey(alg)
			w := get(api, iss, other, iss.Token(valetkeytest.BoundTo(other), valetkeytest.Scopes("payments")))
			assert.Equal(t, 401, w.Code)
			assert.Equal(t, "invalid_dpop_proof", code(t, w))
			assert.Equal(t, "PS256 ES256 EdDSA Ed25519", valetkeytest.Challenge(t, w.Header(), "DPoP")["algs"])
		})
	}
	t.Run("FAPI-02 a token in the query", func(t *testing.T) {
		r := httptest.NewRequest("GET", "https://api.example.com/payments?access_token="+token(), nil)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, 401, w.Code)
	})
	t.Run("FAPI-05 a token that is bound to nothing", func(t *testing.T) {
		assert.Equal(t, 401, get(api, iss, nil, iss.Token(valetkeytest.Scopes("payments"))).Code)
	})
	t.Run("FAPI-05 a bound token as a bearer token", func(t *testing.T) {
		assert.Equal(t, 401, get(api, iss, nil, token()).Code)
	})
	t.Run("FAPI-03 a token that has expired, and one that lives too long", func(t *testing.T) {
		assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.Expired())).Code)
		assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.ExpiresIn(11*time.Minute))).Code)
	})
	t.Run("FAPI-04 a scope is missing", func(t *testing.T) {
		w := get(api, iss, key, iss.Token(valetkeytest.BoundTo(key)))
		assert.Equal(t, 403, w.Code)
		assert.Equal(t, "insufficient_scope", code(t, w))
	})
	t.Run("FAPI-11 iat or nbf 61 s in the future", func(t *testing.T) {
		for _, claim := range []string{"iat", "nbf"} {
			at := iss.Now().Add(61 * time.Second).Unix()
			assert.Equal(t, 401, get(api, iss, key, token(valetkeytest.Claim(claim, at))).Code, claim)
		}
	})
	t.Run("FAPI-10 iat or nbf 10 s in the future", func(t *testing.T) {
		for _, claim := range []string{"iat", "nbf"} {
			at := iss.Now().Add(10 * time.Second).Unix()
			assert.Equal(t, 200, get(api, iss, key, token(valetkeytest.Claim(claim, at))).Code, claim)
		}
	})
	for _, alg := range []string{"PS256", "ES256", "EdDSA"} {
		t.Run("FAPI-01 FAPI-06 token and proof with "+alg, func(t *testing.T) {
			key := iss.ProofKey(alg)
			w := get(api, iss, key, iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("payments"), valetkeytest.Algorithm(alg)))
			assert.Equal(t, 200, w.Code, w.Header())
		})
	}
	t.Run("FAPI-09 what RFC 8725 warns of", func(t *testing.T) {
		for name, forged := range iss.Forgeries(valetkeytest.BoundTo(key), valetkeytest.Scopes("payments")) {
			assert.Contains(t, []int{400, 401}, get(api, iss, key, forged).Code, name)
		}
	})
}

func TestTokensAreRestrictedFurther(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS(), valetkeytest.SignWith("ES256"))
	key := iss.ProofKey("ES256")
	good := []valetkeytest.Option{valetkeytest.BoundTo(key), valetkeytest.ClientID("app"), valetkeytest.Claim("acr", "high")}
	guard := newGuard(t, iss, func(c *fapi.Config) {
		c.SoleAudience, c.Clients, c.Rules = true, []string{"app"}, []claims.Rule{claims.Equal("acr", "high")}
	}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, opt := range map[string]valetkeytest.Option{
		"another client":    valetkeytest.ClientID("other"),
		"a rule that fails": valetkeytest.Claim("acr", "low"),
		"a second audience": valetkeytest.Audience(valetkeytest.DefaultAudience, "https://other.example.com"),
	} {
		assert.Equal(t, 401, get(guard, iss, key, iss.Token(append(good[:3:3], opt)...)).Code, name)
	}
	assert.Equal(t, 200, get(guard, iss, key, iss.Token(good...)).Code)
}

func TestWeakAndDuplicateKeys(t *testing.T) {
	const weak = `{"kty":"RSA","kid":"weak","use":"sig","alg":"PS256","e":"AQAB","n":"` // a modulus of 1024 bits follows
	modulus := "j9fsNIpuLGdaDS8_dTt62_ff1AawKnSSWSH2XzNHvU_gdGa0e5w-NZTzSfUQOi5jk7rRUcNgYqP1FIy2leSjSQCBd--ffXFT_uHqbk8bzWcY6bZOAFltiBW88L_xqWMrR2dngCTgkRl0wnHYPFfskSRHFPMJ_B6Tiuwgu_v1s2U"
	t.Run("FAPI-07 an RSA key of 1024 bits", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		cfg := config(iss)
		cfg.JWKS = []byte(`{"keys":[` + weak + modulus + `"}]}`)
		_, err := fapi.New(cfg)
		assert.ErrorContains(t, err, "no usable key")
	})
	t.Run("FAPI-08 a kid that stands twice in the key set: the key that fits is taken", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		key := iss.ProofKey("ES256")
		ec, err := jose.GenerateKey("ES256", "same")
		require.NoError(t, err)
		ed, err := jose.GenerateKey("EdDSA", "same")
		require.NoError(t, err)
		guard := newGuard(t, iss, func(c *fapi.Config) {
			c.JWKS = fmt.Appendf(nil, `{"keys":[%s,%s]}`, ed.PublicJWK(), ec.PublicJWK())
		})
		for _, signer := range []*jose.PrivateKey{ec, ed} {
			var claims map[string]any
			raw := iss.Token(valetkeytest.BoundTo(key))
			c, err := jose.Parse(raw)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(c.Payload, &claims))
			token, err := signer.Sign(map[string]any{"typ": "at+jwt"}, c.Payload)
			require.NoError(t, err)
			assert.Equal(t, 200, get(guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), iss, key, token).Code)
		}
	})
}

func TestRevocation(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	auth := introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret)
	t.Run("FAPI-03 by introspection of JWTs", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		key := iss.ProofKey("ES256")
		api := newGuard(t, iss, func(c *fapi.Config) {
			c.Revocation = fapi.Introspection(introspect.Config{URL: iss.Introspection.URL, Auth: auth, CacheTTL: -1})
		}).Handler(ok)
		token := iss.Token(valetkeytest.BoundTo(key))
		assert.Equal(t, 200, get(api, iss, key, token).Code)
		iss.Revoke(token)
		assert.Equal(t, 401, get(api, iss, key, token).Code)
	})
	t.Run("FAPI-03 by introspection of opaque tokens", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		key := iss.ProofKey("ES256")
		api := newGuard(t, iss, func(c *fapi.Config) {
			c.Revocation = fapi.OpaqueTokens(introspect.Config{URL: iss.Introspection.URL, Auth: auth, CacheTTL: -1})
		}).Handler(ok)
		token := iss.Opaque(valetkeytest.BoundTo(key), valetkeytest.Claim("token_type", "DPoP"))
		assert.Equal(t, 200, get(api, iss, key, token).Code)
		iss.Revoke(token)
		assert.Equal(t, 401, get(api, iss, key, token).Code)
	})
	t.Run("FAPI-03 by a status list", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		key := iss.ProofKey("ES256")
		guard := newGuard(t, iss, func(c *fapi.Config) { c.Revocation = fapi.StatusList(statuslist.Config{}) })
		api := guard.Handler(ok)
		token := iss.Token(valetkeytest.BoundTo(key), iss.Status(3))
		assert.Equal(t, 200, get(api, iss, key, token).Code)
		assert.Equal(t, 401, get(api, iss, key, iss.Token(valetkeytest.BoundTo(key))).Code, "a token without a status")
		iss.SetStatus(3, 1)
		guard.Purge(nil)
		assert.Equal(t, 401, get(api, iss, key, token).Code)
	})
}

func TestRequireNonce(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	key := iss.ProofKey("ES256")
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{Key: bytes.Repeat([]byte("k"), 32)})
	require.NoError(t, err)
	api := newGuard(t, iss, func(c *fapi.Config) {
		c.RequireNonce, c.DPoP.Nonces = true, nonces
	}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	token := iss.Token(valetkeytest.BoundTo(key))

	t.Run("FAPI-13 a nonce is asked for, and a proof is good once", func(t *testing.T) {
		w := get(api, iss, key, token)
		require.Equal(t, 401, w.Code)
		assert.Equal(t, "use_dpop_nonce", valetkeytest.Challenge(t, w.Header(), "DPoP")["error"])
		r := valetkeytest.Request("GET", "https://api.example.com/payments", token)
		key.Authorize(r, token, valetkeytest.Claim("nonce", w.Header().Get("DPoP-Nonce")))
		for _, want := range []int{200, 401} {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			assert.Equal(t, want, w.Code)
		}
	})
}

func TestInteractionID(t *testing.T) {
	const id = "c770aef3-6784-41f7-8e0e-ff5f97bddb3a"
	var log bytes.Buffer
	var inHandler string
	h := fapi.InteractionID(slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		inHandler = fapi.InteractionFrom(r.Context())
	}))
	for _, c := range []struct {
		name string
		sent []string
		echo bool
	}{
		{"FAPI-14 none is sent: a new one", nil, false},
		{"FAPI-14 a value that is not a UUID is not echoed", []string{"<script>alert(1)</script>xxxxxxxxxxx"}, false},
		{"FAPI-14 two of them", []string{id, id}, false},
		{"FAPI-14 a UUID is echoed", []string{id}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/payments?secret=1", nil)
			r.Header["X-Fapi-Interaction-Id"] = c.sent
			w := httptest.NewRecorder()
			log.Reset()
			h.ServeHTTP(w, r)
			got := w.Header().Get("x-fapi-interaction-id")
			assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, got)
			assert.Equal(t, c.echo, got == id)
			assert.Equal(t, got, inHandler)
			assert.Contains(t, log.String(), "interaction="+got)
			assert.NotContains(t, log.String(), "secret")
		})
	}
	assert.Empty(t, fapi.InteractionFrom(t.Context()))
}

func TestTLS(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	t.Run("FAPI-12 an issuer with an untrusted certificate is refused", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *fapi.Config) { c.Client = nil })
		key := iss.ProofKey("ES256")
		w := get(guard.Handler(http.NotFoundHandler()), iss, key, iss.Token(valetkeytest.BoundTo(key)))
		assert.Equal(t, 503, w.Code)
	})
	t.Run("FAPI-12 an old TLS, and a suite with CBC, are refused by the server", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.TLS = fapi.ServerTLS(nil)
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		server.StartTLS()
		defer server.Close()
		dial := func(change func(*tls.Config)) error {
			cfg := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			change(cfg)
			conn, err := tls.Dial("tcp", strings.TrimPrefix(server.URL, "https://"), cfg)
			if err == nil {
				conn.Close()
			}
			return err
		}
		assert.Error(t, dial(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }))
		assert.Error(t, dial(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
		}))
		assert.NoError(t, dial(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }))
		assert.NoError(t, dial(func(*tls.Config) {}))
	})
}
