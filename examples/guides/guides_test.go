package guides_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/examples/guides"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

func verifier(t *testing.T, iss *valetkeytest.Issuer) *jwks.Verifier {
	t.Helper()
	v, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

// get sends a GET request through h and returns the response.
func get(h http.Handler, token string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, valetkeytest.Request("GET", "/orders", token))
	return w
}

var hello = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

func TestCaller(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	h, err := guides.Caller(verifier(t, iss))
	require.NoError(t, err)
	tenant := valetkeytest.Claim("tenant", "acme")
	assert.Equal(t, 403, get(h, iss.Token(valetkeytest.Scopes("x"), tenant)).Code, "neither scope")
	assert.Equal(t, 401, get(h, iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Claim("tenant", 1))).Code, "a claim of another type")
	w := get(h, iss.Token(valetkeytest.Scopes("orders:read"), tenant))
	assert.Equal(t, "alice through orders-app, of acme, may write: false\n", w.Body.String())
	page, err := os.ReadFile("../../docs/caller.md")
	require.NoError(t, err)
	assert.Contains(t, string(page), w.Body.String(), "the page shows the response")
}

func TestVerifiers(t *testing.T) {
	staff, customers, partners := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	v, err := guides.Verifiers(staff.URL, customers.URL, partners.URL, valetkeytest.IntrospectionSecret)
	require.NoError(t, err)
	var refusal *valetkey.Error
	_, err = v.Verify(t.Context(), valetkeytest.NewIssuer(t).Token())
	require.ErrorAs(t, err, &refusal, "another issuer")
	_, err = v.Verify(t.Context(), staff.Opaque())
	require.ErrorAs(t, err, &refusal, "an opaque token of another issuer")
	for name, token := range map[string]string{"staff": staff.Token(), "a customer": customers.Token(), "a partner": partners.Opaque()} {
		_, err := v.Verify(t.Context(), token)
		assert.NoError(t, err, name)
	}
}

