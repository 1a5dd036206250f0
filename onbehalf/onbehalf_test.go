package onbehalf_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	accessType = "urn:ietf:params:oauth:token-type:access_token"
	here       = valetkeytest.DefaultAudience // the audience of this service
)

var quiet = slog.New(slog.DiscardHandler)

// A site is this service with its guard, and an authorization server whose token endpoint answers as a test requires.
type site struct {
	*testing.T
	iss   *valetkeytest.Issuer
	guard *middleware.Guard

	mu     sync.Mutex
	asked  []url.Values
	header []http.Header
	answer func(form url.Values) (int, map[string]any) // nil: a token
}

func newSite(t *testing.T, set ...valetkeytest.Setting) *site {
	s := &site{T: t, iss: valetkeytest.NewIssuer(t, set...)}
	s.iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) { // plays the token endpoint
		r.ParseForm()
		s.mu.Lock()
		s.asked, s.header = append(s.asked, r.PostForm), append(s.header, r.Header)
		answer, n := s.answer, len(s.asked)
		s.mu.Unlock()
		status, body := 200, issued(fmt.Sprint("issued-", n))
		if answer != nil {
			status, body = answer(r.PostForm)
		}
		w.Header().Set("Content-Type", "application/json")
		if after, ok := body["retry_after"]; ok {
			w.Header().Set("Retry-After", fmt.Sprint(after))
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	})
	keys, err := jwks.New(jwks.Config{Issuer: s.iss.URL, Audience: []string{here}, Client: s.iss.Client(), Now: s.iss.Now, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	s.guard, err = middleware.New(middleware.Config{Verifier: keys, OnBehalf: true, Now: s.iss.Now, Logger: quiet})
	require.NoError(t, err)
	return s
}

// issued is a successful response, with changes.
func issued(text string, change ...any) map[string]any {
	body := map[string]any{"access_token": text, "token_type": "Bearer", "issued_token_type": accessType, "expires_in": 300}
	for i := 0; i < len(change); i += 2 {
		if body[change[i].(string)] = change[i+1]; change[i+1] == nil {
			delete(body, change[i].(string))
		}
	}
	return body
}

func (s *site) replies(status int, body map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = func(url.Values) (int, map[string]any) { return status, maps.Clone(body) }
}

func (s *site) requests() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]url.Values(nil), s.asked...)
}

