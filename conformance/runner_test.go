package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/conformance/broken"
)

// TestMain lets this binary be the program that [conformance.StartCommand] starts.
func TestMain(m *testing.M) {
	switch os.Getenv("CONFORM_TEST_PROGRAM") {
	case "serve":
		server := &http.Server{Addr: os.Getenv("CONFORM_LISTEN"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", "Bearer realm=\"api\"")
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, strings.Join(os.Args[1:], " "))
		})}
		fmt.Fprintln(os.Stderr, server.ListenAndServe())
		os.Exit(1)
	case "ends":
		serveUntil(os.Getenv("CONFORM_TEST_HEADER"), os.Getenv("CONFORM_TEST_WHEN"), os.Getenv("CONFORM_TEST_ONCE"))
	case "fail":
		fmt.Fprintln(os.Stderr, "missing setting: issuer")
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// serveUntil serves until a request has the header, and then ends before or after its response. With the name of a file, it ends only once.
func serveUntil(header, when, once string) {
	end := func() {
		fmt.Fprintln(os.Stderr, "TypeError: Cannot read properties of undefined\n    at server.js:7")
		os.Exit(3)
	}
	server := &http.Server{Addr: os.Getenv("CONFORM_LISTEN"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ends := r.Header.Get(header) != ""
		if ends && once != "" {
			file, err := os.OpenFile(once, os.O_CREATE|os.O_EXCL, 0o600)
			ends = err == nil
			file.Close()
		}
		if ends && when == "before" {
			end()
		}
		w.Header().Set("Content-Length", "0")
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="api"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		if ends {
			http.NewResponseController(w).Flush() // the whole response
			end()
		}
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func targetOf(faults ...string) conformance.Target {
	return conformance.Target{URL: "/any", Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
		return broken.Start(s, faults...)
	}}
}

// only returns the cases with these IDs.
func only(t *testing.T, ids ...string) (cases []conformance.Case) {
	t.Helper()
	for _, id := range ids {
		c, ok := conformance.FindCase(id)
		require.True(t, ok, id)
		cases = append(cases, c)
	}
	return cases
}

func TestCheckReportsMistakes(t *testing.T) {
	_, err := conformance.Check(t.Context(), conformance.Target{URL: "ftp://x?y", Profiles: []conformance.Profile{"saml"},
		Features: []conformance.Feature{"x"}, Routes: map[string]conformance.Route{"y": {Path: "z"}}}, conformance.Options{})
	for _, want := range []string{"target:", `profile: unknown: "saml"`, `feature: unknown: "x"`, `route: unknown name "y"`, `the path "z"`} {
		assert.ErrorContains(t, err, want)
	}
}

func TestCheckServerThatDoesNotStart(t *testing.T) {
	_, err := conformance.Check(t.Context(), conformance.Target{URL: "/", Start: func(context.Context, conformance.Setup) (*conformance.Server, error) {
		return nil, errors.New("no database")
	}}, conformance.Options{})
	assert.ErrorContains(t, err, "starting the server: no database")
}

func TestCheckServerThatNeedsTheIssuerToStart(t *testing.T) {
	report, err := conformance.Check(t.Context(), conformance.Target{URL: "/any", Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
		response, err := http.Get(s.JWKSURI)
		if err != nil {
			return nil, err
		}
		response.Body.Close()
		return broken.Start(s)
	}}, conformance.Options{Cases: only(t, "bearer-header", "issuer-down-at-start", "issuer-down-forged"), Rate: -1})
	require.NoError(t, err)
	assert.Equal(t, conformance.Passed, report.Results[0].Verdict, "the other case runs")
	assert.Equal(t, conformance.Failed, report.Results[1].Verdict)
	assert.Contains(t, report.Results[1].Problems[0], "starting the server: ")
	assert.Equal(t, conformance.Passed, report.Results[2].Verdict, "a server that does not start accepts nothing")
}

func TestCheckServerThatEnds(t *testing.T) {
	target := targetOf()
	start := target.Start
	target.Start = func(ctx context.Context, s conformance.Setup) (*conformance.Server, error) {
		server, err := start(ctx, s)
		if err == nil && s.Nonce {
			server.Close()
			server.Close = nil
		}
		return server, err
	}
	target.Profiles = []conformance.Profile{conformance.ProfileDPoP}
	target.Features = []conformance.Feature{conformance.FeatureNonce}
	var cases []conformance.Case
	for _, c := range conformance.Cases() {
		if c.Given != nil && c.Given.Nonce && len(cases) == 0 {
			cases = append(cases, c)
		}
	}
	require.Len(t, cases, 1)
	report, err := conformance.Check(t.Context(), target, conformance.Options{Cases: cases, Rate: -1})
	require.NoError(t, err)
	assert.Contains(t, strings.Join(report.Results[0].Problems, " "), "the server ended: it accepts no connections")
}

func TestCheckServerThatEndsAndDoesNotStartAgain(t *testing.T) {
	starts, closed := 0, 0
	target := conformance.Target{URL: "/any", Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
		if starts++; starts > 1 {
			return nil, errors.New("the port is taken")
		}
		server, err := broken.Start(s)
		if err == nil {
			server.Close()
			server.Close = func() { closed++ }
		}
		return server, err
	}}
	report, err := conformance.Check(t.Context(), target, conformance.Options{Cases: only(t, "bearer-header", "bearer-empty-400"), Rate: -1, AcceptNotReady: true})
	require.NoError(t, err)
	for _, result := range report.Results {
		assert.Equal(t, conformance.Failed, result.Verdict)
	}
	assert.Equal(t, 2, starts)
	assert.Equal(t, 1, closed)
}

