package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

var background = context.Background()

func TestAllowed(t *testing.T) {
	for name, test := range map[string]struct {
		url  string
		want string // of the error, "" for none; then with InsecureHTTP
		or   string
	}{
		"http":                             {"http://as.example/jwks", "not https", ""},
		"http to a private address":        {"http://10.0.0.1/jwks", "not https", ""},
		"http to a link-local address":     {"http://169.254.169.254/latest", "not https", ""},
		"http to a name like localhost":    {"http://localhost.example/jwks", "not https", ""},
		"http to a name like an address":   {"http://127.0.0.1.example/jwks", "not https", ""},
		"a file":                           {"file:///etc/jwks.json", "not a URL with a host, such as https://as.example.com", "not a URL with a host, such as https://as.example.com"},
		"a file on a host":                 {"file://localhost/jwks.json", "not https", "not https"},
		"a URN":                            {"urn:com:example", "not a URL with a host, such as https://as.example.com", "not a URL with a host, such as https://as.example.com"},
		"a path":                           {"/jwks", "not a URL with a host, such as https://as.example.com", "not a URL with a host, such as https://as.example.com"},
		"no host":                          {"https:///jwks", "not a URL with a host, such as https://as.example.com", "not a URL with a host, such as https://as.example.com"},
		"a user":                           {"https://me:secret@as.example/", "holds a user name", "holds a user name"},
		"nothing":                          {"", "not a URL with a host, such as https://as.example.com", "not a URL with a host, such as https://as.example.com"},
		"no URL":                           {"https://[::1", "not a URL", "not a URL"},
		"https is allowed":                 {"https://as.example/jwks", "", ""},
		"http to 127.0.0.1 is allowed":     {"http://127.0.0.1:8080/jwks", "", ""},
		"http to 127.1.2.3 is allowed":     {"http://127.1.2.3/jwks", "", ""},
		"http to ::1 is allowed":           {"http://[::1]:8080/jwks", "", ""},
		"http to localhost is allowed":     {"http://localhost:8080/jwks", "", ""},
		"https to any address is allowed ": {"https://10.0.0.1/jwks", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for insecure, want := range map[bool]string{false: test.want, true: test.or} {
				err := fetch.Client{InsecureHTTP: insecure}.Allowed(test.url)
				if want == "" {
					assert.NoError(t, err)
				} else {
					assert.EqualError(t, err, want)
				}
			}
		})
	}
}

// serve returns a client of a TLS server, and the server's URL.
func serve(t *testing.T, h http.HandlerFunc) (fetch.Client, string) {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	return fetch.Client{HTTP: server.Client()}, server.URL
}

// pack returns data in gzip.
func pack(data []byte) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(data)
	_ = z.Close()
	return packed.Bytes()
}