func (s *site) client(change ...func(*onbehalf.Config)) *onbehalf.Client {
	s.Helper()
	cfg := onbehalf.Config{
		TokenURL: s.iss.Introspection.URL, Issuer: s.iss.URL, Auth: introspect.BasicAuth("orders", "s3cret"),
		Resource: []string{"https://stock.example.com"}, InputAudience: []string{here}, Client: s.iss.Client(), Now: s.iss.Now, Logger: quiet,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := onbehalf.New(cfg)
	require.NoError(s, err)
	s.Cleanup(c.Close)
	return c
}

// serving returns the context of a request that the guard has accepted with a token.
func (s *site) serving(opts ...valetkeytest.Option) context.Context {
	return s.with(s.iss.Token(opts...))
}

func (s *site) with(token string) context.Context {
	s.Helper()
	d := s.guard.DecideToken(s.Context(), token)
	require.NoError(s, d.Err())
	return d.Context(s.Context())
}

func status(guard *middleware.Guard, err error) (*http.Response, string) {
	w := httptest.NewRecorder()
	onbehalf.WriteError(w, httptest.NewRequest("GET", "/", nil), guard, fmt.Errorf("calling stock: %w", err))
	return w.Result(), w.Body.String()
}

func TestAnExchangeSendsTheTokenWithItsType(t *testing.T) {
	t.Run("XCHG-01 the grant, the token and its type, and no actor", func(t *testing.T) {
		s := newSite(t)
		token := s.iss.Token()
		got, err := s.client(func(c *onbehalf.Config) { c.Audience, c.Scope = []string{"stock", "stock-2"}, []string{"b", "a"} }).Token(s.with(token))
		require.NoError(t, err)
		assert.Equal(t, "Bearer issued-1", got.Authorization())
		assert.WithinDuration(t, s.iss.Now().Add(300*time.Second), got.Expiry(), time.Minute)
		assert.Equal(t, url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token}, "subject_token_type": {accessType},
			"requested_token_type": {accessType}, "audience": {"stock", "stock-2"}, "resource": {"https://stock.example.com"}, "scope": {"b a"},
		}, s.requests()[0])
		assert.Equal(t, "Basic b3JkZXJzOnMzY3JldA==", s.header[0].Get("Authorization"))
	})
	t.Run("XCHG-01 an actor with its type", func(t *testing.T) {
		s := newSite(t)
		own := s.client(func(c *onbehalf.Config) { c.Dialect, c.InputAudience = onbehalf.ClientCredentials, nil })
		_, err := s.client(func(c *onbehalf.Config) { c.ActorToken = own.Text }).Token(s.serving())
		require.NoError(t, err)
		assert.Equal(t, "client_credentials", s.requests()[0].Get("grant_type"))
		assert.Equal(t, []string{"issued-1"}, s.requests()[1]["actor_token"])
		assert.Equal(t, []string{accessType}, s.requests()[1]["actor_token_type"])
	})
	for name, actor := range map[string]func(context.Context) (string, error){
		"is empty": func(context.Context) (string, error) { return "", nil },
		"fails":    func(context.Context) (string, error) { return "", &valetkey.Error{Code: valetkey.InvalidToken} },
	} {
		t.Run("XCHG-01 without the actor's token, which "+name+", nothing is sent", func(t *testing.T) {
			s := newSite(t)
			_, err := s.client(func(c *onbehalf.Config) { c.ActorToken = actor }).Token(s.serving())
			resp, _ := status(s.guard, err)
			assert.Equal(t, 500, resp.StatusCode)
			assert.Empty(t, s.requests())
		})
	}
	t.Run("Entra's on-behalf-of", func(t *testing.T) {
		s := newSite(t)
		s.replies(200, map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": "3599", "ext_expires_in": 3599})
		token := s.iss.Token()
		c := s.client(func(c *onbehalf.Config) {
			c.Dialect, c.Resource, c.Scope = onbehalf.EntraOBO, nil, []string{"api://stock/.default"}
		})
		_, err := c.Token(s.with(token))
		require.NoError(t, err)
		assert.Equal(t, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {token},
			"requested_token_use": {"on_behalf_of"}, "scope": {"api://stock/.default"}}, s.requests()[0])
		assert.Equal(t, 1, c.Held(), "a quoted lifetime")
	})
	t.Run("the endpoint that the metadata of the issuer has", func(t *testing.T) {
		s := newSite(t)
		mux := http.NewServeMux()
		as := httptest.NewServer(mux)
		defer as.Close()
		mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"issuer": as.URL, "token_endpoint": s.iss.Introspection.URL})
		})
		c := s.client(func(c *onbehalf.Config) { c.TokenURL, c.Issuer, c.InputIssuers = "", as.URL, []string{s.iss.URL} })
		_, err := c.Token(s.serving())
		require.NoError(t, err)
		as.Close()
		_, err = c.Token(s.serving(valetkeytest.Subject("bob")))
		require.NoError(t, err)
	})
}

