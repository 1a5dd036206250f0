package engine

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
)

// registered reports whether the redirect URI is one of the client's. It is compared as a string (RFC 9700, section 2.1). Only
// the port may differ, for a native application on loopback (RFC 8252, section 7.3).
func registered(c *clients.Client, uri string) bool {
	if clients.ValidRedirectURI(uri, c.Native, c.PrivateUse...) != nil {
		return false
	}
	if slices.Contains(c.RedirectURIs, uri) {
		return true
	}
	host, rest, ok := loopback(uri)
	return c.Native && ok && slices.ContainsFunc(c.RedirectURIs, func(r string) bool {
		h, rst, ok := loopback(r)
		return ok && h == host && rst == rest
	})
}

// loopback splits an http URI of this machine into host and rest, without the port. The name localhost is as safe as an address:
// anyone who can change its meaning controls the machine.
func loopback(uri string) (host, rest string, ok bool) {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]", "http://localhost"} {
		rest, ok := strings.CutPrefix(uri, host)
		if !ok {
			continue
		}
		if port, ok := strings.CutPrefix(rest, ":"); ok {
			rest = strings.TrimLeft(port, "0123456789")
			if digits := len(port) - len(rest); digits < 1 || digits > 5 {
				return "", "", false
			}
		}
		return host, rest, rest == "" || rest[0] == '/' || rest[0] == '?'
	}
	return "", "", false
}

// A target is where the response to an authorization request is sent. Zero: nowhere, so that errors are shown to the user.
type target struct {
	uri, state string
	fragment   bool // RFC 6749, section 4.2.2
}

func (e *Engine) target(q *request) target {
	return target{q.RedirectURI, q.State, e.cfg.Implicit && q.ResponseType == "token"}
}

// with returns the redirect with the parameters of a response (RFC 6749, section 4.1.2; RFC 9207, section 2).
func (t target) with(issuer string, response url.Values) string {
	u, err := url.Parse(t.uri)
	if err != nil { // it is registered
		return t.uri
	}
	q := url.Values{}
	if !t.fragment {
		q = u.Query()
	}
	for name, v := range response {
		q[name] = v
	}
	q.Set("iss", issuer)
	if t.state != "" {
		q.Set("state", t.state)
	}
	if t.fragment {
		return u.String() + "#" + q.Encode()
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// fail returns the step for an error: to the client if its redirect URI is known, otherwise to the user.
func (e *Engine) fail(c *call, err error) flow.Step {
	told := e.explain(c, err)
	if c.to == (target{}) || told == errOutage {
		return flow.Step{Failure: &flow.Failure{Status: told.status, Code: told.code, Description: told.description}}
	}
	return depart(c, c.to.with(e.cfg.Issuer, told.params()), told, false)
}

// Fail logs an outage of the pages and returns the step that reports it.
func (e *Engine) Fail(r *http.Request, err error) flow.Step { return e.fail(e.authorizeCall(r), err) }

// depart returns the step for a redirect to the client with a refusal. informed reports whether the user knows where it leads.
func depart(c *call, to string, told *refusal, informed bool) flow.Step {
	if c.client.Approved() || informed {
		return flow.Step{Location: to}
	}
	return flow.Step{Depart: &flow.Departure{Client: c.client, URL: to, Code: told.code, Description: told.description}}
}

// cookie returns the cookie that ties an interaction to the browser that began it. Otherwise a user could be made to finish a
// request of another person, and thus log in as, or consent for, that person (RFC 9700, section 4.7).
func (e *Engine) cookie(value string) *http.Cookie {
	secure := strings.HasPrefix(e.cfg.Issuer, "https:")
	name := "authorization"
	if secure {
		name = "__Host-authorization"
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// browser returns the secret in the browser's cookie, or "".
func (e *Engine) browser(r *http.Request) string {
	cookie, err := r.Cookie(e.cookie("").Name)
	if err != nil || !isSecret(cookie.Value) {
		return ""
	}
	return cookie.Value
}
