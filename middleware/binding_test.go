package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// withDPoP makes a guard accept proofs, by the issuer's clock.
func withDPoP(t testing.TB, iss *valetkeytest.Issuer, change ...func(*dpop.Config)) func(*middleware.Config) {
	t.Helper()
	cfg := dpop.Config{Now: iss.Now}
	for _, f := range change {
		f(&cfg)
	}
	proofs, err := dpop.New(cfg)
	require.NoError(t, err)
	return func(c *middleware.Config) { c.DPoP, c.URL = proofs, asSent }
}

// asSent returns the URL of a request to a server that has no name before it is started.
func asSent(r *http.Request) string {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host + r.RequestURI // whose query does not count
}

// A sender puts credentials into a request.
type sender = func(*http.Request)

func asBearer(token string) sender { return header("Authorization", "Bearer "+token) }

func asDPoP(key *valetkeytest.ProofKey, token string, opts ...valetkeytest.Option) sender {
	return func(r *http.Request) { key.Authorize(r, token, opts...) }
}

func both(senders ...sender) sender {
	return func(r *http.Request) {
		for _, send := range senders {
			send(r)
		}
	}
}

// assertError holds that the challenge with the scheme names the error, or none if it is "", and no other challenge does.
func assertError(t *testing.T, h http.Header, scheme, code string) {
	t.Helper()
	challenges, err := valetkeytest.Challenges(h)
	require.NoError(t, err)
	for _, c := range challenges {
		want := ""
		if c.Scheme == scheme || scheme == "both" {
			want = code
		}
		assert.Equal(t, want, c.Params["error"], "%s", h["Www-Authenticate"])
	}
}