func TestAResponseThatIsNotWhatWasAskedForIsAnError(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   map[string]any
		status int
	}{
		{"XCHG-02 no issued_token_type", issued("a", "issued_token_type", nil), 500},
		{"XCHG-02 an ID token", issued("a", "issued_token_type", "urn:ietf:params:oauth:token-type:id_token"), 500},
		{"XCHG-02 a JWT, which is an assertion for another authorization server", issued("a", "issued_token_type", "urn:ietf:params:oauth:token-type:jwt"), 500},
		{"XCHG-03 a token that is not for access", issued("a", "token_type", "N_A"), 500},
		{"XCHG-03 a token that is bound to a key", issued("a", "token_type", "DPoP"), 500},
		{"XCHG-03 no token_type", issued("a", "token_type", nil), 500},
		{"no access_token", issued("a", "access_token", nil), 500},
		{"one that no header can carry", issued("a b\r\n"), 500},
		{"one that is too long", issued(strings.Repeat("a", 64<<10+1)), 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.replies(200, c.body)
			client := s.client()
			_, err := client.Token(s.serving())
			require.Error(t, err)
			resp, _ := status(s.guard, err)
			assert.Equal(t, c.status, resp.StatusCode)
		})
	}
	t.Run("XCHG-03 with DPoP, a bearer token is an error", func(t *testing.T) {
		s := newSite(t)
		_, err := s.client(func(c *onbehalf.Config) { c.DPoP = true }).Token(s.serving())
		assert.ErrorAs(t, err, new(*onbehalf.Error))
	})
}

func TestConcurrentCallsShareAnExchange(t *testing.T) {
	t.Run("XCHG-04 a hundred requests at once make one exchange", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			s.answer = func(url.Values) (int, map[string]any) { time.Sleep(time.Second); return 200, issued("a") }
			c, ctx := s.client(), s.serving()
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					got, err := c.Token(ctx)
					assert.NoError(t, err)
					assert.Equal(t, "Bearer a", got.Authorization())
				})
			}
			all.Wait()
			assert.Len(t, s.requests(), 1)
			assert.True(t, c.Idle())
		})
	})
	t.Run("XCHG-05 the first caller leaves, and the others get the token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			s.answer = func(url.Values) (int, map[string]any) { time.Sleep(time.Second); return 200, issued("a") }
			c, ctx := s.client(), s.serving()
			first, leave := context.WithCancel(ctx)
			var all sync.WaitGroup
			all.Go(func() {
				_, err := c.Token(first)
				assert.ErrorIs(t, err, context.Canceled)
			})
			synctest.Wait()
			all.Go(func() {
				_, err := c.Token(ctx)
				assert.NoError(t, err)
			})
			synctest.Wait()
			leave()
			all.Wait()
			assert.Len(t, s.requests(), 1)
			assert.True(t, c.Idle())
		})
	})
	t.Run("one caller's calls do not take the places of others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			s.answer = func(url.Values) (int, map[string]any) { time.Sleep(time.Second); return 200, issued("a") }
			c := s.client(func(c *onbehalf.Config) { c.MaxInFlight, c.MaxWaiting = 16, 32 })
			var all sync.WaitGroup
			var mu sync.Mutex
			results := map[string]int{}
			call := func(who string, ctx context.Context) {
				all.Go(func() {
					_, err := c.Token(ctx)
					if errors.As(err, new(*valetkey.Unavailable)) {
						who += " later"
					}
					mu.Lock()
					results[who]++
					mu.Unlock()
				})
			}
			for range 40 {
				call("mallory", s.serving(valetkeytest.Subject("mallory")))
			}
			same := s.serving(valetkeytest.Subject("eve"))
			for range 40 {
				call("eve", same)
			}
			synctest.Wait()
			for _, who := range []string{"alice", "bob", "carol"} {
				call(who, s.serving(valetkeytest.Subject(who)))
			}
			all.Wait()
			assert.Equal(t, map[string]int{"mallory": 2, "mallory later": 38, "eve": 4, "eve later": 36, "alice": 1, "bob": 1, "carol": 1}, results)
			assert.True(t, c.Idle())
		})
	})
	t.Run("Close ends what is in progress", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			stop := make(chan struct{})
			s.answer = func(url.Values) (int, map[string]any) { <-stop; return 200, issued("a") }
			c, ctx := s.client(), s.serving()
			var all sync.WaitGroup
			all.Go(func() {
				_, err := c.Token(ctx)
				assert.ErrorAs(t, err, new(*valetkey.Unavailable))
			})
			synctest.Wait()
			begun := time.Now()
			c.Close()
			assert.Zero(t, time.Since(begun))
			all.Wait()
			_, err := c.Token(ctx)
			assert.ErrorAs(t, err, new(*valetkey.Unavailable))
			close(stop)
		})
	})
}

