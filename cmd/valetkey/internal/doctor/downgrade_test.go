package doctor_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// Metadata from the network must not lead to a service that listens on loopback only. A verifier and a receiver refuse it too.
func TestExamineMetadataThatLeadsToLoopback(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var requests atomic.Int64
	local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Write(iss.JWKS())
	}))
	t.Cleanup(local.Close)
	var remote *httptest.Server
	remote = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"spec_version":"1_0","configuration_endpoint":"%[1]s/streams"}`, remote.URL, local.URL)
	}))
	t.Cleanup(remote.Close)
	for name, target := range map[string]doctor.Target{
		"of an issuer":     {Keys: &jwks.Config{Issuer: remote.URL, Audience: []string{"https://api.example.com"}, Client: remote.Client()}},
		"of a transmitter": {Signals: &signals.Config{Transmitter: remote.URL, Client: remote.Client()}},
	} {
		t.Run(name, func(t *testing.T) {
			requests.Store(0)
			var about []string
			for _, f := range doctor.Examine(t.Context(), []doctor.Target{target}, "") {
				if f.Check == "key set" {
					about = append(about, string(f.Level)+" "+f.Cause)
				}
			}
			require.Len(t, about, 1)
			assert.Regexp(t, "^fail the metadata at .* names the key set .*: not https", about[0])
			assert.Zero(t, requests.Load())
		})
	}
}

// A receiver tries the next location of the metadata only after a 404.
func TestExamineTransmitterWithAPageAtTheFirstLocation(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/keys":
			w.Header().Set("Content-Type", "application/json")
			w.Write(iss.JWKS())
		case strings.HasPrefix(r.URL.Path, "/realms/a/"):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"issuer":"%[1]s/realms/a","jwks_uri":"%[1]s/keys","spec_version":"1_0","configuration_endpoint":"%[1]s/streams"}`, server.URL)
		default:
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>")
		}
	}))
	t.Cleanup(server.Close)
	cfg := signals.Config{Transmitter: server.URL + "/realms/a", Delivery: signals.Poll, Credentials: signals.TokenFile("token")}
	found := doctor.Examine(t.Context(), []doctor.Target{{Signals: &cfg}}, "")
	assert.Equal(t, doctor.Fail, found[0].Level, "%v", found)
	assert.Equal(t, "transmitter", found[0].Check)
	assert.Contains(t, found[0].Cause, "HTML page")
	receiver, err := signals.New(cfg)
	require.NoError(t, err)
	defer receiver.Close()
	_, err = receiver.Examine(t.Context())
	assert.ErrorContains(t, err, server.URL+"/.well-known/ssf-configuration/realms/a")
}
