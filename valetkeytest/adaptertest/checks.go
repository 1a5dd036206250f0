package adaptertest

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// An adapterCheck is one check of Test.
type adapterCheck struct {
	name string
	run  func() error
}

// An exchange is a request to which both servers must respond alike.
type exchange struct {
	name         string
	method, path string
	lines        []string // of the header
	body         string
	status       int
}

func adapterChecks(t testing.TB, a Adapter) []adapterCheck {
	t.Helper()
	iss := valetkeytest.NewIssuer(t)
	guards := newAdapterGuards(t, iss, a.NoForwarded)
	plain, under := newAdapterServer(t, guards, serveHTTP, braces), newAdapterServer(t, guards, a.Serve, a.PathParameter)

	var checks []adapterCheck
	check := func(name string, run func() error) { checks = append(checks, adapterCheck{name, run}) }
	for _, x := range slices.Concat(exchanges(iss), boundExchanges(t, iss, guards)) {
		if x.path == "/ending" && a.NoCancel || a.NoForwarded && slices.Contains(forwarded, x.name) {
			continue
		}
		check(x.name, func() error { return compare(x, guards, plain, under, a.comparable) })
	}
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	check("a token in a trailer is none", func() error { return under.trailer(token) })
	check("a panic is the framework's", func() error { return under.panics(token) })
	check("a stream flows", func() error { return under.streams(token) })
	if a.ServeTLS != nil {
		check("a token bound to the certificate of the connection", func() error { return certified(t, iss, a) })
	}
	if !a.NoUpgrade {
		check("a connection can be taken over", func() error { return under.upgrades(token) })
	}
	if !a.NoHangUp {
		check("the context ends with the request", func() error { return under.hangsUp(token) })
	}
	check("requests at the same time keep their tokens", func() error { return under.crowd(iss) })
	check("the metadata has the scopes of the needs", func() error { return declares(t, a) })
	return able(checks, a.Unable)
}

// able returns checks, of which those that are unable succeed if they fail, and a check that all of these are known.
func able(checks []adapterCheck, unable map[string]string) []adapterCheck {
	unknown := maps.Clone(unable)
	for i, c := range checks {
		if _, listed := unable[c.name]; !listed {
			continue
		}
		delete(unknown, c.name)
		checks[i].run = func() error {
			if c.run() == nil {
				return errors.New("it succeeds, and is listed in Unable")
			}
			return nil
		}
	}
	if len(unable) == 0 {
		return checks
	}
	return append(checks, adapterCheck{"every check in Unable is one", func() error {
		if len(unknown) > 0 {
			return fmt.Errorf("there is no check %q", slices.Sorted(maps.Keys(unknown)))
		}
		return nil
	}})
}

// declares serves one route and looks for its scope in the metadata of its guard.
func declares(t testing.TB, a Adapter) error {
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: middleware.Resource{ID: valetkeytest.DefaultAudience}})
	if err != nil {
		return err
	}
	url := a.Serve(t, []Route{{
		Path: "/declared", Guard: guard, Require: [][]valetkey.Requirement{{scopes.All("orders:declared")}}, Handler: http.NotFoundHandler(),
	}})
	resp, err := http.Get(url + "/declared") // a server that has answered has started, and can be stopped
	if err != nil {
		return err
	}
	resp.Body.Close()
	_, metadata := guard.Metadata()
	w := httptest.NewRecorder()
	metadata.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if !strings.Contains(w.Body.String(), `"orders:declared"`) {
		return fmt.Errorf("the guard was not told of the needs (Guard.Declare): %s", w.Body)
	}
	return nil
}

