package onbehalf_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A stock is the called service. It records the headers of the requests that reach it.
type stock struct {
	*httptest.Server
	mu   sync.Mutex
	seen []http.Header
}

func newStock(t *testing.T, answer http.HandlerFunc) *stock {
	s := &stock{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Header)
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stock) requests() []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]http.Header(nil), s.seen...)
}

// A body notes that it was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func targets(urls ...string) func(*onbehalf.Config) {
	return func(c *onbehalf.Config) { c.Targets = urls }
}

func call(ctx context.Context, client *http.Client, method, url string, change ...func(*http.Request)) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range change {
		f(r)
	}
	resp, err := client.Do(r)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

func TestTokensReachTargetsOnly(t *testing.T) {
	st := newStock(t, nil)
	thief := newStock(t, nil)
	at := strings.TrimPrefix(st.URL, "http://")
	for _, c := range []struct {
		name, url string
		change    func(*http.Request)
	}{
		{"another origin", thief.URL + "/v1/items", nil},
		{"another scheme", "https://" + at + "/v1/items", nil},
		{"a name that begins so", st.URL + "0/v1/items", nil},
		{"a path outside", st.URL + "/v2/items", nil},
		{"a segment that begins so", st.URL + "/v10/items", nil},
		{"a path that leaves", st.URL + "/v1/../v2", nil},
		{"a path that leaves, encoded", st.URL + "/v1/%2e%2e/v2", nil},
		{"a user in front of the host", "http://" + at + "@" + strings.TrimPrefix(thief.URL, "http://") + "/v1/", nil},
		{"another virtual host", st.URL + "/v1/items", func(r *http.Request) { r.Host = "thief.example.com" }},
	} {
		t.Run("none for "+c.name, func(t *testing.T) {
			s := newSite(t)
			body := &closing{Reader: strings.NewReader("x")}
			_, err := call(s.serving(), &http.Client{Transport: s.client(targets(st.URL + "/v1/")).Transport(nil)}, "POST", c.url, func(r *http.Request) {
				r.Body = body
				if c.change != nil {
					c.change(r)
				}
			})
			require.Error(t, err)
			assert.True(t, body.closed)
			assert.Empty(t, s.requests(), "no token is obtained either")
		})
	}
	assert.Empty(t, st.requests())
	assert.Empty(t, thief.requests())
	t.Run("none without Targets", func(t *testing.T) {
		s := newSite(t)
		_, err := call(s.serving(), &http.Client{Transport: s.client().Transport(nil)}, "GET", st.URL)
		assert.ErrorContains(t, err, "Targets: required")
	})
	t.Run("a target gets one, and no other credentials", func(t *testing.T) {
		s := newSite(t)
		client := &http.Client{Transport: s.client(targets(thief.URL+"/x", st.URL+"/v1/")).Transport(nil)}
		var sent *http.Request
		for _, path := range []string{"/v1", "/v1/", "/v1/items?secret=x"} {
			_, err := call(s.serving(), client, "GET", st.URL+path, func(r *http.Request) {
				r.Header = http.Header{"Authorization": {"Bearer incoming"}, "Dpop": {"proof"}, "Cookie": {"a=b"}, "X-Own": {"kept"}}
				sent = r
			})
			require.NoError(t, err)
		}
		assert.Equal(t, "Bearer incoming", sent.Header.Get("Authorization"), "the request of the caller is not changed")
		require.Len(t, st.requests(), 3)
		for _, h := range st.requests() {
			assert.Contains(t, h.Get("Authorization"), "Bearer issued-")
			assert.Equal(t, "kept", h.Get("X-Own"))
			assert.Empty(t, h["Dpop"])
			assert.Empty(t, h["Cookie"])
		}
	})
	t.Run("a reverse proxy passes no incoming credentials on", func(t *testing.T) {
		s, st := newSite(t), newStock(t, nil)
		to, err := url.Parse(st.URL)
		require.NoError(t, err)
		proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, Transport: s.client(targets(st.URL)).Transport(nil)}
		w := httptest.NewRecorder()
		s.guard.Handler(proxy).ServeHTTP(w, valetkeytest.Request("GET", "/", s.iss.Token()))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "Bearer issued-1", st.requests()[0].Get("Authorization"))
	})
}