func TestResultsAreSharedByInputAndTargetOnly(t *testing.T) {
	t.Run("XCHG-06 users, and tokens of one user, do not share a result", func(t *testing.T) {
		s := newSite(t)
		c := s.client()
		got := map[string]bool{}
		for _, ctx := range []context.Context{
			s.serving(), s.serving(valetkeytest.Subject("bob")), s.serving(valetkeytest.Scopes("stock:read")),
		} {
			for range 3 {
				token, err := c.Token(ctx)
				require.NoError(t, err)
				got[token.Authorization()] = true
			}
		}
		assert.Len(t, got, 3)
		assert.Len(t, s.requests(), 3)
	})
	t.Run("XCHG-06 clients with other audiences, resources or scopes do not share a result", func(t *testing.T) {
		s := newSite(t)
		ctx := s.serving()
		for _, change := range []func(*onbehalf.Config){
			func(*onbehalf.Config) {},
			func(c *onbehalf.Config) { c.Audience = []string{"stock"} },
			func(c *onbehalf.Config) { c.Resource = []string{"https://billing.example.com"} },
			func(c *onbehalf.Config) { c.Scope = []string{"stock:read"} },
		} {
			c := s.client(change)
			for range 2 {
				_, err := c.Token(ctx)
				require.NoError(t, err)
			}
		}
		assert.Len(t, s.requests(), 4)
	})
	t.Run("tokens without a subject do not share a result", func(t *testing.T) {
		s := newSite(t)
		c := s.client()
		// Package introspect accepts tokens without a subject; here a verifier does.
		guard, err := middleware.New(middleware.Config{OnBehalf: true, Logger: quiet, Verifier: valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Issuer: s.iss.URL, Audience: valetkey.ListOf(here)}), nil
		})})
		require.NoError(t, err)
		for _, raw := range []string{"first", "second"} {
			_, err := c.Token(guard.DecideToken(t.Context(), raw).Context(t.Context()))
			require.NoError(t, err)
		}
		assert.Len(t, s.requests(), 2)
	})
	t.Run("the least recently used token gives way", func(t *testing.T) {
		s := newSite(t)
		s.answer = func(url.Values) (int, map[string]any) { return 200, issued(strings.Repeat("a", 10_000)) }
		c := s.client(func(c *onbehalf.Config) { c.CacheBytes = 36_000 })
		users := []context.Context{s.serving(valetkeytest.Subject("a")), s.serving(valetkeytest.Subject("b")), s.serving(valetkeytest.Subject("c")), s.serving(valetkeytest.Subject("d"))}
		for _, i := range []int{0, 1, 2, 0, 3, 0, 2, 3} {
			_, err := c.Token(users[i])
			require.NoError(t, err)
		}
		assert.Len(t, s.requests(), 4)
		assert.Equal(t, 3, c.Held())
		_, err := c.Token(users[1])
		require.NoError(t, err)
		assert.Len(t, s.requests(), 5)
		assert.True(t, c.Idle())
		c.Purge()
		assert.Zero(t, c.Held())
		assert.True(t, c.Idle())
	})
}