func exchanges(iss *valetkeytest.Issuer) []exchange {
	const form = "Content-Type: application/x-www-form-urlencoded"
	read, write := iss.Token(valetkeytest.Scopes("orders:read")), iss.Token(valetkeytest.Scopes("orders:write"))
	expired, both := iss.Token(valetkeytest.Expired()), iss.Token(valetkeytest.Scopes("orders:read", "orders:write"))
	bearer := func(tokens ...string) (lines []string) {
		for _, token := range tokens {
			lines = append(lines, "Authorization: Bearer "+token)
		}
		return lines
	}
	other := func(tokens ...string) (lines []string) {
		for _, token := range tokens {
			lines = append(lines, "Cf-Access-Jwt-Assertion: "+token)
		}
		return lines
	}
	offers := func(lines ...string) []string {
		all := []string{"Upgrade: websocket"}
		for _, line := range lines {
			all = append(all, "Sec-WebSocket-Protocol: "+line)
		}
		return all
	}
	encoded := middleware.KubernetesProtocol + base64.RawURLEncoding.EncodeToString([]byte(read))
	handshake := []string{"Upgrade: websocket", "Cookie: session=" + read}
	preflight := []string{"Origin: https://app.example.com", "Access-Control-Request-Method: PUT"}

	all := []exchange{
		{"no credentials", "GET", "/read", nil, "", 401},
		{"no credentials, HEAD", "HEAD", "/read", nil, "", 401},
		{"no credentials, POST", "POST", "/read", nil, "a body", 401},
		{"no credentials, DELETE", "DELETE", "/any", nil, "", 401},
		{"no credentials, two needs", "GET", "/two", nil, "", 401},
		{"no credentials, a group", "GET", "/group", nil, "", 401},
		{"no credentials, a handler that would panic", "GET", "/panic", nil, "", 401},
		{"another scheme", "GET", "/read", []string{"Authorization: Basic eDp5"}, "", 401},
		{"an empty header", "GET", "/read", []string{"Authorization:"}, "", 401},
		{"a preflight where none passes", "OPTIONS", "/read", preflight, "", 401},
		{"the scheme alone", "GET", "/read", []string{"Authorization: Bearer"}, "", 400},
		{"a malformed token", "GET", "/read", bearer("a,b"), "", 400},
		{"a malformed token, HEAD", "HEAD", "/read", bearer("a,b"), "", 400},
		{"a space before the token too many, a tab", "GET", "/read", bearer("\t" + read), "", 400},
		{"two headers", "GET", "/read", bearer(read, read), "", 400},
		{"two headers, the first good", "GET", "/read", bearer(read, "x"), "", 400},
		{"two headers, the last good", "GET", "/read", bearer("x", read), "", 400},
		{"two headers in different letter case", "GET", "/read", []string{"authorization: Bearer " + read, "AUTHORIZATION: Basic eDp5"}, "", 400},
		{"two headers, one empty", "GET", "/read", append(bearer(read), "Authorization:"), "", 400},
		{"header and query, where the query is off", "GET", "/read?access_token=" + read, bearer(read), "", 400},
		{"a token that is too long", "GET", "/read", bearer(strings.Repeat("a", 16<<10+1)), "", 401},
		{"an opaque token", "GET", "/read", bearer("opaque"), "", 401},
		{"an expired token", "GET", "/read", bearer(expired), "", 401},
		{"an expired token, HEAD", "HEAD", "/read", bearer(expired), "", 401},
		{"the wrong scope", "GET", "/read", bearer(write), "", 403},
		{"the wrong scope, HEAD", "HEAD", "/write", bearer(read), "", 403},
		{"the wrong scope, POST", "POST", "/write", bearer(read), "a body", 403},
		{"one scope of two", "GET", "/two", bearer(read), "", 403},
		{"a path value that a requirement refuses", "GET", "/tenants/other", bearer(read), "", 403},
		{"a group lets it through and the route does not", "GET", "/group", bearer(write), "", 403},
		{"nothing can be found out", "GET", "/read", bearer(outage), "", 503},
		{"nothing can be found out, a group", "GET", "/group", bearer(outage), "", 503},
		{"optional, an expired token", "GET", "/optional", bearer(expired), "", 401},
		{"optional, the scheme alone", "GET", "/optional", []string{"Authorization: Bearer"}, "", 400},
		{"optional, two headers", "GET", "/optional", bearer(read, read), "", 400},
		{"optional, nothing can be found out", "GET", "/optional", bearer(outage), "", 503},
		{"full, no credentials", "GET", "/full", nil, "", 401},
		{"full, the wrong scope", "GET", "/full", bearer(write), "", 403},
		{"full, nothing can be found out", "GET", "/full", bearer(outage), "", 503},
		{"full, an OPTIONS that is not a preflight", "OPTIONS", "/full", preflight[:1], "", 401},
		{"full, header and form", "POST", "/full", append(bearer(read), form), "access_token=" + read, 400},
		{"full, header and query", "GET", "/full?access_token=" + read, bearer(read), "", 400},
		{"full, form and query", "POST", "/full?access_token=" + read, []string{form}, "access_token=" + read, 400},
		{"full, twice in the query", "GET", "/full?access_token=" + read + "&access_token=" + read, nil, "", 400},
		{"full, an invalid query", "GET", "/full?%zz", nil, "", 400},
		{"full, a form that is too long", "POST", "/full", []string{form}, "x=" + strings.Repeat("y", 2000), 400},
		{"full, a form in GET", "GET", "/full", []string{form}, "access_token=" + read, 401},
		{"full, a form and then no form", "POST", "/full", []string{form, "Content-Type: text/plain"}, "access_token=" + read, 401},
		{"full, no form and then a form", "POST", "/full", []string{"Content-Type: text/plain", form}, "access_token=" + read, 401},
		{"full, a cookie in a handshake from another site", "GET", "/full", append(handshake, "Origin: https://evil.example"), "", 401},
		{"full, a cookie in a handshake without an origin", "GET", "/full", handshake, "", 401},
		{"full, optional, a form with a bad token", "POST", "/full/optional", []string{form}, "access_token=" + expired, 401},
		{"other header, no credentials", "GET", "/other", nil, "", 401},
		{"other header, Authorization instead", "GET", "/other", bearer(read), "", 401},
		{"other header, empty", "GET", "/other", other(""), "", 401},
		{"other header, a scheme", "GET", "/other", other("Bearer " + read), "", 400},
		{"other header, two lines", "GET", "/other", other(read, read), "", 400},
		{"other header, two lines, one empty", "GET", "/other", other("", read), "", 400},
		{"other header, the wrong scope", "GET", "/other", other(write), "", 403},
		{"other header, a request from another site", "POST", "/other", append(other(read), "Origin: https://evil.example"), "", 401},
		{"other header, optional, an expired token", "GET", "/other/optional", other(expired), "", 401},
		{"subprotocol, without a handshake", "GET", "/other", offers("access_token, " + read)[1:], "", 401},
		{"subprotocol, a name without a token", "GET", "/other", offers("access_token"), "", 400},
		{"subprotocol, a bad encoding", "GET", "/other", offers(middleware.KubernetesProtocol + "!"), "", 400},
		{"subprotocol, two tokens in two lines", "GET", "/other", offers("access_token, "+read, encoded), "", 400},
		{"subprotocol and other header", "GET", "/other", append(other(read), offers(encoded)...), "", 400},

		{"a good token", "GET", "/read", bearer(read), "", 200},
		{"a good token, HEAD", "HEAD", "/read", bearer(read), "", 200},
		{"a good token, POST", "POST", "/read", bearer(read), "a body", 200},
		{"a good token without scopes where none are needed", "GET", "/any", bearer(iss.Token()), "", 200},
		{"a good token for two needs", "GET", "/two", bearer(both), "", 200},
		{"a path value that a requirement accepts", "GET", "/tenants/own", bearer(read), "", 200},
		{"a good token for needs that changed after the start", "GET", "/kept", bearer(read), "", 200},
		{"a good token for a group", "GET", "/group", bearer(read), "", 200},
		{"the scheme and the header in other letter case", "GET", "/read", []string{"aUTHORIZATION: bEARER " + read}, "", 200},
		{"spaces around the header", "GET", "/read", []string{"Authorization:   Bearer   " + read + "  "}, "", 200},
		{"optional, no credentials", "GET", "/optional", nil, "", 200},
		{"optional, another scheme", "GET", "/optional", []string{"Authorization: Basic eDp5"}, "", 200},
		{"optional, a good token", "POST", "/optional", bearer(read), "a body", 200},
		{"optional, only another guard in front has a token", "GET", "/optional/inner", handshake[1:], "", 200},
		{"optional, a good token for both guards", "GET", "/optional/inner", bearer(read), "", 200},
		{"full, a good token", "GET", "/full?x=1", bearer(read), "", 200},
		{"full, a preflight", "OPTIONS", "/full", preflight, "", 200},
		{"full, optional, a preflight", "OPTIONS", "/full/optional", preflight, "", 200},
		{"full, in the query", "GET", "/full?access_token=" + read, nil, "", 200},
		{"full, in the form", "POST", "/full", []string{form}, "access_token=" + read + "&x=1", 200},
		{"full, a cookie", "GET", "/full", handshake[1:], "", 200},
		{"full, a cookie in a handshake from the own origin", "GET", "/full", append(handshake, "Origin: https://api.example.com"), "", 200},
		{"full, optional, no credentials", "GET", "/full/optional", nil, "", 200},
		{"full, optional, in the query", "GET", "/full/optional?access_token=" + read, nil, "", 200},
		{"other header, a good token", "GET", "/other", other(read), "", 200},
		{"other header, a good token beside Authorization", "GET", "/other", append(other(read), bearer("x", expired)...), "", 200},
		{"other header, a request from the own origin", "POST", "/other", append(other(read), "Origin: https://api.example.com"), "a body", 200},
		{"other header, optional, no credentials", "GET", "/other/optional", bearer(expired), "", 200},
		{"subprotocol, a name and the token", "GET", "/other", offers("chat, access_token, " + read), "", 200},
		{"subprotocol, a name and the token in two lines", "GET", "/other", offers("access_token", read), "", 200},
		{"subprotocol, encoded", "GET", "/other", offers("v4.channel.k8s.io", encoded), "", 200},
		{"the context ends with the token", "GET", "/ending", bearer(read), "", 200},
	}
	for name, forgery := range iss.Forgeries(valetkeytest.Scopes("orders:read")) {
		all = append(all, exchange{"a forgery: " + name, "GET", "/read", bearer(forgery), "", 401})
	}
	return all
}

