package jwks_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// A site is an issuer on loopback, over TLS.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	keys  http.HandlerFunc
	asked []string
}

func serve(t *testing.T, keys http.HandlerFunc) *site {
	t.Helper()
	s := &site{keys: keys}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.String())
		keys := s.keys
		s.mu.Unlock()
		switch r.URL.Path {
		case "/.well-known/oauth-authorization-server":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/keys")
		case "/keys":
			keys(w, r)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// open returns a verifier that discovers the site's keys.
func (s *site) open(t *testing.T) *jwks.Verifier {
	return open(t, func(c *jwks.Config) {
		c.Issuer, c.JWKS, c.Client, c.Logger = s.URL, nil, s.Client(), slog.New(slog.DiscardHandler)
	})
}

func sets(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
}

func TestOverHTTP(t *testing.T) {
	t.Run("keys are discovered with the first token, and asked for once", func(t *testing.T) {
		s := serve(t, sets(keySet(es256)))
		v := s.open(t)
		assert.Zero(t, s.count())
		var requests sync.WaitGroup
		raw := mint(t, es256, nil, good(object{"iss": s.URL}))
		for range 20 {
			requests.Go(func() {
				token, err := v.Verify(background, raw)
				assert.NoError(t, err)
				assert.Equal(t, "alice", token.Subject())
			})
		}
		requests.Wait()
		assert.Equal(t, []string{"/.well-known/oauth-authorization-server", "/keys"}, s.asked)
		assert.Equal(t, s.URL+"/keys", v.Status().URL)
		assert.Equal(t, 1, v.Status().Keys)
		assert.NoError(t, v.Ready(background))
	})

	for name, change := range map[string]func(*jwks.Config, *site){
		"a URL":      func(c *jwks.Config, s *site) { c.JWKSURL = s.URL + "/keys" },
		"discovered": func(*jwks.Config, *site) {},
	} {
		t.Run("keys to start with are used while the key set is out of reach, and replaced once it answers: "+name, func(t *testing.T) {
			hold := make(chan struct{})
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				<-hold
				sets(keySet(es512))(w, r)
			})
			release := sync.OnceFunc(func() { close(hold) })
			t.Cleanup(release) // or the server would not close
			v := open(t, func(c *jwks.Config) {
				c.Issuer, c.JWKS, c.InitialJWKS, c.Client = s.URL, nil, keySet(es256), s.Client()
				c.Algorithms = []string{"ES256", "ES512"}
				change(c, s)
			})
			first := mint(t, es256, nil, good(object{"iss": s.URL}))
			token, err := v.Verify(background, first)
			require.NoError(t, err)
			release()
			_, err = v.Verify(background, mint(t, es512, nil, good(object{"iss": s.URL}))) // waits for the first fetch
			require.NoError(t, err)
			assert.False(t, token.Freshness().While.Holds())
			_, err = v.Verify(background, first)
			refused(t, err, unknownKey)
		})
	}

	s := serve(t, sets(keySet(es256)))
	v := s.open(t)
	for name, test := range map[string]struct {
		header, claims object
		want           string
	}{
		"JWKS-19 JWT-28 a wrong iss":   {nil, object{"iss": "https://evil.example"}, otherIssuer},
		"JWKS-19 JWT-28 no iss":        {nil, object{"iss": nil}, otherIssuer},
		"JWKS-19 a wrong aud":          {nil, object{"aud": "x"}, otherAud},
		"JWKS-19 expired":              {nil, object{"exp": 1}, expired},
		"JWKS-19 not yet valid":        {nil, object{"nbf": 99999999999}, farAhead},
		"JWKS-19 an algorithm":         {object{"alg": "HS256"}, nil, otherAlg},
		"JWKS-19 a wrong typ":          {object{"typ": "JWT"}, nil, otherKind},
		"JWKS-19 a claim is missing":   {nil, object{"jti": nil}, badClaim},
		"JWKS-19 a claim is malformed": {nil, object{"scope": 7}, badClaim},
	} {
		t.Run(name+": refused without any fetch", func(t *testing.T) {
			header, claims := object{"kid": "unknown"}, object{"iss": s.URL}
			maps.Copy(header, test.header)
			maps.Copy(claims, test.claims)
			_, err := v.Verify(background, mint(t, es256, header, good(claims)))
			refused(t, err, test.want)
			assert.Zero(t, s.count())
		})
	}
	t.Run("JWS-14 JWS-16 JWS-19 JWT-32 URLs in a header, and in a kid, are not asked", func(t *testing.T) {
		evil := generate("ES256", "evil")
		for _, header := range []object{
			{"jku": s.URL + "/evil"}, {"x5u": s.URL + "/evil"}, {"kid": s.URL + "/evil"}, {"kid": "../evil"},
			{"x5c": []string{"MIIB"}, "x5t": "AAAA"}, {"jwk": evil.PublicJWK()},
		} {
			_, err := v.Verify(background, mint(t, evil, header, good(object{"iss": s.URL})))
			refused(t, err, unknownKey)
		}
		assert.NotContains(t, strings.Join(s.asked, " "), "evil")
	})

	for name, answer := range map[string]http.HandlerFunc{
		"500":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"HTML":         sets([]byte("<html>")),
		"an empty set": sets([]byte(`{"keys":[]}`)),
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) },
		"gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			sets(keySet(es256))(w, r)
		},
		"an endless set": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
	} {
		t.Run("JWKS-10 an issuer that answers with "+name+" makes a token 503, not 401, and the verifier not ready", func(t *testing.T) {
			s := serve(t, answer)
			v := s.open(t)
			_, err := v.Verify(background, mint(t, es256, nil, good(object{"iss": s.URL})))
			var unavailable *valetkey.Unavailable
			require.ErrorAs(t, err, &unavailable)
			assert.Positive(t, unavailable.RetryAfter)
			assert.ErrorContains(t, v.Ready(background), "jwks: "+s.URL+": ")
			assert.Error(t, v.Status().LastError)
		})
	}
	t.Run("JWKS-25 Close ends a fetch that hangs, and those who wait for it", func(t *testing.T) {
		reached := make(chan struct{})
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) { close(reached); <-r.Context().Done() })
		v := s.open(t)
		ready := make(chan error)
		go func() { ready <- v.Ready(background) }()
		<-reached
		v.Close()
		assert.ErrorContains(t, <-ready, "closed")
	})
}