func TestGet(t *testing.T) {
	const secret = "s3cret"
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"JWKS-09 a redirect is not followed": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/jwks" {
				t.Error("a redirect was followed to", r.URL.Path)
			}
			http.Redirect(w, r, "/other", http.StatusFound)
		}, "status 302, and redirects are not followed"},
		"a 304 that was not asked for": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(304)
		}, "status 304"},
		"a status other than 200": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, secret, 500)
		}, "status 500"},
		"a 204": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
		}, "status 204"},
		"an answer in a coding other than gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte(secret))
		}, `coding "br"`},
		"an answer that is packed twice": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip, gzip")
			_, _ = w.Write(pack([]byte("{}")))
		}, "coding"},
		"an answer that is called gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte(secret + "and more"))
		}, "gzip: invalid header"},
		"gzip that ends early": {func(w http.ResponseWriter, _ *http.Request) {
			packed := pack([]byte(secret))
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed[:len(packed)-1])
		}, "unexpected EOF"},
		"gzip of one byte too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(pack(make([]byte, fetch.MaxBody+1)))
		}, "more than 524288 bytes"},
		"gzip without end that unpacks to nothing": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			nothing := pack(nil)
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat(nothing, 1000)); err != nil {
					return
				}
			}
		}, "more than 524288 bytes"},
		"JWKS-09 an endless answer": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(secret, 1000))); err != nil {
					return
				}
			}
		}, "more than 524288 bytes"},
		"an answer of one byte too much": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, fetch.MaxBody+1))
		}, "more than 524288 bytes"},
		"an answer that ends early": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(secret))
		}, "reading the answer"},
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			c, url := serve(t, test.answer)
			_, err := c.Get(background, url+"/jwks?key="+secret, "")
			require.ErrorContains(t, err, test.want)
			assert.ErrorContains(t, err, "fetch "+url+"/jwks: ")
			assert.NotContains(t, err.Error(), secret)
		})
	}

	t.Run("JWKS-09 a slow answer ends with the caller's context", func(t *testing.T) {
		c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, url, "")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("a server that does not answer is an error without a status", func(t *testing.T) {
		_, err := fetch.Client{}.Get(background, "http://127.0.0.1:1/?key="+secret, "")
		e, ok := errors.AsType[*fetch.Error](err)
		require.True(t, ok)
		assert.Zero(t, e.Status)
		assert.NotContains(t, err.Error(), secret)
	})
	t.Run("a certificate that is not trusted is an error", func(t *testing.T) {
		_, _ = x509.SystemCertPool() // read once by the process, and not within the time limit of the fetch
		_, url := serve(t, func(http.ResponseWriter, *http.Request) {})
		_, err := fetch.Client{}.Get(background, url, "")
		assert.ErrorContains(t, err, "certificate")
	})
	t.Run("a URL that is not allowed is not asked", func(t *testing.T) {
		_, err := fetch.Client{}.Get(background, "http://as.example/?key="+secret, "")
		assert.EqualError(t, err, "fetch http://as.example/: not https")
	})

	t.Run("Retry-After counts with 429 and 503 only", func(t *testing.T) {
		for status, want := range map[int]time.Duration{429: 7 * time.Second, 503: 7 * time.Second, 500: 0, 404: 0} {
			c, url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
			})
			_, err := c.Get(background, url, "")
			e, ok := errors.AsType[*fetch.Error](err)
			require.True(t, ok)
			assert.Equal(t, status, e.Status)
			assert.Equal(t, want, e.RetryAfter)
		}
	})

	t.Run("an answer of the full size is taken, asked for as identity", func(t *testing.T) {
		c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-Encoding", "identity")
			_, _ = w.Write(make([]byte, fetch.MaxBody))
		})
		answer, err := c.Get(background, url, "")
		require.NoError(t, err)
		assert.Len(t, answer.Body, fetch.MaxBody)
		assert.Equal(t, `"1"`, answer.ETag)
		assert.Negative(t, answer.MaxAge)
	})
	for _, coding := range []string{"gzip", "GZIP", "x-gzip"} {
		t.Run("gzip of the full size is taken, though it was not requested: "+coding, func(t *testing.T) {
			c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", coding)
				_, _ = w.Write(pack(bytes.Repeat([]byte("x"), fetch.MaxBody)))
			})
			answer, err := c.Get(background, url, "")
			require.NoError(t, err)
			assert.Equal(t, strings.Repeat("x", fetch.MaxBody), string(answer.Body))
		})
	}
	t.Run("JWKS-23 with an ETag, 304 is an answer", func(t *testing.T) {
		c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, `"1"`, r.Header.Get("If-None-Match"))
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(304)
		})
		answer, err := c.Get(background, url, `"1"`)
		require.NoError(t, err)
		assert.True(t, answer.NotModified)
		assert.Equal(t, time.Minute, answer.MaxAge)
	})
	t.Run("the caller's client stays as it was", func(t *testing.T) {
		c, url := serve(t, func(http.ResponseWriter, *http.Request) {})
		_, err := c.Get(background, url, "")
		require.NoError(t, err)
		assert.Nil(t, c.HTTP.CheckRedirect)
	})
}

