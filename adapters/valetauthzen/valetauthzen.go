// Package valetauthzen asks a policy server whether a token is sufficient for a request, by the AuthZEN Authorization API 1.0. Cerbos,
// Topaz, Keycloak and others speak it.
//
//	pdp, err := valetauthzen.New(valetauthzen.Config{URL: "https://pdp.example.com"})
//	...
//	defer pdp.Close()
//	guard.Handler(order, valetkey.AllOf{
//		scopes.All("orders:read"), // without it, the policy server is not asked
//		pdp.Require(valetauthzen.Rule{Action: "view", ResourceType: "order", ResourceID: "id"}),
//	})
//
// The policy server is asked for each request, because its answer may depend on anything. If it cannot be consulted, the client gets 503
// and never 403: no decision was made. The request to the server never contains the access token.
package valetauthzen

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/sony/gobreaker/v2"

	"github.com/valetkey/valetkey"
)

// Config configures a [Client]. URL is required.
type Config struct {
	_ struct{} // keyed literals only

	// URL identifies the policy decision point: https, or http on loopback, without query and fragment. The evaluation endpoints are
	// /access/v1/evaluation and /access/v1/evaluations below it (AuthZEN, sections 10.1.1 and 10.1.2), unless Discover is set.
	URL string

	// Discover reads the endpoints from the metadata of URL (AuthZEN, section 9), which must name URL as its policy_decision_point.
	// The first questions fail with 503 until it has been read; see [Client.Ready].
	Discover bool

	// Authorize adds the credentials of this server to a request, such as a header (AuthZEN, section 11.2). It must return before
	// the deadline of the request and must not put a secret into an error. Nil: none.
	Authorize func(r *http.Request) error

	// Question maps an access to the question, for a rule of a route. Nil: [DefaultQuestion].
	Question func(a valetkey.Access, rule Rule) (Question, error)

	// Timeout bounds one request, also if the context of the guarded request allows more. Zero: 100 ms; at most 5 s.
	Timeout time.Duration

	// MaxInFlight bounds the requests in flight. When it is reached, a question fails with 503 without waiting. Zero: 64.
	MaxInFlight int

	// CacheTTL is the time for which an answer, positive or negative, is used again for the same question: same subject, action,
	// resource and context. A policy that changes takes effect after at most this time. The default context contains no time, so a
	// policy about the time of day needs its own clock and a short CacheTTL. Zero: none, each request asks; at most 1 min.
	CacheTTL time.Duration

	// Client sends the requests. Redirects are never followed. Nil: a new client.
	Client *http.Client

	// InsecureHTTP allows http on hosts other than loopback. Anyone on the network path can then decide.
	InsecureHTTP bool

	// Logger logs when the server is no longer asked for a while, and when it is asked again. Nil: slog.Default().
	Logger *slog.Logger
}

// maxCached is the number of cached answers. Clients with a valid token fill the cache, with different resources. When it is full, the
// answer that was used least recently leaves, and its question is asked again.
const maxCached = 10_000

const (
	defaultTimeout   = 100 * time.Millisecond
	maxTimeout       = 5 * time.Second
	defaultInFlight  = 64
	maxAnswer        = 64 << 10 // bytes
	failuresToOpen   = 5        // in a row
	pause            = time.Second
	discoveryTimeout = 5 * time.Second
	discoveryRetry   = time.Second
)

// A Client asks one policy decision point. It is safe for concurrent use and must be closed.
type Client struct {
	cfg      Config
	base     *url.URL
	client   *http.Client
	breaker  *gobreaker.CircuitBreaker[[]bool]
	inFlight chan struct{}
	cache    *lru.Cache[[sha256.Size]byte, remembered] // nil: none

	ctx     context.Context // of discovery; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	endpoints   *endpoints // nil: not discovered yet
	discovering chan struct{}
	discovered  error     // of the last attempt
	next        time.Time // of the next attempt
}

// remembered is an answer in the cache.
type remembered struct {
	decision bool
	until    time.Time
}

// endpoints are the URLs of a policy decision point. evaluations is "" if it has none.
type endpoints struct{ evaluation, evaluations string }

