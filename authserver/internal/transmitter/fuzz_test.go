package transmitter_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/store"
)

// A managing engine accepts every token as one of the client of that name, with all scopes of the API.
type managing struct{ engine }

func (managing) Claims(_ context.Context, token string) (map[string]any, error) {
	return map[string]any{"aud": issuer + "/ssf", "sub": token, "client_id": token, "scope": "ssf.manage global_token_revocation"}, nil
}

// An exchange is a request of the client "receiver", and what followed from it. Streams have their names instead of their IDs.
type exchange struct {
	status        int
	header        http.Header
	body          string
	revoked       []string // users
	before, after string   // what the client sees of its streams
	others        [2]string
}

// try sends a request to a transmitter where the client has the streams OWN, with a waiting event, so that no poll waits, and PUSHED, and where another client has
// FOREIGN, with a waiting event, and another one with a secret header. In the request, foreign is the other client's stream, or one that
// does not exist.
func try(t *testing.T, method, path, body string, exists bool) (x exchange) {
	t.Helper()
	s := start(t, func(c *transmitter.Config) {
		c.Engine = managing{}
		c.SubjectTypes = map[string]string{"https://idp.example.com": "employee"}
		c.RevokeUser = func(_ context.Context, subject string) (int, error) {
			x.revoked = append(x.revoked, subject)
			return 1, nil
		}
	})
	pushed := func(header string) object {
		return object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": "https://r.example/", "authorization_header": header}}
	}
	ids := map[string]string{
		"OWN": s.stream(t, "receiver", object{"description": "first"}), "PUSHED": s.stream(t, "receiver", pushed("Bearer mine")),
		"FOREIGN": s.stream(t, "other", object{}), "SECRET": s.stream(t, "other", pushed("Bearer hush")),
	}
	s.verify(t, "receiver", ids["OWN"])
	s.verify(t, "other", ids["FOREIGN"])
	var words, names []string
	for name, id := range ids {
		names = append(names, id, name)
		if name == "FOREIGN" && !exists {
			id = strings.Repeat("z", len(id))
			names = append(names, id, name)
		}
		words = append(words, name, id)
	}
	named := strings.NewReplacer(names...).Replace
	view := func(client string, names ...string) string {
		text := new(strings.Builder)
		_, streams := s.send(client, "GET", "/ssf/streams", "")
		text.WriteString(streams)
		for _, name := range names {
			_, status := s.send(client, "GET", "/ssf/status?stream_id="+ids[name], "")
			text.WriteString(status)
			waiting, err := s.store.Find(t.Context(), "set_"+ids[name], store.Key{}, "", 100)
			require.NoError(t, err)
			for _, event := range waiting {
				text.WriteString(event.ID)
				text.Write(event.Value)
			}
		}
		return named(text.String())
	}
	look := func() (own, others string) {
		return view("receiver", "OWN", "PUSHED"), view("other", "FOREIGN", "SECRET")
	}

	x.before, x.others[0] = look()
	expand := strings.NewReplacer(words...).Replace
	path, body = expand(path), expand(body)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer receiver")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	x.status, x.header, x.body = w.Code, w.Header(), named(w.Body.String())
	x.after, x.others[1] = look()
	return x
}

// verify requests a verification event for a stream.
func (s *site) verify(t *testing.T, client, id string) {
	t.Helper()
	status, _ := s.call(t, client, "POST", "/ssf/verify", object{"stream_id": id, "state": "waiting"})
	require.Equal(t, http.StatusNoContent, status)
}