func TestBindingMistakes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	for _, c := range []struct {
		name   string
		change func(*middleware.Config)
		want   string
	}{
		{"bound tokens only, and nothing that checks them", func(c *middleware.Config) {}, "middleware: SenderConstrained: "},
		{"DPoP alone, and a place for bearer tokens", func(c *middleware.Config) {
			withDPoP(t, iss)(c)
			c.Methods = []middleware.BearerMethod{middleware.Form(0)}
		}, "middleware: Methods: "},
		{"a header without a name", func(c *middleware.Config) { c.ClientCertificate = middleware.PEMHeader("") }, "middleware: ClientCertificate: "},
		{"DPOP-20 proofs, and a URL that only the client states", func(c *middleware.Config) {
			withDPoP(t, iss)(c)
			c.URL = nil
		}, "middleware: URL: required with DPoP, unless Resource.ID or Proxies.Forwarded is set, "},
		{"two ways to the URL", func(c *middleware.Config) {
			c.URL = func(*http.Request) string { return "" }
			c.Proxies.Forwarded = middleware.Forwarded
		}, "middleware: URL: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := middleware.Config{Verifier: valetkey.First(), SenderConstrained: true}
			c.change(&cfg)
			_, err := middleware.New(cfg)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestDPoP(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, other := iss.ProofKey("ES256"), iss.ProofKey("EdDSA")
	api := serve(t, newGuard(t, iss, withDPoP(t, iss)).Handler(hello, scopes.All("orders:read")))
	read := valetkeytest.Scopes("orders:read")
	bound, plain := iss.Token(read, valetkeytest.BoundTo(key)), iss.Token(read)
	cnf := func(v string) string { return iss.Token(read, valetkeytest.Claim("cnf", jsonOf(v))) }
	for _, c := range []struct {
		name         string
		send         sender
		status       int
		scheme, code string // of the error
	}{
		{"DPOP-32 the scheme DPoP and no proof", header("Authorization", "DPoP "+bound), 401, "DPoP", "invalid_dpop_proof"},
		{"DPOP-01 two proofs", both(asDPoP(key, bound), func(r *http.Request) {
			r.Header.Add("DPoP", key.Proof("GET", r.URL.String(), bound))
		}), 401, "DPoP", "invalid_dpop_proof"},
		{"DPOP-33 the scheme DPoP and a token bound to nothing", asDPoP(key, plain), 401, "DPoP", "invalid_token"},
		{"DPOP-33 the scheme DPoP and a token bound to a certificate", asDPoP(key, cnf(`{"x5t#S256":"`+key.Thumbprint()+`"}`)), 401, "DPoP", "invalid_token"},
		{"DPOP-34 a bound token as a bearer token", asBearer(bound), 401, "Bearer", "invalid_token"},
		{"DPOP-34 a bound token as a bearer token, with a good proof", both(asDPoP(key, bound), asBearer(bound)), 401, "Bearer", "invalid_token"},
		{"DPOP-31 a good proof of another key", asDPoP(other, bound), 401, "DPoP", "invalid_token"},
		{"DPOP-46 a proof with a bad signature", asDPoP(key, bound, valetkeytest.TamperedSignature()), 401, "DPoP", "invalid_dpop_proof"},
		{"DPOP-46 a proof for another token", func(r *http.Request) {
			key.Authorize(r, plain)
			r.Header.Set("Authorization", "DPoP "+bound)
		}, 401, "DPoP", "invalid_dpop_proof"},
		{"a proof for another method", asDPoP(key, bound, valetkeytest.Claim("htm", "POST")), 401, "DPoP", "invalid_dpop_proof"},
		{"a proof for another path", asDPoP(key, bound, valetkeytest.Claim("htu", api+"/other")), 401, "DPoP", "invalid_dpop_proof"},
		{"DPOP-16 a proof for a path that differs in an encoded slash", func(r *http.Request) {
			r.URL.Path, r.URL.RawPath = "/a/b", "/a%2Fb"
			key.Authorize(r, bound, valetkeytest.Claim("htu", api+"/a/b"))
		}, 401, "DPoP", "invalid_dpop_proof"},
		{"a proof for a path that ends where a raw # stands", func(r *http.Request) {
			r.URL.Opaque = "/a#b"
			key.Authorize(r, bound, valetkeytest.Claim("htu", api+"/a"))
		}, 401, "DPoP", "invalid_dpop_proof"},
		{"DPOP-48 a bad bearer token", asBearer(iss.Token(valetkeytest.Expired())), 401, "Bearer", "invalid_token"},
		{"DPOP-48 a bad token with the scheme DPoP", asDPoP(key, iss.Token(valetkeytest.Expired(), valetkeytest.BoundTo(key))), 401, "DPoP", "invalid_token"},
		{"DPOP-49 both schemes at once", header("Authorization", "Bearer "+plain, "DPoP "+bound), 400, "both", "invalid_request"},
		{"DPOP-55 a character that no token holds", header("Authorization", "DPoP a,b"), 400, "DPoP", "invalid_request"},
		{"DPOP-55 the scheme alone", header("Authorization", "DPoP"), 400, "DPoP", "invalid_request"},
		{"MTLS-14 an unknown binding", asBearer(cnf(`{"osc":"x"}`)), 401, "Bearer", "invalid_token"},
		{"MTLS-14 an unknown binding beside one that is proven", asDPoP(key, cnf(`{"jkt":"`+key.Thumbprint()+`","kid":"1"}`)), 401, "DPoP", "invalid_token"},
		{"MTLS-14 an empty binding", asBearer(cnf(`{}`)), 401, "Bearer", "invalid_token"},
		{"MTLS-14 a binding that is not an object", asBearer(cnf(`"` + key.Thumbprint() + `"`)), 401, "Bearer", "invalid_token"},
		{"MTLS-15 a whole key in place of its thumbprint", asDPoP(key, cnf(`{"jwk":{"kty":"EC"}}`)), 401, "DPoP", "invalid_token"},
		{"DPOP-52 the credentials of a proxy are ignored", func(r *http.Request) {
			key.Authorize(r, bound)
			r.Header["Proxy-Authorization"] = r.Header["Authorization"]
			r.Header.Del("Authorization")
		}, 401, "", ""},

		{"AUD-06 a bound token with a proof", asDPoP(key, bound), 200, "", ""},
		{"the scheme in other letters", both(asDPoP(key, bound), header("Authorization", "dPOP "+bound)), 200, "", ""},
		{"DPOP-13 a query that the proof does not cover", func(r *http.Request) {
			r.URL.RawQuery = "page=2"
			key.Authorize(r, bound)
		}, 200, "", ""},
		{"a path with encoded characters", func(r *http.Request) {
			r.URL.Path, r.URL.RawPath = "/a/b ü", "/a%2Fb%20%C3%BC"
			key.Authorize(r, bound)
		}, 200, "", ""},
		{"DPOP-36 an unbound token with an unneeded proof", both(asDPoP(key, plain), asBearer(plain)), 200, "", ""},
		{"DPOP-36 a token bound to nothing, with an invalid proof", both(asBearer(plain), header("Dpop", "x")), 200, "", ""},
		{"a bearer token", asBearer(plain), 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // a new token, and a remembered one
				got := do(t, "GET", api, "", c.send)
				assert.Equal(t, c.status, got.status, got.body)
				assertError(t, got.header, c.scheme, c.code)
				assert.Empty(t, got.header["Proxy-Authenticate"]) // DPOP-52
				assert.Empty(t, got.header["Dpop-Nonce"])
				if c.status != 200 {
					require.Len(t, got.header["Www-Authenticate"], 2)
				}
			}
		})
	}
	t.Run("DPOP-45, DPOP-47 without credentials, two challenges and no error", func(t *testing.T) {
		got := do(t, "GET", api, "")
		assert.Equal(t, []string{
			`Bearer realm="api", scope="orders:read"`,
			`DPoP realm="api", scope="orders:read", algs="ES256 ES384 PS256 EdDSA Ed25519"`,
		}, got.header["Www-Authenticate"])
	})
	t.Run("DPOP-50 a scope is missing: one challenge, with the scheme of the request", func(t *testing.T) {
		got := do(t, "GET", api, "", asDPoP(key, iss.Token(valetkeytest.BoundTo(key))))
		assert.Equal(t, 403, got.status)
		challenge := valetkeytest.Challenge(t, got.header, "DPoP")
		assert.Equal(t, "insufficient_scope", challenge["error"])
		assert.Equal(t, "orders:read", challenge["scope"])
		assert.Len(t, got.header["Www-Authenticate"], 1)
		assert.Equal(t, []string{`Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that this request needs", scope="orders:read"`},
			do(t, "GET", api, "", asBearer(iss.Token())).header["Www-Authenticate"])
	})
	t.Run("DPOP-37, VCACHE-08 a proof opens once, though the token is remembered", func(t *testing.T) {
		proof := key.Proof("GET", api+"/", bound)
		send := both(header("Authorization", "DPoP "+bound), header("Dpop", proof))
		assert.Equal(t, 200, do(t, "GET", api+"/", "", send).status)
		got := do(t, "GET", api+"/", "", send)
		assert.Equal(t, 401, got.status)
		assert.Equal(t, "the DPoP proof was used before", valetkeytest.Challenge(t, got.header, "DPoP")["error_description"])
	})
	t.Run("DPOP-57 what a proof does not cover may be changed", func(t *testing.T) {
		for _, text := range []string{"pay 1", "pay 1000"} {
			got := do(t, "POST", api+"/", "", asDPoP(key, bound), body("text/plain", text))
			assert.Equal(t, "hello "+valetkeytest.DefaultSubject+text, got.body)
		}
	})
	t.Run("a failure of the memory is not a refusal", func(t *testing.T) {
		api := serve(t, newGuard(t, iss, withDPoP(t, iss, func(c *dpop.Config) { c.ReplayStore = noReplays{} })).Handler(hello))
		got := do(t, "GET", api, "", asDPoP(key, bound))
		assert.Equal(t, 503, got.status)
		assert.Empty(t, got.header["Www-Authenticate"])
	})
	t.Run("DPOP-35 where proofs are not accepted", func(t *testing.T) {
		api := serve(t, newGuard(t, iss).Handler(hello))
		for _, send := range []sender{asBearer(bound), asDPoP(key, bound), asDPoP(key, plain)} {
			got := do(t, "GET", api, "", send)
			assert.Equal(t, 401, got.status)
			assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, got.header, "Bearer")["error"])
			assert.Len(t, got.header["Www-Authenticate"], 1)
		}
	})
	t.Run("optional credentials must be proven, too", func(t *testing.T) {
		api := serve(t, newGuard(t, iss, withDPoP(t, iss)).Handler(hello, valetkey.Optional))
		assert.Equal(t, 401, do(t, "GET", api, "", header("Authorization", "DPoP "+bound)).status)
		assert.Equal(t, "hello "+valetkeytest.DefaultSubject, do(t, "GET", api, "", asDPoP(key, bound)).body)
		assert.Equal(t, "hello nobody", do(t, "GET", api, "").body)
	})
}