func TestCheckProgramThatEnds(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	var cases []conformance.Case
	for _, c := range conformance.Cases() {
		if strings.HasPrefix(c.ID, "identity-header-") && c.Features == nil || c.ID == "bearer-header" {
			cases = append(cases, c)
		}
	}
	require.Greater(t, len(cases), 15)
	// check returns the problems of the cases that fail.
	check := func(t *testing.T, header, when, once string, o conformance.Options) map[string]string {
		t.Setenv("CONFORM_TEST_PROGRAM", "ends")
		t.Setenv("CONFORM_TEST_HEADER", header)
		t.Setenv("CONFORM_TEST_WHEN", when)
		t.Setenv("CONFORM_TEST_ONCE", once)
		start, err := conformance.StartCommand("'" + self + "'")
		require.NoError(t, err)
		o.Cases, o.Rate = cases, -1
		var done []int
		o.Progress = func(n, total int) { done = append(done, n) }
		report, err := conformance.Check(t.Context(), conformance.Target{URL: "/any", Start: start}, o)
		require.NoError(t, err)
		require.Len(t, done, len(cases), "each case counts once")
		failed := map[string]string{}
		for _, result := range report.Results {
			assert.NotEmpty(t, result.Verdict, result.Case.ID)
			if result.Verdict == conformance.Failed {
				failed[result.Case.ID] = strings.Join(result.Problems, "\n")
			}
		}
		return failed
	}
	for _, when := range []string{"before", "after"} {
		t.Run("the case that ends it fails, and the others run on: "+when+" its response", func(t *testing.T) {
			failed := check(t, "X-Skip-Auth", when, "", conformance.Options{})
			require.Contains(t, failed, "identity-header-skip")
			assert.Len(t, failed, 1, "%v", failed)
			assert.Regexp(t, "^the server ended: .*: exit status 3; its output ends with:\n    TypeError: ", failed["identity-header-skip"])
		})
	}
	t.Run("one case at a time", func(t *testing.T) {
		failed := check(t, "X-Real-IP", "before", "", conformance.Options{Workers: 1})
		assert.Contains(t, failed, "identity-header-real-ip")
		assert.Len(t, failed, 1)
	})
	t.Run("it ends in each case, up to the limit", func(t *testing.T) {
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return c.ID == "bearer-header" })
		failed := check(t, "Connection", "before", "", conformance.Options{Restarts: 3, AcceptNotReady: true})
		assert.Len(t, failed, len(cases))
		limited := 0
		for _, problem := range failed {
			if strings.Contains(problem, "not run: the server ended, and is started again at most 3 times") {
				limited++
			}
		}
		assert.Positive(t, limited)
	})
	t.Run("it is never started again", func(t *testing.T) {
		failed := check(t, "Connection", "before", "", conformance.Options{Restarts: -1, AcceptNotReady: true, Workers: 1})
		assert.Len(t, failed, len(cases))
		assert.Contains(t, failed["identity-header-xfcc"], "not run: the server ended")
	})
	t.Run("no case ends it alone", func(t *testing.T) {
		failed := check(t, "X-Skip-Auth", "before", filepath.Join(t.TempDir(), "ended"), conformance.Options{})
		require.Contains(t, failed, "identity-header-skip")
		assert.Contains(t, failed["identity-header-skip"], "the server ended while these cases ran, and after none of them alone (")
	})
}

