package signals_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
)

const (
	pushMethod = "urn:ietf:rfc:8935"
	pollMethod = "urn:ietf:rfc:8936"
)

// pushStream returns the configuration of a stream to the endpoint of the receiver.
func (tr *transmitter) pushStream(id string) M {
	return tr.stream(id, M{"method": pushMethod, "endpoint_url": endpoint}, nil)
}

func TestMetadataThatIsUnusable(t *testing.T) {
	for name, c := range map[string]struct {
		change func(tr *transmitter)
		err    string
	}{
		"an issuer in two letter cases":     {func(tr *transmitter) { tr.metadata["Issuer"] = "x" }, "two letter cases"},
		"no jwks_uri":                       {func(tr *transmitter) { tr.metadata["jwks_uri"] = nil }, "the metadata of the transmitter has no jwks_uri"},
		"a jwks_uri without TLS":            {func(tr *transmitter) { tr.metadata["jwks_uri"] = "http://idp.example.com/jwks?secret" }, `jwks_uri "http://idp.example.com/jwks": `},
		"an issuer that is not transmitter": {func(tr *transmitter) { tr.metadata["issuer"] = "https://idp.example.com" }, "metadata at http://127.0.0.1:"},
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			tr := newTransmitter(t)
			c.change(tr)
			r := newReceiver(t, tr.config(managed(signals.Push)))
			run(t, r)
			eventually(t, "it is known", fails(r, c.err))
			assert.Empty(t, tr.auth)
		})
	}
	t.Run("SSF-34 after a failure other than 404, no other place is asked", func(t *testing.T) {
		var asked []string
		var site string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Path)
			if strings.HasPrefix(r.URL.Path, "/.well-known/") {
				w.WriteHeader(403)
				return
			}
			reply(w, 200, M{"issuer": site + "/a", "configuration_endpoint": site + "/streams"})
		}))
		defer server.Close()
		site = server.URL
		_, err := newReceiver(t, (&transmitter{URL: site + "/a"}).config(managed(signals.Push))).Examine(t.Context())
		require.ErrorContains(t, err, "status 403")
		assert.Equal(t, []string{"/.well-known/ssf-configuration/a"}, asked)
	})
	t.Run("with JWKSURL a SET needs no metadata", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.metadata["issuer"] = "https://idp.example.com"
		r := newReceiver(t, tr.config(to(s), func(cfg *signals.Config) { cfg.JWKSURL = tr.URL + "/jwks" }))
		assert.Equal(t, 202, push(r, tr.set(claim("sub_id", session(user(tr.URL, "alice"), "s1")))).Code)
		assert.Equal(t, []string{"sid s1"}, s.what())
	})
}

