package signals_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

// fails reports whether the stream of r is not set up for a reason.
func fails(r *signals.Receiver, text string) func() bool {
	return func() bool { h := health(r); return h.Err != nil && strings.Contains(h.Err.Error(), text) }
}

func isReady(r *signals.Receiver) func() bool {
	return func() bool { return health(r).State == valetkey.Ready }
}

func TestDiscovery(t *testing.T) {
	for name, test := range map[string]struct {
		issuer string // behind the URL
		site   map[string]string
		asked  []string
		risc   bool
		err    string // "": it succeeds
	}{
		"SSF-33 metadata of another transmitter is not used": {"", map[string]string{"/.well-known/ssf-configuration": "https://evil.example.com"},
			[]string{"/.well-known/ssf-configuration"}, false, "it is of the transmitter"},
		"SSF-33 metadata of the transmitter with a slash is not used": {"", map[string]string{"/.well-known/ssf-configuration": "URL/"},
			[]string{"/.well-known/ssf-configuration"}, false, "it is of the transmitter"},
		"SSF-34 without a path": {"", map[string]string{"/.well-known/ssf-configuration": "URL"},
			[]string{"/.well-known/ssf-configuration"}, false, ""},
		"SSF-34 with a path, the name is inserted": {"/realms/a", map[string]string{"/.well-known/ssf-configuration/realms/a": "URL/realms/a"},
			[]string{"/.well-known/ssf-configuration/realms/a"}, false, ""},
		"SSF-34 a slash at the end is not part of the place": {"/realms/a/", map[string]string{"/.well-known/ssf-configuration/realms/a": "URL/realms/a/"},
			[]string{"/.well-known/ssf-configuration/realms/a"}, false, ""},
		"SSF-34 after a 404 it is appended, as by Keycloak": {"/realms/a", map[string]string{"/realms/a/.well-known/ssf-configuration": "URL/realms/a"},
			[]string{"/.well-known/ssf-configuration/realms/a", "/realms/a/.well-known/ssf-configuration"}, false, ""},
		"SSF-34 after an answer of another transmitter it is not": {"/realms/a", map[string]string{
			"/.well-known/ssf-configuration/realms/a": "URL", "/realms/a/.well-known/ssf-configuration": "URL/realms/a"},
			[]string{"/.well-known/ssf-configuration/realms/a"}, false, "it is of the transmitter"},
		"the name of RISC without the option is not asked for": {"", map[string]string{"/.well-known/risc-configuration": "URL"},
			[]string{"/.well-known/ssf-configuration"}, false, "status 404"},
		"the name of RISC with the option, as by Google": {"", map[string]string{"/.well-known/risc-configuration": "URL"},
			[]string{"/.well-known/ssf-configuration", "/.well-known/risc-configuration"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, "ES256")
			var asked []string
			var base string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/jwks" {
					reply(w, 200, M{"keys": []any{key.PublicJWK()}})
					return
				}
				asked = append(asked, r.URL.Path)
				issuer, is := test.site[r.URL.Path]
				if !is {
					w.WriteHeader(404)
					return
				}
				reply(w, 200, M{"issuer": strings.Replace(issuer, "URL", base, 1), "jwks_uri": base + "/jwks"})
			}))
			defer server.Close()
			base = server.URL
			r := newReceiver(t, signals.Config{Transmitter: base + test.issuer, Delivery: signals.Push, Stream: signals.Stream{Unmanaged: true},
				Audience: []string{audience}, Legacy: signals.Legacy{AllowRISCMetadata: test.risc}, Logger: slog.New(slog.DiscardHandler)})
			run(t, r)
			if test.err == "" {
				eventually(t, "it is ready", isReady(r))
			} else {
				eventually(t, "it fails", fails(r, test.err))
			}
			r.Close()
			server.Close() // waits for an attempt that has begun
			assert.Equal(t, test.asked, asked[:len(test.asked)])
		})
	}
}

