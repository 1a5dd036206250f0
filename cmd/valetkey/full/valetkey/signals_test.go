package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
)

// An operator sees the streams of a server that serves, and pauses one.
func TestOperatorOfSignals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "as.yaml")
	text := fmt.Sprintf(`
issuer: http://127.0.0.1:8888
store: sqlite:%s
signals: true
apis: [{audience: "https://api.example", scopes: {a: A}}]
clients: [{id: receiver, secret: the secret of receiver, scopes: [ssf.manage]}]
`, filepath.Join(dir, "as.db"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) (out, errs string) {
		t.Helper()
		code, out, errs := clitest.Run(t, drivers.All(), "", append(args, "--config", file)...)
		if code != want {
			t.Fatalf("%q ended with %d: %s", args, code, errs)
		}
		return out, errs
	}
	log, stop := clitest.Background(t, drivers.All(), "serve", "--addr", "127.0.0.1:0", "--config", file)
	defer stop()
	server := "http://" + log.Wait(t, `listening on ([0-9.:]+)`)[1]
	send := func(method, path, contentType, body, token string) (answer map[string]any) {
		t.Helper()
		r, err := http.NewRequest(method, server+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if r.SetBasicAuth("receiver", "the+secret+of+receiver"); token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode > 299 || json.Unmarshal(text, &answer) != nil {
			t.Fatalf("%s: %d %s %v", path, res.StatusCode, text, err)
		}
		return answer
	}
	token := send("POST", "/oauth2/token", "application/x-www-form-urlencoded", "grant_type=client_credentials", "")["access_token"].(string)
	id := send("POST", "/ssf/streams", "application/json", "{}", token)["stream_id"].(string)
	if out, _ := run(cli.Good, "signals", "list"); !regexp.MustCompile(id + ` +receiver +poll +enabled`).MatchString(out) {
		t.Error(out)
	}
	if _, errs := run(cli.Mistake, "client", "add", "--scope", "a", "--backchannel-logout-uri", "http://app.example/out"); !strings.Contains(errs, "--backchannel-logout-uri: is neither https") {
		t.Error(errs)
	}
	run(cli.Good, "client", "add", "--scope", "a", "--backchannel-logout-uri", "https://app.example/out", "--backchannel-logout-session")
	if _, errs := run(cli.Mistake, "signals", "set", id, "off"); !strings.Contains(errs, `status "off", want enabled, paused or disabled`) {
		t.Error(errs)
	}
	if _, errs := run(cli.Mistake, "signals", "set", strings.Repeat("a", 26), "paused"); !strings.Contains(errs, "no such stream of signals") {
		t.Error(errs)
	}
	run(cli.Good, "signals", "set", id, "paused", "--reason", "an audit")
	if status := send("GET", "/ssf/status?stream_id="+id, "application/json", "", token); status["status"] != "paused" || status["reason"] != "an audit" {
		t.Error(status)
	}
	told := send("POST", "/ssf/poll/"+id, "application/json", `{"returnImmediately":true}`, token)["sets"].(map[string]any)
	if len(told) != 1 {
		t.Error(told)
	}
	for jti := range told {
		send("POST", "/ssf/poll/"+id, "application/json", fmt.Sprintf(`{"maxEvents":0,"setErrs":{%q:{"err":"invalid_request"}}}`, jti), token)
		if out, _ := run(cli.Good, "signals", "dead", id); !strings.Contains(out, jti) || !strings.Contains(out, "refused by the receiver: invalid_request") {
			t.Error(out)
		}
	}
}
