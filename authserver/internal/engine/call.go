package engine

import (
	"context"
	"errors"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/recorder"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// maxForm is the maximum size of a request's parameters in bytes: enough for the longest token that this module's verifiers
// accept, 16 KiB.
const maxForm = 32 << 10

// A call is a request in progress through the engine and the library, whose hooks find it in the context.
type call struct {
	apis       []model.API
	r          *http.Request
	page       *http.Request       // the version of r that pages see
	path       string              // of the endpoint, for logs
	at         time.Time           // when it arrived
	form       url.Values          // non-empty parameters that were sent once; resource may be repeated
	client     *clients.Client     // nil: unknown
	proven     bool                // the client has authenticated itself, or is public
	redirect   string              // the redirect URI, once it is known to be the client's; errors are sent there
	pushed     string              // the ID of a pushed request, which is that of its session
	last       func()              // makes the call continue if its sender aborts it; nil: it does not
	keeps      bool                // the response can be requested again, and is kept
	informed   bool                // the user has decided, and knows where the redirect leads
	browser    string              // the secret in its cookie
	holds      binding             // what its sender has proven to possess
	proof      *dpop.Proof         // the proof for holds.key, not yet used up; nil: none
	until      time.Time           // the expiry of a token that the new one must not outlive; zero: none
	said       string              // Decision.Said
	hasDecided bool                // whether that decision has been applied
	decided    *goidc.AuthnSession // whose response is to be kept; nil: none
	granted    *Event              // what the user has granted
	token      *goidc.Token        // the token that was made
	failed     error               // the error of the library or one of its hooks
	outage     error               // a store failure, or our own refusal, that the library would report as another refusal
}

type callKey struct{}

// callOf returns the call that a hook belongs to.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

func (e *Engine) newCall(r *http.Request) *call {
	return &call{apis: e.cfg.APIs, r: r, page: r, path: r.URL.Path, at: time.Now(), form: url.Values{}}
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

// run lets the library handle a request to one of its paths, with these parameters only, and records the response.
func (e *Engine) run(c *call, method, path string, form url.Values) *recorded {
	r := c.r.Clone(context.WithValue(c.r.Context(), callKey{}, c))
	r.Method, r.URL, r.RequestURI, r.Body = method, &url.URL{Path: path}, path, http.NoBody
	r.Header.Del("Authorization")
	if method == http.MethodGet {
		r.URL.RawQuery, r.Form, r.PostForm = form.Encode(), nil, nil
	} else {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Form, r.PostForm = form, form
	}
	rec := new(recorded)
	e.library.ServeHTTP(rec, r)
	rec.Header().Del("Cache-Control") // set by the engine instead
	rec.Header().Del("Pragma")
	return rec
}

// pick returns a form by which the library recognizes an authenticated client, together with the named parameters of the call.
func (c *call) pick(names ...string) url.Values {
	form := url.Values{"client_id": {c.client.ID}}
	if !c.client.Public() {
		form.Set("client_secret", "checked")
	}
	for _, name := range names {
		if v := c.form[name]; v != nil {
			form[name] = v
		}
	}
	return form
}

// recorded is a response of the library. The engine decides later what to send.
type recorded struct{ recorder.Response }

// send sends the recorded response.
func (r *recorded) send(w http.ResponseWriter) {
	cookies := w.Header()["Set-Cookie"]
	maps.Copy(w.Header(), r.Header())
	if all := append(cookies, r.Header()["Set-Cookie"]...); len(all) > 0 {
		w.Header()["Set-Cookie"] = all
	}
	w.WriteHeader(r.Status)
	w.Write(r.Body.Bytes())
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