// compare sends x to both servers.
func compare(x exchange, guards *adapterGuards, plain, under *adapterServer, comparable func(method, answer string) string) error {
	ask := func(s *adapterServer) (got string, calls, verified int64, err error) {
		calls, verified = s.calls.Load(), guards.verified.Load()
		got, err = s.answer(x)
		return got, s.calls.Load() - calls, guards.verified.Load() - verified, err
	}
	want, wantCalls, wantVerified, err := ask(plain)
	if err != nil {
		return fmt.Errorf("net/http: %w", err)
	}
	if !strings.HasPrefix(want, fmt.Sprintf("HTTP/1.1 %d ", x.status)) {
		return fmt.Errorf("net/http answers other than %d:\n%s", x.status, want)
	}
	got, calls, verified, err := ask(under)
	if err != nil {
		return err
	}
	var faults []error
	if calls != wantCalls {
		faults = append(faults, fmt.Errorf("the handler was called %d times, not %d", calls, wantCalls))
	}
	if verified != wantVerified {
		faults = append(faults, fmt.Errorf("the token was verified %d times, not %d", verified, wantVerified))
	}
	if got, want = comparable(x.method, got), comparable(x.method, want); got != want {
		faults = append(faults, fmt.Errorf("it answers\n%s\nand net/http\n%s", got, want))
	}
	return errors.Join(faults...)
}