// memory is an issuer in a synctest bubble, where no socket can be. It takes some time to answer.
type memory struct {
	mu    sync.Mutex
	set   []byte
	delay time.Duration
	hits  int
}

func (m *memory) RoundTrip(*http.Request) (*http.Response, error) {
	time.Sleep(m.delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hits++
	w := httptest.NewRecorder()
	_, _ = w.Write(m.set)
	return w.Result(), nil
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hits
}

func (m *memory) open(t *testing.T) *jwks.Verifier {
	return open(t, func(c *jwks.Config) {
		c.JWKS, c.JWKSURL, c.Client = nil, issuer+"/keys", &http.Client{Transport: m}
	})
}

func TestFlood(t *testing.T) {
	const (
		tokens = 100_000
		pause  = time.Millisecond // between two of them
		answer = 200 * time.Millisecond
	)
	claims, err := json.Marshal(good(nil))
	require.NoError(t, err)
	rest := "." + base64.RawURLEncoding.EncodeToString(claims) + "." + strings.Repeat("A", 86)
	forged := func(i int) string {
		return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"ES256","typ":"at+jwt","kid":"forged-%d"}`, i)) + rest
	}
	raw := mint(t, es256, nil, good(nil))

	t.Run("JWKS-18 100,000 unknown kids cause no fetch beyond the cooldown's, and neither they nor good tokens wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{set: keySet(es256), delay: answer}
			v := m.open(t)
			require.NoError(t, v.Ready(background))
			start := time.Now()
			var waited []time.Duration
			for i := range tokens {
				before := time.Now()
				_, err := v.Verify(background, forged(i))
				refused(t, err, unknownKey)
				if d := time.Since(before); d > 0 { // in a bubble, time passes only while a goroutine waits
					waited = append(waited, d)
				}
				if i%100 == 0 {
					before = time.Now()
					_, err = v.Verify(background, raw)
					require.NoError(t, err)
					require.Zero(t, time.Since(before))
				}
				time.Sleep(pause)
			}
			periods := int((time.Since(start) + 30*time.Second - 1) / (30 * time.Second))
			assert.LessOrEqual(t, m.count(), periods+1)
			// One token of each fetch asked for it. All others were answered at once.
			assert.Len(t, waited, m.count()-1)
			for _, d := range waited {
				assert.Equal(t, answer, d)
			}
			t.Logf("%d tokens in %v: %d fetches, %d waits", tokens, time.Since(start), m.count(), len(waited))
		})
	})
	t.Run("JWKS-18 while the cooldown holds, no unknown kid of 100,000 at once waits or fetches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{set: keySet(es256), delay: answer}
			v := m.open(t)
			require.NoError(t, v.Ready(background))
			_, err := v.Verify(background, forged(0)) // the spare one
			refused(t, err, unknownKey)
			start := time.Now()
			var requests sync.WaitGroup
			for worker := range 100 {
				requests.Go(func() {
					for i := range tokens / 100 {
						if _, err := v.Verify(background, forged(worker*tokens+i)); err == nil {
							t.Error("accepted")
						}
					}
				})
			}
			requests.Wait()
			assert.Zero(t, time.Since(start))
			assert.Equal(t, 2, m.count())
		})
	})
}

func TestClock(t *testing.T) {
	t.Run("JWKS-24 when the clock jumps hours back and forth, tokens follow it and fetches do not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{set: keySet(es256)}
			clock := now
			v := open(t, func(c *jwks.Config) {
				c.JWKS, c.JWKSURL, c.Client, c.Now = nil, issuer+"/keys", &http.Client{Transport: m}, func() time.Time { return clock }
			})
			raw := mint(t, es256, nil, good(nil))
			for _, jump := range []time.Duration{0, -time.Hour, 3 * time.Hour, -2 * time.Hour} {
				clock = clock.Add(jump)
				_, err := v.Verify(background, raw)
				assert.Equal(t, clock.Equal(now), err == nil, "%v: %v", clock, err)
				assert.Equal(t, 1, m.count())
			}
			time.Sleep(8*time.Minute + time.Second)
			synctest.Wait()
			assert.Equal(t, 2, m.count())
		})
	})
}

func TestWithdrawn(t *testing.T) {
	t.Run("JWKS-22 what was verified with a key that is removed may not be relied on after the next refresh", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{set: keySet(es256, rs256)}
			v := m.open(t)
			token, err := v.Verify(context.Background(), mint(t, es256, nil, good(nil)))
			require.NoError(t, err)
			m.mu.Lock()
			m.set = keySet(rs256)
			m.mu.Unlock()
			assert.True(t, token.Freshness().While.Holds())
			time.Sleep(8*time.Minute + time.Second)
			assert.False(t, token.Freshness().While.Holds())
			_, err = v.Verify(context.Background(), mint(t, es256, nil, good(nil)))
			refused(t, err, unknownKey)
		})
	})
}

func TestKeySetsAsServersSendThem(t *testing.T) {
	for name, body := range map[string]string{
		"with a byte order mark": "\xef\xbb\xbf" + string(keySet(es256)),
		"with empty members":     strings.Replace(string(keySet(es256)), `"kty"`, `"key_ops":[],"oth":[],"x5c":[],"x5t":null,"kty"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			var accept atomic.Value
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				accept.Store(r.Header.Get("Accept"))
				io.WriteString(w, body)
			})
			v := s.open(t)
			require.NoError(t, v.Ready(t.Context()))
			assert.Equal(t, 1, v.Status().Keys)
			assert.Equal(t, "application/jwk-set+json, application/json;q=0.9, */*;q=0.1", accept.Load())
		})
	}
}

