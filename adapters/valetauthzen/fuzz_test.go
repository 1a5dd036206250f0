package valetauthzen_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetauthzen"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzDecision: a question is allowed only if a JSON response with status 200 has the member decision of it once, in lower case, and as true. A
// question that a batch does not answer is denied. Everything else is a failure.
func FuzzDecision(f *testing.F) {
	for _, body := range []string{
		`{"decision":true}`, `{"decision":false}`, `{"decision":true,"decision":false}`, `{"Decision":true}`, `{"decision":"true"}`, `{"decision":true,"context":{"decision":false}}`, `null`, `[]`,
		`{"decision":true}{"decision":false}`, `{"decisio\u006e":true}`, "{\"decision\":true,\"\xff\":1}", `{"decision":null}`, `{"decision":1,"\u017fcope":1}`,
	} {
		f.Add(200, "application/json", body, false)
		f.Add(200, "application/json; charset=utf-8", `{"evaluations":[`+body+`,{"decision":true}]}`, true)
	}
	f.Add(200, "text/json", `{"decision":true}`, false)
	f.Add(403, "application/json", `{"decision":true}`, false)
	f.Add(200, "application/json", `{"evaluations":[{"decision":true}],"evaluations":[]}`, true)
	f.Add(200, "application/json", `{"Evaluations":[{"decision":true}]}`, true)
	f.Fuzz(func(t *testing.T, status int, kind, body string, batch bool) {
		status = 200 + (status%400+400)%400
		c, err := valetauthzen.New(valetauthzen.Config{
			URL: "https://pdp.example.com", Logger: slog.New(slog.DiscardHandler),
			Client: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
				io.Copy(io.Discard, r.Body)
				return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})},
		})
		require.NoError(t, err)
		defer c.Close()
		q := valetauthzen.Question{Subject: valetauthzen.Entity{Type: "user", ID: "alice"}, Action: valetauthzen.Action{Name: "GET"}, Resource: valetauthzen.Entity{Type: "route", ID: "/"}}
		allowed := func(text json.RawMessage) bool {
			var members map[string]json.RawMessage // names are case-sensitive here
			require.NoError(t, json.Unmarshal(text, &members))
			switch string(members["decision"]) {
			case "true":
				return true
			case "false":
				return false
			}
			t.Fatalf("%q has no decision", text)
			return false
		}
		if !batch {
			got, err := c.Evaluate(t.Context(), q)
			if err != nil {
				require.False(t, got)
				return
			}
			require.Equal(t, 200, status)
			require.Equal(t, allowed([]byte(body)), got)
			return
		}
		got, err := c.EvaluateAll(t.Context(), []valetauthzen.Question{q, q, q})
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.Equal(t, 200, status)
		require.Len(t, got, 3)
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(body), &members))
		var list []json.RawMessage
		require.NoError(t, json.Unmarshal(members["evaluations"], &list))
		for i := range got {
			if i >= len(list) {
				require.False(t, got[i])
			} else if got[i] {
				require.True(t, allowed(list[i]))
			}
		}
	})
}