func TestCheckServerThatRefusesAGoodToken(t *testing.T) {
	_, err := conformance.Check(t.Context(), targetOf("at-jwt-is-refused"), conformance.Options{Cases: only(t, "bearer-header"), Rate: -1})
	var notReady *conformance.NotReadyError
	require.ErrorAs(t, err, &notReady)
	assert.Contains(t, notReady.Exchange.Response, "401 Unauthorized")
	assert.Contains(t, notReady.Error(), notReady.Setup.Issuer)
}

func TestCheckIsCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	target := targetOf()
	start := target.Start
	target.Start = func(ctx context.Context, s conformance.Setup) (*conformance.Server, error) {
		cancel()
		return start(ctx, s)
	}
	_, err := conformance.Check(ctx, target, conformance.Options{Rate: -1})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestCanary(t *testing.T) {
	report, err := conformance.Check(t.Context(), targetOf("jku-is-fetched"), conformance.Options{Cases: only(t, "jws-jku-valid", "bearer-header"), Rate: -1})
	require.NoError(t, err)
	require.Len(t, report.Failures(true), 1)
	assert.Equal(t, "jws-jku-valid", report.Failures(true)[0].Case.ID, "the response is good, and the fetch is not")
	assert.Contains(t, report.Failures(true)[0].Problems, "a URL in the token or the request was contacted")
}

func TestVerdicts(t *testing.T) {
	cases := only(t, "bearer-header", "dpop-accepted", "scope-granted", "rotation-new-key", "bearer-empty-400")
	verdicts := func(report *conformance.Report) map[string]conformance.Verdict {
		all := map[string]conformance.Verdict{}
		for _, r := range report.Results {
			all[r.Case.ID] = r.Verdict
		}
		return all
	}
	t.Run("a server that is started", func(t *testing.T) {
		report, err := conformance.Check(t.Context(), targetOf("empty-token-is-unauthorized"), conformance.Options{Cases: cases, Rate: -1})
		require.NoError(t, err)
		assert.Equal(t, map[string]conformance.Verdict{"bearer-header": conformance.Passed, "dpop-accepted": conformance.NotOffered,
			"scope-granted": conformance.NotOffered, "rotation-new-key": conformance.Skipped, "bearer-empty-400": conformance.Failed}, verdicts(report))
		assert.Empty(t, report.Failures(true), "an opinion does not fail a run")
		assert.Len(t, report.Failures(false), 1)
		assert.True(t, report.Against(nil).Passed())
		assert.Equal(t, 2, report.Count(conformance.NotOffered))
	})
	t.Run("a server that runs already", func(t *testing.T) {
		address, err := conformance.FreeAddress()
		require.NoError(t, err)
		server, err := broken.Start(conformance.Setup{Issuer: "http://" + address, Audience: conformance.DefaultAudience})
		require.NoError(t, err)
		defer server.Close()
		report, err := conformance.Check(t.Context(), conformance.Target{URL: server.URL + "/any", IssuerListen: address},
			conformance.Options{Cases: cases, Rate: -1, Slow: true})
		require.NoError(t, err)
		assert.Equal(t, conformance.Passed, verdicts(report)["bearer-header"])
		assert.Equal(t, conformance.Skipped, verdicts(report)["rotation-new-key"], "it needs a separate server")
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pace := conformance.Pacer(10)
		start := time.Now()
		for range 21 {
			require.NoError(t, pace(t.Context()))
		}
		assert.Equal(t, 2*time.Second, time.Since(start))

		unlimited := conformance.Pacer(-1)
		start = time.Now()
		for range 1000 {
			require.NoError(t, unlimited(t.Context()))
		}
		assert.Zero(t, time.Since(start))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, pace(ctx), context.Canceled)
	})
}

