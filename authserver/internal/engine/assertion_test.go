package engine_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/internal/jose"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertion signs claims of the client "signer"; a nil one is left out.
func assertion(t testing.TB, key *jose.PrivateKey, header map[string]any, issuer string, over map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": "signer", "sub": "signer", "aud": issuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(),
	}
	for name, v := range over {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	text, err := json.Marshal(claims)
	require.NoError(t, err)
	signed, err := key.Sign(header, text)
	require.NoError(t, err)
	return signed
}

func asserted(a string, pairs ...string) url.Values {
	return append2(form("grant_type", "client_credentials", "client_assertion_type", assertionType, "client_assertion", a), pairs...)
}

func TestAssertions(t *testing.T) {
	s := start(t)
	stranger, err := jose.GenerateKey("EdDSA", "signer-1")
	require.NoError(t, err)
	symmetric, err := jose.SignSecret(clientKey().PublicJWK(), "HS256", map[string]any{"kid": "signer-1"}, []byte(`{"iss":"signer","sub":"signer","aud":"`+s.url+`","jti":"x","exp":9999999999}`))
	require.NoError(t, err)
	now := time.Now().Unix()
	type m = map[string]any
	for _, c := range []struct {
		name   string
		header m
		claims m
		form   func(a string) url.Values
	}{
		{name: "AS-JWT-02 another audience", claims: m{"aud": "https://other.example.com"}},
		{name: "AS-JWT-02 an audience with a slash at its end", claims: m{"aud": s.url + "/"}},
		{name: "AS-JWT-02 no audience", claims: m{"aud": nil}},
		{name: "AS-JWT-02 an audience that begins like ours", claims: m{"aud": s.url + "/oauth2/token/x"}},
		{name: "AS-JWT-03 an expired one", claims: m{"exp": now - 60}},
		{name: "AS-JWT-03 one without exp", claims: m{"exp": nil}},
		{name: "one that lives too long to be remembered", claims: m{"exp": now + 3600}},
		{name: "one that is not valid yet", claims: m{"nbf": now + 600}},
		{name: "one that is made in the future", claims: m{"iat": now + 600}},
		{name: "AS-JWT-04 one without jti", claims: m{"jti": nil}},
		{name: "AS-JWT-08 another issuer", claims: m{"iss": "web"}},
		{name: "AS-JWT-08 no issuer", claims: m{"iss": nil}},
		{name: "AS-JWT-08 no subject", claims: m{"sub": nil}},
		{name: "AS-JWT-08 the subject is another client", claims: m{"sub": "web", "iss": "web"}},
		{name: "AS-JWT-08 an unknown subject", claims: m{"sub": "nobody", "iss": "nobody"}},
		{name: "AS-JWT-07 an access token's type", header: m{"typ": "at+jwt"}},
		{name: "AS-JWT-07 a proof's type", header: m{"typ": "dpop+jwt"}},
		{name: "AS-JWT-11 another key id", header: m{"kid": "other"}},
		{name: "AS-JWT-11 alg none", header: m{"alg": "none"}},
		{name: "AS-JWT-11 a public key as a secret", form: func(string) url.Values { return asserted(symmetric) }},
		{name: "AS-JWT-08 another assertion type", form: func(a string) url.Values {
			f := asserted(a)
			f.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")
			return f
		}},
		{name: "AS-JWT-09 another client_id", form: func(a string) url.Values { return asserted(a, "client_id", "web") }},
		{name: "AS-JWT-07 what is not a JWT", form: func(string) url.Values { return asserted("a.b.c") }},
		{name: "AS-JWT-05 another key", form: func(string) url.Values { return asserted(assertion(t, stranger, nil, s.url, nil)) }},
	} {
		t.Run("AS-JWT-07 "+c.name, func(t *testing.T) {
			f := asserted(assertion(t, clientKey(), c.header, s.url, c.claims))
			if c.form != nil {
				f = c.form(assertion(t, clientKey(), nil, s.url, nil))
			}
			refused(t, s.post(t, "/oauth2/token", "signer", f), 401, "invalid_client")
		})
	}
	t.Run("AS-CODE-10 a client with a key that only names itself", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "", form("grant_type", "client_credentials", "client_id", "signer")), 401, "invalid_client")
	})
	t.Run("AS-CORE-06 an assertion and a header", func(t *testing.T) {
		a := assertion(t, clientKey(), nil, s.url, nil)
		refused(t, s.post(t, "/oauth2/token", "", asserted(a), "Authorization", "Basic d2ViOng="), 400, "invalid_request")
	})
	t.Run("AS-JWT-04 one that was presented before", func(t *testing.T) {
		a := assertion(t, clientKey(), nil, s.url, nil)
		require.Equal(t, 200, s.post(t, "/oauth2/token", "signer", asserted(a)).status)
		refused(t, s.post(t, "/oauth2/token", "signer", asserted(a)), 401, "invalid_client")
		refused(t, s.post(t, "/oauth2/par", "signer", asserted(a)), 401, "invalid_client")
	})
	t.Run("a refused one is not used up", func(t *testing.T) {
		id := rand.Text()
		refused(t, s.post(t, "/oauth2/token", "signer", asserted(assertion(t, stranger, nil, s.url, m{"jti": id}))), 401, "invalid_client")
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "signer", asserted(assertion(t, clientKey(), nil, s.url, m{"jti": id}))).status)
	})
	for name, aud := range map[string]any{
		"the issuer": s.url, "the token endpoint": s.url + "/oauth2/token", "a list with the issuer": []string{"https://x.example", s.url},
	} {
		t.Run("AS-JWT-10 AS-JWT-08 the audience is "+name, func(t *testing.T) {
			a := assertion(t, clientKey(), m{"typ": "JWT"}, s.url, m{"aud": aud})
			assert.Equal(t, 200, s.post(t, "/oauth2/token", "signer", asserted(a, "client_id", "signer")).status)
		})
	}
	for _, aud := range []string{s.url, s.url + "/oauth2/token", s.url + "/oauth2/par"} {
		t.Run("AS-PAR-08 AS-PAR-01 pushed for "+aud, func(t *testing.T) {
			f := request("client_assertion_type", assertionType, "client_assertion", assertion(t, clientKey(), nil, s.url, m{"aud": aud}), "client_id", "signer")
			assert.Equal(t, 201, s.post(t, "/oauth2/par", "signer", f).status)
		})
	}
	t.Run("a code, redeemed with an assertion", func(t *testing.T) {
		f := redemption(s.code(t, "client_id", "signer"), "client_assertion_type", assertionType, "client_assertion", assertion(t, clientKey(), nil, s.url, nil))
		assert.NotEmpty(t, s.post(t, "/oauth2/token", "signer", f).tokens(t).refresh)
	})
}

