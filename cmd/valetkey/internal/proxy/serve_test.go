package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// soon is the time limit for events that must happen, generous enough for a slow machine: a sentinel that has not run for two seconds
// takes no part in anything for the next thirty.
const soon = 2 * time.Minute

// A journal is a log that can be read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// serve serves the configuration and returns its addresses; probe is "" if it has none.
func serve(t *testing.T, config string) (addr, probe string) {
	t.Helper()
	log := new(journal)
	p, err := proxy.Open(written(t, config), drivers, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		p.Close()
	})
	if addr = log.listening(t, "proxy"); strings.Contains(config, "\nprobe:") {
		probe = log.listening(t, "probe")
	}
	return addr, probe
}

// listening waits for the address of a site.
func (j *journal) listening(t *testing.T, site string) (at string) {
	t.Helper()
	line := regexp.MustCompile(`listening on ([0-9.:]+)" site=` + site + "\n")
	require.Eventually(t, func() bool {
		if m := line.FindStringSubmatch(j.String()); m != nil {
			at = m[1]
		}
		return at != ""
	}, soon, time.Millisecond, j)
	return at
}

// written returns a file with the configuration.
func written(t *testing.T, config string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	return path
}

// get sends a token, if there is one, and returns the answer.
func get(t *testing.T, url, token string) (status int, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, body
}

type part struct {
	Name, State, Error string
	Since              time.Time
}

type signalStatus struct {
	part
	Transmitter, Delivery, Status string
	StreamID                      string    `json:"stream_id"`
	Delivered                     []string  `json:"events_delivered"`
	LastContact                   time.Time `json:"last_contact"`
	LastProof                     time.Time `json:"last_proof"`
	Gap                           *struct {
		From, To time.Time
		Reason   string
	}
	Outcomes map[string]int
	Keys     []part
}

type status struct {
	State            string
	ReportOnly       bool     `json:"insecure_report_only"`
	ReportOnlyRoutes []string `json:"insecure_report_only_routes"`
	Verifiers, Redis []part
	Cache            struct {
		Entries      int
		Bytes        int64
		Hits, Misses uint64
		Evictions    *uint64
	}
	Revocations struct {
		Held, Overflowed int
		Source           part
	}
	Requests int
	Audit    *struct{ Dropped uint64 }
	Signals  *signalStatus

	Version  string
	Started  time.Time
	Draining bool
	Reloads  struct {
		Done, Failed int
		Error        string
		FailedAt     time.Time `json:"failed_at"`
	}
	Config struct {
		File, SHA256 string
		Loaded       time.Time
	}
}

func statusOf(t *testing.T, probe string) (s status) {
	t.Helper()
	code, body := get(t, "http://"+probe+"/status", "")
	require.Equal(t, 200, code)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&s), string(body))
	return s
}

const asking = `
  - introspection: {issuer: ISSUER, client_id: ` + valetkeytest.IntrospectionID + `, client_secret: ` + valetkeytest.IntrospectionSecret + `}`

func TestProbe(t *testing.T) {
	iss, other := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	upstream := httptest.NewServer(&recorder{})
	defer upstream.Close()
	config := example(t, iss.URL, upstream.URL, "127.0.0.1:8081", "127.0.0.1:0", "# probe: 127.0.0.1:8082", "probe: 127.0.0.1:0\ndrain: 0s",
		"\nverifiers:", "\nverifiers:"+strings.ReplaceAll(asking, "ISSUER", other.URL))
	addr, probe := serve(t, config)

	t.Run("clients cannot probe", func(t *testing.T) {
		for _, path := range []string{"/ready", "/status"} {
			code, _ := get(t, "http://"+addr+path, iss.Token())
			require.Equal(t, 403, code)
		}
	})
	t.Run("there is nothing else to get", func(t *testing.T) {
		for _, path := range []string{"/", "/orders", "/health"} {
			code, _ := get(t, "http://"+probe+path, iss.Token(valetkeytest.Scopes("orders:read")))
			require.Equal(t, 404, code)
		}
		res, err := http.Post("http://"+probe+"/status", "text/plain", nil)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 405, res.StatusCode)
	})
	t.Run("it becomes ready by being asked", func(t *testing.T) {
		code, body := get(t, "http://"+probe+"/ready", "")
		require.Equal(t, 200, code, string(body))
		s := statusOf(t, probe)
		require.Equal(t, "ready", s.State)
		require.Len(t, s.Verifiers, 2)
		require.Equal(t, iss.URL, s.Verifiers[0].Name)
		require.Equal(t, other.URL, s.Verifiers[1].Name)
		require.NotZero(t, s.Verifiers[1].Since)
		require.Empty(t, s.Redis)
	})
	t.Run("what it has done so far", func(t *testing.T) {
		before := statusOf(t, probe).Cache
		token := iss.Token()
		for range 3 {
			code, _ := get(t, "http://"+addr+"/whoami", token)
			require.Equal(t, 200, code)
		}
		after := statusOf(t, probe).Cache
		require.Equal(t, before.Entries+1, after.Entries)
		require.Equal(t, before.Misses+1, after.Misses)
		require.Equal(t, before.Hits+2, after.Hits)
		require.Positive(t, after.Bytes)
		require.NotNil(t, after.Evictions)
	})
	t.Run("what is wrong", func(t *testing.T) {
		other.Introspection.Fail(401)
		code, _ := get(t, "http://"+addr+"/whoami", "made-up")
		require.Equal(t, 503, code)
		s := statusOf(t, probe)
		require.Equal(t, "degraded", s.State)
		require.Equal(t, "down", s.Verifiers[1].State)
		require.Contains(t, s.Verifiers[1].Error, "401")
		code, _ = get(t, "http://"+probe+"/ready", "")
		require.Equal(t, 200, code, "one of two still works")
	})
	t.Run("nothing works", func(t *testing.T) {
		down := valetkeytest.NewIssuer(t)
		down.Metadata.Down()
		_, probe := serve(t, example(t, down.URL, upstream.URL, "127.0.0.1:8081", "127.0.0.1:0", "# probe: 127.0.0.1:8082", "probe: 127.0.0.1:0\ndrain: 0s"))
		code, body := get(t, "http://"+probe+"/ready", "")
		require.Equal(t, 503, code)
		require.Contains(t, string(body), `"state":"down"`)
	})
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, c := range []struct{ name, listen, probe, want string }{
		{"of the proxy", l.Addr().String(), "127.0.0.1:0", "the proxy: listen tcp"},
		{"of the probe", "127.0.0.1:0", l.Addr().String(), "the probe: listen tcp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := written(t, strings.Replace(good, "127.0.0.1:0", c.listen, 1)+"probe: "+c.probe)
			p, err := proxy.Open(file, drivers, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer p.Close()
			require.ErrorContains(t, p.Serve(t.Context(), nil), c.want)
		})
	}
}
