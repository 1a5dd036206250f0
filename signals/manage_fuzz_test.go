package signals_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

// An answering transport has an answer for each method and path, and notes the requests.
type answering struct {
	answers  map[string]string
	requests []*http.Request
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	a.requests = append(a.requests, r)
	body, found := a.answers[r.Method+" "+r.URL.Path]
	status := http.StatusOK
	if !found {
		status = http.StatusNotFound
	}
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// FuzzManage holds that whatever a transmitter and its token endpoint answer, the access token, which is that of the endpoint, goes to the
// transmitter only; a stream is used only if it is the transmitter's, and the only one with the delivery, and is polled at the transmitter;
// one is created only if there is none; what is reported is what encoding/json reads; and no error contains a secret.
func FuzzManage(f *testing.F) {
	const transmitter, poll = "https://as.example.com", "urn:ietf:rfc:8936"
	metadata := `{"issuer":"https://as.example.com","jwks_uri":"https://as.example.com/keys","configuration_endpoint":"https://as.example.com/streams","status_endpoint":"https://as.example.com/status"}`
	token := `{"access_token":"hush-token","token_type":"Bearer","expires_in":60}`
	stream := `{"stream_id":"s","iss":"https://as.example.com","aud":"https://receiver.example.com","events_delivered":["https://schemas.openid.net/secevent/caep/event-type/session-revoked"],` +
		`"delivery":{"method":"urn:ietf:rfc:8936","endpoint_url":"https://as.example.com/poll"},"min_verification_interval":1e400}`
	status := `{"stream_id":"s","status":"enabled"}`
	f.Add(metadata, token, "["+stream+"]", stream, status)
	f.Add(metadata, token, "[]", stream, status)
	for _, other := range []string{
		strings.ReplaceAll(metadata, "as.example.com/s", "else.example.com/s"), strings.ReplaceAll(metadata, "https://as.example.com/s", "http://as.example.com/s"), strings.Replace(metadata, "{", `{"Issuer":"x",`, 1),
		strings.Replace(metadata, `"issuer":"https://as`, `"issuer":"https://else`, 1),
		strings.ReplaceAll(metadata, "https://as.example.com/s", "https://as.example.com@else.example.com/s"), strings.ReplaceAll(metadata, "https://as.example.com/s", "//else.example.com/s"), `{}`,
		strings.ReplaceAll(metadata, "https://as.example.com/s", "https://as.example.com:443/s"), strings.ReplaceAll(metadata, "https://as.example.com/s", "https://AS.example.com./s"),
	} {
		f.Add(other, token, stream, stream, status)
	}
	for _, other := range []string{
		`{"access_token":"hush-token\n","token_type":"bearer"}`, `{"access_token":"hush-token","token_type":"DPoP"}`, `{"error":"invalid_scope"}`, `{"access_token":["hush-token"]}`, `[]`,
		`{"access_token":"hush-token","Access_Token":"other","token_type":"Bearer"}`, `{"access_token":"hush-token","token_type":"Bearer","expires_in":1e30}`,
	} {
		f.Add(metadata, other, stream, stream, status)
	}
	for _, other := range []string{
		"[" + stream + "," + stream + "]", "[" + stream + `,{"stream_id":"t","delivery":{"method":"urn:ietf:rfc:8935"}}]`, `[{}]`, `{"stream_id":"s"}`, `[null]`, `{"streams":[]}`,
		strings.Replace(stream, "as.example.com/poll", "else.example.com/poll", 1), strings.Replace(stream, `"iss":"https://as`, `"iss":"https://else`, 1), strings.Replace(stream, "{", `{"ISS":"x",`, 1),
		strings.Replace(stream, `"delivery"`, `"delivery":{},"delivery"`, 1), "[" + stream + `]]}{"streams":[`,
	} {
		f.Add(metadata, token, other, stream, status)
		f.Add(metadata, token, "[]", other, status)
	}
	for _, other := range []string{`{}`, `{"status":1}`, strings.Replace(status, "enabled", "paused", 1), strings.Replace(status, `"status"`, `"Status"`, 1)} {
		f.Add(metadata, token, stream, stream, other)
	}
	good := []string{metadata, token, stream, status}
	f.Fuzz(func(t *testing.T, metadata, token, streams, created, status string) {
		web := &answering{answers: map[string]string{
			"GET /.well-known/ssf-configuration": metadata, "POST /token": token, "GET /streams": streams, "POST /streams": created, "GET /status": status,
		}}
		cfg := signals.Config{
			Transmitter: transmitter, Delivery: signals.Poll, Client: &http.Client{Transport: web}, Logger: slog.New(slog.DiscardHandler),
			Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: transmitter + "/token", Auth: introspect.BasicAuth("receiver", "hush-secret")}),
		}
		r, err := signals.New(cfg)
		require.NoError(t, err)
		defer r.Close()
		found, endpoint, isNew, err := signals.Open(t.Context(), r)

		var granted struct { // as encoding/json reads it
			Token string `json:"access_token"`
			Type  string `json:"token_type"`
		}
		readable := json.Unmarshal([]byte(token), &granted) == nil
		posted := 0
		for _, request := range web.requests {
			assert.Equal(t, transmitter, request.URL.Scheme+"://"+strings.TrimSuffix(request.URL.Host, ":443"), "%s", request.URL)
			switch authorization := request.Header.Get("Authorization"); {
			case request.URL.Path == "/token" && request.Method == http.MethodPost:
			case strings.HasPrefix(request.URL.Path, "/.well-known/") && authorization == "":
			default:
				assert.True(t, readable)
				assert.True(t, strings.EqualFold("Bearer", granted.Type))
				assert.Equal(t, "Bearer "+granted.Token, authorization)
				if request.Method == http.MethodPost {
					posted++
				}
			}
		}
		if slices.Equal(good, []string{metadata, token, created, status}) && (streams == "[]" || streams == "["+created+"]") {
			require.NoError(t, err)
		}
		if err != nil {
			assert.NotContains(t, err.Error(), "hush")
			assert.LessOrEqual(t, len(err.Error()), 4000)
			return
		}

		m := members(t, metadata)
		assert.Equal(t, transmitter, text(m["issuer"]))
		var all []json.RawMessage
		if strings.HasPrefix(strings.TrimSpace(streams), "[") {
			require.NoError(t, json.Unmarshal([]byte(streams), &all))
		} else {
			all = []json.RawMessage{json.RawMessage(streams)}
		}
		var used []map[string]json.RawMessage
		for _, one := range all {
			s := members(t, string(one))
			var delivery map[string]json.RawMessage
			_ = json.Unmarshal(s["delivery"], &delivery) // stays empty if it is not an object
			if method := text(delivery["method"]); method == poll || strings.HasSuffix(method, "risc/delivery-method/poll") {
				used = append(used, s)
			}
		}
		assert.Equal(t, isNew, posted == 1)
		if isNew {
			assert.Empty(t, used, "there is one already")
			used = append(used, members(t, created))
		}
		require.Len(t, used, 1)
		s := used[0]
		delivery := members(t, string(s["delivery"]))
		assert.Equal(t, text(s["stream_id"]), found.StreamID)
		assert.Contains(t, []string{"", transmitter}, text(s["iss"]))
		assert.Equal(t, text(delivery["endpoint_url"]), endpoint)
		u, err := url.Parse(endpoint)
		require.NoError(t, err)
		assert.Equal(t, transmitter, strings.ToLower(fmt.Sprintf("%s://%s", u.Scheme, strings.TrimSuffix(u.Host, ":443"))))
		var delivered []signals.Event
		if json.Unmarshal(s["events_delivered"], &delivered) != nil || slices.Contains(delivered, "") {
			delivered = nil
		}
		for _, event := range delivered {
			assert.Contains(t, found.Delivered, event)
			assert.NotContains(t, found.Missing, event)
		}
		assert.Equal(t, text(members(t, status)["status"]), found.Stream)
	})
}

// members returns the members of an object, whose names are case-sensitive here.
func members(t *testing.T, object string) (m map[string]json.RawMessage) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(object), &m), "%q", object)
	return m
}

// text returns a string, or "" if it is none.
func text(v json.RawMessage) (s string) {
	_ = json.Unmarshal(v, &s)
	return s
}