func jsonOf(text string) any { return rawJSON(text) }

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

type noReplays struct{}

func (noReplays) Use(context.Context, [32]byte, time.Time) (bool, error) {
	return false, errors.New("out of reach")
}

func TestDPoPChain(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	bound := iss.Token(valetkeytest.BoundTo(key))
	proofs := withDPoP(t, iss)
	guard := newGuard(t, iss, proofs)
	t.Run("the same guard asks for one proof and decides again", func(t *testing.T) {
		api := serve(t, guard.Handler(guard.Handler(hello)))
		assert.Equal(t, 200, do(t, "GET", api, "", asDPoP(key, bound)).status)
		api = serve(t, guard.Handler(guard.Handler(hello, scopes.All("admin"))))
		assert.Equal(t, 403, do(t, "GET", api, "", asDPoP(key, bound)).status)
	})
	t.Run("a second guard looks for itself", func(t *testing.T) {
		api := serve(t, guard.Handler(newGuard(t, iss, withDPoP(t, iss)).Handler(hello)))
		assert.Equal(t, 200, do(t, "GET", api, "", asDPoP(key, bound)).status)
		api = serve(t, guard.Handler(newGuard(t, iss, proofs).Handler(hello)))
		assert.Equal(t, 401, do(t, "GET", api, "", asDPoP(key, bound)).status, "with one memory, it is a replay")
	})
	t.Run("the proof is of what the client sent, not of what is left of it", func(t *testing.T) {
		api := serve(t, http.StripPrefix("/v1", guard.Handler(hello)))
		assert.Equal(t, 200, do(t, "GET", api+"/v1/orders", "", asDPoP(key, bound)).status)
		assert.Equal(t, 401, do(t, "GET", api+"/v1/orders", "", asDPoP(key, bound, valetkeytest.Claim("htu", api+"/orders"))).status)
	})
	t.Run("a decision consumes the proof, and one on the request that carries it does not", func(t *testing.T) {
		r := valetkeytest.Request("GET", "/orders", "")
		key.Authorize(r, bound)
		d := guard.Decide(r)
		require.NoError(t, d.Err())
		assert.Equal(t, key.Thumbprint(), d.Token().Binding().JWKThumbprint)
		assert.Error(t, guard.Decide(r).Err(), "the proof is used up")
		r, ok := d.Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		assert.NoError(t, guard.Decide(r).Err(), "the request carries the decision")
		var refusal *valetkey.Error
		require.ErrorAs(t, guard.Decide(r, scopes.All("admin")).Err(), &refusal, "each decision is on its needs")
		assert.Equal(t, valetkey.InsufficientScope, refusal.Code)
		require.ErrorAs(t, guard.DecideToken(t.Context(), bound).Err(), &refusal, "without the request nothing is proven")
		assert.Equal(t, valetkey.InvalidToken, refusal.Code)
	})
	t.Run("an unknown scheme is an error in both challenges, except for errors about proofs", func(t *testing.T) {
		assertError(t, guard.Reject(nil, &valetkey.Error{Code: valetkey.InvalidToken}).Header(), "both", "invalid_token")
		assertError(t, guard.Reject(nil, &valetkey.Error{Code: valetkey.InvalidProof}).Header(), "DPoP", "invalid_dpop_proof")
	})
}

