package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
)

func TestHealth(t *testing.T) {
	probe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "draining\n")
		}
	}))
	defer probe.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		name, url string
		code      int
		out       string
	}{
		{"not a URL", "127.0.0.1:8081", cli.Mistake, `"127.0.0.1:8081" is not an http or https URL`},
		{"a file", "file:///etc/passwd", cli.Mistake, "is not an http or https URL"},
		{"no listener", gone.URL, cli.No, "connection refused"},
		{"another status", probe.URL + "/live", cli.No, "503 Service Unavailable\ndraining\n"},
		{"ready", probe.URL + "/ready", cli.Good, "200 OK\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", "health", c.url)
			if code != c.code || !strings.Contains(out+errs, c.out) {
				t.Errorf("got %d, %s%s", code, out, errs)
			}
		})
	}
}
