package signals_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

func TestAccessTokensOfTheReceiver(t *testing.T) {
	t.Run("a mistake in the method is one of Credentials", func(t *testing.T) {
		_, err := signals.New(signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: signals.ClientCredentialsGrant(
			signals.ClientCredentials{TokenURL: "https://idp.example.com/token", Auth: introspect.PrivateKeyJWT("receiver", []byte("no key"), "ES256")})})
		require.ErrorContains(t, err, "Credentials: Auth: ")
		assert.NotContains(t, err.Error(), "a method that names the client")
	})
	t.Run("one that cannot be had is why there is no stream", func(t *testing.T) {
		r := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Credentials = signals.BearerToken(func(context.Context) (string, error) { return "", errors.New("the vault is sealed") })
		}))
		run(t, r)
		eventually(t, "it is known", fails(r, "getting an access token: the vault is sealed"))
	})
	t.Run("nor without an answer of the token endpoint", func(t *testing.T) {
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		r := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: gone.URL, Auth: introspect.BasicAuth("receiver", "password")})
		}))
		run(t, r)
		eventually(t, "it is known", fails(r, "getting an access token: "))
	})
	for name, c := range map[string]struct {
		scope []string
		want  []string
	}{
		"by default, the scopes of the specification are requested": {nil, []string{"ssf.read ssf.manage"}},
		"an empty list requests none":                               {[]string{}, nil},
		"another list is requested":                                 {[]string{"a", "b"}, []string{"a b"}},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.NoError(t, r.ParseForm())
				assert.Equal(t, c.want, r.PostForm["scope"])
				reply(w, 200, M{"access_token": apiToken, "token_type": "Bearer", "expires_in": 3600})
			}))
			defer tokens.Close()
			r := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
				cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokens.URL, Auth: introspect.BasicAuth("receiver", "password"), Scope: c.scope})
			}))
			run(t, r)
			eventually(t, "it is ready", isReady(r))
		})
	}
	for name, c := range map[string]struct {
		has   string // the scopes of the client
		scope []string
		asked []string // for the first token and, after it was refused, the second one
		err   string
	}{
		"a client with both scopes":      {"ssf.read ssf.manage", nil, []string{"ssf.read ssf.manage", "ssf.read ssf.manage"}, ""},
		"a client with ssf.manage alone": {"ssf.manage", nil, []string{"ssf.read ssf.manage", "ssf.manage", "ssf.manage"}, ""},
		"a client with ssf.read alone":   {"ssf.read", nil, []string{"ssf.read ssf.manage", "ssf.manage", "ssf.read", "ssf.read"}, ""},
		"a client with other scopes": {"admin", nil, []string{"ssf.read ssf.manage", "ssf.manage", "ssf.read"},
			`to each of ["ssf.read ssf.manage" "ssf.manage" "ssf.read"]: give the client these scopes, or set Scope to those of the transmitter`},
		"configured scopes, of which the client has one": {"ssf.manage", []string{"ssf.manage", "a"}, []string{"ssf.manage a"},
			`to Scope ["ssf.manage" "a"]: the client does not have all of these scopes there`},
	} {
		t.Run(name+" gets a token with those that it has", func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			issued := 0
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				scope := r.PostFormValue("scope")
				if asked = append(asked, scope); len(asked) > len(c.asked) { // the next attempt
					asked = asked[:len(c.asked)]
				}
				for _, s := range strings.Fields(scope) {
					if !slices.Contains(strings.Fields(c.has), s) {
						reply(w, 400, M{"error": "invalid_scope"}) // RFC 6749, section 5.2
						return
					}
				}
				token := apiToken
				if issued++; issued == 1 {
					token = "expired"
				}
				reply(w, 200, M{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
			}))
			defer tokens.Close()
			r := newReceiver(t, newTransmitter(t).config(managed(signals.Push), func(cfg *signals.Config) {
				cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokens.URL, Auth: introspect.BasicAuth("receiver", "password"), Scope: c.scope})
			}))
			run(t, r)
			if c.err == "" {
				eventually(t, "it is ready", isReady(r))
			} else {
				eventually(t, "it is known", fails(r, c.err))
			}
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, c.asked, asked)
		})
	}
	t.Run("one without the scope to create a stream", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.noCreate = 403
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it is known", fails(r, "creating the stream: the transmitter answers with status 403: the access token does not allow it. Does the client have the scope ssf.manage"))
	})
	t.Run("one is used until ten seconds before its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			issued := 0
			streams := tr.handler.(*http.ServeMux)
			streams.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
				tr.with(func() { issued++ })
				reply(w, 200, M{"access_token": apiToken, "token_type": "Bearer", "expires_in": 3600})
			})
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
				cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tr.URL + "/token", Auth: introspect.BasicAuth("receiver", "password")})
				cfg.VerifyInterval = -1 // the status is read every five minutes
			}))
			stop := run(t, r)
			time.Sleep(50 * time.Minute)
			tr.with(func() { assert.Equal(t, 1, issued) })
			time.Sleep(20 * time.Minute)
			tr.with(func() { assert.Equal(t, 2, issued) })
			stop()
			r.Close()
			tr.close()
		})
	})
}