func TestOneClientCannotFillTheMemoryOfProofs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	const room = 80
	api := serve(t, newGuard(t, iss, withDPoP(t, iss, func(c *dpop.Config) { c.ReplayStore = dpop.NewReplayStore(room) })).Handler(hello))
	// get sends a request with another key each time, so that only the facts of the token identify the sender.
	get := func(opts ...valetkeytest.Option) int {
		key := iss.ProofKey("ES256")
		return do(t, "GET", api, "", asDPoP(key, iss.Token(append(opts, valetkeytest.BoundTo(key))...))).status
	}
	refused := func(opts ...valetkeytest.Option) (n int) {
		for range room {
			if get(opts...) == 503 {
				n++
			}
		}
		return n
	}
	client, user := valetkeytest.ClientID, valetkeytest.Subject
	for range room { // strangers: each proof is good, and no token is
		assert.Equal(t, 401, get(valetkeytest.Expired()))
	}
	assert.Positive(t, refused(client("app"), user("mallory")), "a user of a client, with many keys")
	assert.Equal(t, 200, get(client("app"), user("alice")))
	for n := range room { // a client, with many users
		get(client("evil"), user(fmt.Sprint(n)))
	}
	assert.Equal(t, 503, get(client("evil"), user("another")))
	assert.Equal(t, 200, get(client("other"), user("alice")))
}