func TestStreams(t *testing.T) {
	events := []string{"a", string(signals.SessionRevoked)}
	mine := func(tr *transmitter, id string) M {
		return tr.stream(id, M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint}, events)
	}
	theirs := func(tr *transmitter) M {
		return tr.stream("other", M{"method": "urn:ietf:rfc:8935", "endpoint_url": "https://other.example.com/"}, events)
	}
	for name, test := range map[string]struct {
		prepare  func(tr *transmitter)
		config   func(cfg *signals.Config)
		id       string // or
		err      string
		creates  int
		delivery signals.Delivery
	}{
		"none exists: it is created": {func(*transmitter) {}, nil, "stream-1", "", 1, signals.Push},
		"one exists: it is used as it is": {func(tr *transmitter) { tr.streams = []M{theirs(tr), mine(tr, "m")} }, nil, "m", "", 0,
			signals.Push},
		"one exists and is the answer by itself instead of a list": {func(tr *transmitter) { tr.streams = []M{mine(tr, "m")}; tr.single = true }, nil, "m", "", 0, signals.Push},
		"two exist: an error":            {func(tr *transmitter) { tr.streams = []M{mine(tr, "m"), mine(tr, "n")} }, nil, "", "select one with Stream.ID", 0, signals.Push},
		"two exist, and one is selected": {func(tr *transmitter) { tr.streams = []M{mine(tr, "m"), mine(tr, "n")} }, func(cfg *signals.Config) { cfg.Stream.ID = "n" }, "n", "", 0, signals.Push},
		"the selected one does not exist": {func(tr *transmitter) { tr.streams = []M{mine(tr, "m")} }, func(cfg *signals.Config) { cfg.Stream.ID = "n" }, "",
			"does not know the stream", 0, signals.Push},
		"the selected one is for poll: an error": {func(tr *transmitter) { tr.streams = []M{tr.stream("p", M{"method": "urn:ietf:rfc:8936"}, events)} },
			func(cfg *signals.Config) { cfg.Stream.ID = "p" }, "", "has the delivery", 0, signals.Push},
		"the deliveries before the RFCs": {func(tr *transmitter) {
			tr.streams = []M{tr.stream("m", M{"method": "https://schemas.openid.net/secevent/risc/delivery-method/push", "endpoint_url": endpoint}, events)}
		}, nil, "m", "", 0, signals.Push},
		"SSF-36 the created one has another iss: an error": {func(tr *transmitter) { tr.change = func(s M) { s["iss"] = "https://evil.example.com" } }, nil, "", "has the iss", 1, signals.Push},
		"SSF-36 409, and the existing one is used as it is": {func(tr *transmitter) {
			tr.noCreate, tr.late = 409, []M{mine(tr, "m")}
		}, nil, "m", "", 1, signals.Push},
		"SSF-36 409, and the existing one has another endpoint: an error": {func(tr *transmitter) {
			tr.noCreate, tr.late = 409, []M{theirs(tr)}
		}, nil, "", "allows no second stream", 1, signals.Push},
		"202: not yet":                          {func(tr *transmitter) { tr.noCreate = 202 }, nil, "", "not completed", 1, signals.Push},
		"403: an error":                         {func(tr *transmitter) { tr.noCreate = 403 }, nil, "", "status 403", 1, signals.Push},
		"no configuration_endpoint: an error":   {func(tr *transmitter) { tr.metadata["configuration_endpoint"] = nil }, nil, "", "set Stream.Unmanaged", 0, signals.Push},
		"a poll stream is created":              {func(*transmitter) {}, nil, "stream-1", "", 1, signals.Poll},
		"a poll stream without a URL: an error": {func(tr *transmitter) { tr.change = func(s M) { delete(s["delivery"].(M), "endpoint_url") } }, nil, "", "no endpoint_url", 1, signals.Poll},
		"a stream without aud: an error":        {func(tr *transmitter) { tr.change = func(s M) { delete(s, "aud") } }, nil, "", "set Audience", 1, signals.Push},
		"SSF-35 a poll URL of another origin: an error": {func(tr *transmitter) {
			tr.change = func(s M) { s["delivery"].(M)["endpoint_url"] = "https://poll.example.com/" }
		}, nil, "",
			"no access token is sent there", 1, signals.Poll},
		"SSF-35 a configuration_endpoint of another origin: an error": {func(tr *transmitter) { tr.metadata["configuration_endpoint"] = "https://api.example.com/streams" }, nil, "",
			"no access token is sent there", 0, signals.Push},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTransmitter(t)
			test.prepare(tr)
			var log logBuffer
			r := newReceiver(t, tr.config(managed(test.delivery), log.log, func(cfg *signals.Config) {
				if test.config != nil {
					test.config(cfg)
				}
			}))
			run(t, r)
			if test.err != "" {
				eventually(t, "it fails", fails(r, test.err))
			} else {
				eventually(t, "it is ready", isReady(r))
				assert.Equal(t, test.id, r.Status().StreamID)
				assert.NotContains(t, log.String(), "the stream is not set up", "it succeeds at once")
			}
			tr.mu.Lock()
			defer tr.mu.Unlock()
			require.GreaterOrEqual(t, len(tr.creates), test.creates)
			if test.creates == 0 {
				assert.Empty(t, tr.creates)
				return
			}
			delivery := M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint, "authorization_header": secret}
			if test.delivery == signals.Poll {
				delivery = M{"method": "urn:ietf:rfc:8936"}
			}
			requested := []any{string(signals.SessionRevoked), string(signals.AccountDisabled), string(signals.AccountPurged), string(signals.SessionsRevoked)}
			assert.Equal(t, M{"delivery": delivery, "events_requested": requested}, tr.creates[0])
			assert.Empty(t, tr.patches, "no stream is changed unasked")
		})
	}

	t.Run("SSF-35 the token is sent to origins of the transmitter and to listed ones only", func(t *testing.T) {
		var got []string
		elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("Authorization"))
			reply(w, 200, M{"status": "enabled"})
		}))
		defer elsewhere.Close()
		tr := newTransmitter(t)
		tr.metadata["status_endpoint"] = elsewhere.URL + "/status"
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it fails", fails(r, "TrustedOrigins allows it"))
		r.Close()
		assert.Empty(t, got)
		r = newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.TrustedOrigins = []string{elsewhere.URL} }))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		r.Close()
		assert.Equal(t, []string{"Bearer " + apiToken}, got)
	})
	t.Run("SSF-37 only events_delivered counts, and what is missing is reported", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.change = func(s M) {
			s["events_delivered"] = []string{string(signals.SessionRevoked), string(signals.AccountPurged), "other"}
		}
		var log logBuffer
		r := newReceiver(t, tr.config(managed(signals.Push), log.log))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.Equal(t, []signals.Event{signals.SessionRevoked, signals.AccountPurged, "other"}, r.Status().Delivered)
		assert.Equal(t, []signals.Event{signals.AccountDisabled}, r.Status().Missing, "session-revoked replaces sessions-revoked")
		assert.Contains(t, log.String(), "does not deliver all events that are on")
	})
	t.Run("a SET that comes before the stream is set up waits for its audience, and is not refused for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
			send := func(c ...change) *httptest.ResponseRecorder {
				return push(r, tr.set(c...), func(q *http.Request) { q.Header.Set("Authorization", secret) })
			}
			w := send()
			assert.Equal(t, 503, w.Code, "it is not set up at all")
			assert.Equal(t, "1", w.Header().Get("Retry-After"))
			assert.Equal(t, "invalid_request", errOf(t, send(claim("sub", "alice"), claim("aud", audience), claim("exp", 1), claim("jti", nil))))
			answers := make(chan int, 2)
			for _, aud := range []string{audience, "https://other.example.com"} {
				go func() { answers <- send(claim("aud", aud)).Code }()
			}
			time.Sleep(time.Second)
			assert.Empty(t, answers)
			stop := run(t, r)
			assert.ElementsMatch(t, []int{202, 400}, []int{<-answers, <-answers})
			assert.Equal(t, []string{"sub alice"}, s.what())
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("SETs that anyone can send, and that wait for the audience, do not keep out the others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
				cfg.AuthorizationHeader, cfg.Audience, cfg.Guards = "", []string{audience}, []signals.Guard{s}
			}))
			h := r.Handler()
			send := func(raw string) *httptest.ResponseRecorder {
				req := httptest.NewRequest("POST", "/events", strings.NewReader(raw))
				req.Header.Set("Content-Type", "application/secevent+jwt")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, req)
				return w
			}
			foreign := tr.set(claim("aud", "https://other.example.com"))
			unsigned := foreign[:strings.LastIndexByte(foreign, '.')] + ".AAAA"
			var all sync.WaitGroup
			for range 300 {
				all.Go(func() { assert.Equal(t, 503, send(unsigned).Code) })
			}
			synctest.Wait()
			assert.Equal(t, 202, send(tr.set()).Code)
			assert.Equal(t, []string{"sub alice"}, s.what())
			all.Wait()
			r.Close()
			tr.close()
		})
	})
	for name, c := range map[string]struct {
		events    []signals.Event // nil: the default
		delivered []signals.Event
		missing   []signals.Event
	}{
		"CAEP's event alone": {nil, []signals.Event{signals.SessionRevoked, signals.AccountDisabled, signals.AccountPurged}, nil},
		"RISC's event alone": {nil, []signals.Event{signals.SessionsRevoked, signals.AccountDisabled, signals.AccountPurged},
			[]signals.Event{signals.SessionRevoked}},
		"neither": {nil, []signals.Event{signals.AccountDisabled, signals.AccountPurged}, []signals.Event{signals.SessionRevoked, signals.SessionsRevoked}},
		"CAEP's event alone, which is not on": {[]signals.Event{signals.SessionsRevoked}, []signals.Event{signals.SessionRevoked},
			[]signals.Event{signals.SessionsRevoked}},
	} {
		t.Run("SSF-37 sessions-revoked, which RISC deprecates, is missed only without session-revoked: "+name, func(t *testing.T) {
			tr, log := newTransmitter(t), new(strings.Builder)
			tr.change = func(s M) { s["events_delivered"] = c.delivered }
			r := newReceiver(t, tr.config(managed(signals.Poll), func(cfg *signals.Config) {
				cfg.Events, cfg.Logger = c.events, slog.New(slog.NewTextHandler(log, nil))
			}))
			stop := run(t, r)
			eventually(t, "it is set up", isReady(r))
			stop()
			assert.Equal(t, c.missing, r.Status().Missing)
			assert.Equal(t, c.missing != nil, strings.Contains(log.String(), "does not deliver all events"), log.String())
		})
	}
	t.Run("SSF-37 without events_delivered all are missing", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.change = func(s M) { delete(s, "events_delivered") }
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.Len(t, r.Status().Missing, 4)
	})
	t.Run("a stream that the transmitter has paused is not ready", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.status = "paused"
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it is known", fails(r, "the transmitter has paused the stream"))
		assert.Equal(t, valetkey.Down, health(r).State)
	})
	t.Run("an access token that is refused is requested again", func(t *testing.T) {
		tr := newTransmitter(t)
		issued := 0
		tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, password, _ := r.BasicAuth()
			assert.Equal(t, "receiver:password", id+":"+password)
			assert.Equal(t, "client_credentials", r.PostFormValue("grant_type"))
			assert.Equal(t, "ssf.read ssf.manage", r.PostFormValue("scope"))
			token := apiToken
			if issued++; issued == 1 {
				token = "expired"
			}
			reply(w, 200, M{"access_token": token, "token_type": "bearer", "expires_in": 3600})
		}))
		defer tokens.Close()
		r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokens.URL, Auth: introspect.BasicAuth("receiver", "password")})
		}))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		tr.state()
		assert.Equal(t, 2, issued, "and the next one is kept")
	})
}