// comparable returns what counts of an answer.
func (a Adapter) comparable(method, answer string) string {
	if a.OneChallenge || a.StatusAndChallenge {
		answer = joinChallenges(answer)
	}
	if !a.StatusAndChallenge {
		return answer
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), &http.Request{Method: method})
	if err != nil {
		return answer
	}
	defer res.Body.Close()
	short := fmt.Sprintf("%d %s", res.StatusCode, res.Header["Www-Authenticate"])
	if res.StatusCode == http.StatusOK {
		body, err := io.ReadAll(res.Body) // without the framing, which differs
		short = fmt.Sprint(short, " ", string(body), " ", err)
	}
	return short
}

// joinChallenges returns an answer with its lines of WWW-Authenticate, which are adjacent, as one.
func joinChallenges(answer string) string {
	const name = "\r\nWww-Authenticate: "
	first, rest, found := strings.Cut(answer, name)
	if !found {
		return answer
	}
	challenges, tail := "", ""
	for ; found; rest, found = strings.CutPrefix(tail, name) {
		var challenge string
		if challenge, tail, _ = strings.Cut(rest, "\r\n"); challenges != "" {
			challenges += ", "
		}
		challenges, tail = challenges+challenge, "\r\n"+tail
	}
	return first + name + challenges + tail
}