func (s *site) send(client, method, path, body string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+client)
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// FuzzAPI holds that whatever a client sends, another client sees no change of its streams, and the client learns nothing of them, such as
// whether they exist (SSFTX-02); that a refusal changes nothing and states why; that what is accepted is what encoding/json reads, and is
// read again as the same; and that a user is revoked only if encoding/json reads that user in a request that succeeds.
func FuzzAPI(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"stream_id":"OWN"}`, `{"stream_id":"FOREIGN"}`, `{"stream_id":"OWN","description":"x","events_requested":["https://schemas.openid.net/secevent/caep/event-type/session-revoked"]}`,
		`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":"https://r.example/","authorization_header":"Bearer x"}}`, `{"ack":["x"],"setErrs":{"x":{"err":"y"}}}`,
		`{"stream_id":"PUSHED","delivery":{"method":"urn:ietf:rfc:8936"}}`, `{"stream_id":"OWN","iss":"https://as.example.com","aud":["other"]}`, `{"events_requested":[]}`, `[`,
		`{"stream_id":"OWN","subject":{"format":"complex","user":{"format":"iss_sub","iss":"https://as.example.com","sub":"customer:alice"}}}`,
	} {
		for _, target := range []string{"POST /ssf/streams", "PATCH /ssf/streams", "PUT /ssf/streams", "POST /ssf/subjects:add", "POST /ssf/subjects:remove", "POST /ssf/poll/OWN", "POST /ssf/poll/FOREIGN"} {
			method, path, _ := strings.Cut(target, " ")
			f.Add(method, path, body)
		}
	}
	f.Add("POST", "/ssf/status", `{"stream_id":"OWN","status":"paused","reason":"x"}`)
	f.Add("POST", "/ssf/status", `{"stream_id":"FOREIGN","status":"disabled"}`)
	f.Add("POST", "/ssf/status", `{"stream_id":"OWN","status":"stopped"}`)
	f.Add("PUT", "/ssf/streams", `{"stream_id":"OWN","delivery":{"method":"urn:ietf:rfc:8936"}}`)
	f.Add("POST", "/ssf/poll/PUSHED", `{}`)
	f.Add("POST", "/ssf/poll/OWN", `{"maxEvents":0}`)
	f.Add("POST", "/ssf/verify", `{"stream_id":"FOREIGN","state":"x"}`)
	f.Add("DELETE", "/ssf/streams?stream_id=OWN", "")
	f.Add("DELETE", "/ssf/streams?stream_id=FOREIGN", "")
	f.Add("GET", "/ssf/streams?stream_id=FOREIGN", "")
	f.Add("GET", "/ssf/status?stream_id=PUSHED", "")
	for _, user := range []string{
		`{"format":"iss_sub","iss":"https://as.example.com","sub":"customer:alice"}`, `{"format":"complex","user":{"format":"iss_sub","iss":"https://idp.example.com","sub":"bob"}}`,
		`{"format":"iss_sub","iss":"https://idp.example.com","sub":"bob","sub":"eve"}`, `{"format":"email","email":"a@example.com"}`, `{"format":"iss_sub","iss":"https://else.example.com","sub":"bob"}`,
	} {
		f.Add("POST", "/global-token-revocation", `{"sub_id":`+user+`}`)
	}
	if _, err := ring(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		api := strings.HasPrefix(path, "/ssf/") || path == "/global-token-revocation"
		if !slices.Contains([]string{"GET", "POST", "PATCH", "PUT", "DELETE"}, method) || !api || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return
		}
		if r, err := http.NewRequest(method, path, nil); err != nil || r.URL.Path == "" {
			return
		}
		x := try(t, method, path, body, true)
		assert.Equal(t, x.others[0], x.others[1], "the streams of another client")
		assert.NotContains(t, x.body, "hush")
		if strings.Contains(path+body, "FOREIGN") {
			missing := try(t, method, path, body, false)
			assert.Equal(t, missing.status, x.status, "there is such a stream")
			if x.status >= 400 {
				assert.Equal(t, missing.body, x.body)
			}
		} else {
			assert.NotContains(t, x.body, "FOREIGN")
		}

		var request, response object
		readable := json.Unmarshal([]byte(body), &request) == nil
		switch {
		case x.status >= 400:
			assert.Contains(t, []int{400, 403, 404, 405, 409, 429}, x.status, x.body)
			assert.Equal(t, x.before, x.after, "a refusal")
			assert.Empty(t, x.revoked)
			if x.header.Get("Content-Type") == "application/json" {
				require.NoError(t, json.Unmarshal([]byte(x.body), &response))
				assert.Equal(t, "invalid_request", response["err"])
				assert.NotEmpty(t, response["description"])
			}
			return
		case x.status >= 300: // of net/http's mux
			assert.Equal(t, x.before, x.after)
			assert.Empty(t, x.revoked)
			return
		default:
			assert.Contains(t, []int{200, 201, 204}, x.status, x.body)
		}
		if method == "GET" {
			assert.Equal(t, x.before, x.after)
		}
		if path == "/global-token-revocation" {
			require.True(t, readable)
			user := request["sub_id"].(object)
			if user["format"] == "complex" {
				user = user["user"].(object)
			}
			want := user["sub"].(string)
			if user["iss"] == "https://idp.example.com" {
				want = "employee:" + want
			} else {
				assert.Equal(t, issuer, user["iss"])
			}
			assert.Equal(t, "iss_sub", user["format"])
			assert.Equal(t, []string{want}, x.revoked)
			assert.Equal(t, x.before, x.after)
			return
		}
		assert.Empty(t, x.revoked)
		where, _, _ := strings.Cut(path, "?")
		assert.NotEqual(t, "/ssf/poll/PUSHED", where, "its events are pushed")
		if where == "/ssf/poll/OWN" {
			require.NoError(t, json.Unmarshal([]byte(x.body), &response))
			sets, most := response["sets"].(object), request["maxEvents"]
			assert.Equal(t, most != 0.0, len(sets) == 1)
			for _, set := range sets {
				assert.Equal(t, "receiver", read(t, set.(string))["aud"])
			}
			assert.Equal(t, x.before, x.after, "the client does not know the event that it could acknowledge")
		}
		if where == "/ssf/status" && method == "POST" {
			require.NoError(t, json.Unmarshal([]byte(x.body), &response))
			assert.Equal(t, request["status"], response["status"])
			assert.Equal(t, request["reason"], cmp.Or(response["reason"], request["reason"]))
			assert.Contains(t, []any{"enabled", "paused", "disabled"}, response["status"])
		}
		if where != "/ssf/streams" || method == "GET" || method == "DELETE" {
			return
		}

		// A configuration was written.
		require.True(t, readable)
		require.NoError(t, json.Unmarshal([]byte(x.body), &response))
		same := func(name string, want, got object) {
			if want[name] != nil {
				assert.Equal(t, want[name], got[name], name)
			}
		}
		same("description", request, response)
		same("events_requested", request, response)
		if method == "PUT" && request["description"] == nil {
			assert.NotContains(t, response, "description", "replaced")
		}
		if method != "POST" {
			same("stream_id", request, response)
			same("iss", request, response)
		}
		delivery, got := object{"method": "urn:ietf:rfc:8936"}, response["delivery"].(object)
		if own, is := request["delivery"].(object); is {
			delivery = own
		} else if method == "PATCH" {
			delivery = object{}
		}
		same("method", delivery, got)
		if delivery["endpoint_url"] != "" {
			same("endpoint_url", delivery, got)
		}
		if delivery["authorization_header"] != "" {
			same("authorization_header", delivery, got)
		}
		for _, event := range response["events_delivered"].([]any) {
			assert.Contains(t, response["events_supported"], event)
			if list, is := request["events_requested"].([]any); is {
				assert.Contains(t, list, event)
			}
		}
		if id := response["stream_id"]; method == "POST" {
			assert.NotContains(t, []any{"OWN", "PUSHED", "FOREIGN", "SECRET"}, id)
		}
		assert.Contains(t, x.after, strings.TrimSpace(x.body), "read again, it is the same")
	})
}

