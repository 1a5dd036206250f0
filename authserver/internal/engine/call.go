package engine

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// maxForm is the maximum size of a request's parameters in bytes: enough for the longest token that this module's verifiers
// accept, 16 KiB.
const maxForm = 32 << 10

// A call is a request in progress.
type call struct {
	apis    []model.API
	r       *http.Request
	path    string        // of the endpoint, for logs
	at      time.Time     // when it arrived
	form    url.Values    // non-empty parameters that were sent once; resource may be repeated
	client  *model.Client // nil: unknown
	proven  bool          // the client has authenticated itself, or is public
	holds   binding       // what its sender has proven to possess
	proof   *dpop.Proof   // the proof for holds.Key, not yet used up; nil: none
	until   time.Time     // the expiry of a token that the new one must not outlive; zero: none
	to      target        // where errors of an authorization request are sent, once that is known to be the client's
	browser string        // the secret in the cookie of an authorization request
}

func (e *Engine) newCall(r *http.Request) *call {
	return &call{apis: e.cfg.APIs, r: r, path: r.URL.Path, at: time.Now(), form: url.Values{}}
}

// authorizeCall returns a call for a request to an interaction, whose path contains the ID.
func (e *Engine) authorizeCall(r *http.Request) *call {
	c := e.newCall(r)
	c.path = e.cfg.path() + e.cfg.Paths.Authorize
	return c
}

// clientID returns the ID of a known client, or "unknown". IDs are logged, and users may send a secret in place of an ID.
func (c *call) clientID() string {
	if c.client == nil {
		return "unknown"
	}
	return c.client.ID
}

// sender returns the key under which failures of the call are counted.
func (c *call) sender() string {
	if c.client == nil {
		return login.Network(c.r.RemoteAddr)
	}
	return login.Network(c.r.RemoteAddr) + " " + c.client.ID
}

// writer returns the owner of the records that a call writes before any user has allowed it: the client if it has authenticated
// itself, otherwise the network that the call comes from, regardless of the clients it names. Anyone can name a public client
// or, if registration is open, any number of them.
func (c *call) writer() string {
	if c.proven && c.client != nil && !c.client.Public() {
		return c.sender()
	}
	return login.Network(c.r.RemoteAddr)
}

// readForm reads the body.
func (c *call) readForm(w http.ResponseWriter) error {
	if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return invalidRequest("the content type is not application/x-www-form-urlencoded")
	}
	r := c.r.Clone(c.r.Context()) // pages see the original request, whose form is not parsed
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	var long *http.MaxBytesError
	switch err := r.ParseForm(); {
	case errors.As(err, &long):
		return errTooLong
	case err != nil:
		return invalidRequest("the form is malformed")
	}
	// RFC 6749, section 2.3.1: credentials "MUST NOT be included in the request URI".
	if query := r.URL.Query(); query.Has("client_secret") || query.Has("client_assertion") {
		return invalidRequest("credentials are in the URL, where logs record them: change the secret")
	}
	return c.keep(r.PostForm)
}

// readQuery reads the parameters of the URL.
func (c *call) readQuery() error {
	if len(c.r.URL.RawQuery) > maxForm {
		return errTooLong
	}
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return invalidRequest("the query is malformed")
	}
	return c.keep(values)
}

// keep adopts the parameters (RFC 6749, sections 3.1 and 3.2).
func (c *call) keep(values url.Values) error {
	repeated := false
	for name, sent := range values {
		// "Request and response parameters MUST NOT be included more than once." Only these may be (RFC 8707, section 2; RFC 8693, section 2.1).
		if len(sent) > 1 && name != "resource" && name != "audience" {
			repeated = true
			continue // the error must not go to either of two redirect URIs
		}
		// "Parameters sent without a value MUST be treated as if they were omitted."
		sent = slices.DeleteFunc(slices.Clone(sent), func(v string) bool { return v == "" })
		if name == "resource" || name == "audience" {
			for i, resource := range sent {
				sent[i] = audienceOf(c.apis, resource)
			}
		}
		if len(sent) > 0 {
			c.form[name] = sent
		}
	}
	if repeated {
		return invalidRequest("a parameter is repeated")
	}
	return nil
}

// audienceOf returns the audience of the API that resource identifies, so that everything after it can compare exactly. It
// returns an unknown resource unchanged.
func audienceOf(apis []model.API, resource string) string {
	for _, a := range apis {
		if tokenclaims.SameResource(a.Audience, resource) {
			return a.Audience
		}
	}
	return resource
}

// accepts reports whether the Accept header contains the media type itself; "*/*" is not sufficient.
func accepts(r *http.Request, want string) bool {
	for _, list := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(list, ",") {
			if t, params, err := mime.ParseMediaType(one); err == nil && t == want && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}
