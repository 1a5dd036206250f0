package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A signaling is an issuer that transmits signals, and a proxy that receives them.
type signaling struct {
	t   *testing.T
	iss *valetkeytest.Issuer
	tr  *valetkeytest.Transmitter
}

func newSignaling(t *testing.T) signaling {
	iss := valetkeytest.NewIssuer(t)
	return signaling{t, iss, valetkeytest.NewTransmitter(t, iss)}
}

// publish changes the metadata of the transmitter; nil removes a member.
func (s signaling) publish(change map[string]any) {
	m := map[string]any{
		"spec_version": "1_0", "issuer": s.tr.URL, "jwks_uri": s.iss.KeySet.URL, "delivery_methods_supported": []string{"urn:ietf:rfc:8935", "urn:ietf:rfc:8936"},
		"configuration_endpoint": s.tr.Streams.URL, "status_endpoint": s.tr.Status.URL, "verification_endpoint": s.tr.Verification.URL,
		"authorization_schemes": []any{map[string]string{"spec_urn": "urn:ietf:rfc:6749"}},
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(m)
	require.NoError(s.t, err)
	s.tr.Metadata.Answer(string(text))
}

// section returns the section of a file, with more settings.
func (s signaling) section(secret, more string) string {
	return fmt.Sprintf("signals: {transmitter: %q, delivery: poll, token_url: %q, client_id: %s, client_secret: %s%s}\n",
		s.tr.URL, s.tr.TokenURL, valetkeytest.ReceiverID, secret, more)
}

// file returns the file of a proxy with a section.
func (s signaling) file(section string) string {
	file := proxyFile(s.t, fmt.Sprintf("jwks: {issuer: %q}", s.iss.URL))
	text, err := os.ReadFile(file)
	require.NoError(s.t, err)
	return write(s.t, "proxy.yaml", string(text)+section)
}

// receive runs a receiver until its stream is set up.
func (s signaling) receive() {
	r, err := signals.New(signals.Config{Transmitter: s.tr.URL, Delivery: signals.Poll, Credentials: s.tr.Credentials()})
	require.NoError(s.t, err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	go r.Run(ctx)
	require.NoError(s.t, r.Ready(ctx))
}

// after returns the lines below the heading signals.
func after(out string) string {
	_, about, _ := strings.Cut(out, "\nsignals\n")
	return about
}

func TestDoctorOnSignals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change map[string]any
		more   string
		level  string
		want   func(s signaling) string
	}{
		{"SSF-33 a slash at the end of the issuer", map[string]any{"issuer": "+/"}, "", "fail", func(s signaling) string {
			return fmt.Sprintf("transmitter: %q configured, %q in the metadata at %s: with a slash at the end; set transmitter: %[2]q (in Go: Transmitter: %[2]q)",
				s.tr.URL, s.tr.URL+"/", s.tr.Metadata.URL)
		}},
		{"metadata without keys", map[string]any{"jwks_uri": nil}, "", "fail", func(s signaling) string {
			return "key set: the metadata at " + s.tr.Metadata.URL + ` has no jwks_uri; set jwks_url: "https://..." (in Go: JWKSURL: "https://...")`
		}},
		{"push alone", map[string]any{"delivery_methods_supported": []string{"urn:ietf:rfc:8935"}}, "", "fail", func(signaling) string {
			return `delivery: poll (urn:ietf:rfc:8936) configured, and the transmitter supports "urn:ietf:rfc:8935"; ` +
				`set delivery: push, endpoint: "https://..." (in Go: Delivery: signals.Push, Endpoint: "https://...")`
		}},
		{"no API of streams", map[string]any{"configuration_endpoint": nil}, "", "fail", func(s signaling) string {
			return "stream: the metadata at " + s.tr.Metadata.URL + " has no configuration_endpoint, so no stream can be found or created; if an operator has created one, " +
				"set unmanaged: true, audience: [...] (in Go: Stream: signals.Stream{Unmanaged: true}, Audience: []string{...})"
		}},
		{"SSF-35 endpoints on another origin", map[string]any{"status_endpoint": "https://ssf.example.com/status"}, "", "fail", func(s signaling) string {
			return "stream: the metadata at " + s.tr.Metadata.URL + " names endpoints on another origin, to which no token is sent; if they belong to the transmitter, " +
				`set trusted_origins: ["https://ssf.example.com"] (in Go: TrustedOrigins: []string{"https://ssf.example.com"})`
		}},
		{"a version before the final one", map[string]any{"spec_version": "1_0-ID2"}, "", "warn", func(signaling) string {
			return `version: spec_version is "1_0-ID2", and the final one is "1_0": subjects and types of tokens may be those of a draft; if its events are refused, ` +
				"set allow: [subject_type, untyped] (in Go: Legacy: signals.Legacy{AllowSubjectType: true, AllowUntyped: true})"
		}},
		{"another authorization scheme", map[string]any{"authorization_schemes": []any{map[string]string{"spec_urn": "urn:ietf:rfc:8705"}}}, "", "warn", func(signaling) string {
			return `authorization: the API of the transmitter expects "urn:ietf:rfc:8705", and a receiver sends access tokens (urn:ietf:rfc:6749); ` +
				"if an operator has created the stream, set unmanaged: true, audience: [...] (in Go: Stream: signals.Stream{Unmanaged: true}, Audience: []string{...})"
		}},
		{"no events about users by default", map[string]any{"default_subjects": "NONE"}, "", "warn", func(signaling) string {
			return "subjects: default_subjects is NONE: the transmitter sends events about users that were added to the stream, and the receiver adds none; " +
				"have the transmitter send events about all users"
		}},
		{"no verification", map[string]any{"verification_endpoint": nil}, "", "warn", func(s signaling) string {
			return "stream: the metadata at " + s.tr.Metadata.URL + " has no verification_endpoint: a dead stream looks like one without events"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSignaling(t)
			if c.change["issuer"] == "+/" {
				c.change["issuer"] = s.tr.URL + "/"
			}
			s.publish(c.change)
			code, out, errs := run(t, "", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, c.more)))
			assert.Empty(t, errs)
			assert.Equal(t, c.level == "fail", code == cli.No, out)
			assert.Contains(t, linesOf(out, c.level), c.want(s), out)
			assert.True(t, strings.HasPrefix(after(out), c.level), "the verdict is the first line:\n%s", out)
		})
	}
	t.Run("no metadata", func(t *testing.T) {
		s := newSignaling(t)
		s.tr.Metadata.Fail(404)
		code, out, _ := run(t, "", "doctor", "--transmitter", s.tr.URL)
		assert.Equal(t, cli.No, code)
		assert.Contains(t, out, "fail  transmitter: no metadata at "+s.tr.Metadata.URL+": the URL is wrong, or it transmits no signals; enable the transmitter there")
	})
	t.Run("a page in place of the metadata", func(t *testing.T) {
		s := newSignaling(t)
		s.tr.Metadata.Garbage()
		code, out, _ := run(t, "", "doctor", "--transmitter", s.tr.URL)
		assert.Equal(t, cli.No, code)
		assert.Contains(t, out, "fail  transmitter: "+s.tr.Metadata.URL+" returns an HTML page instead of JSON")
	})
	t.Run("a key set that is not there", func(t *testing.T) {
		s := newSignaling(t)
		s.iss.KeySet.Fail(404)
		code, out, _ := run(t, "", "doctor", "--transmitter", s.tr.URL)
		assert.Equal(t, cli.No, code)
		assert.Contains(t, out, "fail  key set: "+s.iss.KeySet.URL+` returns status 404; set jwks_url: "https://..."`)
	})
	t.Run("a wrong secret", func(t *testing.T) {
		s := newSignaling(t)
		code, out, _ := run(t, "", "doctor", "--config", s.file(s.section("wrong-secret-of-the-receiver", "")))
		assert.Equal(t, cli.No, code)
		assert.Contains(t, after(out), "fail  stream: listing the streams: getting an access token: the token endpoint answers with status 401")
		assert.Contains(t, after(out), "; the client id or the secret is wrong, or the endpoint expects them in another form; set auth: basic_raw, or auth: post")
		assert.NotContains(t, out, "wrong-secret")
	})
	t.Run("a client without the scopes", func(t *testing.T) {
		s := newSignaling(t)
		s.tr.Token.Serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_scope"}`)
		})
		code, out, _ := run(t, "", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, "")))
		assert.Equal(t, cli.No, code)
		assert.Contains(t, after(out), `and the error "invalid_scope" to each of ["ssf.read ssf.manage" "ssf.manage" "ssf.read"]: give the client these scopes`)
		assert.Contains(t, after(out), "; if the transmitter has other scopes, set scopes: [...]")
	})
	t.Run("no token endpoint in the metadata of the issuer", func(t *testing.T) {
		s := newSignaling(t)
		s.iss.Metadata.Answer(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, s.iss.URL, s.iss.KeySet.URL))
		section := regexp.MustCompile(`token_url: "[^"]*", `).ReplaceAllString(s.section(valetkeytest.ReceiverSecret, ""), "")
		code, out, _ := run(t, "", "doctor", "--config", s.file(section))
		assert.Equal(t, cli.No, code)
		assert.Contains(t, after(out), "it has no token_endpoint")
		assert.Contains(t, after(out), `; set token_url: "https://..." (in Go: TokenURL: "https://...")`)
	})
	t.Run("a paused stream", func(t *testing.T) {
		s := newSignaling(t)
		s.receive()
		require.NoError(t, s.tr.SetStatus("paused", "maintenance"))
		code, out, _ := run(t, "", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, "")))
		assert.Equal(t, cli.No, code)
		assert.Regexp(t, `^fail  stream: the transmitter has paused the stream "[^"]+": no event arrives; enable it there\n`, after(out))
	})

	t.Run("everything is right, and no stream is created", func(t *testing.T) {
		s := newSignaling(t)
		for range 2 {
			code, out, errs := run(t, "", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, "")))
			require.Equal(t, 0, code, out+errs)
			assert.NotContains(t, out, "warn")
			for _, want := range []string{"ok    transmitter: ", "ok    delivery: poll is one of ", "ok    key set: ",
				"ok    stream: there is none yet: the receiver creates it when it starts", "ok    sessions: not examined: pass an access token of a user (--token)"} {
				assert.Contains(t, after(out), want)
			}
		}
	})
	t.Run("the stream of the receiver is found, and delivers what revokes", func(t *testing.T) {
		s := newSignaling(t)
		s.receive()
		code, out, errs := run(t, "", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, "")))
		require.Equal(t, 0, code, out+errs)
		assert.Regexp(t, `ok    stream: "[^"]+" is enabled\n`, after(out))
		assert.Contains(t, after(out), "ok    events: the stream delivers those that revoke: session-revoked, ")
	})
	t.Run("SSF-18 tokens without sid", func(t *testing.T) {
		s := newSignaling(t)
		for _, c := range []struct {
			more  string
			token string
			want  string
		}{
			{"", s.iss.Token(valetkeytest.Subject("alice")), "warn  sessions: the token has no sid, so the end of a session revokes nothing of it; have the issuer put the sid into access tokens; " +
				"if all tokens of a user may end with one session, set widen: true (in Go: Widen: true)"},
			{", widen: true", s.iss.Token(valetkeytest.Subject("alice")), "ok    sessions: the token has no sid: the end of a session revokes all tokens of its user, as configured"},
			{"", s.iss.Token(valetkeytest.Subject("job"), valetkeytest.Claim("client_id", "job")), "ok    sessions: the token has no sid, and is that of a client, which has no session"},
			{"", s.iss.Token(valetkeytest.Subject("alice"), valetkeytest.SID("s1")), `ok    sessions: the token has the sid "s1"`},
			{"", s.iss.Token(valetkeytest.Claim("iss", "https://other.example.com")), `ok    sessions: not examined: the token is of the issuer "https://other.example.com"`},
			{"", s.iss.Opaque(), "ok    sessions: not examined: the token is opaque"},
		} {
			_, out, _ := run(t, c.token+"\n", "doctor", "--config", s.file(s.section(valetkeytest.ReceiverSecret, c.more)), "--token", "-")
			assert.Contains(t, after(out), c.want)
		}
	})
	t.Run("without a file, the section to paste is printed, and a proxy accepts it", func(t *testing.T) {
		for _, methods := range [][]string{{"urn:ietf:rfc:8935", "urn:ietf:rfc:8936"}, {"urn:ietf:rfc:8935"}} {
			s := newSignaling(t)
			s.publish(map[string]any{"delivery_methods_supported": methods})
			code, out, errs := run(t, "", "doctor", "--transmitter", s.tr.URL)
			require.Equal(t, 0, code, out+errs)
			m := regexp.MustCompile(`; set (signals: \{.*\}) \(in Go: `).FindStringSubmatch(out)
			require.NotNil(t, m, out)
			section := strings.NewReplacer(`client_id: "..."`, "client_id: x", `client_secret_file: "..."`, "client_secret: a-secret-of-the-receiver-for-tests",
				"https://...", "https://api.example.com/signals").Replace(m[1])
			code, out, errs = run(t, "", "proxy", "--config", s.file(section+"\n"), "--check")
			assert.Equal(t, 0, code, out+errs)
		}
	})
	t.Run("flags that exclude each other, and an invalid URL", func(t *testing.T) {
		code, _, errs := run(t, "", "doctor", "--config", "proxy.yaml", "--transmitter", "https://as.example.com")
		assert.Equal(t, cli.Mistake, code)
		assert.Contains(t, errs, "--transmitter: cannot be combined with --config")
		code, _, errs = run(t, "", "doctor", "--transmitter", "http://as.example.com")
		assert.Equal(t, cli.Mistake, code)
		assert.Contains(t, errs, "--transmitter: ")
	})
}
