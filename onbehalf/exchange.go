package onbehalf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/heldtoken"
	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
	assertionGrant  = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
)

// get returns a token for calls to the target.
func (c *Client) get(ctx context.Context) (*result, error) {
	held, err := c.input(ctx)
	if err != nil {
		return nil, err
	}
	if c.cfg.Dialect == InsecureForward {
		return c.forward(held)
	}
	k, who := c.keyOf(held), ""
	if r := c.table.find(k); r != nil {
		return r, r.err
	}
	var input *valetkey.Token
	if held != nil {
		input = held.Facts()
		held.Attach(c.dependent)
		who = input.Issuer() + "\x00" + input.Subject() + "\x00" + input.ClientID()
	}
	r, p, err := c.table.join(k, who, input, func(p *pending) {
		c.running.Go(func() { c.table.land(p, k, who, c.obtain(held)) })
	})
	switch {
	case err != nil:
		return nil, err
	case r != nil:
		return r, r.err
	}
	defer c.table.leave(who)
	select {
	case <-p.Done():
	case <-ctx.Done():
		return nil, fmt.Errorf("onbehalf: waiting for a token: %w", context.Cause(ctx))
	}
	if p.Result.err != nil {
		return nil, p.Result.err
	}
	if held != nil {
		if err := held.Still(); err != nil { // revoked meanwhile
			return nil, err
		}
	}
	return &p.Result, nil
}

var errNoInput = errors.New("onbehalf: the context carries no token: it must be that of a request which a guard with OnBehalf has accepted with a token, without a guard after it")

// input returns the token to exchange, nil with ClientCredentials. It is still acceptable, and meant for this service.
func (c *Client) input(ctx context.Context) (*heldtoken.Token, error) {
	if c.cfg.Dialect == ClientCredentials {
		return nil, nil
	}
	held := heldtoken.FromContext(ctx)
	if held == nil {
		return nil, &Error{Err: errNoInput}
	}
	t := held.Facts()
	if !slices.Contains(c.cfg.InputIssuers, t.Issuer()) && !slices.Contains(c.cfg.InputIssuers, AnyIssuer) {
		return nil, notExchangeable("its issuer %.100q is not in InputIssuers", t.Issuer())
	}
	if !contains(t.Audience(), c.cfg.InputAudience) {
		return nil, notExchangeable("its audience has none of InputAudience")
	}
	return held, held.Still()
}

func contains(audience valetkey.List[string], names []string) bool {
	for aud := range audience.All() {
		if slices.Contains(names, aud) {
			return true
		}
	}
	return false
}

// forward returns the incoming token itself.
func (c *Client) forward(held *heldtoken.Token) (*result, error) {
	t := held.Facts()
	switch {
	case !t.Binding().IsZero():
		return nil, notExchangeable("it is bound to a key or a certificate, so it cannot be forwarded")
	case !contains(t.Audience(), c.cfg.Audience):
		return nil, notExchangeable("its audience has none of Audience, so it is not for the called service")
	}
	return &result{text: held.Text(), scheme: authheader.Bearer, expiry: t.Expiry()}, nil
}

func (c *Client) keyOf(held *heldtoken.Token) key {
	k := key{what: c.what}
	if held != nil {
		k.input = digest.Of(held.Text())
	}
	return k
}

// Times for which an error is remembered for its input, so that a client that repeats its request does not make this service repeat
// its own.
const (
	refusedFor = 5 * time.Second
	failedFor  = time.Second
	mostDelay  = time.Minute
)

// obtain gets a token, detached from the callers that wait for it.
func (c *Client) obtain(held *heldtoken.Token) result {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout)
	defer cancel()
	begun := c.cfg.Now()
	r, err := c.exchange(ctx, held, begun)
	if held != nil {
		r.input = held.Facts()
	}
	if err == nil {
		return r
	}
	r.until = begun.Add(refusedFor)
	var refusal *valetkey.Error
	var own *Error
	switch {
	case errors.As(err, &refusal):
	case errors.As(err, &own):
		if c.complaint.Permit() > 0 {
			c.cfg.Logger.Error("onbehalf: the authorization server rejects this service; is its configuration right?",
				"issuer", c.cfg.Issuer, "token_url", fetch.Bare(c.cfg.TokenURL), "error", err)
		}
	default:
		wait := failedFor
		var failed *fetch.Error
		if errors.As(err, &failed) {
			wait = min(max(wait, failed.RetryAfter), mostDelay)
		}
		r.until = c.cfg.Now().Add(wait)
		err = &valetkey.Unavailable{RetryAfter: wait, Err: err}
	}
	r.err = err
	return r
}

