package pages

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/login"
)

// rejectedKey is the session key of the last rejection of a log-in by the page that it was handed to.
const rejectedKey = "rejected"

// leftKey is the session key of the interaction in which a user has asked to log in as another user. The page may have its
// own session with the first one, so the challenge requests prompt=select_account.
const leftKey = "left"

// A rejected log-in belongs to the interaction For.
type rejected struct{ For, Error string }

// handOff redirects the visitor to the page that log-ins are handed to. in is nil for a log-in to a page of ours.
func (v *visit) handOff(in *flow.Interaction, then handoff.Then) (*reply, error) {
	request := handoff.Request{}
	if v.user != nil {
		request.Subject = strings.TrimPrefix(v.user.Subject, v.user.Type+":")
	}
	if in != nil {
		c := in.Client
		request.Client = &handoff.Client{ID: c.ID, Name: c.Name, URI: c.URI, Approved: c.Approved()}
		request.Resource, request.Scope = in.API.Audience, in.Scopes.String()
		request.ACRValues, request.Prompt, request.LoginHint, request.UILocales = in.ACRValues, in.Prompt, in.LoginHint, in.UILocales
		var left string
		if v.get(leftKey, &left) && left == in.ID && !prompts(in, "select_account") {
			request.Prompt = strings.TrimSpace(in.Prompt + " select_account")
		}
		if in.MaxAge >= 0 {
			seconds := int(in.MaxAge / time.Second)
			request.MaxAge = &seconds
		}
	}
	browser, cookie := v.cfg.Handoff.NewBrowser(v.r)
	to, err := v.cfg.Handoff.Begin(v.r.Context(), browser, login.Network(v.cfg.Address(v.r)), request, then)
	if tooMany, many := errors.AsType[*login.TooMany](err); many {
		why := tooSoon(tooMany)
		re := (&refusal{status: why.status, title: msg("handoff.too_many.title"), words: why.words}).reply()
		re.wait = why.wait
		return re, nil
	}
	if err != nil {
		return nil, err
	}
	return &reply{location: to, cookie: cookie}, nil
}

// handedBack receives the browser from the page that its log-in was handed to.
func (v *visit) handedBack() (*reply, error) {
	door, query := v.cfg.Handoff, v.r.URL.Query()
	answer, then, err := door.Return(v.r.Context(), door.Browser(v.r), query.Get("login_challenge"), query.Get("login_verifier"))
	switch {
	case errors.Is(err, handoff.ErrUsed) && v.user != nil: // the page was loaded twice
		return &reply{location: then.Location}, nil
	case errors.Is(err, handoff.ErrUsed):
		return handoffPage("used", then.Location), nil
	case errors.Is(err, handoff.ErrUnanswered):
		return handoffPage("incomplete", then.Location), nil
	case errors.Is(err, handoff.ErrExpired):
		return handoffPage("expired", ""), nil
	case errors.Is(err, handoff.ErrBrowser) && door.Browser(v.r) == "":
		return handoffPage("no_cookie", ""), nil
	case errors.Is(err, handoff.ErrBrowser):
		return handoffPage("other_browser", ""), nil
	case err != nil:
		return nil, err
	}
	from := v.cfg.Address(v.r)
	if answer.Error != "" {
		v.cfg.Logger.InfoContext(v.r.Context(), "log-in refused", "error", answer.Error, "address", from)
		if then.For == "" {
			return handoffPage("refused", then.Location), nil
		}
		return &reply{location: then.Location}, v.put(rejectedKey, rejected{then.For, answer.Error})
	}
	// A user who kept the URL of the return while the operator ended everything has to log in at the page again, which knows whether that
	// is still possible.
	switch over, err := v.ended(v.r.Context(), &person{User: answer.User, At: answer.At}); {
	case err != nil:
		return nil, err
	case over:
		v.cfg.Logger.InfoContext(v.r.Context(), "log-in refused", "subject", answer.User.Subject, "error", "revoked since", "address", from)
		return handoffPage("expired", then.Location), nil
	}
	if err := v.begin(&answer.User, then.For); err != nil {
		return nil, err
	}
	v.user.ACR, v.user.AuthTime = answer.ACR, answer.AuthTime
	v.cfg.Logger.InfoContext(v.r.Context(), "logged in", "subject", v.user.Subject, "acr", answer.ACR, "address", from)
	return &reply{location: then.Location}, v.put(personKey, v.user)
}

// afterLogout leads to a page of ours or, if log-ins are handed off, to where that page logs out.
func (v *visit) afterLogout(path string) *reply {
	if v.cfg.Handoff != nil && v.cfg.Handoff.Logout() != "" {
		return &reply{location: v.cfg.Handoff.Logout()}
	}
	return v.see(path)
}

// A handoffEnd is the data of a page about a log-in that does not continue.
type handoffEnd struct {
	Words message
	Next  string // a path of ours where the user can try again; empty: none
}

// handoffPage shows the messages handoff.END.title and handoff.END.
func handoffPage(end, next string) *reply {
	return &reply{
		status: http.StatusBadRequest, page: "handoff", title: msg("handoff." + end + ".title"), data: handoffEnd{msg("handoff." + end), next}, quiet: true,
	}
}

// rejected returns the error with which the log-in of an interaction was refused, once, or "".
func (v *visit) rejected(in *flow.Interaction) string {
	var no rejected
	if v.cfg.Handoff == nil || in.ID == "" || !v.get(rejectedKey, &no) || no.For != in.ID {
		return ""
	}
	v.drop(rejectedKey)
	return no.Error
}

// meets reports whether the log-in of the user has one of the acr values that an interaction requires.
func (v *visit) meets(in *flow.Interaction) bool {
	return len(in.ACRValues) == 0 || slices.Contains(in.ACRValues, v.user.ACR)
}

// formActions returns the CSP sources that the forms of a page may lead to. If log-ins are handed off, any form may lead there, and
// from there to others.
func (p *Pages) formActions(re *reply) string {
	sources := re.formAction
	if p.cfg.Handoff == nil {
		return sources
	}
	for _, uri := range []string{p.cfg.Handoff.Redirect(), p.cfg.Handoff.Logout()} {
		if s := leadsTo(uri); !strings.Contains(sources+" ", s+" ") {
			sources += s
		}
	}
	return sources
}
