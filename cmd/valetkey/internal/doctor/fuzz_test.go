package doctor_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/signals"
)

// A web has a document at each URL.
type web struct {
	documents map[string]string
	mu        sync.Mutex
	requests  []string
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r.URL.String())
	body, found := w.documents[r.URL.String()]
	status := map[bool]int{true: http.StatusOK, false: http.StatusNotFound}[found]
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// settings checks that what a finding has for copying is one setting and no more, whatever a document contains.
func settings(t *testing.T, f doctor.Finding) {
	t.Helper()
	assert.NotContains(t, f.String(), "\n")
	if name, value, is := strings.Cut(f.YAML, ": "); is && strings.HasPrefix(value, `"`) && !strings.Contains(name, " ") {
		var file map[string]any
		require.NoError(t, yaml.Unmarshal([]byte("{"+f.YAML+"}"), &file), "%q", f.YAML)
		assert.Contains(t, file, name)
		for name := range file {
			assert.Contains(t, []string{"issuer", "url", "jwks_url", "ca_file", "token_file", "transmitter", "insecure_http", "audience_claim", "audience", "require_scope", "markers"}, name)
		}
		expression, err := parser.ParseExpr("T{" + f.Go + "}")
		require.NoError(t, err, "%q", f.Go)
		for _, e := range expression.(*ast.CompositeLit).Elts {
			pair := e.(*ast.KeyValueExpr)
			set, simple := file[name].(string)
			if literal, is := pair.Value.(*ast.BasicLit); is && simple && len(file) == 1 {
				text, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				assert.Equal(t, set, text, "%q, %q", f.YAML, f.Go)
			}
		}
	}
}

