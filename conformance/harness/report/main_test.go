package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

const root = "../../../"

// TestPage runs the suite against the guard, in this process, and compares the result with the column of docs/conformance-report.md.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(root + "docs/conformance-report.md")
	require.NoError(t, err)
	page := string(text)
	all, err := read(root)
	require.NoError(t, err)
	ours := all[0]
	require.Equal(t, "net/http", ours.Name)

	target, err := ours.target()
	require.NoError(t, err)
	target.Start = func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
		server := httptest.NewUnstartedServer(nil)
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		scheme := "http://"
		if s.Profile == conformance.ProfileMTLS {
			server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
			scheme = "https://"
		}
		a, err := api.New(s, scheme+server.Listener.Addr().String(), slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		mux := http.NewServeMux()
		for path := range a.Routes {
			mux.Handle(path, a.Guard.Handler(http.HandlerFunc(api.Identity), a.Needs(path)...))
		}
		mux.Handle(a.Guard.Metadata())
		server.Config.Handler = mux
		if server.TLS != nil {
			server.StartTLS()
		} else {
			server.Start()
		}
		return &conformance.Server{URL: server.URL, Close: func() { server.Close(); a.Close() }}, nil
	}
	report, err := conformance.Check(t.Context(), target, conformance.Options{Rate: -1})
	require.NoError(t, err)
	run := tested{harness: ours, report: report}
	require.NoError(t, run.undecided())

	want := map[string]string{"all": run.cell(everything)}
	for _, group := range groups(report) {
		want[group] = run.cell(inGroup(group))
	}
	assert.Equal(t, want, column(page, ours.Name), "run: go run ./conformance/harness/report")

	sets := conformance.Sets()
	assert.Contains(t, page, "with the set "+sets[len(sets)-1]+" of ")
	for _, h := range all {
		row := ""
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "| "+h.Name+" | ") && strings.Contains(line, h.Setup) {
				row = line
			}
		}
		if assert.NotEmpty(t, row, "the configuration of %s", h.Name) {
			for _, name := range append(append(h.Modules, h.Packages...), h.Programs...) {
				assert.Regexp(t, name+` v?\d`, row, "the version")
			}
		}
		assert.NotEmpty(t, column(page, h.Name)["all"], "a column for %s", h.Name)
		for id := range h.Decided {
			assert.Contains(t, page, "`"+id+"`")
		}
	}
}

func TestColumn(t *testing.T) {
	page := "| group | a | b |\n| --- | --- | --- |\n| keys | 1 of 2 | not offered |\n| **all** | 1 of 2 | 3 of 3 |\n\n| keys | no |\n"
	assert.Equal(t, map[string]string{"keys": "not offered", "all": "3 of 3"}, column(page, "b"))
	assert.Empty(t, column(page, "c"))
}