func TestStreamsOfTheTransmitter(t *testing.T) {
	// listed makes the transmitter answer a request for streams with a text.
	listed := func(text string) func(tr *transmitter) {
		return func(tr *transmitter) {
			tr.apiFault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = w.Write([]byte(text))
				}
				return r.Method == "GET"
			}
		}
	}
	selected := func(cfg *signals.Config) { cfg.Stream.ID = "m" }
	for name, c := range map[string]struct {
		prepare func(tr *transmitter)
		config  func(*signals.Config)
		err     string
	}{
		"a list that is cut off":                {listed(`[{"stream_id":"m"},`), nil, "listing the streams: "},
		"a list of texts":                       {listed(`["m"]`), nil, "listing the streams: "},
		"a list with a stream without an ID":    {listed(`[{}]`), nil, "listing the streams: it has no stream_id"},
		"a stream with an aud that is a number": {listed(`{"stream_id":"m","aud":7}`), nil, "listing the streams: aud is not a string"},
		"a stream with its ID twice":            {listed(`{"stream_id":"m","stream_id":"n"}`), nil, "listing the streams: "},
		"a stream with an ID that is empty":     {listed(`{"stream_id":""}`), nil, "listing the streams: it has no stream_id"},
		"a selected stream that is malformed":   {listed(`{"stream_id":"m",`), selected, "reading the stream: "},
		"a list without the selected stream":    {listed(`[{"stream_id":"n"}]`), selected, "reading the stream: the transmitter does not know the stream"},
		"a selected stream, and an endpoint that is not a URL": {func(tr *transmitter) { tr.metadata["configuration_endpoint"] = "https://a b/" }, selected,
			"reading the stream: the endpoint is malformed"},
		"an endpoint without a host": {func(tr *transmitter) { tr.metadata["configuration_endpoint"] = "/streams" }, nil, "is not on the origin of the transmitter"},
		"a status in two letter cases": {func(tr *transmitter) {
			tr.streams = []M{tr.pushStream("m")}
			tr.handler.(*http.ServeMux).HandleFunc("GET /status2", func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, M{"status": "enabled", "Status": "paused"})
			})
			tr.metadata["status_endpoint"] = tr.URL + "/status2"
		}, nil, "reading the status of the stream: "},
		"a poll URL of another origin": {func(tr *transmitter) {
			s := tr.stream("m", M{"method": pollMethod}, nil)
			s["delivery"].(M)["endpoint_url"] = "https://poll.example.com/"
			tr.streams = []M{s}
		}, func(cfg *signals.Config) {
			managed(signals.Poll)(cfg)
			cfg.Endpoint, cfg.AuthorizationHeader = "", ""
		}, "no access token is sent there"},
	} {
		t.Run(name+": an error", func(t *testing.T) {
			tr := newTransmitter(t)
			c.prepare(tr)
			_, err := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})).Examine(t.Context())
			require.ErrorContains(t, err, c.err)
		})
	}
	for name, c := range map[string]struct {
		stream func(tr *transmitter) M
		config func(*signals.Config)
	}{
		"without iss":               {func(tr *transmitter) M { s := tr.pushStream("m"); delete(s, "iss"); return s }, nil},
		"without a method":          {func(tr *transmitter) M { s := tr.pushStream("m"); delete(s["delivery"].(M), "method"); return s }, nil},
		"without an endpoint":       {func(tr *transmitter) M { s := tr.pushStream("m"); delete(s["delivery"].(M), "endpoint_url"); return s }, nil},
		"with a delivery as a text": {func(tr *transmitter) M { s := tr.pushStream("m"); s["delivery"] = "push"; return s }, nil},
		"without aud, but with a configured one": {func(tr *transmitter) M { s := tr.pushStream("m"); s["aud"] = []string{}; return s },
			func(cfg *signals.Config) { cfg.Audience = []string{audience} }},
	} {
		t.Run("a selected push stream "+name+" is used", func(t *testing.T) {
			tr := newTransmitter(t)
			tr.streams = []M{c.stream(tr)}
			st, err := newReceiver(t, tr.config(managed(signals.Push), selected, func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})).Examine(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "m", st.StreamID)
		})
	}
	t.Run("an empty text in aud is not accepted in SETs", func(t *testing.T) {
		tr := newTransmitter(t)
		s := tr.pushStream("m")
		s["aud"] = []string{"", audience}
		tr.streams = []M{s}
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		w := push(r, tr.set(claim("aud", "")), authorized)
		assert.Equal(t, "invalid_audience", errOf(t, w))
		assert.Equal(t, 202, pushed(r, tr.set()))
	})
	t.Run("a stream is selected from a list although the transmitter was asked for one", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.streams = []M{tr.pushStream("l"), tr.pushStream("m")}
		all := tr.streams
		tr.apiFault = func(w http.ResponseWriter, _ *http.Request) bool { reply(w, 200, all); return true }
		st, err := newReceiver(t, tr.config(managed(signals.Push), selected)).Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "m", st.StreamID)
	})
	t.Run("404 instead of an empty list: a stream is created, with what is configured", func(t *testing.T) {
		for _, d := range []signals.Delivery{signals.Push, signals.Poll} {
			tr := newTransmitter(t)
			tr.apiFault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" {
					w.WriteHeader(404)
				}
				return r.Method == "GET"
			}
			var log logBuffer
			r := newReceiver(t, tr.config(managed(d), log.log, func(cfg *signals.Config) { cfg.Stream.Description, cfg.AuthorizationHeader = "orders", "" }))
			run(t, r)
			eventually(t, "it is ready", isReady(r))
			assert.NotContains(t, log.String(), "is not set up")
			tr.mu.Lock()
			assert.Equal(t, "orders", tr.creates[0]["description"])
			assert.NotContains(t, tr.creates[0]["delivery"], "authorization_header")
			tr.mu.Unlock()
		}
	})
	t.Run("streams of the other delivery are ignored", func(t *testing.T) {
		for d, other := range map[signals.Delivery]string{signals.Push: pollMethod, signals.Poll: pushMethod} {
			tr := newTransmitter(t)
			tr.streams = []M{tr.stream("other", M{"method": other, "endpoint_url": endpoint}, nil)}
			tr.streams[0]["delivery"].(M)["endpoint_url"] = endpoint
			st, err := newReceiver(t, tr.config(managed(d))).Examine(t.Context())
			require.NoError(t, err)
			assert.Empty(t, st.StreamID)
		}
	})
	t.Run("409, and then no list: the error is that of the list", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.noCreate = 409
		tr.apiFault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == "GET" && len(tr.creates) > 0 {
				w.WriteHeader(403)
				return true
			}
			return false
		}
		var log logBuffer
		r := newReceiver(t, tr.config(managed(signals.Push), log.log))
		run(t, r)
		eventually(t, "it is known", fails(r, "listing the streams: the transmitter answers with status 403"))
		assert.NotContains(t, log.String(), "allows no second stream")
	})
	t.Run("a reason for the status is logged", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.handler.(*http.ServeMux).HandleFunc("GET /status2", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, M{"status": "paused", "reason": "license"})
		})
		tr.metadata["status_endpoint"] = tr.URL + "/status2"
		var log logBuffer
		r := newReceiver(t, tr.config(managed(signals.Push), log.log))
		run(t, r)
		eventually(t, "it is known", fails(r, "the transmitter has paused the stream"))
		assert.Contains(t, log.String(), "status=paused reason=license")
	})
}

