package signals_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

// withGrant gets access tokens from a token endpoint; "": from that of the metadata.
func withGrant(tokenURL string) func(*signals.Config) {
	return func(cfg *signals.Config) {
		cfg.Credentials = signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tokenURL, Auth: introspect.BasicAuth("receiver", "password")})
	}
}

// tokenEndpoint issues access tokens of the API. It counts the requests.
func tokenEndpoint(t *testing.T, requests *int) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests++
		if id, password, _ := r.BasicAuth(); id != "receiver" || password != "password" {
			reply(w, 401, M{"error": "invalid_client"})
			return
		}
		reply(w, 200, M{"access_token": apiToken, "token_type": "bearer", "expires_in": 3600})
	}))
	t.Cleanup(s.Close)
	return s
}

func TestTokenEndpointInTheMetadata(t *testing.T) {
	for _, c := range []struct {
		name     string
		metadata func(transmitter, endpoint string) M
		want     string
	}{
		{"there is no metadata", func(string, string) M { return nil }, "TokenURL is not set, and the metadata of the issuer"},
		{"the metadata is of another issuer", func(_, endpoint string) M { return M{"issuer": "https://evil.example.com", "token_endpoint": endpoint} },
			`it is of the issuer "https://evil.example.com"`},
		{"the metadata has a slash more", func(t, endpoint string) M { return M{"issuer": t + "/", "token_endpoint": endpoint} }, "it is of the issuer"},
		{"the metadata has no token endpoint", func(t, _ string) M { return M{"issuer": t} }, "it has no token_endpoint"},
		{"the endpoint is not https", func(t, _ string) M { return M{"issuer": t, "token_endpoint": "http://as.example.com/token"} }, "https"},
	} {
		t.Run(c.name+": no secret is sent, and the error names the setting", func(t *testing.T) {
			tr, requests := newTransmitter(t), 0
			tokens := tokenEndpoint(t, &requests)
			tr.handler.(*http.ServeMux).HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
				if m := c.metadata(tr.URL, tokens.URL); m != nil {
					reply(w, 200, m)
					return
				}
				http.NotFound(w, r)
			})
			r := newReceiver(t, tr.config(managed(signals.Push), withGrant("")))
			_, err := r.Examine(t.Context())
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "TokenURL is not set")
			assert.Zero(t, requests)
			assert.Empty(t, tr.auth)
		})
	}
	t.Run("an endpoint on another host is used, and one that has moved is found again", func(t *testing.T) {
		tr, requests, moved := newTransmitter(t), 0, 0
		old, next := tokenEndpoint(t, &requests), tokenEndpoint(t, &moved)
		at := old.URL
		tr.handler.(*http.ServeMux).HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
			reply(w, 200, M{"issuer": tr.URL, "token_endpoint": at})
		})
		r := newReceiver(t, tr.config(managed(signals.Push), withGrant("")))
		stop := run(t, r)
		eventually(t, "it is ready", isReady(r))
		stop()
		assert.Equal(t, 1, requests)

		again := newReceiver(t, tr.config(managed(signals.Push), withGrant("")))
		old.Close()
		_, err := again.Examine(t.Context())
		require.ErrorContains(t, err, "getting an access token")
		at = next.URL
		_, err = again.Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, moved)
	})
	t.Run("a transmitter without metadata requires the token endpoint", func(t *testing.T) {
		cfg := signals.Config{Transmitter: "urn:example:idp", JWKSURL: "https://idp.example.com/keys", Delivery: signals.Poll, Audience: []string{"x"},
			Stream: signals.Stream{Unmanaged: true, PollURL: "https://idp.example.com/poll"}}
		withGrant("")(&cfg)
		_, err := signals.New(cfg)
		require.ErrorContains(t, err, "Credentials: TokenURL: required, because no metadata of \"urn:example:idp\" can contain it")
		withGrant("https://idp.example.com/token")(&cfg)
		r, err := signals.New(cfg)
		require.NoError(t, err)
		r.Close()
	})
}