// answer returns the bytes that the server sends, with the header lines sorted and without Date.
func (s *adapterServer) answer(x exchange) (string, error) {
	request := x.method + " " + x.path + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n"
	for _, line := range x.lines {
		request += line + "\r\n"
	}
	if x.body != "" {
		request += fmt.Sprintf("Content-Length: %d\r\n", len(x.body))
	}
	conn, err := s.send(request + "\r\n" + x.body)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	header := slices.DeleteFunc(lines[1:], func(line string) bool { return strings.HasPrefix(line, "Date:") })
	slices.Sort(header)
	return lines[0] + "\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n" + body, nil
}

// send opens a connection and writes the request.
func (s *adapterServer) send(request string) (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, request); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (s *adapterServer) get(path, token string) (*http.Response, string, error) {
	r, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		return nil, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// trailer sends a token where the header section has ended (RFC 9110, section 6.5.1).
func (s *adapterServer) trailer(token string) error {
	calls := s.calls.Load()
	conn, err := s.send("POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\nConnection: close\r\n\r\n" +
		"1\r\nx\r\n0\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if n := s.calls.Load() - calls; n != 0 || resp.StatusCode < 400 {
		return fmt.Errorf("it answers %s, and the handler was called %d times", resp.Status, n)
	}
	return nil
}

func (s *adapterServer) panics(token string) error {
	resp, _, err := s.get("/panic", token)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusInternalServerError {
		return fmt.Errorf("the panic of a handler became %s", resp.Status)
	}
	if resp, _, err := s.get("/read", token); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the request after it: %v, %v", resp, err)
	}
	return nil
}

func (s *adapterServer) streams(token string) error {
	conn, err := s.send("GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("nothing comes before the handler has returned: %w", err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if line, err := body.ReadString('\n'); line != "first\n" {
		return fmt.Errorf("the first part is %q: %v", line, err)
	}
	s.read <- struct{}{}
	if rest, err := io.ReadAll(body); string(rest) != "second\n" {
		return fmt.Errorf("the rest is %q: %v", rest, err)
	}
	return nil
}

func (s *adapterServer) upgrades(token string) error {
	conn, err := s.send("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: line\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	if _, err := io.WriteString(conn, "line\n"); err != nil {
		return err
	}
	if line, err := r.ReadString('\n'); line != "back: line\n" {
		return fmt.Errorf("what comes back is %q: %v", line, err)
	}
	return nil
}

// hangsUp disconnects while the handler waits for the end of the context.
func (s *adapterServer) hangsUp(token string) error {
	conn, err := s.send("GET /wait HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	if err != nil {
		return err
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusOK {
		conn.Close()
		return fmt.Errorf("the handler does not begin: %v, %v", resp, err)
	}
	conn.Close()
	select {
	case <-s.gone:
		return nil
	case <-time.After(patience):
		return errors.New("the handler is not told that its client has gone")
	}
}

// crowd sends requests of many senders concurrently, over reused connections.
func (s *adapterServer) crowd(iss *valetkeytest.Issuer) error {
	const senders, requests = 8, 20
	faults := make([]error, senders)
	var wg sync.WaitGroup
	for i := range senders {
		subject := fmt.Sprintf("sender-%d", i)
		token := iss.Token(valetkeytest.Subject(subject), valetkeytest.Scopes("orders:read"))
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: limit}
			defer client.CloseIdleConnections()
			for range requests {
				r, err := http.NewRequest("GET", s.url+"/read", nil)
				if err != nil {
					faults[i] = err
					return
				}
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := client.Do(r)
				if err != nil {
					faults[i] = err
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := "hello " + subject + " with orders:read"; err != nil || string(body) != want {
					faults[i] = fmt.Errorf("%s: got %q, %v", subject, body, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}
