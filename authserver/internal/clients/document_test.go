package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// A host serves metadata documents over TLS.
type host struct {
	url      string
	requests atomic.Int32
	mu       sync.Mutex
	serve    http.HandlerFunc
	reasons  []string // of fetches without a client
}

func (h *host) set(f http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serve = f
}

// documents returns a registry that accepts documents of a host on loopback.
func documents(t *testing.T, change func(*clients.DocumentsConfig)) (*clients.Registry, *host) {
	t.Helper()
	h := &host{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		h.mu.Lock()
		serve := h.serve
		h.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(server.Close)
	h.url = server.URL
	limiter, err := login.NewLimiter(login.Rate{Burst: 5, Every: time.Hour}, 0)
	require.NoError(t, err)
	cfg := clients.DocumentsConfig{
		Scopes: []string{"notes.read", "notes.write"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		AuthMethods: []string{"none", "client_secret_basic", "private_key_jwt"}, Callers: limiter,
		HTTP: clients.KeySetClient(server.Client().Transport.(*http.Transport).TLSClientConfig, netip.MustParsePrefix("127.0.0.0/8")),
		Audit: func(_ context.Context, event string, attrs ...slog.Attr) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.reasons = append(h.reasons, fmt.Sprint(event, attrs))
		},
	}
	if change != nil {
		change(&cfg)
	}
	registry := clients.NewRegistry(store.NewMemory(0), []clients.Client{{ID: "https://static.example.com/client", Name: "Static", AuthMethod: "none"}})
	registry.UseDocuments(clients.NewDocuments(cfg))
	return registry, h
}

func serveJSON(value any, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		json.NewEncoder(w).Encode(value)
	}
}

// editor is the document of an application at a URL.
func editor(id string) object {
	return object{
		"client_id": id, "client_name": "Editor", "client_uri": "https://editor.example.com",
		"redirect_uris": []string{"http://127.0.0.1/callback", "https://editor.example.com/callback"},
		"grant_types":   []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "token_endpoint_auth_method": "none",
	}
}

func TestDocumentURL(t *testing.T) {
	for name, id := range map[string]string{
		"http": "http://app.example.com/client", "upper case": "HTTPS://app.example.com/client", "no host": "https:///client", "no path": "https://app.example.com",
		"a user": "https://me@app.example.com/client", "a fragment": "https://app.example.com/client#a", "an empty fragment": "https://app.example.com/client#",
		"a dot segment": "https://app.example.com/./client", "two dots": "https://app.example.com/a/../client", "escaped dots": "https://app.example.com/a/%2e%2E/client",
		"a space": "https://app.example.com/a b", "letters beyond ASCII": "https://äpp.example.com/client", "too long": "https://app.example.com/" + strings.Repeat("a", 512), "nothing": "",
	} {
		assert.False(t, clients.IsDocument(id), name)
	}
	for _, id := range []string{"https://app.example.com/client.json", "https://app.example.com:8443/a/b?c=d", "https://app.example.com/", "https://app.example.com/...", "https://[2001:db8::1]/c"} {
		assert.True(t, clients.IsDocument(id), id)
	}
}