func TestExamine(t *testing.T) {
	t.Run("an outage is an error", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.server.Close()
		_, err := newReceiver(t, tr.config(managed(signals.Push))).Examine(t.Context())
		assert.ErrorContains(t, err, "ssf-configuration")
	})
	t.Run("a token that is refused is an error", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Credentials = signals.BearerToken(func(context.Context) (string, error) { return "wrong", nil })
		}))
		_, err := r.Examine(t.Context())
		assert.ErrorContains(t, err, "listing the streams: the transmitter answers with status 401")
	})
	t.Run("a stream that is not there is not created", func(t *testing.T) {
		tr := newTransmitter(t)
		st, err := newReceiver(t, tr.config(managed(signals.Push))).Examine(t.Context())
		require.NoError(t, err)
		assert.Zero(t, st)
		assert.Empty(t, tr.creates)
	})
	t.Run("without a managed stream there is nothing to examine", func(t *testing.T) {
		tr := newTransmitter(t)
		for _, change := range []func(*signals.Config){
			func(*signals.Config) {},
			func(cfg *signals.Config) {
				cfg.Delivery, cfg.Stream.Unmanaged, cfg.Issuer, cfg.Logout.Audience = signals.NoStream, false, tr.URL, []string{"client"}
			},
		} {
			st, err := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Credentials = signals.BearerToken(apiTokenOf) }, change)).Examine(t.Context())
			require.NoError(t, err)
			assert.Zero(t, st)
		}
		assert.Empty(t, tr.auth)
	})
	t.Run("a stream is found by its ID", func(t *testing.T) {
		tr := newTransmitter(t)
		for _, id := range []string{"m", "n"} {
			tr.streams = append(tr.streams, tr.stream(id, M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint}, nil))
		}
		st, err := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.Stream.ID = "n" })).Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "n", st.StreamID)
	})
	t.Run("a transmitter without status_endpoint: the status is unknown", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.metadata["status_endpoint"] = nil
		tr.streams = []M{tr.stream("m", M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint}, nil)}
		st, err := newReceiver(t, tr.config(managed(signals.Push))).Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "m", st.StreamID)
		assert.Empty(t, st.Stream)
	})
	t.Run("a status that cannot be read is an error, and the stream is known", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.metadata["status_endpoint"] = tr.URL + "/none"
		tr.streams = []M{tr.stream("m", M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint}, nil)}
		st, err := newReceiver(t, tr.config(managed(signals.Push))).Examine(t.Context())
		require.ErrorContains(t, err, "reading the status of the stream")
		assert.Equal(t, "m", st.StreamID)
	})
	t.Run("a stream is found with its status and its events", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.change = func(s M) { s["events_delivered"] = []signals.Event{signals.SessionRevoked} }
		r := newReceiver(t, tr.config(managed(signals.Push)))
		stop := run(t, r)
		eventually(t, "it is ready", isReady(r))
		tr.state() // which it requests when it is ready
		stop()
		tr.mu.Lock()
		tr.status = "paused"
		tr.mu.Unlock()
		st, err := newReceiver(t, tr.config(managed(signals.Push))).Examine(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "paused", st.Stream)
		assert.NotEmpty(t, st.StreamID)
		assert.Equal(t, []signals.Event{signals.SessionRevoked}, st.Delivered)
		assert.Equal(t, []signals.Event{signals.AccountDisabled, signals.AccountPurged}, st.Missing)
		assert.Len(t, tr.creates, 1)
		assert.Empty(t, tr.verifies[1:], "none but that of the receiver that ran")
	})
	t.Run("the locations of the metadata", func(t *testing.T) {
		assert.Equal(t, []string{"https://idp.example.com/.well-known/ssf-configuration/a", "https://idp.example.com/a/.well-known/ssf-configuration"},
			signals.WellKnown("https://idp.example.com/a/", signals.Legacy{}))
		assert.Len(t, signals.WellKnown("https://idp.example.com", signals.Legacy{AllowRISCMetadata: true}), 2)
		assert.Empty(t, signals.WellKnown("://", signals.Legacy{}))
	})
}