// A client may keep its keys at a URL, and change them there.
func TestKeySetURL(t *testing.T) {
	var fetched atomic.Int32
	var set atomic.Value
	publish := func(k *jose.PrivateKey) { set.Store(`{"keys":[` + string(k.PublicJWK()) + `]}`) }
	publish(clientKey())
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		w.Write([]byte(set.Load().(string)))
	}))
	t.Cleanup(web.Close)
	with := func(client *http.Client) *site {
		return start(t, func(c *config) {
			c.KeySets = client
			c.Clients = clients.NewRegistry(c.Store, []clients.Client{{
				ID: "signer", AuthMethod: "private_key_jwt", JWKSURL: web.URL, GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
			}})
		})
	}
	ask := func(s *site, key *jose.PrivateKey) answer {
		return s.post(t, "/oauth2/token", "signer", asserted(assertion(t, key, nil, s.url, nil)))
	}
	trusting := web.Client().Transport.(*http.Transport).TLSClientConfig
	t.Run("it is not fetched from an address that is not public", func(t *testing.T) {
		refused(t, ask(with(clients.KeySetClient(trusting)), clientKey()), 401, "invalid_client")
		refused(t, ask(with(nil), clientKey()), 401, "invalid_client")
		assert.Zero(t, fetched.Load())
	})
	t.Run("it is fetched once, and not again for a stranger's sake", func(t *testing.T) {
		s := with(clients.KeySetClient(trusting, netip.MustParsePrefix("127.0.0.0/8")))
		stranger, err := jose.GenerateKey("EdDSA", "other")
		require.NoError(t, err)
		for range 3 {
			assert.Equal(t, 200, ask(s, clientKey()).status)
			refused(t, ask(s, stranger), 401, "invalid_client")
		}
		assert.EqualValues(t, 1, fetched.Load())
	})
	t.Run("AS-JWT-05 a key that is new is found after a while, and an old one forgotten", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			next, err := jose.GenerateKey("EdDSA", "signer-2")
			require.NoError(t, err)
			inner := roundTrip(func(*http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				w.WriteString(set.Load().(string))
				return w.Result(), nil
			})
			h := inProcess(t, func(c *config) {
				c.KeySets = &http.Client{Transport: inner}
				c.Clients = clients.NewRegistry(c.Store, []clients.Client{{
					ID: "signer", AuthMethod: "private_key_jwt", JWKSURL: "https://signer.example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
				}})
			})
			ask := func(key *jose.PrivateKey) int {
				return h.do(t, "POST", "/oauth2/token", asserted(assertion(t, key, nil, h.url, nil)), "").status
			}
			require.Equal(t, 200, ask(clientKey()))
			publish(next)
			assert.Equal(t, 401, ask(next), "too soon")
			time.Sleep(31 * time.Second)
			assert.Equal(t, 200, ask(next))
			assert.Equal(t, 401, ask(clientKey()))
		})
	})
}