// FuzzExamine holds that the findings about a verifier agree with the verifier: without a failure, it is ready and accepts the token, and
// if it accepts the token, no finding is one. The requests stay on https, and are few; no finding contains the token; and what an issuer
// has written cannot add a setting to the line that a reader copies.
func FuzzExamine(f *testing.F) {
	const issuer = "https://as.example.com"
	now := time.Unix(1_700_000_000, 0)
	key, err := jose.GenerateKey("ES256", "k")
	require.NoError(f, err)
	metadata := `{"issuer":"https://as.example.com","jwks_uri":"https://as.example.com/keys"}`
	keys := `{"keys":[KEY]}`
	header := `{"alg":"ES256","typ":"at+jwt","kid":"k"}`
	claims := `{"iss":"https://as.example.com","aud":"https://api.example.com","sub":"alice","client_id":"app","iat":1699999990,"exp":1700000300,"jti":"1","scope":"read"}`
	f.Add(metadata, keys, header, claims)
	for _, other := range []string{
		`{}`, `[]`, `{"issuer":"https://as.example.com/","jwks_uri":"https://as.example.com/keys"}`, `{"issuer":"https://as.example.com","jwks_uri":"http://127.0.0.1/keys"}`,
		`{"issuer":"https://as.example.com","Issuer":"x","jwks_uri":"https://as.example.com/keys"}`, `{"issuer":"https://as.example.com","JWKS_URI":"https://as.example.com/keys"}`,
		`{"issuer":"https://a\",\"leeway: 5m","jwks_uri":"https://as.example.com/keys"}`, "\ufeff" + metadata, `{"issuer":"https://as.example.com","jwks_uri":"https://as.example.com/keys","protected_resources":["x\n\u2028"]}`,
		`{"issuer":"https://as.example.com","jwks_uri":"https://user:secret@as.example.com/keys"}`,
	} {
		f.Add(other, keys, header, claims)
	}
	for _, other := range []string{`{"keys":[]}`, `{}`, `[KEY]`, `{"keys":[KEY,KEY]}`, `{"keys":[KEY,{"kty":"oct","k":"AA"}]}`, `{"keys":[KEY],"Keys":[]}`, "\ufeff" + keys} {
		f.Add(metadata, other, header, claims)
	}
	for _, other := range []string{
		`{"alg":"ES256","typ":"JWT","kid":"k"}`, `{"alg":"ES256","typ":"at+jwt"}`, `{"alg":"ES256","typ":"at+jwt","kid":"other"}`, `{"alg":"none"}`, `{"alg":"ES256","typ":"x\",y: \"z","kid":"k"}`,
	} {
		f.Add(metadata, keys, other, claims)
	}
	for _, other := range []string{
		`{}`, `{"iss":"https://as.example.com","aud":["a\n","b"],"sub":"alice","client_id":"app","iat":1699999990,"exp":1700000300,"jti":"1"}`,
		strings.Replace(claims, issuer, `https://x/realms/\"a`, 1), strings.Replace(claims, "1700000300", "1e400", 1), strings.Replace(claims, "1699999990", "1800000000", 1),
		strings.Replace(claims, `"aud":"https://api.example.com",`, "", 1), strings.Replace(claims, `"jti"`, `"nonce"`, 1), strings.Replace(claims, `"sub":"alice"`, `"sub":1`, 1),
		strings.Replace(claims, `"aud":"https://api.example.com",`, `"token_use":"access",`, 1),
	} {
		f.Add(metadata, keys, header, other)
	}
	good := []string{metadata, keys, header, claims}
	f.Fuzz(func(t *testing.T, metadata, keys, header, claims string) {
		isGood := slices.Equal(good, []string{metadata, keys, header, claims})
		keys = strings.ReplaceAll(keys, "KEY", string(key.PublicJWK()))
		w := &web{documents: map[string]string{
			issuer + "/.well-known/oauth-authorization-server": metadata, "https://as.example.com/keys": keys,
		}}
		members := map[string]any{}
		raw := "opaque"
		if json.Unmarshal([]byte(header), &members) == nil {
			if raw, err = key.Sign(members, []byte(claims)); err != nil {
				return
			}
		}
		cfg := jwks.Config{
			Issuer: issuer, Audience: []string{"https://api.example.com"}, Client: &http.Client{Transport: w}, Logger: slog.New(slog.DiscardHandler),
			Now: func() time.Time { return now },
		}
		for _, token := range []string{"", raw} {
			w.requests = nil
			findings := doctor.Examine(t.Context(), []doctor.Target{{Keys: &cfg}}, token)
			for _, request := range w.requests {
				assert.True(t, strings.HasPrefix(request, "https://"), request)
			}
			assert.LessOrEqual(t, len(w.requests), 10)
			require.NotEmpty(t, findings)
			for _, finding := range findings {
				settings(t, finding)
				if len(raw) > 100 {
					assert.NotContains(t, fmt.Sprint(finding), raw[len(raw)-40:])
				}
			}
			failed := slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Level == doctor.Fail })
			assert.False(t, isGood && failed, "%v", findings)

			v, err := jwks.New(cfg)
			require.NoError(t, err)
			ready := v.Ready(t.Context())
			if token == "" {
				if !failed {
					assert.NoError(t, ready, "%v", findings)
				}
			} else if _, err = v.Verify(t.Context(), token); failed || err != nil {
				assert.True(t, failed && err != nil, "%v, and the verifier: %v", findings, err)
			}
			v.Close()
		}
	})
}