func TestATokenIsUsedNoLongerThanItAndItsInputLive(t *testing.T) {
	for _, c := range []struct {
		name      string
		expiresIn any // of the result
		input     time.Duration
		lives     time.Duration // in the cache
	}{
		{"the result expires first: until shortly before", 300, time.Hour, 290 * time.Second},
		{"a result that lives for seconds", 5, time.Hour, 4500 * time.Millisecond},
		{"XCHG-07 the input expires first", 7200, 10 * time.Minute, 10 * time.Minute},
		{"an absurd lifetime", 1e15, 100 * time.Hour, 12*time.Hour - 10*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, valetkeytest.InMemory())
				s.replies(200, issued("a", "expires_in", c.expiresIn))
				client, ctx := s.client(), s.serving(valetkeytest.ExpiresIn(c.input))
				begun := time.Now()
				for range 2 {
					_, err := client.Token(ctx)
					require.NoError(t, err)
				}
				assert.Len(t, s.requests(), 1)
				time.Sleep(c.lives - time.Since(begun) - 1100*time.Millisecond) // exp has whole seconds
				_, err := client.Token(ctx)
				require.NoError(t, err)
				assert.Len(t, s.requests(), 1)
				time.Sleep(1100 * time.Millisecond)
				client.Token(ctx)
				assert.Len(t, s.requests(), 2)
			})
		})
	}
	for name, life := range map[string]any{"no expires_in": nil, "zero": 0, "a negative one": -5, "text": "soon", "null": json.RawMessage("null")} {
		t.Run("XCHG-07 not cached: "+name, func(t *testing.T) {
			s := newSite(t)
			s.replies(200, issued("a", "expires_in", life))
			c, ctx := s.client(), s.serving()
			for range 2 {
				_, err := c.Token(ctx)
				require.NoError(t, err)
			}
			assert.Len(t, s.requests(), 2)
			assert.Zero(t, c.Held())
		})
	}
	t.Run("XCHG-10 while the authorization server is unavailable, an expired token is not used", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			client, ctx := s.client(), s.serving(valetkeytest.ExpiresIn(time.Hour))
			_, err := client.Token(ctx)
			require.NoError(t, err)
			s.replies(503, map[string]any{"retry_after": 7})
			_, err = client.Token(ctx)
			require.NoError(t, err)
			time.Sleep(291 * time.Second)
			for range 3 {
				_, err = client.Token(ctx)
				resp, _ := status(s.guard, err)
				assert.Equal(t, 503, resp.StatusCode)
				assert.Equal(t, "7", resp.Header.Get("Retry-After"))
			}
			assert.Len(t, s.requests(), 2, "the server asked for a delay")
			s.replies(200, issued("b"))
			time.Sleep(7 * time.Second)
			got, err := client.Token(ctx)
			require.NoError(t, err)
			assert.Equal(t, "Bearer b", got.Authorization())
		})
	})
}

func TestAResultEndsWithTheRevocationOfItsInput(t *testing.T) {
	revoke := func(s *site, subject string) {
		require.NoError(s, s.guard.Revoke(valetkey.Revocation{Issuer: s.iss.URL, Subject: subject}))
	}
	t.Run("XCHG-08 it is gone, and the request in progress gets no other", func(t *testing.T) {
		s := newSite(t)
		c, alices, bobs := s.client(), s.serving(), s.serving(valetkeytest.Subject("bob"))
		for _, ctx := range []context.Context{alices, bobs} {
			_, err := c.Token(ctx)
			require.NoError(t, err)
		}
		revoke(s, "alice")
		assert.Equal(t, 1, c.Held(), "bob's")
		_, err := c.Token(alices)
		resp, _ := status(s.guard, err)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Len(t, s.requests(), 2)
		_, err = c.Token(bobs)
		require.NoError(t, err)
	})
	t.Run("XCHG-08 a purge of the guard removes it too", func(t *testing.T) {
		s := newSite(t)
		c := s.client()
		_, err := c.Token(s.serving())
		require.NoError(t, err)
		s.guard.Purge(nil)
		assert.Zero(t, c.Held())
	})
	t.Run("XCHG-08 revoked during the exchange, nothing is kept and no caller gets it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			s.answer = func(url.Values) (int, map[string]any) { time.Sleep(time.Second); return 200, issued("a") }
			c, ctx := s.client(), s.serving()
			var all sync.WaitGroup
			all.Go(func() {
				_, err := c.Token(ctx)
				resp, _ := status(s.guard, err)
				assert.Equal(t, 401, resp.StatusCode)
			})
			synctest.Wait()
			revoke(s, "alice")
			all.Wait()
			assert.Zero(t, c.Held())
			assert.True(t, c.Idle())
		})
	})
}

