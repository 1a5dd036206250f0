package signals_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

func TestTokenFile(t *testing.T) {
	tr, file := newTransmitter(t), filepath.Join(t.TempDir(), "token")
	r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.Credentials = signals.TokenFile(file) }))
	_, err := r.Examine(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Empty(t, tr.auth)
	require.NoError(t, os.WriteFile(file, []byte(apiToken+"\n"), 0o600))
	_, err = r.Examine(t.Context())
	require.NoError(t, err, "the file is read for each request")
	assert.Equal(t, []string{"Bearer " + apiToken}, tr.auth)
}

func TestAnswersOfTheTokenEndpoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   any // a text as it is, anything else as JSON
		code   string
		err    string
	}{
		{"an error with its code", 400, M{"error": "invalid_scope"}, "invalid_scope", `answers with status 400 and the error "invalid_scope"`},
		{"an error with a token", 403, M{"access_token": apiToken, "token_type": "Bearer"}, "", `answers with status 403 and the error ""`},
		{"an answer that is not JSON", 200, "<html>", "", "answers without an access token"},
		{"an answer without a token", 200, M{"token_type": "Bearer"}, "", "answers without an access token"},
		{"an answer with a token and a lifetime that is a text", 200, M{"access_token": apiToken, "token_type": "Bearer", "expires_in": "soon"}, "",
			"answers without an access token"},
		{"a token of another type", 200, M{"access_token": apiToken, "token_type": "DPoP"}, "", `issues a token of the type "DPoP", not Bearer`},
	} {
		t.Run(c.name+" is an error, and no token is sent", func(t *testing.T) {
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if text, is := c.body.(string); is {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(c.status)
					_, _ = w.Write([]byte(text))
					return
				}
				reply(w, c.status, c.body)
			}))
			defer tokens.Close()
			tr := newTransmitter(t)
			_, err := newReceiver(t, tr.config(managed(signals.Push), withGrant(tokens.URL))).Examine(t.Context())
			require.ErrorContains(t, err, c.err)
			var failed *signals.TokenError
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, c.code, failed.Code)
			assert.False(t, failed.NotFound)
			assert.Empty(t, tr.auth)
		})
	}
	t.Run("the cause of an error is in its chain", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tokens := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel() }))
		defer tokens.Close()
		_, err := newReceiver(t, newTransmitter(t).config(managed(signals.Push), withGrant(tokens.URL))).Examine(ctx)
		var failed *signals.TokenError
		require.ErrorAs(t, err, &failed)
		assert.ErrorIs(t, err, context.Canceled)
	})
	t.Run("configured scopes are requested, and a token is used at once", func(t *testing.T) {
		requests := 0
		tokens := tokenEndpoint(t, &requests)
		_, err := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokens.URL, Auth: introspect.BasicAuth("receiver", "password"), Scope: []string{"a"}})
		})).Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, requests)
	})
	t.Run("the default scopes are requested in order, and the accepted one first the next time", func(t *testing.T) {
		var asked []string
		accepted := ""
		tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.PostFormValue("scope"))
			if accepted != r.PostFormValue("scope") {
				reply(w, 400, M{"error": "invalid_scope"})
				return
			}
			reply(w, 200, M{"access_token": "refused", "token_type": "Bearer", "expires_in": 3600})
		}))
		defer tokens.Close()
		r := newReceiver(t, newTransmitter(t).config(managed(signals.Push), withGrant(tokens.URL)))
		for _, c := range []struct {
			accepted string
			want     []string
		}{
			{"", []string{"ssf.read ssf.manage", "ssf.manage", "ssf.read"}},
			// The access token is refused by the API, and so another one is requested.
			{"ssf.manage", []string{"ssf.read ssf.manage", "ssf.manage", "ssf.manage"}},
			{"ssf.read", []string{"ssf.manage", "ssf.read ssf.manage", "ssf.read"}},
		} {
			asked, accepted = nil, c.accepted
			_, err := r.Examine(t.Context())
			require.Error(t, err)
			assert.Equal(t, c.want, asked)
		}
	})
	for resource, want := range map[string][]string{"": nil, "https://api.example.com": {"https://api.example.com"}} {
		t.Run("the resource is requested: "+resource, func(t *testing.T) {
			var got []string
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.NoError(t, r.ParseForm())
				got = r.PostForm["resource"]
				reply(w, 200, M{"access_token": apiToken, "token_type": "Bearer"})
			}))
			defer tokens.Close()
			_, err := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
				cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokens.URL, Auth: introspect.BasicAuth("a", "b"), Resource: resource})
			})).Examine(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestMovedTokenEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransmitterInMemory(t)
		mux := tr.handler.(*http.ServeMux)
		var asked int                               // for the metadata
		at, down, issued := "/a", false, []string{} // issued: endpoints that were asked
		mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
			asked++
			if down {
				w.WriteHeader(503)
				return
			}
			reply(w, 200, M{"issuer": tr.URL, "token_endpoint": tr.URL + at})
		})
		gone := map[string]bool{}
		for _, path := range []string{"/a", "/b"} {
			mux.HandleFunc("POST "+path, func(w http.ResponseWriter, _ *http.Request) {
				issued = append(issued, path)
				if gone[path] {
					w.WriteHeader(404)
					return
				}
				reply(w, 200, M{"access_token": apiToken, "token_type": "Bearer", "expires_in": 60})
			})
		}
		r := newReceiver(t, tr.config(managed(signals.Push), withGrant("")))
		examine := func() error {
			time.Sleep(2 * time.Minute) // the token has expired
			issued = nil
			_, err := r.Examine(t.Context())
			return err
		}
		require.NoError(t, examine())
		require.NoError(t, examine())
		assert.Equal(t, 1, asked, "while the endpoint answers, the metadata is not fetched again")
		gone["/a"], down = true, true
		require.ErrorContains(t, examine(), "status 404")
		require.ErrorContains(t, examine(), "status 404", "the endpoint that the metadata contained remains while there is no metadata")
		assert.Equal(t, []string{"/a"}, issued)
		assert.Equal(t, 2, asked)
		down, at = false, "/b"
		require.NoError(t, examine())
		assert.Equal(t, []string{"/b"}, issued)
		require.NoError(t, examine())
		assert.Equal(t, 3, asked)
		r.Close()
		tr.close()
	})
}

func TestLifetimeOfAccessTokens(t *testing.T) {
	for name, c := range map[string]struct {
		lifetime any           // expires_in
		kept     time.Duration // it is requested again after this time, and not before
	}{
		"ten seconds before its end":        {60, 50 * time.Second},
		"a second later if it is short":     {5, time.Second},
		"a second later if it has no end":   {nil, time.Second},
		"a second later if it has expired":  {-60, time.Second},
		"after a day if it is valid longer": {json.Number("9000000000000000000"), 24*time.Hour - 10*time.Second},
	} {
		t.Run("a token is requested again "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, issued := newTransmitterInMemory(t), 0
				tr.handler.(*http.ServeMux).HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
					issued++
					reply(w, 200, M{"access_token": apiToken, "token_type": "Bearer", "expires_in": c.lifetime})
				})
				r := newReceiver(t, tr.config(managed(signals.Push), withGrant(tr.URL+"/token")))
				for i, wait := range []time.Duration{0, c.kept - 1, 1} {
					time.Sleep(wait)
					_, err := r.Examine(t.Context())
					require.NoError(t, err)
					assert.Equal(t, []int{1, 1, 2}[i], issued)
				}
				r.Close()
				tr.close()
			})
		})
	}
}