// Virtual time: the transmitter is in memory.
func TestIntervals(t *testing.T) {
	t.Run("SSF-38 the status is read before the inactivity_timeout ends, and not too often", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for timeout, want := range map[time.Duration]int{10 * time.Minute: 12, 4 * time.Minute: 30, time.Second: 360, 0: 12, 1000 * time.Hour: 12} {
				tr := newTransmitterInMemory(t)
				tr.change = func(s M) { s["inactivity_timeout"] = timeout.Seconds() }
				r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.VerifyInterval = -1 }))
				stop := run(t, r)
				time.Sleep(time.Hour + 30*time.Second)
				stop()
				tr.mu.Lock()
				assert.InDelta(t, want, tr.statusHit-1, float64(want)/8+2, "%v", timeout)
				tr.mu.Unlock()
				r.Close()
				tr.close()
			}
		})
	})
	t.Run("a dead stream is noticed after three verifications, and the interval of the transmitter is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			tr.change = func(s M) { s["min_verification_interval"] = 600 }
			r := newReceiver(t, tr.config(managed(signals.Push)))
			stop := run(t, r)
			time.Sleep(29 * time.Minute)
			assert.Equal(t, valetkey.Ready, health(r).State)
			assert.ErrorContains(t, health(r).Err, "no verification event has proven")
			time.Sleep(10 * time.Minute)
			assert.Equal(t, valetkey.Degraded, health(r).State)
			tr.mu.Lock()
			assert.InDelta(t, 4, len(tr.verifies), 1)
			tr.mu.Unlock()
			require.Equal(t, 202, pushed(r, tr.set(event(verification, M{"state": tr.state()}))))
			assert.Equal(t, valetkey.Ready, health(r).State)
			assert.NoError(t, health(r).Err)
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("with RequireProof a stream is not ready until it is proven", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.RequireProof = true }))
			stop := run(t, r)
			time.Sleep(time.Minute)
			assert.Equal(t, valetkey.Down, health(r).State)
			require.Equal(t, 202, pushed(r, tr.set(event(verification, M{"state": tr.state()}))))
			assert.Equal(t, valetkey.Ready, health(r).State)
			time.Sleep(21 * time.Minute)
			assert.Equal(t, valetkey.Degraded, health(r).State)
			stop()
			r.Close()
			tr.close()
		})
	})
}

