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
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/recorder"
)

// maxForm is the most bytes of a request's parameters: room for the longest token that the module's verifiers look at, 16 KiB.
const maxForm = 32 << 10

// A call is a request on its way through the engine and the library, whose hooks find it in the context.
type call struct {
	r          *http.Request
	page       *http.Request       // what the pages are shown of r
	path       string              // of the endpoint, for logs
	at         time.Time           // when it came
	form       url.Values          // of the parameters that were sent once and not empty; resource may come several times
	client     *clients.Client     // nil: not known
	proven     bool                // the client has authenticated itself, or has no way to
	redirect   string              // the redirect URI, once it is known to be the client's; errors go there
	pushed     string              // the id of a pushed request, which is that of its session
	last       func()              // makes the call go on if its sender breaks it off; nil: it does not
	keeps      bool                // the answer can be asked for again, and is kept
	informed   bool                // the user has decided so, and knows where the redirect leads
	browser    string              // the secret of its cookie
	holds      binding             // what its sender has proven to hold
	proof      *dpop.Proof         // of holds.key, still to be used up; nil: there is none
	until      time.Time           // the end of a token that the new one must not outlive; zero: there is none
	said       string              // Decision.Said
	hasDecided bool                // whether or not that has counted
	decided    *goidc.AuthnSession // whose answer is to be kept; nil: none is
	granted    *Event              // what the user has granted
	token      *goidc.Token        // that was made
	failed     error               // what the library, or a hook of it, has failed with
	outage     error               // a failure of the store, or a refusal of ours, that the library would take for another refusal
}

type callKey struct{}

// callOf returns the call that a hook is part of.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

func newCall(r *http.Request) *call {
	return &call{r: r, page: r, path: r.URL.Path, at: time.Now(), form: url.Values{}}
}

// clientID returns the id of a client that is known: people mistake a secret for an id, and ids are logged.
func (c *call) clientID() string {
	if c.client == nil {
		return "unknown"
	}
	return c.client.ID
}

// sender is who the call is counted for.
func (c *call) sender() string {
	if c.client == nil {
		return login.Network(c.r.RemoteAddr)
	}
	return login.Network(c.r.RemoteAddr) + " " + c.client.ID
}

// writer is who the records are counted for that a call writes before anybody has allowed it anything: a client that has
// authenticated itself, or else the network that it comes from, whatever clients it names. Anyone can name a public client,
// and where registration is open, as many as there are.
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
	r := c.r.Clone(c.r.Context()) // whose form is parsed here, and not that of the request that pages see
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
		return invalidRequest("credentials stand in the URL, where logs keep them: change the secret")
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

// keep takes the parameters over. RFC 6749, sections 3.1 and 3.2.
func (c *call) keep(values url.Values) error {
	repeated := false
	for name, sent := range values {
		// "Request and response parameters MUST NOT be included more than once." Only these may be (RFC 8707, section 2; RFC 8693, section 2.1).
		if len(sent) > 1 && name != "resource" && name != "audience" {
			repeated = true
			continue // for the error must not go to either of two redirect URIs
		}
		// "Parameters sent without a value MUST be treated as if they were omitted."
		sent = slices.DeleteFunc(slices.Clone(sent), func(v string) bool { return v == "" })
		if len(sent) > 0 {
			c.form[name] = sent
		}
	}
	if repeated {
		return invalidRequest("a parameter is repeated")
	}
	return nil
}

// run lets the library answer a request to one of its paths, with these parameters and no others, into a recorded response.
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
	rec.Header().Del("Cache-Control") // which is ours to say
	rec.Header().Del("Pragma")
	return rec
}

// pick returns a form with which the library recognises a client that has authenticated itself, and the parameters
// of the call with these names.
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

// recorded is a response of the library's: what is sent is decided afterwards.
type recorded struct{ recorder.Response }

// send sends what was kept.
func (r *recorded) send(w http.ResponseWriter) {
	cookies := w.Header()["Set-Cookie"]
	maps.Copy(w.Header(), r.Header())
	if all := append(cookies, r.Header()["Set-Cookie"]...); len(all) > 0 {
		w.Header()["Set-Cookie"] = all
	}
	w.WriteHeader(r.Status)
	w.Write(r.Body.Bytes())
}

// accepts reports whether the Accept header names the media type, which "*/*" does not.
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