// FuzzPushReply holds that a token leaves the queue only if its receiver has accepted it with 2xx, or has refused it with 400 and a code that
// no change of keys or credentials mends; a refused one becomes a dead letter. A wait that the receiver asks for is bounded, and what
// it writes reaches logs and operators as a short visible text.
func FuzzPushReply(f *testing.F) {
	f.Add(202, "", "")
	f.Add(200, "1", "{}")
	for _, body := range []string{
		`{"err":"invalid_key"}`, `{"err":"access_denied"}`, `{"err":"authentication_failed","err":"jwtParse"}`, `{"err":"invalid_request\n\u001b[2J","description":"x"}`, `{"err":["access_denied"]}`, `[]`, "", `{"err":"` + strings.Repeat("x", 2000) + `"}`,
	} {
		f.Add(400, "60", body)
	}
	for _, after := range []string{"3600", "-1", "1e9", "99999999999999999999", "Wed, 21 Oct 2065 07:28:00 GMT", "007"} {
		f.Add(503, after, "busy")
	}
	f.Add(302, "", "")
	f.Add(204, "", "")
	var answer struct {
		sync.Mutex
		status      int
		after, body string
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer.Lock()
		defer answer.Unlock()
		if answer.after != "" {
			w.Header().Set("Retry-After", answer.after)
		}
		w.WriteHeader(answer.status)
		io.WriteString(w, answer.body)
	}))
	f.Cleanup(receiver.Close)
	f.Fuzz(func(t *testing.T, status int, after, body string) {
		if status < 200 || status > 599 || strings.ContainsFunc(after, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(after) != after {
			return
		}
		answer.Lock()
		answer.status, answer.after, answer.body = status, after, body
		answer.Unlock()
		s := start(t)
		id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": receiver.URL}})
		s.verify(t, "receiver", id)
		again, wait, err := s.Deliver(t.Context(), id)
		require.NoError(t, err)
		waiting, err := s.store.Find(t.Context(), "set_"+id, store.Key{}, "", 10)
		require.NoError(t, err)
		dead, err := s.DeadLetters(t.Context(), id)
		require.NoError(t, err)

		var e struct {
			Err string `json:"err"`
		}
		_ = json.Unmarshal([]byte(body), &e)
		mendable := slices.Contains([]string{"invalid_key", "authentication_failed", "access_denied"}, e.Err)
		delivered, refused := status/100 == 2, status == http.StatusBadRequest && !mendable
		assert.Equal(t, delivered || refused, len(waiting) == 0)
		assert.Equal(t, delivered || refused, again == "")
		assert.Equal(t, refused, len(dead) == 1)
		assert.True(t, wait >= 0 && wait <= 5*time.Minute, wait)
		if n, err := strconv.Atoi(after); err == nil && n > 0 && n < 300 && again != "" && status != http.StatusBadRequest {
			assert.Equal(t, time.Duration(n)*time.Second, wait)
		}
		for _, letter := range dead {
			again += letter.Reason
		}
		assert.Regexp(t, "^[ -~]{0,200}$", again)
	})
}
