package valetauthzen_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetauthzen"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

var quiet = slog.New(slog.DiscardHandler)

// A pdp is a policy decision point that records the questions and answers as answer does.
type pdp struct {
	*httptest.Server
	answer func(w http.ResponseWriter, question map[string]any)

	mu        sync.Mutex
	questions []map[string]any
	headers   []http.Header
	paths     []string
	bodies    []string
}

func newPDP(t testing.TB, answer func(w http.ResponseWriter, question map[string]any)) *pdp {
	t.Helper()
	p := &pdp{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var question map[string]any
		if r.Method == http.MethodPost {
			if err := json.Unmarshal(body, &question); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		p.mu.Lock()
		p.questions, p.headers, p.paths, p.bodies = append(p.questions, question), append(p.headers, r.Header), append(p.paths, r.Method+" "+r.URL.Path), append(p.bodies, string(body))
		p.mu.Unlock()
		p.answer(w, question)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pdp) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.questions)
}

func says(text string) func(http.ResponseWriter, map[string]any) {
	return func(w http.ResponseWriter, _ map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, text)
	}
}

func status(code int) func(http.ResponseWriter, map[string]any) {
	return func(w http.ResponseWriter, _ map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, `{"decision":true}`)
	}
}

func newClient(t testing.TB, url string, change ...func(*valetauthzen.Config)) *valetauthzen.Client {
	t.Helper()
	cfg := valetauthzen.Config{URL: url, Logger: quiet, Timeout: 5 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	c, err := valetauthzen.New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// api serves GET /orders/{id}, which the policy of c decides.
func api(t testing.TB, iss *valetkeytest.Issuer, c *valetauthzen.Client) func(token string) (status int, body string) {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: quiet})
	require.NoError(t, err)
	h, err := routes.Table{
		"GET /orders/{id}": valetkey.AllOf{scopes.All("orders:read"), c.Require(valetauthzen.Rule{Action: "view", ResourceType: "order", ResourceID: "id"})},
	}.Guard(guard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the order") }))
	require.NoError(t, err)
	return func(token string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, valetkeytest.Request("GET", "/orders/7", token))
		return w.Code, w.Body.String()
	}
}