func TestStartCommand(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	setup := conformance.Setup{Issuer: "http://127.0.0.1:1", Audience: "an audience with spaces"}
	start := func(t *testing.T, program, command string) (*conformance.Server, error) {
		t.Setenv("CONFORM_TEST_PROGRAM", program)
		run, err := conformance.StartCommand(command)
		require.NoError(t, err)
		setup.Listen, err = conformance.FreeAddress()
		require.NoError(t, err)
		return run(t.Context(), setup)
	}
	t.Run("a program gets the values", func(t *testing.T) {
		server, err := start(t, "serve", "'"+self+"' --issuer {issuer} \"{audience}\" {unknown}")
		require.NoError(t, err)
		defer server.Close()
		request, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer x")
		res, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer res.Body.Close()
		body := make([]byte, 100)
		n, _ := res.Body.Read(body)
		assert.Equal(t, "--issuer http://127.0.0.1:1 an audience with spaces {unknown}", string(body[:n]))

		server.Close()
		_, err = http.Get(server.URL)
		assert.Error(t, err, "the program has ended")
	})
	t.Run("a program that ends shows its output", func(t *testing.T) {
		_, err := start(t, "fail", self)
		assert.ErrorContains(t, err, "the program has ended; its output ends with:\n    missing setting: issuer")
	})
	t.Run("a program that does not exist", func(t *testing.T) {
		_, err := start(t, "", "no-such-program-anywhere")
		assert.Error(t, err)
	})
	for command, want := range map[string]string{"": "the command is empty", "  ": "the command is empty", `a "b`: "a quote is not closed"} {
		_, err := conformance.StartCommand(command)
		assert.ErrorContains(t, err, want, command)
	}
	words, err := conformance.SplitCommand(`a  'b c'd "" "it's"`)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b cd", "", "it's"}, words)
}

func TestExpect(t *testing.T) {
	no, yes := false, true
	challenge := func(c conformance.ExpectedChallenge) conformance.Expect { return conformance.Expect{Challenge: &c} }
	for name, c := range map[string]struct {
		expect conformance.Expect
		status int
		header []string
		body   string
		wrong  bool
	}{
		"a status of a class":                 {conformance.Expect{Status: []string{"4xx"}}, 404, nil, "", false},
		"a status of another class":           {conformance.Expect{Status: []string{"4xx", "200"}}, 302, nil, "", true},
		"a handler that ran":                  {conformance.Expect{Handler: &no}, 204, nil, "", true},
		"a handler that did not run":          {conformance.Expect{Handler: &yes}, 401, nil, "", true},
		"an outcome":                          {conformance.Expect{Outcome: "refused"}, 401, nil, "", false},
		"an outcome that is not met":          {conformance.Expect{Outcome: "refused"}, 500, nil, "", true},
		"a member in place of the outcome's":  {conformance.Expect{Outcome: "refused", Status: []string{"500"}}, 500, nil, "", false},
		"no challenge":                        {challenge(conformance.ExpectedChallenge{}), 401, nil, "", true},
		"an error":                            {challenge(conformance.ExpectedChallenge{Errors: []string{"invalid_token"}}), 401, []string{`Bearer error="invalid_token"`}, "", false},
		"another error":                       {challenge(conformance.ExpectedChallenge{Errors: []string{""}}), 401, []string{`Bearer error="invalid_token"`}, "", true},
		"the error of another scheme":         {challenge(conformance.ExpectedChallenge{Errors: []string{""}}), 401, []string{`DPoP error="x"`, `Bearer realm="a"`}, "", false},
		"the error in the second challenge":   {challenge(conformance.ExpectedChallenge{Errors: []string{"x"}}), 401, []string{`Bearer realm="a", Bearer error="x"`}, "", false},
		"scopes in another order":             {challenge(conformance.ExpectedChallenge{Scopes: "a b"}), 403, []string{`Bearer scope="b a"`}, "", false},
		"one scope of two":                    {challenge(conformance.ExpectedChallenge{Scopes: "a b"}), 403, []string{`Bearer scope="a"`}, "", true},
		"a parameter with any value":          {challenge(conformance.ExpectedChallenge{Params: map[string]string{"algs": ""}}), 401, []string{`Bearer algs="x"`}, "", false},
		"a parameter with another value":      {challenge(conformance.ExpectedChallenge{Params: map[string]string{"max_age": "5"}}), 401, []string{`Bearer max_age="6"`}, "", true},
		"a parameter that must not be there":  {challenge(conformance.ExpectedChallenge{Lacks: []string{"error"}}), 401, []string{`Bearer error="x"`}, "", true},
		"a scheme that must not be there":     {challenge(conformance.ExpectedChallenge{Scheme: "Bearer", Missing: true}), 401, []string{`DPoP algs="a", Bearer realm="b"`}, "", true},
		"a malformed challenge that is read":  {challenge(conformance.ExpectedChallenge{Errors: []string{"x"}}), 401, []string{`Bearer realm=a b, error="x"`}, "", false},
		"a malformed challenge":               {challenge(conformance.ExpectedChallenge{Strict: true}), 401, []string{`Bearer realm="a", realm="b"`}, "", true},
		"a bare challenge":                    {challenge(conformance.ExpectedChallenge{Strict: true}), 401, []string{`Bearer`}, "", true},
		"a quote in a description":            {challenge(conformance.ExpectedChallenge{Strict: true}), 401, []string{`Bearer error_description="a\"b"`}, "", true},
		"a member of the body":                {conformance.Expect{Body: map[string]any{"sub": "a"}}, 200, nil, `{"sub":"a"}`, false},
		"another member of the body":          {conformance.Expect{Body: map[string]any{"sub": "a"}}, 200, nil, `{"sub":"b"}`, true},
		"a member that must not be there":     {conformance.Expect{Body: map[string]any{"sub": map[string]any{"$absent": true}}}, 200, nil, `{"sub":null}`, true},
		"a list that has an element":          {conformance.Expect{Body: map[string]any{"l": map[string]any{"$has": "a"}}}, 200, nil, `{"l":["b","a"]}`, false},
		"a list that lacks an element":        {conformance.Expect{Body: map[string]any{"l": map[string]any{"$has": "a"}}}, 200, nil, `{"l":["b"]}`, true},
		"a list that has a forbidden element": {conformance.Expect{Body: map[string]any{"l": map[string]any{"$lacks": "a"}}}, 200, nil, `{"l":["a"]}`, true},
		"a body that is not JSON":             {conformance.Expect{Body: map[string]any{"sub": "a"}}, 200, nil, `sub`, true},
		"a text that must not be there":       {conformance.Expect{Lacks: []string{"secret"}}, 401, nil, "the secret", true},
		"a challenge that must not be there":  {conformance.Expect{Absent: []string{"WWW-Authenticate"}}, 401, []string{"Bearer"}, "", true},
		"a header with other text":            {conformance.Expect{Header: map[string]string{"WWW-Authenticate": "dpop"}}, 401, []string{"Bearer"}, "", true},
		"a header in another letter case":     {conformance.Expect{Header: map[string]string{"WWW-Authenticate": "bearer"}}, 401, []string{"Bearer"}, "", false},
		"a header that is missing":            {conformance.Expect{Header: map[string]string{"Retry-After": ""}}, 503, nil, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			for _, value := range c.header {
				h.Add("WWW-Authenticate", value)
			}
			assert.Equal(t, c.wrong, len(c.expect.Problems("Bearer", c.status, h, c.body)) > 0)
			assert.NotEmpty(t, c.expect.String())
		})
	}
}

