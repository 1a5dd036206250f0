package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

	measured, err := readResults(root)
	require.NoError(t, err)
	if column := measured.find(ours.Name); assert.NotNil(t, column) {
		assert.Equal(t, column.Cells, run.column(time.Time{}).Cells, "run: go run ./conformance/harness/report -only net/http -write")
	}
	sets := conformance.Sets()
	assert.Equal(t, sets[len(sets)-1], measured.Set)
	assert.Len(t, report.Results, measured.Cases)

	var want bytes.Buffer
	write(&want, all, measured)
	assert.Equal(t, want.String(), page, "the page is that of %s", kept)
	peers := 0
	for _, h := range all {
		column := measured.find(h.Name)
		if !assert.NotNil(t, column, "a column for %s", h.Name) {
			continue
		}
		for _, name := range append(append(slices.Clone(h.Modules), h.Packages...), h.Programs...) {
			assert.Regexp(t, regexp.QuoteMeta(name)+` v?\d`, strings.Join(column.Versions, "\n"), "the version")
		}
		if h.Ours {
			continue
		}
		peers++
		if assert.NotNil(t, h.Review, h.Name) {
			assert.NotEmpty(t, h.Review.Read, h.Name)
			assert.NotEmpty(t, h.Review.LeftOff, h.Name)
			assert.NotEmpty(t, h.Review.Changed, h.Name)
		}
	}
	assert.GreaterOrEqual(t, peers, 8)

	// Of other projects, the page and the numbers name groups only.
	peerText, err := os.ReadFile(root + kept)
	require.NoError(t, err)
	for _, c := range conformance.Cases() {
		if _, ok := ours.Decided[c.ID]; !ok && len(c.ID) > 12 && strings.Contains(c.ID, "-") {
			assert.NotContains(t, string(peerText), `"`+c.ID+`"`)
		}
	}
}

func TestResults(t *testing.T) {
	first, later := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	harnesses := []harness{{Name: "ours", Ours: true}, {Name: "a", Review: &review{Read: "its manual"}}, {Name: "b"}, {Name: "new"}}
	r := &results{Run: first, Minutes: 9, Processors: 2}
	r.add(column{Name: "ours", Run: first, Cells: map[string]string{total: "2 of 2", "keys": "1 of 1", "mtls": "1 of 1"}})
	r.add(column{Name: "a", Run: first, Cells: map[string]string{total: "1 of 2", "keys": "0 of 1"}})
	r.add(column{Name: "b", Run: first, Cells: map[string]string{total: "not offered"}})
	text := func() string {
		var b bytes.Buffer
		write(&b, harnesses, r)
		return b.String()
	}
	assert.Contains(t, text(), "on 1 November 2026")
	assert.Contains(t, text(), "It took 9 minutes on 2 processors")
	assert.NotContains(t, text(), "load average")
	assert.NotContains(t, text(), "repeated the columns")
	r.Load, r.Jobs = 50, 3
	assert.Contains(t, text(), "With `-jobs 3`, it took 9 minutes on 2 processors that other work kept busy, at a load average of 50.")
	assert.Contains(t, text(), "| group | a | b |\n| --- | --- | --- |\n| keys | 0 of 1 |  |\n| **all** | 1 of 2 | not offered |\n")
	assert.Contains(t, text(), "| a | its manual |")
	assert.NotContains(t, text(), "new", "a server that has not run has no column")

	r.addSlow(column{Name: "a", Run: first, Cells: map[string]string{total: "3 of 3", "cache": "2 of 2"}})
	assert.Contains(t, text(), "| group | a |\n| --- | --- |\n| cache | 2 of 2 |\n")
	r.add(column{Name: "a", Run: later, Cells: map[string]string{total: "2 of 2", "keys": "1 of 1"}})
	assert.Contains(t, text(), "Afterwards, `-only NAME -write` repeated the columns of a.")
	assert.Contains(t, text(), "| keys | 1 of 1 |  |")
	assert.Contains(t, text(), "| cache | 2 of 2 |", "a repeated column keeps its slow cases")
	assert.Contains(t, text(), "on 1 November 2026")
}