func TestRequirement(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	t.Run("AZ-01, AZ-09 the question", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":true}`))
		status, body := api(t, iss, newClient(t, p.URL, func(c *valetauthzen.Config) {
			c.Authorize = func(r *http.Request) error { r.Header.Set("Authorization", "Bearer of the server"); return nil }
		}))(token)
		assert.Equal(t, 200, status)
		assert.Equal(t, "the order", body)
		require.Equal(t, 1, p.asked())
		assert.Equal(t, "POST /access/v1/evaluation", p.paths[0])
		assert.Equal(t, "application/json", p.headers[0].Get("Content-Type"))
		assert.NotEmpty(t, p.headers[0].Get("X-Request-Id"))
		assert.Equal(t, "Bearer of the server", p.headers[0].Get("Authorization"))
		assert.Equal(t, map[string]any{
			"subject":  map[string]any{"type": "user", "id": "alice", "properties": map[string]any{"issuer": iss.URL, "client_id": "orders-app"}},
			"action":   map[string]any{"name": "view"},
			"resource": map[string]any{"type": "order", "id": "7", "properties": map[string]any{"id": "7"}},
			"context":  map[string]any{"scope": "orders:read", "audience": []any{valetkeytest.DefaultAudience}},
		}, p.questions[0])
		for _, part := range strings.Split(token, ".") {
			assert.NotContains(t, p.bodies[0]+fmt.Sprint(p.headers[0]), part)
		}
	})
	t.Run("AZ-02 a denial", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":false,"context":{"reason_user":{"403":"secret"}}}`))
		status, body := api(t, iss, newClient(t, p.URL))(token)
		assert.Equal(t, 403, status)
		assert.NotContains(t, body, "the order")
		assert.NotContains(t, body, "secret")
	})
	for name, answer := range map[string]string{
		"AZ-03 no decision":                   `{}`,
		"AZ-03 a string":                      `{"decision":"true"}`,
		"AZ-03 a number":                      `{"decision":1}`,
		"AZ-03 null":                          `{"decision":null}`,
		"AZ-03 a name in another letter case": `{"Decision":true}`,
		"AZ-03 two decisions":                 `{"decision":true,"decision":false}`,
		"AZ-03 the same decision twice":       `{"decision":true,"decision":true}`,
		"AZ-03 not an object":                 `true`,
		"AZ-03 not JSON":                      `{"decision":true`,
		"AZ-03 text behind it":                `{"decision":true}}`,
		"AZ-03 a decision that is nested":     `{"x":{"decision":true}}`,
		"AZ-03 too long":                      `{"decision":true,"x":"` + strings.Repeat("x", 64<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPDP(t, says(answer))
			status, _ := api(t, iss, newClient(t, p.URL))(token)
			assert.Equal(t, 503, status)
		})
	}
	for _, code := range []int{201, 204, 302, 400, 401, 403, 404, 429, 500, 503} {
		t.Run(fmt.Sprintf("AZ-04 status %d", code), func(t *testing.T) {
			p := newPDP(t, status(code))
			status, _ := api(t, iss, newClient(t, p.URL))(token)
			assert.Equal(t, 503, status)
		})
	}
	t.Run("AZ-04 another media type", func(t *testing.T) {
		p := newPDP(t, func(w http.ResponseWriter, _ map[string]any) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, `{"decision":true}`)
		})
		status, _ := api(t, iss, newClient(t, p.URL))(token)
		assert.Equal(t, 503, status)
	})
	t.Run("AZ-04 a redirect is not followed", func(t *testing.T) {
		other := newPDP(t, says(`{"decision":true}`))
		p := newPDP(t, func(w http.ResponseWriter, _ map[string]any) {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
		status, _ := api(t, iss, newClient(t, p.URL))(token)
		assert.Equal(t, 503, status)
		assert.Zero(t, other.asked())
	})
	t.Run("AZ-04 credentials that cannot be had", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":true}`))
		status, _ := api(t, iss, newClient(t, p.URL, func(c *valetauthzen.Config) {
			c.Authorize = func(*http.Request) error { return errors.New("no secret") }
		}))(token)
		assert.Equal(t, 503, status)
		assert.Zero(t, p.asked())
	})
	t.Run("AZ-08 unknown members are ignored", func(t *testing.T) {
		p := newPDP(t, says(`{"evaluation_id":"e1","Decision":false,"decision":true,"context":{"decision":false}}`))
		status, _ := api(t, iss, newClient(t, p.URL))(token)
		assert.Equal(t, 200, status)
	})
	t.Run("a token without the scope is refused without a question", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":true}`))
		status, _ := api(t, iss, newClient(t, p.URL))(iss.Token())
		assert.Equal(t, 403, status)
		assert.Zero(t, p.asked())
	})
	t.Run("it describes itself", func(t *testing.T) {
		c := newClient(t, "http://127.0.0.1:1")
		assert.Equal(t, []string{"policy: view on order"}, c.Require(valetauthzen.Rule{Action: "view", ResourceType: "order"}).Describe().Rules)
		assert.Equal(t, []string{"policy: the method on route"}, c.Require(valetauthzen.Rule{}).Describe().Rules)
	})
}

func TestDefaultQuestion(t *testing.T) {
	mux := http.NewServeMux()
	var got *http.Request
	mux.HandleFunc("DELETE /tenants/{tenant}/files/{path...}", func(_ http.ResponseWriter, r *http.Request) { got = r })
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("DELETE", "/tenants/acme/files/a/b", nil))
	ask := func(f valetkey.TokenFields, rule valetauthzen.Rule) (valetauthzen.Question, error) {
		return valetauthzen.DefaultQuestion(valetkey.Access{Token: valetkey.NewToken(f), Request: got}, rule)
	}
	q, err := ask(valetkey.TokenFields{Subject: "app", ClientID: "app", ACR: "phr"}, valetauthzen.Rule{})
	require.NoError(t, err)
	assert.Equal(t, valetauthzen.Question{
		Subject:  valetauthzen.Entity{Type: "client", ID: "app", Properties: map[string]any{"client_id": "app"}},
		Action:   valetauthzen.Action{Name: "DELETE"},
		Resource: valetauthzen.Entity{Type: "route", ID: "DELETE /tenants/{tenant}/files/{path...}", Properties: map[string]any{"tenant": "acme", "path": "a/b"}},
		Context:  map[string]any{"acr": "phr"},
	}, q)
	q, err = ask(valetkey.TokenFields{ClientID: "app"}, valetauthzen.Rule{ResourceID: "path"})
	require.NoError(t, err)
	assert.Equal(t, "client", q.Subject.Type)
	assert.Equal(t, "a/b", q.Resource.ID)
	_, err = ask(valetkey.TokenFields{Subject: "alice"}, valetauthzen.Rule{ResourceID: "id"})
	assert.ErrorContains(t, err, "no path value id")

	c := newClient(t, "http://127.0.0.1:1")
	for name, q := range map[string]valetauthzen.Question{
		"subject.id":  {Subject: valetauthzen.Entity{Type: "user"}, Action: valetauthzen.Action{Name: "x"}, Resource: valetauthzen.Entity{Type: "t", ID: "1"}},
		"action.name": {Subject: valetauthzen.Entity{Type: "user", ID: "a"}, Resource: valetauthzen.Entity{Type: "t", ID: "1"}},
	} {
		_, err := c.Evaluate(t.Context(), q)
		assert.ErrorContains(t, err, name)
	}
}