func TestOnlyTokensForThisServiceAreExchanged(t *testing.T) {
	for name, change := range map[string]func(*onbehalf.Config){
		"XCHG-11 its audience is another service": func(c *onbehalf.Config) { c.InputAudience = []string{"https://other.example.com"} },
		"XCHG-11 it is of another issuer":         func(c *onbehalf.Config) { c.InputIssuers = []string{"https://other.example.com"} },
		"forwarded, and not for the called service": func(c *onbehalf.Config) {
			c.Dialect, c.TokenURL, c.Auth, c.Resource, c.Audience = onbehalf.InsecureForward, "", introspect.Auth{}, nil, []string{"https://stock.example.com"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			_, err := s.client(change).Token(s.serving())
			resp, _ := status(s.guard, err)
			assert.Equal(t, 403, resp.StatusCode)
			assert.Empty(t, s.requests())
		})
	}
	t.Run("XCHG-11 credentials without an audience, such as API keys", func(t *testing.T) {
		s := newSite(t)
		guard, err := middleware.New(middleware.Config{OnBehalf: true, Logger: quiet, Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Subject: "billing"}), nil
		})})
		require.NoError(t, err)
		_, err = s.client(func(c *onbehalf.Config) { c.InputIssuers = []string{onbehalf.AnyIssuer} }).Token(guard.DecideToken(t.Context(), "key").Context(t.Context()))
		resp, _ := status(guard, err)
		assert.Equal(t, 403, resp.StatusCode)
		assert.Empty(t, s.requests())
	})
	for name, ctx := range map[string]func(s *site) context.Context{
		"there is no request": func(s *site) context.Context { return s.Context() },
		"the token was attached by a test": func(s *site) context.Context {
			return valetkey.NewContext(s.serving(), valetkey.NewToken(valetkey.TokenFields{}))
		},
		"the guard does not keep the text": func(s *site) context.Context {
			keys, err := jwks.New(jwks.Config{Issuer: s.iss.URL, Audience: []string{here}, Client: s.iss.Client(), Logger: quiet})
			require.NoError(s, err)
			s.Cleanup(keys.Close)
			guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: quiet})
			require.NoError(s, err)
			return guard.DecideToken(s.Context(), s.iss.Token()).Context(s.Context())
		},
	} {
		t.Run("nothing is sent if "+name, func(t *testing.T) {
			s := newSite(t)
			_, err := s.client().Token(ctx(s))
			resp, _ := status(s.guard, err)
			assert.Equal(t, 500, resp.StatusCode)
			assert.Empty(t, s.requests())
		})
	}
}