func TestGaps(t *testing.T) {
	for name, policy := range map[string]signals.GapPolicy{"report": signals.ReportGaps, "revoke": signals.RevokeBeforeGaps} {
		t.Run("a push stream that is silent for longer than the transmitter keeps events: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, s := newTransmitterInMemory(t), &sink{}
				file := signals.FileState(filepath.Join(t.TempDir(), "state"))
				r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
					cfg.Gaps, cfg.State, cfg.Guards, cfg.MaxTokenLifetime = policy, file, []signals.Guard{s}, time.Hour
				}))
				stop := run(t, r)
				time.Sleep(time.Second)
				require.Equal(t, 202, pushed(r, tr.set(event(verification, M{}))))
				first := r.Status().LastContact
				time.Sleep(50 * time.Minute)
				s.mu.Lock()
				s.all = nil
				s.mu.Unlock()
				require.Equal(t, 202, pushed(r, tr.set(event(verification, M{}))))
				assert.NotEqual(t, first, r.Status().Gap.From, "50 min are within the hour")
				time.Sleep(70 * time.Minute)
				begun := r.Status().LastContact
				require.Equal(t, 202, pushed(r, tr.set(event(verification, M{}))))
				assert.Equal(t, begun, r.Status().Gap.From)
				assert.Contains(t, r.Status().Gap.Reason, "the stream was silent for 1h10m0s")
				time.Sleep(2 * time.Second)
				if policy == signals.ReportGaps {
					assert.ErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
					assert.Empty(t, s.what())
					time.Sleep(2 * time.Hour)
					assert.NotErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing, "no token from before the gap is left")
				} else {
					assert.NotErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
					assert.Equal(t, []string{"all"}, s.what())
					assert.Equal(t, r.Status().Gap.To, s.last().At)
				}
				stop()
				r.Close()
				tr.close()
			})
		})
	}
	t.Run("a process that was down for too long knows it from its state", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			config := func() signals.Config {
				return tr.config(managed(signals.Push), func(cfg *signals.Config) {
					cfg.Gaps, cfg.Guards = signals.RevokeBeforeGaps, []signals.Guard{s}
					cfg.State = signals.FileState(filepath.Join(t.TempDir(), "state"))
				})
			}
			cfg := config()
			for i, down := range []time.Duration{0, 10 * time.Minute, 2 * time.Hour} {
				time.Sleep(down)
				s.mu.Lock()
				s.all = nil
				s.mu.Unlock()
				r := newReceiver(t, cfg)
				stop := run(t, r)
				time.Sleep(time.Second)
				require.Equal(t, 202, pushed(r, tr.set(event(verification, M{}))))
				time.Sleep(2 * time.Second)
				want := [][]string{{"all"}, {}, {"all"}}[i] // nothing is known at the very first start
				assert.Equal(t, want, s.what(), "start %d", i)
				stop()
				r.Close()
			}
			assert.Len(t, tr.streams, 1, "the same stream")
			tr.close()
		})
	})
	t.Run("a stream that is gone and created again is a gap", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(managed(signals.Poll)))
			stop := run(t, r)
			time.Sleep(time.Second)
			require.Equal(t, valetkey.Ready, health(r).State)
			tr.with(func() { tr.streams = nil; tr.pollStatus = 404 })
			time.Sleep(time.Second)
			tr.with(func() { tr.pollStatus = 0 })
			time.Sleep(10 * time.Second)
			assert.Equal(t, "the stream was gone, and there is another one now", r.Status().Gap.Reason)
			assert.ErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("a stream that is gone again and again is set up ever more rarely", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			tr.pollStatus = 404
			r := newReceiver(t, tr.config(managed(signals.Poll)))
			stop := run(t, r)
			time.Sleep(time.Hour)
			tr.mu.Lock()
			assert.Less(t, len(tr.polls), 80)
			assert.Len(t, tr.streams, 1, "and no further one is created")
			tr.mu.Unlock()
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("without State each start is a gap for the policy that revokes, and none for the other", func(t *testing.T) {
		tr := newTransmitter(t)
		for policy, want := range map[signals.GapPolicy][]string{signals.ReportGaps: {}, signals.RevokeBeforeGaps: {"all"}} {
			s := &sink{}
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Gaps, cfg.Guards = policy, []signals.Guard{s} }))
			stop := run(t, r)
			eventually(t, "it is ready", isReady(r))
			assert.Equal(t, want, s.what())
			stop()
		}
	})
	t.Run("the older tokens are revoked before the receiver has caught up, also if that fails at first", func(t *testing.T) {
		tr, down := newTransmitter(t), &sink{err: context.DeadlineExceeded}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Gaps, cfg.Publish = signals.RevokeBeforeGaps, down }))
		run(t, r)
		eventually(t, "it is tried", func() bool { down.mu.Lock(); defer down.mu.Unlock(); return down.n > 0 })
		assert.Equal(t, valetkey.Down, health(r).State)
		down.fail(nil)
		eventually(t, "it is ready", isReady(r))
		assert.True(t, slices.Contains(down.what(), "all"))
	})
}