func TestRefusedDocuments(t *testing.T) {
	for name, c := range map[string]struct {
		change  object
		problem string
	}{
		"the ID of another document":       {object{"client_id": "https://other.example.com/client"}, "client_id: is not the URL of the document"},
		"no ID":                            {object{"client_id": nil}, "client_id: is not the URL of the document"},
		"a secret":                         {object{"client_secret": "s3cret"}, "client_secret: must not be in a document"},
		"an expiry of a secret":            {object{"client_secret_expires_at": 0}, "client_secret_expires_at: must not"},
		"a method with a secret":           {object{"token_endpoint_auth_method": "client_secret_basic"}, "token_endpoint_auth_method: cannot"},
		"a method that is not offered":     {object{"token_endpoint_auth_method": "self_signed_tls_client_auth"}, "token_endpoint_auth_method: cannot"},
		"a private key":                    {object{"jwks": json.RawMessage(keySet(t, true))}, "jwks: has a key that is private"},
		"no redirect URI":                  {object{"redirect_uris": nil}, "redirect_uris: are required"},
		"a redirect URI in clear text":     {object{"redirect_uris": []string{"http://editor.example.com/cb"}}, "redirect_uris: one is neither https"},
		"a redirect URI that runs scripts": {object{"redirect_uris": []string{"https://editor.example.com/cb", "javascript:alert(1)"}}, "redirect_uris: one has a scheme"},
		"no scope that is known":           {object{"scope": "openid"}, "scope: has none"},
		"no grant that is offered":         {object{"grant_types": []string{"client_credentials"}, "response_types": []string{}}, "grant_types: has none"},
		"a name that changes direction":    {object{"client_name": "a\u202eb"}, "client_name: "},
	} {
		t.Run(name, func(t *testing.T) {
			registry, h := documents(t, nil)
			id := h.url + "/client"
			h.set(serveJSON(and(editor(id), c.change)))
			_, err := registry.Get(t.Context(), id)
			require.ErrorIs(t, err, store.ErrNotFound)
			var problem *clients.DocumentError
			require.ErrorAs(t, err, &problem)
			assert.Contains(t, problem.Problem, c.problem)
			assert.NotContains(t, err.Error(), "s3cret")
			_, err = registry.Get(t.Context(), id)
			require.ErrorIs(t, err, store.ErrNotFound)
			assert.EqualValues(t, 1, h.requests.Load(), "one fetch in 30 s at most")
			assert.Len(t, h.reasons, 1)
		})
	}
	for name, c := range map[string]struct {
		serve     http.HandlerFunc
		temporary bool
	}{
		"is HTML": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<!doctype html>")) }, false},
		"is uploaded text": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write([]byte("{}"))
		}, false},
		"has a member twice": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(`{"client_id":"a","client_id":"b"}`))
		}, false},
		"does not exist": {http.NotFound, false},
		"redirects":      {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, true},
		"fails":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, true},
		"is too long":    {serveJSON(object{"client_name": strings.Repeat("a", 20<<10)}), true},
		"is created":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated); w.Write([]byte("{}")) }, true},
	} {
		t.Run("a document that "+name, func(t *testing.T) {
			registry, h := documents(t, nil)
			h.set(c.serve)
			_, err := registry.Get(t.Context(), h.url+"/client")
			var problem *clients.DocumentError
			require.ErrorAs(t, err, &problem)
			assert.Equal(t, c.temporary, problem.Temporary, err)
			assert.EqualValues(t, 1, h.requests.Load(), "a redirect is not followed")
		})
	}
	t.Run("an address that is not public looks as one that does not respond", func(t *testing.T) {
		registry, h := documents(t, func(cfg *clients.DocumentsConfig) { cfg.HTTP = nil })
		_, guarded := registry.Get(t.Context(), h.url+"/client")
		_, closed := registry.Get(t.Context(), "https://127.0.0.1:1/client")
		var problem *clients.DocumentError
		require.ErrorAs(t, guarded, &problem)
		assert.True(t, problem.Temporary)
		assert.Equal(t, guarded.Error(), closed.Error())
		assert.Zero(t, h.requests.Load())
		assert.Contains(t, h.reasons[0], "not a public address", "the log has the reason")
	})
	t.Run("a host that is not accepted causes no request", func(t *testing.T) {
		registry, h := documents(t, func(cfg *clients.DocumentsConfig) { cfg.Hosts = []string{"editor.example.com"} })
		_, err := registry.Get(t.Context(), h.url+"/client")
		require.ErrorContains(t, err, "host that is not accepted")
		assert.Zero(t, h.requests.Load())
	})
	t.Run("an ID that is not the URL of a document causes no request, and is unknown", func(t *testing.T) {
		registry, h := documents(t, nil)
		_, err := registry.Get(t.Context(), h.url)
		require.ErrorIs(t, err, store.ErrNotFound)
		assert.Zero(t, h.requests.Load())
	})
}