var question = valetauthzen.Question{Subject: valetauthzen.Entity{Type: "user", ID: "alice"}, Action: valetauthzen.Action{Name: "view"}, Resource: valetauthzen.Entity{Type: "order", ID: "7"}}

func about(id string) valetauthzen.Question {
	q := question
	q.Resource.ID = id
	return q
}

func TestTextsThatJSONCannotCarry(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	p := newPDP(t, says(`{"decision":true}`))
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: quiet})
	require.NoError(t, err)
	for _, rule := range []valetauthzen.Rule{{ResourceID: "id"}, {}} {
		handler, err := routes.Table{"GET /orders/{id}": newClient(t, p.URL).Require(rule)}.Guard(guard, http.NotFoundHandler())
		require.NoError(t, err)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, valetkeytest.Request("GET", "/orders/%ff", iss.Token()))
		assert.Equal(t, 400, w.Code)
	}
	assert.Zero(t, p.asked(), "the server was asked about U+FFFD")
}

func TestASlowOrFailingServer(t *testing.T) {
	t.Run("AZ-05 the deadline ends the wait", func(t *testing.T) {
		release := make(chan struct{})
		p := newPDP(t, func(http.ResponseWriter, map[string]any) { <-release })
		defer close(release)
		_, err := newClient(t, p.URL, func(c *valetauthzen.Config) { c.Timeout = time.Millisecond }).Evaluate(t.Context(), question)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		_, unavailable := errors.AsType[*valetkey.Unavailable](err)
		assert.True(t, unavailable)
	})
	t.Run("AZ-05 the breaker opens after five failures and closes again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			var down atomic.Bool
			down.Store(true)
			c := newClient(t, "https://pdp.example.com", func(c *valetauthzen.Config) {
				c.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
					calls.Add(1)
					if down.Load() {
						return nil, errors.New("down")
					}
					return respond(`{"decision":true}`), nil
				})}
			})
			for range 20 {
				_, err := c.Evaluate(t.Context(), question)
				require.Error(t, err)
			}
			assert.EqualValues(t, 5, calls.Load())
			time.Sleep(time.Second + 1)
			_, err := c.Evaluate(t.Context(), question)
			require.Error(t, err)
			assert.EqualValues(t, 6, calls.Load(), "one question tries")
			down.Store(false)
			time.Sleep(time.Second + 1)
			permitted, err := c.Evaluate(t.Context(), question)
			require.NoError(t, err)
			assert.True(t, permitted)
		})
	})
	t.Run("callers that leave do not open the breaker", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":true}`))
		c := newClient(t, p.URL)
		left, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			_, err := c.Evaluate(left, question)
			require.Error(t, err)
		}
		_, err := c.Evaluate(t.Context(), question)
		assert.NoError(t, err)
	})
	t.Run("questions that the server does not accept do not open the breaker", func(t *testing.T) {
		for _, status := range []int{400, 413, 422} {
			p := newPDP(t, func(w http.ResponseWriter, asked map[string]any) {
				if asked["resource"].(map[string]any)["id"] == "malformed" {
					w.WriteHeader(status)
					return
				}
				says(`{"decision":true}`)(w, nil)
			})
			c := newClient(t, p.URL)
			for range 20 {
				_, err := c.Evaluate(t.Context(), about("malformed"))
				require.ErrorContains(t, err, fmt.Sprint("status ", status))
			}
			_, err := c.Evaluate(t.Context(), question)
			assert.NoError(t, err, status)
		}
	})
	t.Run("questions in flight are bounded", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		p := newPDP(t, func(w http.ResponseWriter, _ map[string]any) {
			arrived <- struct{}{}
			<-release
			says(`{"decision":true}`)(w, nil)
		})
		c := newClient(t, p.URL, func(c *valetauthzen.Config) { c.MaxInFlight = 1 })
		done := make(chan error)
		go func() {
			_, err := c.Evaluate(context.Background(), question)
			done <- err
		}()
		<-arrived
		_, err := c.Evaluate(t.Context(), question)
		assert.ErrorContains(t, err, "too many questions")
		close(release)
		assert.NoError(t, <-done)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
}

