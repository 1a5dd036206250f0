package onbehalf

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/fetch"
)

// Transport returns a transport that sends requests to Config.Targets with a token for the user of the request being served, whose
// context the outgoing request must have. base sends them. Nil: that of Config.Client, whose certificate then also proves tokens that
// are bound to it.
//
// It sets Authorization, and DPoP with Config.DPoP, and removes both and Cookie first, so a reverse proxy that copies the headers of
// its client does not pass on that client's credentials. If they may be in other headers, remove them with
// [middleware.Guard.RemoveCredentials]. It sends no request to a URL that is not a target, and none that follows a
// redirect, because the target of a redirect is not configured. Set CheckRedirect of the http.Client to return
// http.ErrUseLastResponse in order to receive the redirect instead of an error.
//
// If the called service refuses the token with 401, it is not used again after it is 10 s old, and the response is returned. See
// [ChallengeOf] for a refusal that the client of this service can do something about.
func (c *Client) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
		if c.fetch.HTTP != nil && c.fetch.HTTP.Transport != nil {
			base = c.fetch.HTTP.Transport
		}
	}
	return &transport{c, base}
}

type transport struct {
	client *Client
	base   http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c := t.client
	err := c.allowed(r)
	var got *result
	if err == nil {
		got, err = c.get(r.Context())
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	resp, err := t.send(r, got)
	if err != nil {
		return nil, err
	}
	if c.proofs != nil && c.proofs.renewed(r.URL.String(), resp.Header) && resp.StatusCode == http.StatusUnauthorized &&
		asksForNonce(resp.Header) && (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil) {
		again := *r // RFC 9449, section 9: once more with the nonce
		if r.GetBody != nil {
			if again.Body, err = r.GetBody(); err != nil {
				return resp, nil
			}
		}
		io.CopyN(io.Discard, resp.Body, 4<<10)
		resp.Body.Close()
		if resp, err = t.send(&again, got); err != nil {
			return nil, err
		}
		c.proofs.renewed(r.URL.String(), resp.Header)
	}
	if resp.StatusCode == http.StatusUnauthorized && c.cfg.Dialect != InsecureForward {
		if held, err := c.input(r.Context()); err == nil {
			c.table.reject(c.keyOf(held))
		}
	}
	return resp, nil
}

// send sends r with a token. It does not change r.
func (t *transport) send(r *http.Request, got *result) (*http.Response, error) {
	out := *r
	out.Header = r.Header.Clone()
	if out.Header == nil {
		out.Header = http.Header{}
	}
	out.Header.Del("Cookie")
	out.Header.Del("DPoP")
	out.Header["Authorization"] = []string{got.scheme + " " + got.text}
	if got.scheme == authheader.DPoP {
		if err := t.client.proofs.add(out.Header, r.Method, r.URL.String(), got.text); err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
	}
	return t.base.RoundTrip(&out)
}

// allowed returns nil if r may carry a token.
func (c *Client) allowed(r *http.Request) error {
	switch {
	case len(c.targets) == 0:
		return errors.New("onbehalf: Targets: required for Transport")
	case r.URL == nil:
		return errors.New("onbehalf: the request has no URL")
	case r.Response != nil:
		return fmt.Errorf("onbehalf: a redirect to %s is not followed with a token", origin(r.URL))
	case r.Host != "" && !strings.EqualFold(r.Host, r.URL.Host): // it would reach another virtual host than the URL names
		return fmt.Errorf("onbehalf: the request has the Host %.100q, and its URL is of %s", r.Host, origin(r.URL))
	}
	for _, t := range c.targets {
		if fetch.SameOrigin(t, r.URL) && below(t.Path, r.URL.Path) {
			return nil
		}
	}
	return fmt.Errorf("onbehalf: %s is not in Targets, so it gets no token", fetch.Bare(r.URL.String()))
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// target parses one of Config.Targets.
func target(text string, client fetch.Client) (*url.URL, error) {
	if err := client.Allowed(text); err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("has a query or a fragment")
	case !below("", u.Path):
		return nil, errors.New("has a path with a dot segment")
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

// below reports whether path begins with the segments of base, which has no slash at its end. A path with dot segments, which some
// servers resolve, is below nothing.
func below(base, path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	rest, ok := strings.CutPrefix(path, base)
	return ok && (rest == "" || rest[0] == '/' || base == "")
}

// asksForNonce reports whether a 401 asks for a proof with a nonce (RFC 9449, section 9).
func asksForNonce(header http.Header) bool {
	return challenge(header, func(c authheader.Challenge) bool {
		return strings.EqualFold(c.Scheme, authheader.DPoP) && c.Params["error"] == string(valetkey.UseNonce)
	}) != nil
}

// challenge returns the first challenge for which match returns true, or nil. It skips malformed lines.
func challenge(header http.Header, match func(authheader.Challenge) bool) map[string]string {
	for _, line := range header.Values("WWW-Authenticate") {
		all, _ := authheader.Challenges(line)
		for _, c := range all {
			if match(c) {
				return c.Params
			}
		}
	}
	return nil
}

// ChallengeOf returns the refusal in a response of the called service that the client of this service can do something about, for
// [WriteError]: the user must log in again or in another way (RFC 9470), or get a token with more claims (Microsoft Entra ID). For any
// other response it returns nil: a 401 or 403 about scopes or validity concerns the token of this service, which the client of this
// service never sees.
func ChallengeOf(resp *http.Response) error {
	if resp.StatusCode != http.StatusUnauthorized {
		return nil
	}
	params := challenge(resp.Header, func(c authheader.Challenge) bool {
		code := valetkey.Code(c.Params["error"])
		return code == valetkey.InsufficientUserAuthentication || code == valetkey.InsufficientClaims
	})
	if params == nil {
		return nil
	}
	e := &valetkey.Error{Code: valetkey.Code(params["error"]), Reason: ReasonInteraction, Err: errors.New("onbehalf: the called service requires it")}
	if e.Code == valetkey.InsufficientClaims {
		if claims, err := base64.StdEncoding.DecodeString(params["claims"]); err == nil && isObject(string(claims)) {
			e.Claims = string(claims)
		}
		return e
	}
	e.StepUp = &valetkey.StepUp{ACRValues: strings.Fields(params["acr_values"])}
	if n, err := strconv.ParseUint(params["max_age"], 10, 31); err == nil {
		age := time.Duration(n) * time.Second
		e.StepUp.MaxAge = &age
	}
	return e
}