func TestDPoPNonce(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.Advance(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute))) // where a nonce begins
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{Every: time.Minute, Grace: time.Minute})
	require.NoError(t, err)
	guard := newGuard(t, iss, withDPoP(t, iss, func(c *dpop.Config) { c.Nonces = nonces }), func(c *middleware.Config) { c.ExposeChallenge = true })
	api := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Expose-Headers", "X-Total") // by the API itself
		guard.Handler(hello).ServeHTTP(w, r)
	}))
	key := iss.ProofKey("ES256")
	bound := iss.Token(valetkeytest.BoundTo(key), valetkeytest.ExpiresIn(time.Hour))
	with := func(nonce string) sender { return asDPoP(key, bound, valetkeytest.Claim("nonce", nonce)) }

	asked := do(t, "GET", api, "", asDPoP(key, bound))
	nonce := asked.header.Get("DPoP-Nonce")
	exposes := []string{"X-Total", "WWW-Authenticate, DPoP-Nonce"}
	t.Run("DPOP-21 a proof without a nonce: the nonce is in the response, once", func(t *testing.T) {
		assert.Equal(t, 401, asked.status)
		assertError(t, asked.header, "DPoP", "use_dpop_nonce")
		assert.Len(t, asked.header["Dpop-Nonce"], 1)
		assert.NotEmpty(t, nonce)
		assert.Equal(t, "no-store", asked.header.Get("Cache-Control"))
	})
	t.Run("DPOP-51 pages of other origins may read a challenge and a nonce", func(t *testing.T) {
		assert.Equal(t, exposes, asked.header["Access-Control-Expose-Headers"])
		assert.Equal(t, exposes, do(t, "GET", api, "").header["Access-Control-Expose-Headers"])
	})
	t.Run("a proof with it, and nothing more to tell", func(t *testing.T) {
		got := do(t, "GET", api, "", with(nonce))
		assert.Equal(t, 200, got.status)
		assert.Empty(t, got.header["Dpop-Nonce"])
		assert.Empty(t, got.header["Cache-Control"])
		assert.Equal(t, []string{"X-Total"}, got.header["Access-Control-Expose-Headers"])
	})
	t.Run("DPOP-22 a forged nonce", func(t *testing.T) {
		got := do(t, "GET", api, "", with(strings.Repeat("A", 22)))
		assert.Equal(t, 401, got.status)
		assertError(t, got.header, "DPoP", "use_dpop_nonce")
		assert.Equal(t, []string{nonce}, got.header["Dpop-Nonce"])
	})
	t.Run("DPOP-25, DPOP-51 an older nonce: it is accepted, and the next is in a response that is not stored", func(t *testing.T) {
		iss.Advance(time.Minute)
		got := do(t, "GET", api, "", with(nonce))
		assert.Equal(t, 200, got.status)
		require.Len(t, got.header["Dpop-Nonce"], 1)
		assert.NotEqual(t, nonce, got.header.Get("DPoP-Nonce"))
		assert.Equal(t, "no-store", got.header.Get("Cache-Control"))
		assert.Equal(t, exposes, got.header["Access-Control-Expose-Headers"])
		nonce = got.header.Get("DPoP-Nonce")
		assert.Equal(t, 200, do(t, "GET", api, "", with(nonce)).status)
	})
	t.Run("DPOP-22 an expired nonce", func(t *testing.T) {
		iss.Advance(3 * time.Minute)
		got := do(t, "GET", api, "", with(nonce))
		assert.Equal(t, 401, got.status)
		assertError(t, got.header, "DPoP", "use_dpop_nonce")
		assert.NotEqual(t, nonce, got.header.Get("DPoP-Nonce"))
	})
	t.Run("a refusal of another kind has no nonce", func(t *testing.T) {
		assert.Empty(t, do(t, "GET", api, "").header["Dpop-Nonce"])
	})
}