func TestCache(t *testing.T) {
	t.Run("off by default", func(t *testing.T) {
		p := newPDP(t, says(`{"decision":true}`))
		c := newClient(t, p.URL)
		for range 2 {
			_, err := c.Evaluate(t.Context(), question)
			require.NoError(t, err)
		}
		assert.Equal(t, 2, p.asked())
	})
	t.Run("an answer is for the same question, and for a time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			decision := `{"decision":false}`
			c := newClient(t, "https://pdp.example.com", func(c *valetauthzen.Config) {
				c.CacheTTL = 5 * time.Second
				c.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
					calls.Add(1)
					return respond(decision), nil
				})}
			})
			permitted := func(q valetauthzen.Question) bool {
				ok, err := c.Evaluate(t.Context(), q)
				require.NoError(t, err)
				return ok
			}
			assert.False(t, permitted(question))
			decision = `{"decision":true}`
			assert.False(t, permitted(question))
			assert.True(t, permitted(about("8")))
			other := question
			other.Subject.ID = "bob"
			assert.True(t, permitted(other))
			other = question
			other.Context = map[string]any{"acr": "phr"}
			assert.True(t, permitted(other))
			assert.EqualValues(t, 4, calls.Load())
			time.Sleep(5*time.Second + 1)
			assert.True(t, permitted(question))
		})
	})
	t.Run("a failure is not cached", func(t *testing.T) {
		p := newPDP(t, status(500))
		c := newClient(t, p.URL, func(c *valetauthzen.Config) { c.CacheTTL = time.Minute })
		_, err := c.Evaluate(t.Context(), question)
		require.Error(t, err)
		p.answer = says(`{"decision":true}`)
		permitted, err := c.Evaluate(t.Context(), question)
		require.NoError(t, err)
		assert.True(t, permitted)
	})
}