// New returns a Client. It does no I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Client, error) {
	var mistakes []error
	wrong := func(field, format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetauthzen: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)}))
	}
	base, err := url.Parse(cfg.URL)
	switch {
	case cfg.URL == "":
		wrong("URL", "required")
	case err != nil || base.Host == "" || base.User != nil || strings.ContainsAny(cfg.URL, "?#"):
		wrong("URL", "is not a URL without user, query and fragment") // do not print it: it may contain a password
	case !allowed(base, cfg.InsecureHTTP):
		wrong("URL", "%q is not https; InsecureHTTP allows it", cfg.URL)
	}
	if cfg.Timeout < 0 || cfg.Timeout > maxTimeout {
		wrong("Timeout", "%v is not between 0 and %v", cfg.Timeout, maxTimeout)
	}
	if cfg.MaxInFlight < 0 {
		wrong("MaxInFlight", "%d is negative", cfg.MaxInFlight)
	}
	if cfg.CacheTTL < 0 || cfg.CacheTTL > time.Minute {
		wrong("CacheTTL", "%v is not between 0 and 1m", cfg.CacheTTL)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	if cfg.Question == nil {
		cfg.Question = DefaultQuestion
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	client := &http.Client{}
	if cfg.Client != nil {
		*client = *cfg.Client
	} else {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = cfg.MaxInFlight
		client.Transport = transport
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{cfg: cfg, base: base, client: client, inFlight: make(chan struct{}, cfg.MaxInFlight)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !cfg.Discover {
		at := strings.TrimSuffix(cfg.URL, "/") + "/access/v1/"
		c.endpoints = &endpoints{at + "evaluation", at + "evaluations"}
	}
	if cfg.CacheTTL > 0 {
		c.cache, _ = lru.New[[sha256.Size]byte, remembered](maxCached) // fails only for a size that is not positive
	}
	c.breaker = gobreaker.NewCircuitBreaker[[]bool](gobreaker.Settings{
		Name: cfg.URL, MaxRequests: 1, Timeout: pause,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= failuresToOpen },
		// A caller that has left proves nothing about the server. Neither does a question that the server answers by refusing it as
		// malformed or too large: a client chooses path values, and could otherwise stop the questions about all others.
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, errLeft) || errors.Is(err, errQuestion) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch to {
			case gobreaker.StateOpen:
				cfg.Logger.Warn("the policy server fails and is not asked for now", "url", cfg.URL, "retry_in", pause)
			case gobreaker.StateClosed:
				cfg.Logger.Info("the policy server answers again", "url", cfg.URL)
			}
		},
	})
	return c, nil
}

// Close ends discovery and waits for it. Later questions fail.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	if c.cfg.Client == nil {
		c.client.CloseIdleConnections()
	}
}

// allowed reports whether u is https, or http where that is allowed.
func allowed(u *url.URL, insecure bool) bool {
	if u.Scheme == "https" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (insecure || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// A Question asks whether a subject may perform an action on a resource (AuthZEN, section 6.1). It must never contain the access token.
type Question struct {
	Subject  Entity         `json:"subject"`
	Action   Action         `json:"action"`
	Resource Entity         `json:"resource"`
	Context  map[string]any `json:"context,omitempty"`
}

// An Entity is a subject or a resource (AuthZEN, sections 5.1 and 5.3). Type and ID are required.
type Entity struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties,omitempty"`
}

// An Action is what the subject wants to do (AuthZEN, section 5.2). Name is required.
type Action struct {
	Name       string         `json:"name"`
	Properties map[string]any `json:"properties,omitempty"`
}

// check returns an error if a member that the API requires is missing (AuthZEN, section 5), or if a text is not UTF-8: JSON cannot
// carry it, and its encoder would make one name of several. Path values of clients can be such texts.
func (q *Question) check() error {
	for _, m := range []struct{ name, value string }{
		{"subject.type", q.Subject.Type}, {"subject.id", q.Subject.ID}, {"action.name", q.Action.Name},
		{"resource.type", q.Resource.Type}, {"resource.id", q.Resource.ID},
	} {
		if m.value == "" {
			return fmt.Errorf("the question has no %s", m.name)
		}
		if !utf8.ValidString(m.value) {
			return errNotUTF8
		}
	}
	for _, properties := range []map[string]any{q.Subject.Properties, q.Action.Properties, q.Resource.Properties, q.Context} {
		for _, value := range properties {
			if text, ok := value.(string); ok && !utf8.ValidString(text) {
				return errNotUTF8
			}
		}
	}
	return nil
}

var errNotUTF8 = &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.NewReason("policy_text", "a part of the request is not UTF-8, so no policy can decide on it")}

// Evaluate returns the decision of the server. An error is a failure, usually a [*valetkey.Unavailable]: no decision was made.
func (c *Client) Evaluate(ctx context.Context, q Question) (bool, error) {
	all, err := c.evaluate(ctx, []Question{q}, false)
	if err != nil {
		return false, err
	}
	return all[0], nil
}

// EvaluateAll returns the decision for each question, in one request (AuthZEN, section 7). A question that the server does not answer is
// denied. It does not use the cache. Without questions it returns nil.
func (c *Client) EvaluateAll(ctx context.Context, questions []Question) ([]bool, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	return c.evaluate(ctx, questions, true)
}