// FuzzExamineTransmitter holds the same for the metadata, the keys and the streams of a transmitter.
func FuzzExamineTransmitter(f *testing.F) {
	const transmitter = "https://as.example.com"
	key, err := jose.GenerateKey("ES256", "k")
	require.NoError(f, err)
	metadata := `{"issuer":"https://as.example.com","spec_version":"1_0","jwks_uri":"https://as.example.com/keys","configuration_endpoint":"https://as.example.com/streams",` +
		`"status_endpoint":"https://as.example.com/status","verification_endpoint":"https://as.example.com/verify","delivery_methods_supported":["urn:ietf:rfc:8936"]}`
	keys := `{"keys":[KEY]}`
	stream := `{"stream_id":"s","iss":"https://as.example.com","aud":"https://api.example.com","events_delivered":["https://schemas.openid.net/secevent/caep/event-type/session-revoked"],` +
		`"delivery":{"method":"urn:ietf:rfc:8936","endpoint_url":"https://as.example.com/poll"}}`
	status := `{"stream_id":"s","status":"enabled"}`
	f.Add(metadata, keys, stream, status)
	for _, other := range []string{
		`{}`, `[]`, strings.Replace(metadata, `"issuer":"https://as.example.com"`, `"issuer":"https://a\", x: \"y"`, 1), strings.Replace(metadata, "https://as.example.com/keys", "http://127.0.0.1/keys", 1),
		strings.Replace(metadata, "https://as.example.com/streams", "https://else.example.com/\\\"]", 1), strings.Replace(metadata, "https://as.example.com/status", "", 1),
		strings.Replace(metadata, `"jwks_uri"`, `"JWKS_URI"`, 1), strings.Replace(metadata, "{", `{"Issuer":"x",`, 1), strings.Replace(metadata, "1_0", "2", 1), "\ufeff" + metadata,
	} {
		f.Add(other, keys, stream, status)
	}
	for _, other := range []string{`{"keys":[]}`, `[]`, `{"keys":[KEY,KEY]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`} {
		f.Add(metadata, other, stream, status)
	}
	for _, other := range []string{"[" + stream + "]", "[]", "[" + stream + "," + stream + "]", `{}`, strings.Replace(stream, "rfc:8936", "rfc:8935", 1), strings.Replace(stream, "https://as.example.com/poll", "https://else.example.com/poll", 1)} {
		f.Add(metadata, keys, other, status)
	}
	for _, other := range []string{`{}`, `[]`, strings.Replace(status, "enabled", "paused", 1), strings.Replace(status, "enabled", `x\n`, 1)} {
		f.Add(metadata, keys, stream, other)
	}
	file := f.TempDir() + "/token"
	require.NoError(f, os.WriteFile(file, []byte("hush-token"), 0o600))
	good := []string{metadata, keys, stream, status}
	f.Fuzz(func(t *testing.T, metadata, keys, stream, status string) {
		isGood := slices.Equal(good, []string{metadata, keys, stream, status})
		keys = strings.ReplaceAll(keys, "KEY", string(key.PublicJWK()))
		w := &web{documents: map[string]string{
			transmitter + "/.well-known/ssf-configuration": metadata, transmitter + "/keys": keys, transmitter + "/streams": stream, transmitter + "/status?stream_id=s": status,
		}}
		cfg := signals.Config{
			Transmitter: transmitter, Delivery: signals.Poll, Credentials: signals.TokenFile(file), Client: &http.Client{Transport: w}, Logger: slog.New(slog.DiscardHandler),
		}
		findings := doctor.Examine(t.Context(), []doctor.Target{{Signals: &cfg, Manages: true}}, "")
		for _, request := range w.requests {
			assert.True(t, strings.HasPrefix(request, "https://"), request)
		}
		assert.LessOrEqual(t, len(w.requests), 10)
		require.NotEmpty(t, findings)
		for _, finding := range findings {
			settings(t, finding)
			assert.NotContains(t, fmt.Sprint(finding), "hush-token")
		}

		receiver, err := signals.New(cfg)
		require.NoError(t, err)
		defer receiver.Close()
		state, err := receiver.Examine(t.Context())
		failed := findings[0].Level == doctor.Fail // the verdict is first
		assert.False(t, isGood && failed, "%v", findings)
		if err != nil {
			assert.True(t, failed, "%v, and the receiver: %v", findings, err)
		}
		if !failed {
			assert.NotContains(t, []string{"paused", "disabled"}, state.Stream)
			assert.True(t, state.StreamID == "" || slices.ContainsFunc(signals.DefaultEvents(), func(e signals.Event) bool { return slices.Contains(state.Delivered, e) }))
		}
	})
}