func TestBehindProxy(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard, err := guides.BehindProxy(verifier(t, iss))
	require.NoError(t, err)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	h := guard.Handler(hello, valetkey.AnyToken)
	send := func(from, host string) int {
		r := valetkeytest.Request("GET", "http://10.0.0.9:8080/orders", "")
		r.RemoteAddr = from
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", key.Proof("GET", "https://api.example.com/orders", token))
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Host", host)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	assert.Equal(t, 401, send("10.0.0.1:1", "evil.example"), "the proxy reports another host")
	assert.Equal(t, 200, send("192.0.2.1:1", "evil.example"), "the headers of a client do not count")
	assert.Equal(t, 200, send("10.0.0.1:1", "api.example.com"))
}

func TestBrowser(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard, err := guides.Browser(verifier(t, iss))
	require.NoError(t, err)
	h := guard.Handler(hello, valetkey.AnyToken)
	send := func(method, origin string) int {
		r := httptest.NewRequest(method, "https://api.example.com/orders", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-token", Value: iss.Token()})
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	assert.Equal(t, 401, send("POST", "https://evil.example"), "another site")
	assert.Equal(t, 200, send("GET", "https://evil.example"), "another site reads, and gets no permission to see it")
	assert.Equal(t, 200, send("POST", "https://app.example.com"))
}

func TestStream(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	h, guard, err := guides.Stream(verifier(t, iss))
	require.NoError(t, err)
	server := httptest.NewServer(h)
	defer server.Close()
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	require.True(t, events.Scan(), "the stream is open")
	require.NoError(t, guides.Revoke(guard, iss.URL, valetkeytest.DefaultSubject))
	for events.Scan() { // until the stream ends
	}
	assert.Equal(t, 401, get(h, token).Code)
}

func TestOffline(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(file, iss.JWKS(), 0o600))
	v, err := guides.Offline(iss.URL, file)
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Verify(t.Context(), iss.Token())
	require.NoError(t, err)
	assert.Zero(t, iss.Metadata.Hits()+iss.KeySet.Hits())
	iss.Rotate()
	_, err = v.Verify(t.Context(), iss.Token())
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.ReasonUnknownKey, refusal.Reason)
}

func TestObserved(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var out bytes.Buffer
	guard, err := guides.Observed(verifier(t, iss), slog.New(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	h := guard.Handler(hello, scopes.All("orders:write"))
	assert.Equal(t, 403, get(h, iss.Token(valetkeytest.Scopes("orders:read"))).Code)
	assert.Regexp(t, `msg=refused status=403 reason=scope took=`, out.String())
	out.Reset()
	assert.Equal(t, 200, get(h, iss.Token(valetkeytest.Scopes("orders:write"))).Code)
	assert.Empty(t, out.String())
}

func TestSignals(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var (
		base    string
		waiting = make(chan string, 1)
		mux     = http.NewServeMux()
	)
	document := func(path string, content func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			assert.NoError(t, json.NewEncoder(w).Encode(content()))
		})
	}
	document("GET /.well-known/ssf-configuration", func() any {
		return map[string]any{"issuer": base, "jwks_uri": iss.KeySet.URL, "configuration_endpoint": base + "/streams"}
	})
	document("POST /token", func() any { return map[string]any{"access_token": "x", "token_type": "Bearer", "expires_in": 60} })
	document("GET /streams", func() any {
		return []any{map[string]any{"stream_id": "1", "iss": base, "aud": "orders-api",
			"delivery": map[string]any{"method": "urn:ietf:rfc:8936", "endpoint_url": base + "/poll"}}}
	})
	document("POST /poll", func() any {
		sets := map[string]any{}
		select {
		case set := <-waiting:
			sets["set-1"] = set
		default:
		}
		return map[string]any{"sets": sets}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	base = server.URL
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	guard, err := guides.Signals(ctx, verifier(t, iss), base, iss.URL, base+"/token", "secret")
	require.NoError(t, err)
	h := guard.Handler(hello, valetkey.AnyToken)
	one := iss.Token(valetkeytest.Claim("sid", "s1"), valetkeytest.Claim("iat", time.Now().Add(-time.Minute).Unix()))
	other := iss.Token(valetkeytest.Claim("sid", "s2"))
	require.Eventually(t, func() bool { return get(h, one).Code == 200 }, time.Minute, 5*time.Millisecond, "it has caught up")
	waiting <- iss.Token(valetkeytest.Type("secevent+jwt"), valetkeytest.Claim("iss", base), valetkeytest.Claim("aud", "orders-api"), valetkeytest.Claim("jti", "set-1"),
		valetkeytest.Claim("sub", nil), valetkeytest.Claim("exp", nil), valetkeytest.Claim("iat", time.Now().Unix()),
		valetkeytest.Claim("sub_id", map[string]any{"format": "complex", "session": map[string]any{"format": "opaque", "id": "s1"}}),
		valetkeytest.Claim("events", map[string]any{string(signals.SessionRevoked): map[string]any{}}))
	require.Eventually(t, func() bool { return get(h, one).Code == 401 }, time.Minute, 5*time.Millisecond, "the session has ended")
	assert.Equal(t, 200, get(h, other).Code)
}

// TestPages compares the excerpts in docs with the code of this folder.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	shown := map[string]bool{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile("(?s)<!-- ([a-z0-9_/]+\\.go) -->\n```go\n(.*?)```\n").FindAllStringSubmatch(string(text), -1) {
			code, err := os.ReadFile(filepath.Join("../..", m[1]))
			require.NoError(t, err)
			dedented := strings.ReplaceAll("\n"+string(code), "\n\t", "\n") // an excerpt of a function
			assert.True(t, strings.Contains(string(code), m[2]) || strings.Contains(dedented, "\n"+m[2]), "%s shows another text than %s", page, m[1])
			shown[filepath.Base(m[1])] = true
		}
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		if f != "guides_test.go" {
			assert.True(t, shown[f], "no page shows %s", f)
		}
	}
}