func TestErrorsOfTheTokenEndpointReachTheClientAsWhatTheyAre(t *testing.T) {
	const claims = `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	const secret = "AADSTS50013 the assertion eyJ... is wrong"
	for _, c := range []struct {
		name      string
		status    int
		body      map[string]any
		want      int
		challenge map[string]string // parts of it
	}{
		{"the token was revoked there", 400, map[string]any{"error": "invalid_grant"}, 401, map[string]string{"error": "invalid_token"}},
		{"XCHG-09 the user must do something", 400, map[string]any{"error": "interaction_required", "claims": claims}, 401,
			map[string]string{"error": "insufficient_claims", "claims": "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzEifX19"}},
		{"XCHG-09 the same, with another code", 400, map[string]any{"error": "invalid_grant", "claims": claims}, 401, map[string]string{"error": "insufficient_claims"}},
		{"XCHG-09 without claims", 400, map[string]any{"error": "interaction_required"}, 401, map[string]string{"error": "insufficient_user_authentication", "claims": ""}},
		{"XCHG-09 claims that are not an object", 400, map[string]any{"error": "interaction_required", "claims": "x\r\nSet-Cookie: a=b"}, 401,
			map[string]string{"error": "insufficient_user_authentication", "claims": ""}},
		{"the user must log in again", 400, map[string]any{"error": "login_required"}, 401, map[string]string{"error": "insufficient_user_authentication"}},
		{"a bad input token, by our own check a good one", 400, map[string]any{"error": "invalid_request"}, 500, nil},
		{"our secret is wrong", 401, map[string]any{"error": "invalid_client"}, 500, nil},
		{"the target is unknown", 400, map[string]any{"error": "invalid_target", "error_codes": []int{50013}}, 500, nil},
		{"an invalid code", 400, map[string]any{"error": "a\nb"}, 503, nil},
		{"a page", 404, nil, 503, nil},
		{"too many requests", 429, map[string]any{"error": "invalid_grant"}, 503, nil},
		{"it fails", 500, map[string]any{"error": "invalid_grant"}, 503, nil},
		{"it redirects", 302, nil, 503, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if c.body != nil {
				c.body["error_description"] = secret
			}
			s.replies(c.status, c.body)
			client, ctx := s.client(), s.serving()
			_, err := client.Token(ctx)
			require.Error(t, err)
			resp, body := status(s.guard, err)
			assert.Equal(t, c.want, resp.StatusCode)
			if c.challenge != nil {
				got := valetkeytest.Challenge(t, resp.Header, "Bearer")
				for name, value := range c.challenge {
					assert.Equal(t, value, got[name], name)
				}
			}
			assert.NotContains(t, fmt.Sprint(resp.Header, body, err), "AADSTS50013 the")
			assert.Equal(t, c.want == 503, resp.Header.Get("Retry-After") != "")
			_, again := client.Token(ctx)
			assert.Error(t, again)
			assert.Len(t, s.requests(), 1, "a client that repeats its request does not make this service repeat its own")
		})
	}
	t.Run("a bad input token, and it has expired by our own check", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, valetkeytest.InMemory())
			s.answer = func(url.Values) (int, map[string]any) {
				time.Sleep(2 * time.Second)
				return 400, map[string]any{"error": "invalid_request"}
			}
			ctx := s.serving(valetkeytest.ExpiresIn(time.Second))
			time.Sleep(29500 * time.Millisecond) // the leeway ends while the answer is on its way
			_, err := s.client().Token(ctx)
			resp, _ := status(s.guard, err)
			assert.Equal(t, 401, resp.StatusCode)
		})
	})
	t.Run("for ourselves, no error is the client's", func(t *testing.T) {
		s := newSite(t)
		s.replies(400, map[string]any{"error": "invalid_grant"})
		_, err := s.client(func(c *onbehalf.Config) { c.Dialect, c.InputAudience = onbehalf.ClientCredentials, nil }).Token(t.Context())
		resp, _ := status(s.guard, err)
		assert.Equal(t, 500, resp.StatusCode)
	})
	t.Run("the log names the code, once", func(t *testing.T) {
		s := newSite(t)
		s.replies(400, map[string]any{"error": "invalid_target", "error_codes": []int{50013}, "error_description": secret})
		var log strings.Builder
		c := s.client(func(c *onbehalf.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		for _, who := range []string{"alice", "bob"} {
			_, err := c.Token(s.serving(valetkeytest.Subject(who)))
			require.Error(t, err)
		}
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		assert.Contains(t, log.String(), "invalid_target")
		assert.Contains(t, log.String(), "AADSTS50013")
		assert.NotContains(t, log.String(), "eyJ")
	})
}

func TestClientCredentialsAreForThisServiceItself(t *testing.T) {
	s := newSite(t)
	s.replies(200, issued("own", "issued_token_type", nil))
	c := s.client(func(c *onbehalf.Config) {
		c.Dialect, c.InputAudience, c.Scope = onbehalf.ClientCredentials, nil, []string{"stock:read"}
	})
	for _, ctx := range []context.Context{t.Context(), s.serving(), s.serving(valetkeytest.Subject("bob"))} {
		got, err := c.Token(ctx)
		require.NoError(t, err)
		assert.Equal(t, "Bearer own", got.Authorization())
	}
	assert.Equal(t, []url.Values{{"grant_type": {"client_credentials"}, "scope": {"stock:read"}, "resource": {"https://stock.example.com"}}}, s.requests())
}

func TestATokenIsNotPrinted(t *testing.T) {
	s := newSite(t)
	s.replies(200, issued("printed-text"))
	c := s.client()
	got, err := c.Token(s.serving())
	require.NoError(t, err)
	for _, printed := range []any{got, &got, []any{got}} {
		assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", printed, printed, printed, printed), "printed-text")
	}
}

func TestMistakesInAConfigAreReportedAtOnce(t *testing.T) {
	auth := introspect.BasicAuth("orders", "s3cret")
	for _, c := range []struct {
		name string
		cfg  onbehalf.Config
		want []string
	}{
		{"nothing is set", onbehalf.Config{}, []string{"TokenURL, Issuer", "Auth", "InputAudience", "InputIssuers"}},
		{"http", onbehalf.Config{TokenURL: "http://as.example.com/token", Auth: auth, InputAudience: []string{"a"}, InputIssuers: []string{"b"}}, []string{"TokenURL"}},
		{"no client", onbehalf.Config{Issuer: "https://as.example.com", Auth: introspect.NoAuth(), InputAudience: []string{"a"}}, []string{"Auth"}},
		{"a certificate without one", onbehalf.Config{Issuer: "https://as.example.com", Auth: introspect.TLSAuth("a"), InputAudience: []string{"a"}}, []string{"Auth"}},
		{"Entra without a scope", onbehalf.Config{Issuer: "https://as.example.com", Auth: auth, InputAudience: []string{"a"}, Dialect: onbehalf.EntraOBO, Audience: []string{"x"}},
			[]string{"Scope", "Audience, Resource"}},
		{"an input where there is none", onbehalf.Config{Issuer: "https://as.example.com", Auth: auth, InputAudience: []string{"a"}, Dialect: onbehalf.ClientCredentials},
			[]string{"InputAudience, InputIssuers"}},
		{"forwarding with a server", onbehalf.Config{Issuer: "https://as.example.com", Auth: auth, InputAudience: []string{"a"}, Dialect: onbehalf.InsecureForward},
			[]string{"Auth", "Audience"}},
		{"targets", onbehalf.Config{Issuer: "https://as.example.com", Auth: auth, InputAudience: []string{"a"},
			Targets: []string{"http://stock.example.com", "https://stock.example.com/a/../b", "https://stock.example.com?x", "stock"}},
			[]string{"Targets[0]", "Targets[1]", "Targets[2]", "Targets[3]"}},
		{"limits", onbehalf.Config{Issuer: "https://as.example.com", Auth: auth, InputAudience: []string{""}, Timeout: time.Minute, CacheBytes: -1, MaxInFlight: -1, MaxWaiting: -1, Dialect: "x"},
			[]string{"Dialect", "InputAudience", "Timeout", "CacheBytes", "MaxInFlight", "MaxWaiting"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := onbehalf.New(c.cfg)
			var fields []string
			for _, m := range valetkey.ConfigErrors(err) {
				fields = append(fields, m.Field)
			}
			assert.ElementsMatch(t, c.want, fields, "%v", err)
		})
	}
}
