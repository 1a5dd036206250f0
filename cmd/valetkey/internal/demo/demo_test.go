package demo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/demo"
)

func start(t *testing.T) demo.Place {
	t.Helper()
	d, err := demo.Start("127.0.0.1:0", "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d.Place
}

// through serves upstream with changed responses.
func through(t *testing.T, upstream string, change func(*http.Response)) string {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error { change(r); return nil },
	})
	t.Cleanup(server.Close)
	return server.URL
}

func TestCheck(t *testing.T) {
	place := start(t)
	for _, c := range []struct {
		name   string
		change func(*http.Response)
		failed []int // steps
	}{
		{"an API that accepts every request", func(r *http.Response) { r.StatusCode = 200; r.Header.Del("WWW-Authenticate") }, []int{3, 4, 6, 7, 11, 17}},
		{"an API whose refusals are mute", func(r *http.Response) { r.Header.Del("WWW-Authenticate") }, []int{3, 4, 7, 11, 17}},
		{"an API with another realm", func(r *http.Response) {
			if v := r.Header.Get("WWW-Authenticate"); v != "" {
				r.Header.Set("WWW-Authenticate", strings.Replace(v, "orders", "api", 1))
			}
		}, []int{3, 4, 7, 17}},
		{"an API that returns 200 for 201", func(r *http.Response) {
			if r.StatusCode == 201 {
				r.StatusCode = 200
			}
		}, []int{6}},
		{"one second challenge", func(r *http.Response) { r.Header.Add("WWW-Authenticate", "Basic") }, []int{2, 3, 4, 6, 7, 9, 11, 15, 17}},
		{"a stream that does not wait for the log-out", func(r *http.Response) {
			if r.Header.Get("Content-Type") == "text/event-stream" {
				r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader("id: 1\ndata: {}\n\n"))
			}
		}, []int{16}},
		{"as printed", func(r *http.Response) {}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // each takes as long as a revoked token is remembered
			var out bytes.Buffer
			err := demo.Check(t.Context(), &out, demo.Place{Issuer: place.Issuer, API: through(t, place.API, c.change)})
			if errors.Is(err, demo.ErrDiffers) != (c.failed != nil) {
				t.Errorf("got %v", err)
			}
			if got := failed(out.String()); fmt.Sprint(got) != fmt.Sprint(c.failed) {
				t.Errorf("the steps %v failed, not %v:\n%s", got, c.failed, &out)
			}
		})
	}
	t.Run("an authorization server that refuses, and what follows from it", func(t *testing.T) {
		issuer := through(t, place.Issuer, func(r *http.Response) { r.StatusCode = 401 })
		var out bytes.Buffer
		err := demo.Check(t.Context(), &out, demo.Place{Issuer: issuer, API: place.API})
		if got := failed(out.String()); !errors.Is(err, demo.ErrDiffers) || fmt.Sprint(got) != "[1 2 4 5 6 7 8 9 10 11 12 13 14 15 16 17]" {
			t.Errorf("got %v, and the steps %v failed", err, got)
		}
	})
	t.Run("no server", func(t *testing.T) {
		var out bytes.Buffer
		err := demo.Check(t.Context(), &out, demo.Place{Issuer: "http://127.0.0.1:1", API: "http://127.0.0.1:1"})
		if got := failed(out.String()); !errors.Is(err, demo.ErrDiffers) || len(got) != 17 {
			t.Errorf("got %v, and the steps %v failed", err, got)
		}
	})
}

func failed(out string) (steps []string) {
	for _, m := range regexp.MustCompile(`(?m)^FAIL (\d+)\.`).FindAllStringSubmatch(out, -1) {
		steps = append(steps, m[1])
	}
	return steps
}

// TestPrint runs the lines in shells and compares the output of curl with the printed expectations.
func TestPrint(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	at := start(t)
	var lines bytes.Buffer
	demo.Print(&lines, at)
	for line := range strings.Lines(lines.String()) {
		if len(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
	var parts []string
	for _, p := range demo.Parts(at) {
		if !strings.Contains(lines.String(), p.Heading+"\n\n"+p.Lines) {
			t.Errorf("not printed: %s", p.Lines)
		}
		parts = append(parts, p.Lines)
	}
	script, out := strings.Join(parts, "\n"), clitest.Paste(t, parts)
	if !strings.Contains(out, "event: end\ndata: the token has been revoked\n") {
		t.Errorf("the stream has not ended with the token:\n%s", out)
	}
	var want, got []string
	promise := regexp.MustCompile(`(?m)^: '(?:\d+\. .*: (\d+)|WWW-Authenticate: ((?s:.*?)))'$`)
	for block := range strings.SplitSeq(script, "\n\n") {
		if strings.Contains(block, "curl -i") { // the others put a token into a variable and show nothing
			for _, m := range promise.FindAllStringSubmatch(block, -1) {
				want = append(want, m[1]+strings.ReplaceAll(m[2], "\n   ", " "))
			}
		}
	}
	shown := regexp.MustCompile(`(?mi)^(?:HTTP/1.1 (\d+) .*|WWW-Authenticate: (.*))\r$`)
	for _, m := range shown.FindAllStringSubmatch(out, -1) {
		got = append(got, m[1]+m[2])
	}
	if len(want) != 17 || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestStart(t *testing.T) {
	at := start(t)
	for _, c := range []struct{ name, as, api, want string }{
		{"an address in use", strings.TrimPrefix(at.Issuer, "http://"), "127.0.0.1:0", "the authorization server: listen"},
		{"another address in use", "127.0.0.1:0", strings.TrimPrefix(at.API, "http://"), "the orders API: listen"},
		{"an authorization server on all interfaces, whose secrets are known", "0.0.0.0:0", "127.0.0.1:0", "not on loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := demo.Start(c.as, c.api, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("an invalid order", func(t *testing.T) {
		token := token(t, at)
		for _, body := range []string{"", "{", `{"item":""}`, `{"item":"` + strings.Repeat("x", 5000) + `"}`} {
			r, err := http.NewRequestWithContext(t.Context(), "POST", at.API+"/orders", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 400 {
				t.Errorf("%.20q got %s", body, res.Status)
			}
		}
	})
}

func token(t *testing.T, at demo.Place) string {
	t.Helper()
	writer := clientcredentials.Config{ClientID: "orders-writer", ClientSecret: "demo-secret-of-orders-writer", TokenURL: at.Issuer + "/oauth2/token"}
	token, err := writer.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}