func TestCommandOfExchange(t *testing.T) {
	for name, c := range map[string]struct{ request, want string }{
		"a plain request": {"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n",
			"curl -i --path-as-is -X GET -H 'Authorization: Bearer x' 'http://h:1/a?b=c'"},
		"a body": {"POST / HTTP/1.1\r\nHost: h:1\r\nContent-Length: 4\r\n\r\nit's", `curl -i --path-as-is -X POST --data-binary 'it'\''s' 'http://h:1/'`},
		"HEAD":   {"HEAD / HTTP/1.1\r\nHost: h:1\r\n\r\n", "curl -I --path-as-is 'http://h:1/'"},
		"a header that curl would correct": {"GET / HTTP/1.1\r\nHost: h:1\r\nA : 100%\r\n\r\n",
			`printf 'GET / HTTP/1.1\r\nHost: h:1\r\nA : 100%%\r\n\r\n' | nc h 1`},
		"bytes":         {"GET / HTTP/1.1\r\nHost: h:1\r\nA: \xff'\r\n\r\n", `printf 'GET / HTTP/1.1\r\nHost: h:1\r\nA: \377\047\r\n\r\n' | nc h 1`},
		"another host":  {"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", "curl -i --path-as-is -X GET -H 'Host: evil' 'http://h:1/'"},
		"absolute form": {"GET http://x/ HTTP/1.1\r\nHost: h:1\r\n\r\n", `printf 'GET http://x/ HTTP/1.1\r\nHost: h:1\r\n\r\n' | nc h 1`},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, conformance.Exchange{Request: c.request}.Command("http://h:1"))
		})
	}
}

// TestHostileServer sends responses that no server should send. The runner neither hangs nor fails.
func TestHostileServer(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"no response": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"a body without an end": func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"not HTTP": func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.9\r\n")
				conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(respond)
			defer server.Close()
			report, err := conformance.Check(t.Context(), conformance.Target{URL: server.URL}, conformance.Options{
				Cases: only(t, "challenge-401", "jws-alg-none"), Rate: -1, AcceptNotReady: true})
			require.NoError(t, err)
			assert.Equal(t, 2, report.Count(conformance.Failed))
			assert.NotEmpty(t, report.Results[0].String())
		})
	}
}
