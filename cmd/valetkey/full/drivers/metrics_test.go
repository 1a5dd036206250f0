package drivers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The parser of Prometheus reads the metrics of a proxy whose verifiers are about one issuer. No series occurs twice: Prometheus would
// keep one of the two values.
func TestMetricsAreThoseOfPrometheus(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "proxy.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
listen: 127.0.0.1:0
probe: 127.0.0.1:0
upstream: http://127.0.0.1:1
resource: %s
verifiers:
  - jwks: {issuer: %q}
  - introspection: {issuer: %q, url: %q, client_id: %q, client_secret: %q}
routes: {"GET /orders": orders:read}
`, valetkeytest.DefaultAudience, iss.URL, iss.URL, iss.Introspection.URL, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret), 0o600))
	log := new(journal)
	p, err := proxy.Open(file, drivers.All(), slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		p.Close()
	})
	address := func(site string) string {
		line := regexp.MustCompile(`listening on ([0-9.:]+)" site=` + site)
		require.Eventually(t, func() bool { return line.MatchString(log.String()) }, soon, time.Millisecond, log)
		return "http://" + line.FindStringSubmatch(log.String())[1]
	}
	at, probe := address("proxy"), address("probe")
	for _, token := range []string{"", iss.Token(valetkeytest.Expired()), iss.Opaque()} {
		r, err := http.NewRequest("GET", at+"/orders", nil)
		require.NoError(t, err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
	}
	res, err := http.Get(probe + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	assert.Equal(t, expfmt.TypeTextPlain, expfmt.ResponseFormat(res.Header).FormatType())
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(res.Body)
	require.NoError(t, err)
	require.Contains(t, families, "valetkey_requests_total")
	for name, f := range families {
		assert.NotEmpty(t, f.GetHelp(), name)
		kind := f.GetType().String()
		assert.NotEqual(t, "UNTYPED", kind, name)
		assert.Equal(t, kind == "COUNTER", strings.HasSuffix(name, "_total"), "%s is a %s", name, kind)
		var seen []string
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			seen = append(seen, strings.Join(labels, ","))
		}
		slices.Sort(seen)
		assert.Equal(t, slices.Compact(slices.Clone(seen)), seen, "%s has a series twice", name)
	}
}