func TestTransmitterWithoutURL(t *testing.T) {
	tr, s := newTransmitter(t), &sink{}
	name := "the transmitter of \x7f example.com"
	tr.enqueue("a", tr.set(claim("jti", "a"), claim("iss", name), claim("sub_id", user(name, "alice"))))
	r := newReceiver(t, tr.config(to(s), func(cfg *signals.Config) {
		cfg.Transmitter, cfg.JWKSURL = name, tr.URL+"/jwks"
		cfg.Delivery, cfg.Stream.PollURL, cfg.Credentials = signals.Poll, tr.URL+"/poll", signals.BearerToken(apiTokenOf)
	}))
	run(t, r)
	eventually(t, "its SETs are applied", func() bool { return len(s.what()) == 1 })
	assert.Equal(t, []string{"sub alice"}, s.what())
}

func TestStreamOfAnEarlierProcess(t *testing.T) {
	stored := func(tr *transmitter, id string) *stateStore {
		store := &stateStore{}
		store.put(`{"transmitter":"` + tr.URL + `","stream_id":"` + id + `","contact":"2000-01-01T00:00:00Z"}`)
		return store
	}
	t.Run("it is used although there is another one", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.streams = []M{tr.pushStream("m"), tr.pushStream("n")}
		r := newReceiver(t, sharing(tr, stored(tr, "n"), &sink{}))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.Equal(t, "n", r.Status().StreamID)
		assert.Equal(t, []string{"GET stream_id=n"}, tr.queries)
	})
	t.Run("if it is gone, the present one is used", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.streams = []M{tr.pushStream("m")}
		r := newReceiver(t, sharing(tr, stored(tr, "n"), &sink{}))
		run(t, r)
		eventually(t, "it is set up", func() bool { return r.Status().StreamID == "m" })
		assert.Equal(t, []string{"GET stream_id=n", "GET "}, tr.queries)
	})
	t.Run("if it cannot be read, no other one is used or created", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.streams = []M{tr.pushStream("m")}
		tr.apiFault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.RawQuery != "" {
				w.WriteHeader(403)
			}
			return r.URL.RawQuery != ""
		}
		r := newReceiver(t, sharing(tr, stored(tr, "n"), &sink{}))
		run(t, r)
		eventually(t, "it is known", fails(r, "reading the stream: the transmitter answers with status 403"))
		assert.Empty(t, r.Status().StreamID)
	})
	t.Run("without one, none is asked for", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, sharing(tr, &stateStore{}, &sink{}))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.Equal(t, []string{"GET ", "POST "}, tr.queries)
	})
}