func TestRedirectsAreNotFollowedWithAToken(t *testing.T) {
	thief := newStock(t, nil)
	var st *stock
	st = newStock(t, func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{"/thief": thief.URL, "/self": st.URL + "/there"}[r.URL.Path]
		if to != "" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	})
	s := newSite(t)
	tr := s.client(targets(st.URL, thief.URL)).Transport(nil) // even if both may get tokens
	for _, path := range []string{"/thief", "/self"} {
		t.Run("to "+path, func(t *testing.T) {
			_, err := call(s.serving(), &http.Client{Transport: tr}, "GET", st.URL+path)
			assert.ErrorContains(t, err, "redirect")
			assert.Empty(t, thief.requests())
			for _, h := range st.requests() {
				assert.Empty(t, h["Referer"], "the redirect was followed")
			}
		})
	}
	t.Run("a client that does not follow them gets it", func(t *testing.T) {
		resp, err := call(s.serving(), &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, "GET", st.URL+"/thief")
		require.NoError(t, err)
		assert.Equal(t, 307, resp.StatusCode)
	})
	t.Run("the token endpoint redirects", func(t *testing.T) {
		other := newStock(t, nil)
		endpoint := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
		defer endpoint.Close()
		_, err := s.client(func(c *onbehalf.Config) { c.TokenURL = endpoint.URL }).Token(s.serving())
		assert.ErrorAs(t, err, new(*valetkey.Unavailable))
		assert.Empty(t, other.requests())
	})
}

func TestARejectedTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, valetkeytest.InMemory())
		reject := func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}
		c := s.client(targets("https://stock.example.com"))
		client, ctx := &http.Client{Transport: c.Transport(roundTrip(reject))}, s.serving()
		for range 3 {
			resp, err := call(ctx, client, "GET", "https://stock.example.com/")
			require.NoError(t, err)
			assert.Equal(t, 401, resp.StatusCode)
		}
		assert.Len(t, s.requests(), 1, "a service that always refuses does not cause an exchange per call")
		time.Sleep(10 * time.Second)
		for range 3 {
			_, err := call(ctx, client, "GET", "https://stock.example.com/")
			require.NoError(t, err)
		}
		assert.Len(t, s.requests(), 2)
		assert.True(t, c.Idle())
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTokensThatAreBoundToAKeyAreSentWithAProof(t *testing.T) {
	s := newSite(t)
	nonces, err := dpop.NewNonces(dpop.NoncesConfig{})
	require.NoError(t, err)
	proofs, err := dpop.New(dpop.Config{Nonces: nonces})
	require.NoError(t, err)
	own := &proved{proofs: proofs}
	stocks, err := middleware.New(middleware.Config{DPoP: proofs, Logger: quiet, Verifier: own, URL: func(r *http.Request) string { return "http://" + r.Host + r.URL.EscapedPath() }})
	require.NoError(t, err)
	var bodies []string
	st := newStock(t, stocks.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(text))
	})).ServeHTTP)

	own.issuer(s)
	c := s.client(targets(st.URL), func(c *onbehalf.Config) { c.DPoP = true })
	client, ctx := &http.Client{Transport: c.Transport(nil)}, s.serving()
	for range 3 {
		resp, err := call(ctx, client, "POST", st.URL+"/items/7?q=1", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), 4
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
		})
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode, resp.Header)
	}
	assert.Equal(t, []string{"body", "body", "body"}, bodies)
	assert.Len(t, st.requests(), 4, "the first request is repeated with the nonce")
	for _, h := range st.requests() {
		assert.Equal(t, "DPoP bound-token", h.Get("Authorization"))
	}
	assert.Len(t, s.requests(), 2, "the first token request too")
	t.Run("a body that cannot be sent again is not", func(t *testing.T) {
		fresh := s.client(targets(st.URL), func(c *onbehalf.Config) { c.DPoP = true })
		resp, err := call(ctx, &http.Client{Transport: fresh.Transport(nil)}, "POST", st.URL+"/items/7", func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader([]byte("once"))))
		})
		require.NoError(t, err)
		assert.Equal(t, 401, resp.StatusCode)
	})
	t.Run("the bare text is refused", func(t *testing.T) {
		_, err := c.Text(ctx)
		assert.Error(t, err)
	})
}

// proved is an authorization server that binds tokens to the key of the proof, with a nonce, and the verifier of its tokens.
type proved struct {
	proofs *dpop.Verifier
	mu     sync.Mutex
	key    string
}