func TestDiscover(t *testing.T) {
	const (
		oauth  = "/.well-known/oauth-authorization-server"
		openid = "/.well-known/openid-configuration"
	)
	// ISSUER stands for the server's URL.
	for name, test := range map[string]struct {
		issuer string            // ISSUER and a path
		site   map[string]string // path to body; others are 404
		asked  []string
		want   string // the URL, or
		err    string // part of the error
	}{
		"JWKS-06 metadata of another issuer is not used": {
			"ISSUER", map[string]string{oauth: `{"issuer":"https://evil.example","jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "", "it is of the issuer"},
		"JWKS-06 an issuer with a slash at its end is another": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER/","jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "", "it is of the issuer"},
		"JWKS-06 metadata without an issuer is not used": {
			"ISSUER", map[string]string{oauth: `{"jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "", "it is of the issuer"},
		"metadata with a member twice is not used": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":"ISSUER/k","jwks_uri":"ISSUER/l"}`},
			[]string{oauth, openid}, "", "twice"},
		"HTML is not used": {
			"ISSUER", map[string]string{oauth: `<html>`}, []string{oauth, openid}, "", "JSON"},
		"metadata without the member is not used": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER"}`}, []string{oauth, openid}, "", "it has no jwks_uri"},
		"metadata with an empty member is not used": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":""}`}, []string{oauth, openid}, "", "it has no jwks_uri"},
		"metadata with a null in place of the member is passed over": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":null}`, openid: `{"issuer":"ISSUER","jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "ISSUER/k", ""},
		"metadata with a byte order mark, and optional members without a value": {
			"ISSUER", map[string]string{oauth: "\ufeff" + `{"issuer":"ISSUER","jwks_uri":"ISSUER/k","scopes_supported":[],"op_tos_uri":"","registration_endpoint":null,"x":0}`},
			[]string{oauth}, "ISSUER/k", ""},
		"JWKS-08 a jwks_uri of http is refused": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":"http://other.example/k"}`},
			[]string{oauth, openid}, "", "not https"},
		"JWKS-08 a jwks_uri of http on loopback is refused too, for the issuer is https": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":"http://127.0.0.1/k"}`},
			[]string{oauth, openid}, "", "not https"},
		"a jwks_uri that is a file is refused": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}`},
			[]string{oauth, openid}, "", "not a URL"},
		"JWKS-07 with nothing there, all places are asked in order": {
			"ISSUER/t1", nil, []string{oauth + "/t1", openid + "/t1", "/t1" + openid}, "", "status 404"},
		"JWKS-08 a jwks_uri of another origin is fine": {
			"ISSUER", map[string]string{oauth: `{"issuer":"ISSUER","jwks_uri":"https://other.example/k"}`},
			[]string{oauth}, "https://other.example/k", ""},
		"JWKS-07 the place of OpenID, with the path behind": {
			"ISSUER/t1", map[string]string{openid + "/t1": `{"issuer":"ISSUER/t1","jwks_uri":"ISSUER/k"}`},
			[]string{oauth + "/t1", openid + "/t1"}, "ISSUER/k", ""},
		"JWKS-07 the place of OpenID, with the path before": {
			"ISSUER/t1", map[string]string{"/t1" + openid: `{"issuer":"ISSUER/t1","jwks_uri":"ISSUER/k"}`},
			[]string{oauth + "/t1", openid + "/t1", "/t1" + openid}, "ISSUER/k", ""},
		"JWKS-06 JWKS-07 a slash at the issuer's end counts in the name, not in the place": {
			"ISSUER/", map[string]string{openid: `{"issuer":"ISSUER/","jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "ISSUER/k", ""},
		"a usable place after an unusable one": {
			"ISSUER", map[string]string{oauth: `{}`, openid: `{"issuer":"ISSUER","jwks_uri":"ISSUER/k"}`},
			[]string{oauth, openid}, "ISSUER/k", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			var base string
			c, base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.Path)
				if body, ok := test.site[r.URL.Path]; ok {
					_, _ = w.Write([]byte(strings.ReplaceAll(body, "ISSUER", base)))
					return
				}
				w.WriteHeader(404)
			})
			got, err := c.Discover(background, strings.ReplaceAll(test.issuer, "ISSUER", base), "jwks_uri")
			assert.Equal(t, test.asked, asked)
			assert.Equal(t, strings.ReplaceAll(test.want, "ISSUER", base), got)
			if test.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, test.err)
			}
		})
	}

	for name, issuer := range map[string]string{
		"a URN":              "urn:com:example",
		"http":               "http://as.example",
		"with a query":       "https://as.example?x=1",
		"with a fragment":    "https://as.example#x",
		"with an empty name": "",
	} {
		t.Run("an issuer cannot be asked: "+name, func(t *testing.T) {
			_, err := fetch.Client{}.Discover(background, issuer, "jwks_uri")
			assert.Error(t, err)
		})
	}

	t.Run("a host to which there is no connection is asked once", func(t *testing.T) {
		requests := 0
		c := fetch.Client{HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			requests++
			return http.DefaultTransport.RoundTrip(r)
		})}}
		_, err := c.Discover(background, "http://127.0.0.1:1/t1", "jwks_uri")
		assert.ErrorContains(t, err, "dial tcp 127.0.0.1:1")
		assert.Equal(t, 1, requests)
	})
	for name, failure := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		took   time.Duration
	}{
		"hangs": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, fetch.Timeout},
		"is reset": {func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNRESET }, 0},
		"returns a broken document": {func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			w.WriteString(`{"issuer":`)
			return w.Result(), nil
		}, 0},
	} {
		t.Run("JWKS-07 when a location "+name+", the next one is asked", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := fetch.Client{HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path != "/t1/.well-known/openid-configuration" {
						return failure.answer(r)
					}
					w := httptest.NewRecorder()
					w.WriteString(`{"issuer":"https://as.example/t1","jwks_uri":"https://as.example/k"}`)
					return w.Result(), nil
				})}}
				start := time.Now()
				found, err := c.Discover(background, "https://as.example/t1", "jwks_uri")
				require.NoError(t, err)
				assert.Equal(t, "https://as.example/k", found)
				assert.Equal(t, 2*failure.took, time.Since(start))
			})
		})
		t.Run("when each location "+name+", the error names all, within one limit of time", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := fetch.Client{HTTP: &http.Client{Transport: roundTripper(failure.answer)}}
				start := time.Now()
				_, err := c.Discover(background, "https://as.example/t1", "jwks_uri")
				for _, place := range []string{oauth + "/t1: ", openid + "/t1: ", "/t1" + openid + ": "} {
					assert.ErrorContains(t, err, "https://as.example"+place)
				}
				assert.Equal(t, 3*failure.took, time.Since(start))
				assert.LessOrEqual(t, time.Since(start), fetch.DiscoverTimeout)
			})
		})
	}
	for name, test := range map[string]struct {
		bytes int
		want  string
	}{
		"a byte more than 1 MiB is refused": {fetch.MaxMetadata + 1, "more than 1048576 bytes"},
		"1 MiB is read":                     {fetch.MaxMetadata, ""},
	} {
		t.Run("of metadata, "+name, func(t *testing.T) {
			var base string
			c, base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				text := fmt.Sprintf(`{"issuer":%q,"jwks_uri":"https://as.example/k"}`, base)
				_, _ = w.Write([]byte(text + strings.Repeat(" ", test.bytes-len(text))))
			})
			found, err := c.Discover(background, base, "jwks_uri")
			if test.want != "" {
				assert.ErrorContains(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "https://as.example/k", found)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