func TestEvaluateAll(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   []bool
	}{
		"AZ-07 fewer answers than questions": {`{"evaluations":[{"decision":true}]}`, []bool{true, false, false}},
		"AZ-07 none":                         {`{"evaluations":[]}`, []bool{false, false, false}},
		"AZ-07 unclear ones":                 {`{"evaluations":[{"decision":"true"},{},{"decision":true}]}`, []bool{false, false, true}},
		"all, in the order of the questions": {`{"evaluations":[{"decision":true},{"decision":false,"context":{"error":{"status":404}}},{"decision":true}]}`, []bool{true, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPDP(t, says(c.answer))
			got, err := newClient(t, p.URL).EvaluateAll(t.Context(), []valetauthzen.Question{about("1"), about("2"), about("3")})
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
			assert.Equal(t, "POST /access/v1/evaluations", p.paths[0])
			assert.Len(t, p.questions[0]["evaluations"], 3)
			assert.Equal(t, map[string]any{"evaluations_semantic": "execute_all"}, p.questions[0]["options"])
		})
	}
	for name, answer := range map[string]string{
		"more answers than questions": `{"evaluations":[{"decision":true},{"decision":true}]}`,
		"no array":                    `{"evaluations":{"decision":true}}`,
		"a single decision":           `{"decision":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPDP(t, says(answer))
			_, err := newClient(t, p.URL).EvaluateAll(t.Context(), []valetauthzen.Question{question})
			require.Error(t, err)
		})
	}
	t.Run("no questions", func(t *testing.T) {
		got, err := newClient(t, "http://127.0.0.1:1").EvaluateAll(t.Context(), nil)
		assert.NoError(t, err)
		assert.Empty(t, got)
	})
}

func TestDiscovery(t *testing.T) {
	metadata := func(at, pdp, more string) *pdpServer {
		return newMetadata(t, at, func(url string) string {
			return `{"policy_decision_point":"` + strings.ReplaceAll(pdp, "URL", url) + `"` + strings.ReplaceAll(more, "URL", url) + `}`
		})
	}
	for name, c := range map[string]struct{ pdp, more, want string }{
		"AZ-06 another policy decision point": {"https://evil.example", `,"access_evaluation_endpoint":"URL/eval"`, "configured"},
		"AZ-06 a slash more":                  {"URL/", `,"access_evaluation_endpoint":"URL/eval"`, "configured"},
		"no endpoint":                         {"URL", ``, "access_evaluation_endpoint: missing"},
		"an endpoint that is not https":       {"URL", `,"access_evaluation_endpoint":"http://pdp.example.com/eval"`, "is not an https URL"},
		"an endpoint that is not a string":    {"URL", `,"access_evaluation_endpoint":1`, "is not a string"},
		"an endpoint twice":                   {"URL", `,"access_evaluation_endpoint":"URL/eval","access_evaluation_endpoint":"URL/other"`, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			s := metadata("/.well-known/authzen-configuration", c.pdp, c.more)
			client := newClient(t, s.URL, func(c *valetauthzen.Config) { c.Discover = true })
			synced, cancel := context.WithCancel(t.Context())
			go func() {
				<-s.asked
				cancel()
			}()
			for client.Ready(synced) == nil {
				t.Fatal("ready")
			}
			require.Eventually(t, func() bool {
				_, err := client.Evaluate(t.Context(), question)
				return err != nil && strings.Contains(err.Error(), c.want)
			}, time.Minute, time.Millisecond)
		})
	}
	t.Run("a path comes after the well-known part", func(t *testing.T) {
		s := metadata("/.well-known/authzen-configuration/tenant1", "URL/tenant1", `,"access_evaluation_endpoint":"URL/eval"`)
		c := newClient(t, s.URL+"/tenant1", func(c *valetauthzen.Config) { c.Discover = true })
		require.NoError(t, c.Ready(t.Context()))
		permitted, err := c.Evaluate(t.Context(), question)
		require.NoError(t, err)
		assert.True(t, permitted)
		_, err = c.EvaluateAll(t.Context(), []valetauthzen.Question{question})
		assert.ErrorContains(t, err, "no access_evaluations_endpoint")
	})
	t.Run("a question before the metadata is there fails and starts to read it", func(t *testing.T) {
		s := metadata("/.well-known/authzen-configuration", "URL", `,"access_evaluation_endpoint":"URL/eval"`)
		c := newClient(t, s.URL, func(c *valetauthzen.Config) { c.Discover = true })
		_, err := c.Evaluate(t.Context(), question)
		_, unavailable := errors.AsType[*valetkey.Unavailable](err)
		assert.True(t, unavailable, err)
		<-s.asked
		require.NoError(t, c.Ready(t.Context()))
	})
	t.Run("a closed client", func(t *testing.T) {
		c := newClient(t, "http://127.0.0.1:1", func(c *valetauthzen.Config) { c.Discover = true })
		c.Close()
		assert.Error(t, c.Ready(t.Context()))
		_, err := c.Evaluate(t.Context(), question)
		assert.ErrorContains(t, err, "closed")
	})
}

type pdpServer struct {
	*httptest.Server
	asked chan struct{}
}

// newMetadata serves metadata at a path, and permits everything at /eval.
func newMetadata(t *testing.T, at string, text func(url string) string) *pdpServer {
	s := &pdpServer{asked: make(chan struct{}, 1000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case at:
			io.WriteString(w, text(s.URL))
			s.asked <- struct{}{}
		case "/eval":
			io.WriteString(w, `{"decision":true}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestMistakes(t *testing.T) {
	_, err := valetauthzen.New(valetauthzen.Config{Timeout: time.Hour, MaxInFlight: -1, CacheTTL: time.Hour})
	for _, part := range []string{"valetauthzen: URL: required", "Timeout: 1h0m0s is not between 0 and 5s", "MaxInFlight: -1 is negative", "CacheTTL: 1h0m0s is not"} {
		assert.ErrorContains(t, err, part)
	}
	for url, want := range map[string]string{
		"http://pdp.example.com":       "is not https",
		"https://user:pw@pdp.example":  "without user",
		"https://pdp.example.com/?a=b": "without user, query",
		"pdp.example.com":              "is not a URL",
	} {
		_, err := valetauthzen.New(valetauthzen.Config{URL: url})
		assert.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "user:pw")
	}
	_, err = valetauthzen.New(valetauthzen.Config{URL: "http://pdp.example.com", InsecureHTTP: true})
	assert.NoError(t, err)
}