// A client that publishes a set without a key for signatures has withdrawn its keys; an empty set is an outage.
func TestAClientWithdrawsItsOnlyKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jwk := string(clientKey().PublicJWK())
		var set atomic.Value // what the client publishes
		set.Store(`{"keys":[` + jwk + `]}`)
		h := inProcess(t, func(c *config) {
			c.KeySets = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				w.WriteString(set.Load().(string))
				return w.Result(), nil
			})}
			c.Clients = clients.NewRegistry(c.Store, []clients.Client{{
				ID: "signer", AuthMethod: "private_key_jwt", JWKSURL: "https://signer.example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
			}})
		})
		ask := func() int {
			return h.do(t, "POST", "/oauth2/token", asserted(assertion(t, clientKey(), nil, h.url, nil)), "").status
		}
		require.Equal(t, 200, ask())
		set.Store(`{"keys":[]}`)
		time.Sleep(6 * time.Minute)
		assert.Equal(t, 200, ask(), "an empty set changes nothing")
		require.Contains(t, jwk, `"use":"sig"`)
		set.Store(strings.Replace(`{"keys":[`+jwk+`]}`, `"use":"sig"`, `"use":"enc"`, 1))
		time.Sleep(6 * time.Minute)
		assert.Equal(t, 401, ask())
		set.Store(`{"keys":[` + jwk + `]}`)
		time.Sleep(6 * time.Minute)
		assert.Equal(t, 200, ask())
	})
}

// A stranger who sends an assertion in the name of a client may cause a fetch of its keys, and the client must not wait for it.
func TestFetchForAStrangerDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stranger, err := jose.GenerateKey("EdDSA", "other")
		require.NoError(t, err)
		slow := make(chan struct{})
		fetches := 0
		h := inProcess(t, func(c *config) {
			c.KeySets = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				if fetches++; fetches > 1 {
					<-slow
				}
				w := httptest.NewRecorder()
				w.WriteString(`{"keys":[` + string(clientKey().PublicJWK()) + `]}`)
				return w.Result(), nil
			})}
			c.Clients = clients.NewRegistry(c.Store, []clients.Client{{
				ID: "signer", AuthMethod: "private_key_jwt", JWKSURL: "https://signer.example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
			}})
		})
		ask := func(key *jose.PrivateKey) int {
			return h.do(t, "POST", "/oauth2/token", asserted(assertion(t, key, nil, h.url, nil)), "").status
		}
		require.Equal(t, 200, ask(clientKey()))
		time.Sleep(time.Minute)
		done := make(chan int)
		go func() { done <- ask(stranger) }()
		synctest.Wait()
		require.Equal(t, 2, fetches, "a fetch is under way")
		start := time.Now()
		assert.Equal(t, 200, ask(clientKey()))
		assert.Zero(t, time.Since(start))
		close(slow)
		assert.Equal(t, 401, <-done)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestKeysThatDoNotComeDelayNoOtherClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := func(id string) clients.Client {
			return clients.Client{
				ID: id, AuthMethod: "private_key_jwt", JWKSURL: "https://" + id + ".example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
			}
		}
		h := inProcess(t, func(c *config) {
			c.KeySets = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "silent.example.com" {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				w := httptest.NewRecorder()
				w.WriteString(`{"keys":[` + string(clientKey().PublicJWK()) + `]}`)
				return w.Result(), nil
			})}
			c.Clients = clients.NewRegistry(c.Store, []clients.Client{signer("silent"), signer("signer")})
		})
		ask := func(id string) int {
			claims := map[string]any{"iss": id, "sub": id}
			return h.do(t, "POST", "/oauth2/token", asserted(assertion(t, clientKey(), nil, h.url, claims)), "").status
		}
		done, start := make(chan int), time.Now()
		go func() { done <- ask("silent") }()
		synctest.Wait()
		assert.Equal(t, 200, ask("signer"))
		assert.Zero(t, time.Since(start))
		assert.Equal(t, 401, <-done)
		assert.LessOrEqual(t, time.Since(start), 5*time.Second)
	})
}

