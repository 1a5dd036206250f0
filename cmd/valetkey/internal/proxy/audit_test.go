package proxy_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// A locked buffer is a log that several goroutines write.
type locked struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// recordsIn returns the audit records in a log, without those members that every record has.
func recordsIn(t *testing.T, log string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		if r["msg"] == "request decided" {
			delete(r, "time")
			all = append(all, r)
		}
	}
	return all
}

func TestAuditRecords(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Subject("alice"), valetkeytest.ClientID("shop"))
	accepted := iss.Token(valetkeytest.Scopes("orders:read"))
	// run sends requests to a proxy and returns its log.
	run := func(t *testing.T, more string) string {
		config, _ := guarded(t, iss, more)
		log := new(locked)
		p, err := load(t, config, slog.New(slog.NewJSONHandler(log, nil)))
		require.NoError(t, err)
		server := httptest.NewServer(p)
		at := server.Listener.Addr().String()
		require.Equal(t, 403, send(t, at, "GET /orders?secret=1", "Authorization: Bearer "+token, "X-Forwarded-For: 192.0.2.7", "X-Request-Id: 7").StatusCode)
		require.Equal(t, 200, send(t, at, "GET /orders", "Authorization: Bearer "+accepted).StatusCode)
		server.Close()
		p.Close() // writes the records that wait
		assert.NotContains(t, log.String(), "secret")
		assert.NotContains(t, log.String(), token)
		return log.String()
	}
	const proxies = "\ntrusted_proxies: 127.0.0.1\nforwarded_header: X-Forwarded"
	t.Run("who was refused, where and why", func(t *testing.T) {
		log := run(t, "audit: {}"+strings.Replace(proxies, "127.0.0.1", "[127.0.0.1]", 1))
		assert.NotContains(t, log, `"msg":"decision"`, "a record says the same as the line of the access log")
		assert.Equal(t, []map[string]any{{
			"level": "WARN", "msg": "request decided", "event.outcome": "failure", "event.type": "denied", "event.reason": "scope",
			"http.response.status_code": 403., "http.request.method": "GET", "http.route": "GET /orders", "client.address": "192.0.2.7", "http.request.id": "7",
			"user.id": "alice", "valetkey.issuer": iss.URL, "valetkey.client": "shop", "valetkey.scope": "orders:read", "valetkey.remembered": false,
		}}, recordsIn(t, log))
	})
	t.Run("with the access log, and accepted requests", func(t *testing.T) {
		log := run(t, "audit: {grants: 1}\naccess_log: all")
		assert.Equal(t, 2, strings.Count(log, `"msg":"decision"`))
		all := recordsIn(t, log)
		require.Len(t, all, 2)
		assert.Equal(t, "127.0.0.1", all[0]["client.address"], "no proxies are trusted")
		assert.Equal(t, "success", all[1]["event.outcome"])
		assert.NotEmpty(t, all[1]["http.request.id"])
	})
	t.Run("hashed", func(t *testing.T) {
		log := run(t, "audit: {identity: hashed, key: "+key+"}")
		r := recordsIn(t, log)[0]
		for _, name := range []string{"user.id", "valetkey.client", "client.address"} {
			assert.Regexp(t, `^[0-9a-f]{32}$`, r[name])
		}
		assert.NotContains(t, log, "alice")
		assert.Equal(t, r["user.id"], recordsIn(t, run(t, "audit: {identity: hashed, key: "+key+"}"))[0]["user.id"], "equal for equal users")
	})
	t.Run("omitted, and never dropped", func(t *testing.T) {
		log := run(t, "audit: {identity: omitted, queue: 1, block: true}")
		r := recordsIn(t, log)[0]
		for _, name := range []string{"user.id", "valetkey.client", "client.address"} {
			assert.NotContains(t, r, name)
		}
	})
	t.Run("a route whose refusals are only reported", func(t *testing.T) {
		config, _ := guarded(t, iss, "audit: {}\ninsecure_report_only: true")
		log := new(locked)
		p, err := load(t, config, slog.New(slog.NewJSONHandler(log, nil)))
		require.NoError(t, err)
		p.ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/orders", ""))
		p.Close()
		assert.Equal(t, true, recordsIn(t, log.String())[0]["valetkey.report_only"])
	})
	t.Run("for a gateway, whose address is not the client's", func(t *testing.T) {
		log := new(locked)
		a, err := authorizer(t, strings.Replace(authorizing, "https://as.example.com", iss.URL, 1)+"audit: {}", drivers, slog.New(slog.NewJSONHandler(log, nil)))
		require.NoError(t, err)
		assert.Equal(t, 403, asked(t, a.Asked(), "GET", "/orders", "Authorization: Bearer "+token, "X-Request-Id: 8").StatusCode)
		a.Close()
		all := recordsIn(t, log.String())
		require.Len(t, all, 1)
		assert.NotContains(t, all[0], "client.address")
		assert.Equal(t, []any{"alice", "GET /orders", "8"}, []any{all[0]["user.id"], all[0]["http.route"], all[0]["http.request.id"]})
	})
	t.Run("operators see what was dropped", func(t *testing.T) {
		config, _ := guarded(t, iss, "audit: {}\nprobe: 127.0.0.1:0\ndrain: 0s")
		_, probe := serve(t, config)
		state := statusOf(t, probe)
		require.NotNil(t, state.Audit)
		assert.Zero(t, state.Audit.Dropped)
		_, text := get(t, "http://"+probe+"/metrics", "")
		assert.Contains(t, string(text), "valetkey_audit_dropped_total 0\n")
	})
	for section, want := range map[string]string{
		"{grants: 2}":                               `6: audit.grants: "2" is not a number from 0 to 1, such as 0.01`,
		"{grants: NaN}":                             `6: audit.grants: "NaN" is not a number from 0 to 1, such as 0.01`,
		"{grants: -0.1}":                            `6: audit.grants: "-0.1" is not a number from 0 to 1, such as 0.01`,
		"{identity: none}":                          `6: audit.identity: "none" is not clear, hashed or omitted`,
		"{identity: hashed}":                        `6: audit.key: has 0 bytes; at least 32 are required`,
		"{identity: hashed, key: short}":            `6: audit.key: is not the base64 of 32 random bytes, as from openssl rand -base64 32`,
		"{key: " + key + "}":                        `6: audit.key: has no effect unless the identity is hashed`,
		"{identity: omitted, key_env: AUDIT_KEY}":   `6: audit.key_env: has no effect unless the identity is hashed`,
		"{queue: -1}":                               `6: audit.queue: -1 is negative`,
		"{file: audit.log}":                         `6: audit: unknown field "file"; known are grants, identity, key, key_file, key_env, queue, block`,
		"{}\ntrusted_proxies: [10.0.0.0/8]":         "forwarded_header: required",
		"{identity: hashed, key_file: nowhere.key}": "6: audit.key_file: ",
	} {
		t.Setenv("AUDIT_KEY", key)
		_, err := load(t, good+"audit: "+section, slog.New(slog.DiscardHandler))
		all := mistakes(err)
		assert.Len(t, all, 1, section)
		assert.Contains(t, strings.Join(all, "\n"), want)
	}
}