// exchange sends a request to the token endpoint.
func (c *Client) exchange(ctx context.Context, held *heldtoken.Token, begun time.Time) (result, error) {
	endpoint, err := c.locate(ctx)
	if err != nil {
		return result{}, fmt.Errorf("onbehalf: finding the token endpoint: %w", err)
	}
	form := url.Values{}
	if err := c.ask(ctx, form, held); err != nil {
		return result{}, err
	}
	var reply *fetch.Reply
	for attempt := range 2 {
		header := http.Header{}
		call := clientauth.Call{Form: form, Header: header, Audience: cmp.Or(c.cfg.Issuer, endpoint), Now: begun}
		if err := clientauth.Add(ctx, c.cfg.Auth, call); err != nil {
			return result{}, &Error{Err: fmt.Errorf("onbehalf: authenticating: %w", err)}
		}
		if c.proofs != nil {
			if err := c.proofs.add(header, http.MethodPost, endpoint, ""); err != nil {
				return result{}, &Error{Err: err}
			}
		}
		if reply, err = c.fetch.Submit(ctx, endpoint, form, header); err != nil {
			c.endpoint.failed(err)
			return result{}, fmt.Errorf("onbehalf: %w", err)
		}
		if c.proofs == nil || !c.proofs.renewed(endpoint, reply.Header) || reply.Status == http.StatusOK || attempt > 0 || codeOf(reply.Body) != "use_dpop_nonce" {
			break // RFC 9449, section 8: once more with the nonce
		}
	}
	if reply.Status != http.StatusOK {
		return result{}, c.refused(reply, held)
	}
	return c.read(reply.Body, held, begun)
}

// ask sets the parameters of the request.
func (c *Client) ask(ctx context.Context, form url.Values, held *heldtoken.Token) error {
	if len(c.cfg.Scope) > 0 {
		form.Set("scope", strings.Join(c.cfg.Scope, " "))
	}
	if c.cfg.Dialect == EntraOBO {
		form.Set("grant_type", assertionGrant)
		form.Set("requested_token_use", "on_behalf_of")
		form.Set("assertion", held.Text())
		return nil
	}
	for name, list := range map[string][]string{"audience": c.cfg.Audience, "resource": c.cfg.Resource} {
		if len(list) > 0 {
			form[name] = list
		}
	}
	if c.cfg.Dialect == ClientCredentials {
		form.Set("grant_type", "client_credentials")
		return nil
	}
	form.Set("grant_type", exchangeGrant) // RFC 8693, section 2.1
	form.Set("subject_token", held.Text())
	form.Set("subject_token_type", accessTokenType)
	form.Set("requested_token_type", accessTokenType)
	if c.cfg.ActorToken == nil {
		return nil
	}
	actor, err := c.cfg.ActorToken(ctx)
	switch {
	case errors.As(err, new(*valetkey.Unavailable)):
		return fmt.Errorf("onbehalf: ActorToken: %w", err)
	case err != nil:
		// %v hides the wrapped error: it is about this service and must not pass for a refusal of the user.
		return &Error{Err: fmt.Errorf("onbehalf: ActorToken: %v", err)}
	case actor == "":
		return &Error{Err: errors.New("onbehalf: ActorToken returned an empty token")}
	}
	form.Set("actor_token", actor)
	form.Set("actor_token_type", accessTokenType)
	return nil
}

