package flow

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// A Step is what the server does next for the browser that has sent an authorization request. Apart from Cookie, one field is
// set.
type Step struct {
	Ask      *Interaction // ask the user, then call Finish
	Answered *Ended       // it was answered before: read the request, then call Repeat
	Depart   *Departure   // redirect to its URL if Leave permits it
	Location string       // redirect there
	Ended    *Ended       // show that the interaction has ended; without a page for that, the Failure
	Failure  *Failure     // show an error

	Cookie *http.Cookie // to set
}

// A Failure is an error that is shown to the user. The Description is fixed text.
type Failure struct {
	Status            int
	Code, Description string
}

// An Engine decides about authorization requests. It writes nothing: each method returns the next step.
type Engine interface {
	// Authorize validates a request to the authorization endpoint. Continue returns the interaction that a request to a
	// ContinueURL belongs to, with the ID as path value "interaction".
	Authorize(r *http.Request) Step
	Continue(r *http.Request) Step

	// Finish applies the decision of the user of an interaction. The sender of r cannot abort it.
	Finish(r *http.Request, in *Interaction, d *Decision) Step

	// Repeat returns the response of an interaction that was answered before, if the request has the same content; nil: it
	// has none.
	Repeat(r *http.Request, over *Ended, said *string) Step

	// Fail logs an outage and returns the step that reports it.
	Fail(r *http.Request, err error) Step
}

// Pages are what users see. Each function but Interact may be nil.
type Pages struct {
	Interact Interact // nil: every request is denied
	Leave    Leave    // nil: users see the error and are not sent to the client

	// Said returns a representation of the content of a request to an interaction. Two requests with the same representation are
	// equal, and the second one gets the response of the first one, so it must include the user's log-in. The error is ErrForm
	// for a form that is not valid, and an outage otherwise. Nil: no response is repeated.
	Said func(*http.Request) (string, error)

	// Ended shows that an interaction has ended, and the way back. Nil: ErrorPage.
	Ended func(w http.ResponseWriter, r *http.Request, over *Ended)

	// ErrorPage shows a user an error that cannot be returned to an application. It sets the status. Nil: plain text.
	ErrorPage func(w http.ResponseWriter, r *http.Request, status int, code, description string)
}

// A Front serves the authorization endpoint: it asks the engine for each step and carries it out, with the pages.
type Front struct {
	Engine Engine
	Pages  Pages
}

// Routes registers the authorization endpoint at a path below that of the issuer, and its interactions below it. The endpoint is
// also served at /oauth2/code, for clients of servers with that name for it.
func (f Front) Routes(mux *http.ServeMux, issuer, path string) {
	for _, at := range slices.Compact([]string{path, "/oauth2/code"}) {
		mux.HandleFunc("GET "+issuer+at, f.authorize)
		mux.HandleFunc("POST "+issuer+at, f.authorize) // RFC 6749, section 3.1
	}
	mux.HandleFunc("GET "+issuer+path+"/{interaction}", f.resume)
	mux.HandleFunc("POST "+issuer+path+"/{interaction}", f.resume)
}

func (f Front) authorize(w http.ResponseWriter, r *http.Request) {
	step := f.Engine.Authorize(r)
	// Parameters of an application's request must not be taken for an answer of the user, whatever their names.
	page := r.Clone(r.Context())
	page.Method, page.Body, page.URL.RawQuery, page.Form, page.PostForm = http.MethodGet, http.NoBody, "", nil, nil
	f.carry(w, page, step)
}

func (f Front) resume(w http.ResponseWriter, r *http.Request) { f.carry(w, r, f.Engine.Continue(r)) }

// carry carries out a step and those that follow from it.
func (f Front) carry(w http.ResponseWriter, r *http.Request, step Step) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // RFC 9700, section 4.2.4
	h.Set("X-Frame-Options", "DENY")        // RFC 6749, section 10.13
	h.Set("Content-Security-Policy", "frame-ancestors 'none'")
	if step.Cookie != nil {
		http.SetCookie(w, step.Cookie)
	}
	var d *Decision
	if in := step.Ask; in != nil {
		var err error
		if d, err = f.ask(w, r, in); err != nil {
			step = f.Engine.Fail(r, fmt.Errorf("ask the user: %w", err))
		} else if d == nil {
			return
		} else {
			step = f.Engine.Finish(r, in, d)
		}
	}
	if over := step.Answered; over != nil {
		step = f.repeat(r, over, d)
	}
	if to := step.Depart; to != nil {
		if step = f.leave(w, r, to); step == (Step{}) {
			return
		}
	}
	switch {
	case step.Location != "":
		h.Set("Location", step.Location)
		w.WriteHeader(http.StatusSeeOther) // RFC 9700, section 4.12
	case step.Ended != nil && f.Pages.Ended != nil:
		f.Pages.Ended(w, r, step.Ended)
	case f.Pages.ErrorPage != nil:
		f.Pages.ErrorPage(w, r, step.Failure.Status, step.Failure.Code, step.Failure.Description)
	default:
		http.Error(w, step.Failure.Code+": "+step.Failure.Description, step.Failure.Status)
	}
}

func (f Front) ask(w http.ResponseWriter, r *http.Request, in *Interaction) (*Decision, error) {
	if f.Pages.Interact == nil {
		return &Decision{Denied: true}, nil
	}
	return f.Pages.Interact(w, r, in)
}

// repeat returns the step for a request to an interaction that was answered before; d is its decision, if it has come that far.
func (f Front) repeat(r *http.Request, over *Ended, d *Decision) Step {
	if f.Pages.Said == nil {
		return f.Engine.Repeat(r, over, nil)
	}
	if d != nil {
		return f.Engine.Repeat(r, over, &d.Said)
	}
	said, err := f.Pages.Said(r)
	switch {
	case errors.Is(err, ErrForm):
		return f.Engine.Repeat(r, over, nil)
	case err != nil:
		return f.Engine.Fail(r, err)
	}
	return f.Engine.Repeat(r, over, &said)
}

// leave returns the step for an error that leads to a client, or none after it has written a page.
func (f Front) leave(w http.ResponseWriter, r *http.Request, to *Departure) Step {
	if f.Pages.Leave == nil {
		return Step{Failure: &Failure{http.StatusBadRequest, to.Code, to.Description}}
	}
	switch leaves, err := f.Pages.Leave(w, r, to); {
	case err != nil:
		return f.Engine.Fail(r, fmt.Errorf("ask the user: %w", err))
	case leaves:
		return Step{Location: to.URL}
	default:
		return Step{}
	}
}