func TestDocuments(t *testing.T) {
	t.Run("a client with its limits", func(t *testing.T) {
		registry, h := documents(t, nil)
		id := h.url + "/client"
		h.set(serveJSON(and(editor(id), object{
			"scope": "openid notes.read", "grant_types": []string{"authorization_code", "client_credentials", "refresh_token"}, "token_endpoint_auth_method": nil,
			"redirect_uris": []string{"http://127.0.0.1/callback", "cursor://oauth/cb"}, "trusted": true, "software_statement": "a.b.c", "owner": "customer:1",
		})))
		c, err := registry.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, &clients.Client{
			ID: id, Document: true, Native: true, Name: "Editor", URI: "https://editor.example.com", AuthMethod: "none", Scopes: []string{"notes.read"},
			GrantTypes: []string{"authorization_code", "refresh_token"}, RedirectURIs: []string{"http://127.0.0.1/callback"},
		}, c)
		assert.False(t, c.Approved())
		require.NoError(t, registry.Keep(t.Context(), c))
		list, err := registry.List(t.Context(), "", 10)
		require.NoError(t, err)
		assert.Len(t, list, 1, "it is not registered")
	})
	t.Run("all scopes without any, and keys", func(t *testing.T) {
		registry, h := documents(t, nil)
		id := h.url + "/client"
		h.set(serveJSON(and(editor(id), object{"token_endpoint_auth_method": "private_key_jwt", "jwks": json.RawMessage(keySet(t, false))})))
		c, err := registry.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, []string{"notes.read", "notes.write"}, c.Scopes)
		assert.False(t, c.Public())
	})
	t.Run("a client in the configuration takes precedence", func(t *testing.T) {
		registry, h := documents(t, nil)
		c, err := registry.Get(t.Context(), "https://static.example.com/client")
		require.NoError(t, err)
		assert.Equal(t, "Static", c.Name)
		assert.True(t, c.Approved())
		assert.Zero(t, h.requests.Load())
	})
	t.Run("many requests share one fetch", func(t *testing.T) {
		registry, h := documents(t, nil)
		id := h.url + "/client"
		h.set(serveJSON(editor(id)))
		for range 20 {
			_, err := registry.Get(t.Context(), id)
			require.NoError(t, err)
		}
		assert.EqualValues(t, 1, h.requests.Load())
	})
	t.Run("a caller has a budget of fetches, and other callers and held documents are not affected", func(t *testing.T) {
		registry, h := documents(t, nil)
		h.set(func(w http.ResponseWriter, r *http.Request) { serveJSON(editor(h.url+r.URL.Path))(w, r) })
		greedy, other := clients.WithCaller(t.Context(), "192.0.2.1"), clients.WithCaller(t.Context(), "192.0.2.2")
		for i := range 5 {
			_, err := registry.Get(greedy, fmt.Sprint(h.url, "/", i))
			require.NoError(t, err)
		}
		_, err := registry.Get(greedy, h.url+"/more")
		var tooMany *login.TooMany
		require.ErrorAs(t, err, &tooMany)
		assert.EqualValues(t, 5, h.requests.Load())
		_, err = registry.Get(greedy, h.url+"/0")
		require.NoError(t, err)
		_, err = registry.Get(other, h.url+"/more")
		require.NoError(t, err)
	})
	t.Run("a client is displayed without a fetch", func(t *testing.T) {
		registry, h := documents(t, nil)
		id := h.url + "/client"
		h.set(serveJSON(editor(id)))
		c, err := registry.About(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, &clients.Client{ID: id, Document: true}, c)
		assert.Zero(t, h.requests.Load())
		_, err = registry.Get(t.Context(), id)
		require.NoError(t, err)
		c, err = registry.About(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, "Editor", c.Name)
		_, err = registry.About(t.Context(), "unknown")
		require.ErrorIs(t, err, store.ErrNotFound)
		_, err = clients.NewRegistry(store.NewMemory(0), nil).About(t.Context(), id)
		require.ErrorIs(t, err, store.ErrNotFound, "where documents are not enabled")
	})
}