// read reads a successful response (RFC 6749, section 5.1; RFC 8693, section 2.2.1).
func (c *Client) read(body []byte, held *heldtoken.Token, begun time.Time) (result, error) {
	var text, kind, issued string
	var life float64
	err := strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "access_token":
			text, _ = v.Text()
		case "token_type":
			kind, _ = v.Text()
		case "issued_token_type":
			issued, _ = v.Text()
		case "expires_in":
			life, _ = v.Number()
			if s, is := v.Text(); is { // some servers quote it
				life, _ = strconv.ParseFloat(s, 64)
			}
		}
		return nil
	})
	r := result{text: text, scheme: authheader.Bearer}
	switch {
	case err != nil:
		return result{}, fmt.Errorf("onbehalf: the response of the token endpoint: %w", err)
	case !authheader.IsToken(text):
		return result{}, &Error{Err: errors.New("onbehalf: the response has no access_token that a header can carry")}
	case len(text) > authheader.MaxTokenLimit:
		return result{}, &Error{Err: fmt.Errorf("onbehalf: the access_token has %d bytes, at most %d are accepted", len(text), authheader.MaxTokenLimit)}
	case c.cfg.Dialect == RFC8693 && issued != accessTokenType:
		return result{}, &Error{Err: fmt.Errorf("onbehalf: the response has the issued_token_type %.100q, requested %q", issued, accessTokenType)}
	case c.proofs != nil && strings.EqualFold(kind, authheader.DPoP):
		r.scheme = authheader.DPoP
	case c.proofs != nil:
		return result{}, &Error{Err: fmt.Errorf("onbehalf: the token has the token_type %.40q, but DPoP requires one that is bound to the key", kind)}
	case !strings.EqualFold(kind, authheader.Bearer): // N_A, DPoP, PoP ...
		return result{}, &Error{Err: fmt.Errorf("onbehalf: the token has the token_type %.40q and must not be sent as a bearer token; DPoP: set Config.DPoP", kind)}
	}
	if !(life > 0) {
		return r, nil // it may end at any time, so it is for the calls that wait now
	}
	lives := time.Duration(min(life, longest.Seconds()) * float64(time.Second))
	r.expiry = begun.Add(time.Duration(min(life, 100*365*24*3600) * float64(time.Second)))
	r.until = begun.Add(lives - min(margin, lives/10))
	if held != nil {
		if end := held.Facts().Expiry(); !end.IsZero() && end.Before(r.until) {
			r.until = end
		}
	}
	return r, nil
}

// An endpoint is the URL of the token endpoint, which is looked up once and again after the endpoint did not answer.
type endpoint struct {
	mu      sync.Mutex // never held during I/O
	url     string     // "": not yet known, or to be looked up again
	last    string     // the one before; "": none
	looking *lookup    // nil: none in progress
	again   time.Time  // not looked up again before
}

type lookup struct {
	done chan struct{} // closed once the fields below are final
	url  string
	err  error
}

// relocateEvery bounds how often a known URL is looked up again.
const relocateEvery = 15 * time.Second

// failed notes that the endpoint did not answer, since it may have moved.
func (e *endpoint) failed(err error) {
	var failed *fetch.Error
	if errors.As(err, &failed) && (failed.Status == http.StatusServiceUnavailable || failed.Status == http.StatusTooManyRequests) {
		return // it is there
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); !now.Before(e.again) && e.url != "" {
		e.last, e.url, e.again = e.url, "", now.Add(relocateEvery)
	}
}

// locate returns the URL of the token endpoint. Concurrent callers share one look-up.
func (c *Client) locate(ctx context.Context) (string, error) {
	if c.cfg.TokenURL != "" {
		return c.cfg.TokenURL, nil
	}
	e := &c.endpoint
	e.mu.Lock()
	if e.url != "" {
		defer e.mu.Unlock()
		return e.url, nil
	}
	look := e.looking
	if look == nil {
		look = &lookup{done: make(chan struct{})}
		e.looking = look
		c.running.Go(func() { c.discover(look) }) // Close still waits for the caller, so the group is not empty
	}
	e.mu.Unlock()
	select {
	case <-look.done:
		return look.url, look.err
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the issuer's metadata: %w", context.Cause(ctx))
	}
}

func (c *Client) discover(look *lookup) {
	look.url, look.err = c.fetch.Discover(c.ctx, c.cfg.Issuer, "token_endpoint")
	e := &c.endpoint
	e.mu.Lock()
	if look.err != nil && e.last != "" { // the metadata is not available, and the endpoint may not have moved
		look.url, look.err = e.last, nil
	}
	if look.err == nil {
		e.url = look.url
	}
	e.looking = nil
	e.mu.Unlock()
	close(look.done)
}