func TestStreamsThatAreMalformed(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(tr *transmitter)
		err     string
	}{
		"a stream that is created without an ID": {func(tr *transmitter) { tr.change = func(s M) { delete(s, "stream_id") } }, "creating the stream: "},
		"an endpoint that is not a URL":          {func(tr *transmitter) { tr.metadata["configuration_endpoint"] = "https://a b/" }, "the endpoint is malformed"},
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			tr := newTransmitter(t)
			c.prepare(tr)
			r := newReceiver(t, tr.config(managed(signals.Push)))
			run(t, r)
			eventually(t, "it is known", fails(r, c.err))
		})
	}
}

func TestPollingThatFailsIsLogged(t *testing.T) {
	tr := newTransmitter(t)
	tr.pollStatus = 500
	var log logBuffer
	r := newReceiver(t, tr.config(managed(signals.Poll), log.log))
	run(t, r)
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "signals: polling failed") })
	assert.Contains(t, log.String(), "status 500")
}

func TestOnlyPost(t *testing.T) {
	r := newReceiver(t, newTransmitter(t).config())
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest(method, "/events", nil))
		assert.Equal(t, 405, w.Code)
		assert.Equal(t, "POST", w.Header().Get("Allow"))
	}
}

// A watcher that comes later is to refuse what those before it refuse.
func TestALaterWatcherGetsTheLaterBound(t *testing.T) {
	tr := newTransmitter(t)
	r := newReceiver(t, tr.config())
	before := watch(t, r)
	earlier, later := time.Now().Add(-2*time.Minute).Truncate(time.Second), time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, at := range []time.Time{earlier, later} {
		require.Equal(t, 202, push(r, tr.set(claim("iat", at.Unix()), event(signals.SessionRevoked, M{"event_timestamp": at.Unix()}))).Code)
	}
	require.Len(t, before.what(), 2)
	after := watch(t, r)
	require.Equal(t, []string{"sub alice"}, after.what())
	assert.Equal(t, before.last(), after.last())
}

func TestSubjectsOfDraftsAndMistakes(t *testing.T) {
	_, members, err := signals.ParseSubject(`{"subject_type":"complex","user":{"subject_type":"email","email":"a@example.com"}}`, true)
	require.NoError(t, err)
	assert.Len(t, members, 1)
	_, _, err = signals.ParseSubject(`{"subject_type":"complex","user":{"subject_type":"email","email":"a@example.com"}}`, false)
	assert.Error(t, err, "without the setting")
	_, _, err = signals.ParseSubject(`{"format":"email","Format":"opaque","email":"a@example.com","id":"x"}`, false)
	assert.ErrorContains(t, err, "two letter cases")
}

// A transmitter that answers 429 sends no verification event, so that none is missing.
func TestVerificationsThatAreRefusedAreNotMissing(t *testing.T) {
	for status, dead := range map[int]bool{204: true, 429: false, 500: true} {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			tr.onVerify = func(M) int { return status }
			var log logBuffer
			r := newReceiver(t, tr.config(managed(signals.Push), log.log))
			stop := run(t, r)
			time.Sleep(2 * time.Hour)
			assert.Equal(t, map[bool]int{true: 1}[dead], strings.Count(log.String(), "verification events do not arrive"), "%d: %s", status, log.String())
			stop()
			r.Close()
			tr.close()
		})
	}
}