func (c *Client) evaluate(ctx context.Context, questions []Question, batch bool) ([]bool, error) {
	for i := range questions {
		if err := questions[i].check(); err != nil {
			return nil, fmt.Errorf("valetauthzen: %w", err)
		}
	}
	var body []byte
	var err error
	if batch {
		body, err = json.Marshal(map[string]any{"evaluations": questions, "options": map[string]string{"evaluations_semantic": "execute_all"}})
	} else {
		body, err = json.Marshal(questions[0])
	}
	if err != nil {
		return nil, fmt.Errorf("valetauthzen: %w", err)
	}
	var key [sha256.Size]byte
	if c.cache != nil && !batch {
		key = sha256.Sum256(body)
		if r, ok := c.cache.Get(key); ok && time.Now().Before(r.until) {
			return []bool{r.decision}, nil
		}
	}
	asked := time.Now()
	to, err := c.locate()
	if err != nil {
		return nil, err
	}
	at := to.evaluation
	if batch {
		if at = to.evaluations; at == "" {
			return nil, errors.New("valetauthzen: the policy server has no access_evaluations_endpoint")
		}
	}
	select {
	case c.inFlight <- struct{}{}:
		defer func() { <-c.inFlight }()
	default:
		return nil, &valetkey.Unavailable{RetryAfter: pause, Err: errors.New("valetauthzen: too many questions are in flight")}
	}
	all, err := c.breaker.Execute(func() ([]bool, error) { return c.ask(ctx, at, body, len(questions), batch) })
	if err != nil {
		return nil, &valetkey.Unavailable{RetryAfter: pause, Err: fmt.Errorf("valetauthzen: %w", err)}
	}
	if c.cache != nil && !batch {
		c.cache.Add(key, remembered{all[0], asked.Add(c.cfg.CacheTTL)})
	}
	return all, nil
}

var (
	errLeft     = errors.New("the request that waited for the answer has ended")
	errQuestion = errors.New("the server does not accept the question")
)

// ask sends one request and reads the answer.
func (c *Client) ask(parent context.Context, at string, body []byte, n int, batch bool) (all []bool, err error) {
	ctx, cancel := context.WithTimeout(parent, c.cfg.Timeout)
	defer cancel()
	defer func() {
		if err != nil && parent.Err() != nil {
			err = errLeft
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	id := rand.Text()
	r.Header.Set("Content-Type", "application/json") // AuthZEN, section 10.1
	r.Header.Set("Accept", "application/json")
	r.Header.Set("X-Request-ID", id) // AuthZEN, section 10.1.3
	if c.cfg.Authorize != nil {
		if err := c.cfg.Authorize(r); err != nil {
			return nil, fmt.Errorf("Authorize: %w", err)
		}
	}
	resp, err := c.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("asking %s (X-Request-ID %s): %w", at, id, err)
	}
	defer resp.Body.Close()
	text, err := jsonBody(resp)
	if err == nil {
		if batch {
			all, err = readAll(text, n)
		} else {
			var decision bool
			decision, err = read(text)
			all = []bool{decision}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the answer of %s (X-Request-ID %s): %w", at, id, err)
	}
	return all, nil
}

// jsonBody returns the body of a response with status 200. Every other status is about the call and not a decision (AuthZEN, section
// 10.1.2).
func jsonBody(resp *http.Response) ([]byte, error) {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("status %d: %w", resp.StatusCode, errQuestion)
	default:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, fmt.Errorf("%.50q is not JSON", resp.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("has more than %d bytes", maxAnswer)
	}
	return text, nil
}

// read returns the decision in an evaluation response (AuthZEN, section 6.2).
func read(text []byte) (bool, error) {
	value, err := member(text, "decision")
	if err != nil {
		return false, err
	}
	switch string(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, errors.New("has no decision that is true or false")
	}
}

// readAll returns the decisions in an evaluations response (AuthZEN, section 7.2). A decision that is missing or unclear is a denial:
// the server reports errors of single questions so.
func readAll(text []byte, n int) ([]bool, error) {
	value, err := member(text, "evaluations")
	if err != nil {
		return nil, err
	}
	var answers []json.RawMessage
	if err := json.Unmarshal(value, &answers); err != nil || value == nil {
		return nil, errors.New("has no array of evaluations")
	}
	if len(answers) > n {
		return nil, fmt.Errorf("has %d evaluations for %d questions", len(answers), n)
	}
	all := make([]bool, n)
	for i, a := range answers {
		all[i], _ = read(a)
	}
	return all, nil
}

// member returns the value of a member of the JSON object text; nil if it has none. Unlike encoding/json, it compares names exactly and
// refuses a name that occurs twice.
func member(text []byte, name string) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	var found json.RawMessage
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errors.New("is not a JSON object")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("is not a JSON object")
		}
		if key == name {
			if found != nil {
				return nil, fmt.Errorf("has %s twice", name)
			}
			found = value
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has text after the JSON object")
	}
	return found, nil
}