func TestSenderConstrained(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, certificate := iss.ProofKey("ES256"), valetkeytest.ClientCertificate(t)
	bound, plain, certified := iss.Token(valetkeytest.BoundTo(key)), iss.Token(), iss.Token(valetkeytest.BoundToCertificate(certificate))
	only := func(c *middleware.Config) { c.SenderConstrained = true }
	tlsToo := func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() }
	t.Run("DPOP-56, MTLS-08, FAPI-05 DPoP alone: no other challenge, whatever comes", func(t *testing.T) {
		api := serve(t, newGuard(t, iss, withDPoP(t, iss), only).Handler(hello))
		for _, send := range []sender{asBearer(plain), asBearer(certified), asBearer(bound), asDPoP(key, plain)} {
			got := do(t, "GET", api, "", send)
			assert.Equal(t, 401, got.status)
			assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, got.header, "DPoP")["error"])
			assert.Len(t, got.header["Www-Authenticate"], 1)
		}
		assert.Equal(t, []string{`DPoP realm="api", algs="ES256 ES384 PS256 EdDSA Ed25519"`}, do(t, "GET", api, "").header["Www-Authenticate"])
		assert.Equal(t, 200, do(t, "GET", api, "", asDPoP(key, bound)).status)
	})
	t.Run("MTLS-08 certificates alone", func(t *testing.T) {
		api := serve(t, newGuard(t, iss, tlsToo, only).Handler(hello))
		for _, send := range []sender{asBearer(plain), asBearer(certified), asBearer(bound), asDPoP(key, bound)} {
			got := do(t, "GET", api, "", send)
			assert.Equal(t, 401, got.status)
			assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, got.header, "Bearer")["error"])
			assert.Len(t, got.header["Www-Authenticate"], 1)
		}
	})
	t.Run("either", func(t *testing.T) {
		api := serve(t, newGuard(t, iss, withDPoP(t, iss), tlsToo, only).Handler(hello))
		got := do(t, "GET", api, "", asBearer(plain))
		assert.Equal(t, 401, got.status)
		assertError(t, got.header, "Bearer", "invalid_token")
		assert.Len(t, got.header["Www-Authenticate"], 2)
		assert.Equal(t, 200, do(t, "GET", api, "", asDPoP(key, bound)).status)
	})
}

func TestBindingByIntrospection(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	v, err := introspect.New(introspect.Config{
		URL: iss.Introspection.URL, Issuer: iss.URL, Audience: []string{audience},
		Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret), Client: iss.Client(), Now: iss.Now,
	})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	guard := guardWith(t, v, withDPoP(t, iss), func(c *middleware.Config) { c.Now, c.ClientCertificate = iss.Now, middleware.TLSCertificate() })
	key := iss.ProofKey("ES256")
	t.Run("DPOP-54 an opaque token that is bound to a key", func(t *testing.T) {
		api := serve(t, guard.Handler(hello))
		for _, kind := range []any{nil, "DPoP"} {
			bound := iss.Opaque(valetkeytest.BoundTo(key), valetkeytest.Claim("token_type", kind))
			assert.Equal(t, 401, do(t, "GET", api, "", asBearer(bound)).status)
			assert.Equal(t, 401, do(t, "GET", api, "", header("Authorization", "DPoP "+bound)).status)
			assert.Equal(t, 401, do(t, "GET", api, "", asDPoP(iss.ProofKey("ES256"), bound)).status)
			got := do(t, "GET", api, "", asDPoP(key, bound))
			assert.Equal(t, 200, got.status, "%v %v", kind, got.challenge())
		}
		misnamed := iss.Opaque(valetkeytest.BoundTo(key), valetkeytest.Claim("token_type", "Bearer"))
		assert.Equal(t, 401, do(t, "GET", api, "", asDPoP(key, misnamed)).status)
		assert.Equal(t, 401, do(t, "GET", api, "", asBearer(misnamed)).status)
		assert.Equal(t, 401, do(t, "GET", api, "", asBearer(iss.Opaque(valetkeytest.Claim("token_type", "DPoP")))).status)
	})
	t.Run("MTLS-06 an opaque token that is bound to a certificate", func(t *testing.T) {
		mine, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
		s := serveTLS(t, guard.Handler(hello))
		token := iss.Opaque(valetkeytest.BoundToCertificate(mine))
		assert.Equal(t, 401, s.get(t, token, nil).status)
		assert.Equal(t, 401, s.get(t, token, &other).status)
		assert.Equal(t, 200, s.get(t, token, &mine).status)
	})
}

// What a request with a remembered token costs, beside the verification of the proof alone.
func BenchmarkDPoP(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	r := valetkeytest.Request("GET", "/orders", "")
	key.Authorize(r, token)
	again := func(c *dpop.Config) { c.ReplayStore = dpop.InsecureAllowReplays{} }
	b.Run("guard", func(b *testing.B) {
		guard, w := newGuard(b, iss, withDPoP(b, iss, again)), httptest.NewRecorder()
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := guard.Decide(r).Apply(w, r); !ok {
				b.Fatal("refused")
			}
		}
	})
	b.Run("proof alone", func(b *testing.B) {
		proofs, err := dpop.New(dpop.Config{Now: iss.Now, ReplayStore: dpop.InsecureAllowReplays{}})
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			_, err := proofs.Verify(b.Context(), dpop.Request{
				Proofs: r.Header["Dpop"], Method: "GET", URL: "http://example.com/orders", Token: token, Thumbprint: key.Thumbprint(),
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