// The API server of Kubernetes has its own authority and answers service accounts only.
func TestKeyRequests(t *testing.T) {
	write := func(t *testing.T, content []byte) string {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, content, 0o600))
		return file
	}
	ca := func(t *testing.T, s *site) string {
		return write(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	}
	requests := func(t *testing.T) jwks.KeyRequests {
		return jwks.KeyRequests{TokenFile: write(t, []byte("p0d\n")), Header: http.Header{"X-Api-Key": {"k3y"}}}
	}
	guarded := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer p0d" || r.Header.Get("X-Api-Key") != "k3y" {
			w.WriteHeader(401)
			return
		}
		sets(keySet(es256))(w, r)
	}
	for name, change := range map[string]func(*jwks.Config, *site){
		"at a URL":   func(c *jwks.Config, s *site) { c.JWKSURL = s.URL + "/keys" },
		"discovered": func(*jwks.Config, *site) {},
	} {
		t.Run("a key set that needs a token, a header and an authority is fetched "+name, func(t *testing.T) {
			s := serve(t, guarded)
			v := open(t, func(c *jwks.Config) {
				c.Issuer, c.JWKS, c.KeyRequests = s.URL, nil, requests(t)
				c.KeyRequests.CAFile = ca(t, s)
				change(c, s)
			})
			_, err := v.Verify(background, mint(t, es256, nil, good(object{"iss": s.URL})))
			require.NoError(t, err)
		})
	}
	t.Run("a key set that the metadata places on another host gets neither", func(t *testing.T) {
		var asked, got http.Header
		other := serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = r.Header
			sets(keySet(es256))(w, r)
		})
		s := serve(t, nil)
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.Header
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, other.URL+"/keys")
		})
		v := open(t, func(c *jwks.Config) {
			c.Issuer, c.JWKS, c.KeyRequests = s.URL, nil, requests(t)
			c.KeyRequests.CAFile = ca(t, s)
		})
		_, err := v.Verify(background, mint(t, es256, nil, good(object{"iss": s.URL})))
		require.NoError(t, err)
		assert.Equal(t, "Bearer p0d", asked.Get("Authorization"))
		require.NotNil(t, got)
		assert.Empty(t, got.Get("Authorization")+got.Get("X-Api-Key"))
	})
	t.Run("neither is in the log or the error of a failure", func(t *testing.T) {
		var log bytes.Buffer
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		v := open(t, func(c *jwks.Config) {
			c.JWKS, c.JWKSURL, c.KeyRequests = nil, s.URL+"/keys", requests(t)
			c.KeyRequests.CAFile, c.Logger = ca(t, s), slog.New(slog.NewTextHandler(&log, nil))
		})
		err := v.Ready(background)
		require.ErrorContains(t, err, "status 500")
		v.Close()
		assert.Contains(t, log.String(), "status 500")
		for _, secret := range []string{"p0d", "k3y"} {
			assert.NotContains(t, log.String()+err.Error(), secret)
		}
	})
	t.Run("a tenant has a token, but no certificates", func(t *testing.T) {
		s := serve(t, guarded)
		cfg := jwks.Config{Issuer: s.URL, Audience: []string{api}, KeyRequests: requests(t)}
		r := &registry{tenants: map[string]jwks.Config{s.URL: cfg}}
		over := func(c *jwks.TenantsConfig) {
			c.TLS, c.InsecureAnyAddress = s.Client().Transport.(*http.Transport).TLSClientConfig, true
		}
		accepted(t, r.open(t, over), tokenOf(t, es256, s.URL))
		cfg.KeyRequests.CAFile = ca(t, s)
		r.tenants[s.URL] = cfg
		failed(t, r.open(t, over), tokenOf(t, es256, s.URL), "cannot be set per tenant")
	})
}
