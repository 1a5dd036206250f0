package engine

import (
	"fmt"
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

// sendBack reports a refusal to the client through the browser (RFC 6749, section 4.1.2.1; RFC 9207, section 2).
func (e *Engine) sendBack(w http.ResponseWriter, c *call, told *refusal) {
	u, err := url.Parse(c.redirect)
	if err != nil {
		e.cfg.ErrorPage(w, c.r, told.status, told.code, told.description)
		return
	}
	inFragment := e.cfg.Implicit && c.form.Get("response_type") == "token" // RFC 6749, section 4.2.2.1
	q := url.Values{}
	if !inFragment {
		q = u.Query()
	}
	q.Set("error", told.code)
	q.Set("error_description", told.description)
	q.Set("iss", e.cfg.Issuer)
	if state := c.form.Get("state"); state != "" {
		q.Set("state", state)
	}
	to := u.String() + "#" + q.Encode()
	if !inFragment {
		u.RawQuery = q.Encode()
		to = u.String()
	}
	if e.leaves(w, c, to, told, nil) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusSeeOther) // RFC 9700, section 4.12
	}
}

// leaves reports whether the browser may be sent to the client with a refusal immediately. Otherwise it has written a response
// and set the cookies of the interaction.
func (e *Engine) leaves(w http.ResponseWriter, c *call, to string, told *refusal, cookies []string) bool {
	switch {
	case c.client != nil && c.client.Approved() || c.informed:
		return true
	case c.client == nil || e.cfg.Leave == nil:
		e.cfg.ErrorPage(w, c.page, told.status, told.code, told.description)
		return false
	}
	h := w.Header()
	before := h["Set-Cookie"]
	h["Set-Cookie"] = slices.Concat(before, cookies)
	leaves, err := e.cfg.Leave(w, c.page, &flow.Departure{Client: c.client, URL: to, Code: told.code, Description: told.description})
	if err != nil {
		told := e.explain(c, fmt.Errorf("ask the user: %w", err))
		e.cfg.ErrorPage(w, c.page, told.status, told.code, told.description)
	} else if leaves {
		h["Set-Cookie"] = before
	}
	return leaves && err == nil
}

// canonical returns the redirect URI in the form in which the library compares it.
func canonical(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return uri
	}
	return u.String()
}