func (p *proved) issuer(s *site) {
	s.iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		s.mu.Lock()
		s.asked = append(s.asked, r.PostForm)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		proof, err := p.proofs.Verify(r.Context(), dpop.Request{Method: "POST", URL: s.iss.Introspection.URL, Proofs: r.Header["Dpop"]})
		if err != nil {
			w.Header().Set("DPoP-Nonce", p.proofs.Nonce())
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"use_dpop_nonce"}`)
			return
		}
		p.mu.Lock()
		p.key = proof.Thumbprint()
		p.mu.Unlock()
		io.WriteString(w, `{"access_token":"bound-token","token_type":"DPoP","expires_in":300,"issued_token_type":"`+accessType+`"}`)
	})
}

func (p *proved) Verify(context.Context, string) (*valetkey.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Binding: valetkey.Binding{JWKThumbprint: p.key}}), nil
}

func TestTokensThatAreBoundToACertificateAreSentWithIt(t *testing.T) {
	s := newSite(t)
	certificate := valetkeytest.ClientCertificate(t)
	var presented []bool
	st := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		presented = append(presented, len(r.TLS.PeerCertificates) == 1 && bytes.Equal(r.TLS.PeerCertificates[0].Raw, certificate.Certificate[0]))
	}))
	st.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	st.StartTLS()
	defer st.Close()
	client := st.Client()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{certificate}
	c := s.client(targets(st.URL), func(c *onbehalf.Config) { c.Client = client })
	_, err := call(s.serving(), &http.Client{Transport: c.Transport(nil)}, "GET", st.URL)
	require.NoError(t, err)
	assert.Equal(t, []bool{true}, presented)
}

func TestForwardingIsForSharedAudiencesOnly(t *testing.T) {
	st := newStock(t, nil)
	forwarding := func(c *onbehalf.Config) {
		c.Dialect, c.TokenURL, c.Auth, c.Resource, c.Audience = onbehalf.InsecureForward, "", introspect.Auth{}, nil, []string{"https://stock.example.com"}
		c.Targets = []string{st.URL}
	}
	t.Run("a token that is for both is forwarded", func(t *testing.T) {
		s := newSite(t)
		token := s.iss.Token(valetkeytest.Audience(here, "https://stock.example.com"))
		_, err := call(s.with(token), &http.Client{Transport: s.client(forwarding).Transport(nil)}, "GET", st.URL)
		require.NoError(t, err)
		assert.Equal(t, "Bearer "+token, st.requests()[0].Get("Authorization"))
		assert.Empty(t, s.requests())
	})
	t.Run("a bound one is not: its proof is for this service", func(t *testing.T) {
		s := newSite(t)
		proofs, err := dpop.New(dpop.Config{})
		require.NoError(t, err)
		key := s.iss.ProofKey("ES256")
		guard, err := middleware.New(middleware.Config{OnBehalf: true, DPoP: proofs, Logger: quiet, Resource: middleware.Resource{ID: here},
			Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
				return valetkey.NewToken(valetkey.TokenFields{Issuer: s.iss.URL, Audience: valetkey.ListOf(here, "https://stock.example.com"),
					Binding: valetkey.Binding{JWKThumbprint: key.Thumbprint()}}), nil
			})})
		require.NoError(t, err)
		r := httptest.NewRequest("GET", here+"/", nil)
		key.Authorize(r, "bound")
		d := guard.Decide(r)
		require.NoError(t, d.Err())
		_, err = s.client(forwarding).Token(d.Context(r.Context()))
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, valetkey.Forbidden, refusal.Code)
	})
}

func TestAChallengeOfTheCalledServiceReachesTheClientIfItIsForTheUser(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		name, challenge string
		status          int
		want            map[string]string // nil: nothing for the client
	}{
		{"a scope that our token lacks", `Bearer error="insufficient_scope", scope="stock:write"`, 403, nil},
		{"our token is not valid", `Bearer error="invalid_token"`, 401, nil},
		{"a step-up that is not refused with 401", `Bearer error="insufficient_user_authentication"`, 403, nil},
		{"a malformed line", `Bearer error="insufficient_user_authentication`, 401, nil},
		{"XCHG-09 a step-up", `Basic realm="x", Bearer realm="stock", error="insufficient_user_authentication", acr_values="mfa phr", max_age="60"`, 401,
			map[string]string{"error": "insufficient_user_authentication", "acr_values": "mfa phr", "max_age": "60"}},
		{"XCHG-09 a claims challenge", `Bearer error="insufficient_claims", claims="eyJhIjoxfQ=="`, 401, map[string]string{"error": "insufficient_claims", "claims": "eyJhIjoxfQ=="}},
		{"claims that are not an object", `Bearer error="insufficient_claims", claims="eA=="`, 401, map[string]string{"error": "insufficient_claims", "claims": ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := onbehalf.ChallengeOf(&http.Response{StatusCode: c.status, Header: http.Header{"Www-Authenticate": {c.challenge}}})
			if c.want == nil {
				assert.NoError(t, err)
				return
			}
			resp, _ := status(s.guard, err)
			assert.Equal(t, 401, resp.StatusCode)
			got := valetkeytest.Challenge(t, resp.Header, "Bearer")
			for name, value := range c.want {
				assert.Equal(t, value, got[name], name)
			}
		})
	}
	t.Run("an error of a call is the response", func(t *testing.T) {
		st := newStock(t, nil)
		s.replies(400, map[string]any{"error": "interaction_required"})
		_, err := call(s.serving(), &http.Client{Transport: s.client(targets(st.URL)).Transport(nil)}, "GET", st.URL)
		var wrapped *url.Error
		require.True(t, errors.As(err, &wrapped))
		resp, _ := status(s.guard, err)
		assert.Equal(t, "insufficient_user_authentication", valetkeytest.Challenge(t, resp.Header, "Bearer")["error"])
	})
}