func TestKeySetsOfOneDeveloperPushOutNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const more = 1100 // than there is room for
		var down atomic.Bool
		var fetches sync.Map // of which client: several keys may be fetched at the same time
		signer := func(id, owner string) clients.Client {
			return clients.Client{
				ID: id, Owner: owner, AuthMethod: "private_key_jwt", JWKSURL: "https://" + id + ".example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
			}
		}
		all := []clients.Client{signer("operators", ""), signer("alices", "alice")}
		for i := range more {
			all = append(all, signer(fmt.Sprint("evil", i), "mallory"))
		}
		h := inProcess(t, func(c *config) {
			c.KeySets = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				id, _, _ := strings.Cut(r.URL.Host, ".")
				n, _ := fetches.LoadOrStore(id, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				if down.Load() && !strings.HasPrefix(id, "evil") {
					return nil, errors.New("down")
				}
				w := httptest.NewRecorder()
				w.WriteString(`{"keys":[` + string(clientKey().PublicJWK()) + `]}`)
				return w.Result(), nil
			})}
			c.Clients = clients.NewRegistry(c.Store, all)
		})
		ask := func(id string) int {
			claims := map[string]any{"iss": id, "sub": id}
			return h.do(t, "POST", "/oauth2/token", asserted(assertion(t, clientKey(), nil, h.url, claims)), "").status
		}
		require.Equal(t, 200, ask("operators"))
		require.Equal(t, 200, ask("alices"))
		down.Store(true)
		time.Sleep(6 * time.Minute)
		for i := range more {
			require.Equal(t, 200, ask(fmt.Sprint("evil", i)))
		}
		assert.Equal(t, 200, ask("operators"), "the keys are held while they cannot be fetched")
		assert.Equal(t, 200, ask("alices"))
		require.Equal(t, 401, ask("evil0"), "its set was pushed out, and fetched half a minute ago at most")
		n, _ := fetches.Load("evil0")
		assert.EqualValues(t, 1, n.(*atomic.Int64).Load())
		time.Sleep(30 * time.Second)
		assert.Equal(t, 200, ask("evil0"))
	})
}

// The keys of a client are held past their age while its server does not answer, and requests do not wait for it to answer.
func TestSilentKeySetDelaysNoRequestThatItsHeldKeysCanAnswer(t *testing.T) {
	play := func(name string, f func(t *testing.T, ask func(context.Context) int, silent *atomic.Bool)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var silent atomic.Bool
				h := inProcess(t, func(c *config) {
					c.KeySets = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						if silent.Load() {
							<-r.Context().Done()
							return nil, r.Context().Err()
						}
						w := httptest.NewRecorder()
						w.WriteString(`{"keys":[` + string(clientKey().PublicJWK()) + `]}`)
						return w.Result(), nil
					})}
					c.Clients = clients.NewRegistry(c.Store, []clients.Client{{
						ID: "signer", AuthMethod: "private_key_jwt", JWKSURL: "https://signer.example.com/keys", GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
					}})
				})
				f(t, func(ctx context.Context) int {
					body := asserted(assertion(t, clientKey(), nil, h.url, nil)).Encode()
					r := httptest.NewRequestWithContext(ctx, "POST", h.url+"/oauth2/token", strings.NewReader(body))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					return h.serve(t, r).status
				}, &silent)
				silent.Store(false)
				time.Sleep(10 * time.Second) // for the end of the fetch in progress
			})
		})
	}
	play("a request whose caller leaves ends at once, and the fetch goes on", func(t *testing.T, ask func(context.Context) int, silent *atomic.Bool) {
		silent.Store(true)
		go ask(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		assert.Equal(t, 401, ask(ctx))
		assert.Zero(t, time.Since(start))
	})
	play("keys that are in use and past their age", func(t *testing.T, ask func(context.Context) int, silent *atomic.Bool) {
		require.Equal(t, 200, ask(t.Context()))
		silent.Store(true)
		for range 59 {
			time.Sleep(time.Minute)
			start := time.Now()
			assert.Equal(t, 200, ask(t.Context()))
			assert.Zero(t, time.Since(start))
		}
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 401, ask(t.Context()), "they are not held for more than an hour")
	})
	play("keys that were not in use, after one fetch", func(t *testing.T, ask func(context.Context) int, silent *atomic.Bool) {
		require.Equal(t, 200, ask(t.Context()))
		time.Sleep(20 * time.Minute)
		silent.Store(true)
		for _, wait := range []time.Duration{5 * time.Second, 0, 0} {
			start := time.Now()
			assert.Equal(t, 200, ask(t.Context()))
			assert.Equal(t, wait, time.Since(start))
		}
	})
}
