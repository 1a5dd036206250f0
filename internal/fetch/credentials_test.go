package fetch_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

func TestCredentials(t *testing.T) {
	var got http.Header
	c, url := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	header := http.Header{"x-api-key": {"k3y"}, "Accept-Encoding": {"br"}, "If-None-Match": {`"old"`}, "Accept": {"text/html"}}
	with := func(at string) fetch.Client {
		c := c
		c.Credentials = &fetch.Credentials{URL: at, Header: header, TokenFile: file}
		return c
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "https://"), ":")
	for name, at := range map[string]string{
		"another host":          "https://localhost:" + port,
		"another scheme":        "http://127.0.0.1:" + port,
		"another port":          "https://127.0.0.1:1",
		"no port":               "https://127.0.0.1",
		"a host that is longer": "https://127.0.0.1.example:" + port,
		"nothing":               "",
	} {
		t.Run("for "+name+" they are not sent here", func(t *testing.T) {
			_, err := with(at).Get(background, url, "")
			require.NoError(t, err)
			assert.Empty(t, got.Get("Authorization")+got.Get("X-Api-Key"))
		})
	}
	t.Run("they are sent to their origin, and the token is read again", func(t *testing.T) {
		for _, token := range []string{"first", "second"} {
			require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
			_, err := with(strings.ToUpper(url[:5])+url[5:]+"/other/path").Get(background, url+"/keys", "")
			require.NoError(t, err)
			assert.Equal(t, []string{"Bearer " + token}, got["Authorization"])
			assert.Equal(t, []string{"k3y"}, got["X-Api-Key"])
			assert.Equal(t, []string{"identity"}, got["Accept-Encoding"])
			assert.NotEqual(t, "text/html", got.Get("Accept"))
			assert.Empty(t, got["If-None-Match"])
		}
	})
	t.Run("a redirect does not take them along", func(t *testing.T) {
		thief := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
		defer thief.Close()
		c, url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, http.StatusFound) })
		c.Credentials = &fetch.Credentials{URL: url, TokenFile: file}
		_, err := c.Get(background, url, "")
		assert.ErrorContains(t, err, "redirects are not followed")
	})
	for name, content := range map[string]string{
		"nothing": "", "a line break alone": "\n", "two lines": "s3cret\nagain", "a space": "s3cret s3cret", "a control character": "s3cret\x00",
		"letters beyond ASCII": "s3crét", "64 KiB and a byte": strings.Repeat("s", 64<<10+1),
	} {
		t.Run("a file with "+name+" is an error that does not quote it", func(t *testing.T) {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			got = nil
			_, err := with(url).Get(background, url, "")
			require.ErrorContains(t, err, file)
			assert.NotContains(t, err.Error(), "s3cr")
			assert.Nil(t, got, "nothing is sent")
		})
	}
	t.Run("a directory or no file is an error", func(t *testing.T) {
		for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
			_, err := fetch.ReadToken(path)
			assert.ErrorContains(t, err, path)
		}
	})
	for name, header := range map[string]http.Header{
		"an empty name":          {"": {"x"}},
		"a name with a space":    {"X Key": {"x"}},
		"a value with a newline": {"X-Key": {"s3cret\r\nX: y"}},
	} {
		t.Run("a header with "+name+" is a mistake", func(t *testing.T) {
			err := fetch.CheckHeader(header)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
}

func TestTLSFiles(t *testing.T) {
	var client []string // the subjects of the certificates that clients present
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		client = nil
		for _, c := range r.TLS.PeerCertificates {
			client = append(client, c.Subject.CommonName)
		}
	}))
	first, second := newPair(t, "first"), newPair(t, "second")
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{first.pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca, cert, key := first.write(t, "ca"), first.write(t, "cert"), first.write(t, "key")

	for name, files := range map[string][3]string{
		"no file of authorities":      {filepath.Join(t.TempDir(), "none"), "", ""},
		"a key as authority":          {key, "", ""},
		"no certificate":              {ca, key, key},
		"the key of another one":      {ca, cert, second.write(t, "key")},
		"a directory of certificates": {t.TempDir(), "", ""},
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			_, err := fetch.NewTLSFiles(files[0], files[1], files[2])
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "PRIVATE KEY")
		})
	}

	get := func(f *fetch.TLSFiles) error {
		_, err := fetch.Client{HTTP: &http.Client{Transport: f}}.Get(background, server.URL, "")
		return err
	}
	t.Run("an authority that did not sign the server's certificate is not trusted", func(t *testing.T) {
		f, err := fetch.NewTLSFiles(second.write(t, "ca"), "", "")
		require.NoError(t, err)
		assert.ErrorContains(t, get(f), "certificate")
	})
	t.Run("without a file of authorities, those of the system count", func(t *testing.T) {
		f, err := fetch.NewTLSFiles("", cert, key)
		require.NoError(t, err)
		assert.ErrorContains(t, get(f), "certificate")
	})
	t.Run("files that change apply from the next request on", func(t *testing.T) {
		f, err := fetch.NewTLSFiles(ca, cert, key)
		require.NoError(t, err)
		defer f.CloseIdleConnections()
		require.NoError(t, get(f))
		assert.Equal(t, []string{"first"}, client)
		second.into(t, cert, key)
		require.NoError(t, get(f))
		assert.Equal(t, []string{"second"}, client)
		require.NoError(t, os.WriteFile(ca, second.certPEM, 0o600))
		assert.ErrorContains(t, get(f), "certificate")
		require.NoError(t, os.WriteFile(ca, []byte("half"), 0o600))
		assert.ErrorContains(t, get(f), ca)
		require.NoError(t, os.WriteFile(ca, first.certPEM, 0o600))
		require.NoError(t, get(f))
	})
}