// A transport answers without a network, so that a test has its own time.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestDocumentLifetime(t *testing.T) {
	const id = "https://editor.example.com/client"
	for name, c := range map[string]struct {
		control string
		still   time.Duration // no other fetch until then
		again   time.Duration // another fetch by then
	}{
		"no lifetime":             {"", 59 * time.Minute, 61 * time.Minute},
		"must not be stored":      {"no-store", 4 * time.Minute, 6 * time.Minute},
		"a minute":                {"max-age=60", 4 * time.Minute, 6 * time.Minute},
		"two hours":               {"public, max-age=7200", 119 * time.Minute, 121 * time.Minute},
		"a year":                  {"max-age=31536000", 23 * time.Hour, 25 * time.Hour},
		"a number without an end": {"max-age=99999999999999999999", 23 * time.Hour, 25 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fetches atomic.Int32
				var name atomic.Value
				name.Store("First")
				registry := atTime(t, func(r *http.Request) (*http.Response, error) {
					fetches.Add(1)
					rec := httptest.NewRecorder()
					serveJSON(and(editor(id), object{"client_name": name.Load()}), "Cache-Control", c.control)(rec, r)
					res := rec.Result()
					res.Request = r
					return res, nil
				})
				read := func() string {
					c, err := registry.Get(t.Context(), id)
					require.NoError(t, err)
					return c.Name
				}
				require.Equal(t, "First", read())
				name.Store("Second")
				time.Sleep(c.still)
				require.Equal(t, "First", read())
				require.EqualValues(t, 1, fetches.Load())
				time.Sleep(c.again - c.still)
				require.Equal(t, "Second", read())
				require.EqualValues(t, 2, fetches.Load())
			})
		})
	}
	t.Run("a client in use survives a failure of its host for a day, and no document that is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var status atomic.Int32
			status.Store(http.StatusOK)
			registry := atTime(t, func(r *http.Request) (*http.Response, error) {
				rec := httptest.NewRecorder()
				if status := status.Load(); status != http.StatusOK {
					rec.WriteHeader(int(status))
				} else {
					serveJSON(editor(id))(rec, r)
				}
				res := rec.Result()
				res.Request = r
				return res, nil
			})
			get := func() error {
				c, err := registry.Get(t.Context(), id)
				if err == nil {
					require.NoError(t, registry.Keep(t.Context(), c))
				}
				return err
			}
			require.NoError(t, get())
			status.Store(http.StatusServiceUnavailable)
			for range 20 {
				time.Sleep(time.Hour)
				require.NoError(t, get())
			}
			time.Sleep(6 * time.Hour)
			var problem *clients.DocumentError
			require.ErrorAs(t, get(), &problem)
			require.True(t, problem.Temporary)

			status.Store(http.StatusOK)
			time.Sleep(2 * time.Minute)
			require.NoError(t, get())
			status.Store(http.StatusGone)
			time.Sleep(2 * time.Hour)
			require.ErrorIs(t, get(), store.ErrNotFound)
		})
	})
}

func atTime(t *testing.T, answer transport) *clients.Registry {
	t.Helper()
	limiter, err := login.NewLimiter(login.Rate{Burst: 100, Every: time.Second}, 0)
	require.NoError(t, err)
	registry := clients.NewRegistry(store.NewMemory(0), nil)
	registry.UseDocuments(clients.NewDocuments(clients.DocumentsConfig{
		Scopes: []string{"notes.read"}, GrantTypes: []string{"authorization_code", "refresh_token"}, AuthMethods: []string{"none"}, Callers: limiter,
		HTTP: &http.Client{Transport: answer},
	}))
	return registry
}

// No document makes a client that is privileged, known by another ID, or reached at a redirect URI that cannot be registered.
func FuzzDocument(f *testing.F) {
	const id = "https://editor.example.com/client"
	seed, err := json.Marshal(editor(id))
	require.NoError(f, err)
	f.Add(seed)
	trusted := maps.Clone(editor(id))
	trusted["trusted"], trusted["introspects"], trusted["jwks_uri"] = true, []string{"https://api.example.com"}, "https://editor.example.com/keys"
	seed, err = json.Marshal(trusted)
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, body []byte) {
		registry := atTimeOf(t, body)
		c, err := registry.Get(t.Context(), id)
		if err != nil {
			return
		}
		if c.ID != id || c.Approved() || c.Trusted || c.WithoutPKCE || c.Introspects != nil || len(c.SecretDigest) > 0 || c.AuthMethod != "none" || len(c.Scopes) == 0 {
			t.Errorf("%s is %+v", body, c)
		}
		for _, uri := range c.RedirectURIs {
			if err := clients.ValidRedirectURI(uri, c.Native); err != nil {
				t.Errorf("%q %v", uri, err)
			}
		}
	})
}

func atTimeOf(t *testing.T, body []byte) *clients.Registry {
	return atTime(t, func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		rec.Header().Set("Content-Type", "application/json")
		rec.Write(body)
		res := rec.Result()
		res.Request = r
		return res, nil
	})
}
