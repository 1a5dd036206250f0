package pages

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/store"
)

// Interact asks the user of an interaction to log in and to consent, as needed. It is a [flow.Interact].
func (p *Pages) Interact(w http.ResponseWriter, r *http.Request, in *flow.Interaction) (*flow.Decision, error) {
	v, err := p.open(r)
	if err != nil {
		return nil, err
	}
	v.uiLocales, v.locale = in.UILocales, p.locales.choose(r, in.UILocales)
	var d *flow.Decision
	var re *reply
	if err = v.check(); err == nil {
		d, re, err = v.answer(w, in)
	}
	if saved := v.save(w); err == nil {
		err = saved
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		p.write(w, p.visit(r), no.reply())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d == nil {
		p.write(w, v, re)
	}
	return d, nil
}

// answer is interact for a request that may be one of our forms, or an authorization request by POST from any site (RFC 6749,
// section 3.1). Only our forms have the field do.
func (v *visit) answer(w http.ResponseWriter, in *flow.Interaction) (*flow.Decision, *reply, error) {
	do := ""
	if v.r.Method == http.MethodPost {
		v.r.Body = http.MaxBytesReader(w, v.r.Body, maxForm)
		if err := v.r.ParseForm(); err != nil {
			return nil, nil, errForm
		}
		do = v.r.PostForm.Get("do")
	}
	if do != "" {
		switch err := v.readForm(w); err {
		case nil:
		case errStale: // shown to another user, or before another log-in: ask again
			return nil, &reply{location: in.ContinueURL}, nil
		default:
			return nil, nil, err
		}
	}
	return v.interact(in, do)
}

// Said returns what a request to an interaction asks for. Its result includes the log-in of the request: the response to one user is not repeated to
// another user of the same browser, or after a log-out. Loading the page of an interaction and logging in have the same result,
// because loading the page after a log-in makes the same decision.
func (p *Pages) Said(r *http.Request) (string, error) {
	v, err := p.open(r)
	if err == nil {
		err = v.check()
	}
	if err != nil {
		return "", err
	}
	if r.Method != http.MethodPost {
		return v.said(), nil
	}
	switch err := v.readForm(nil); {
	case err == errStale && v.r.PostForm.Get("do") == "login": // shown before the log-in
	case err != nil:
		return "", flow.ErrForm
	}
	return v.said(), nil
}

// said returns the content of the form, if there is one, and the log-in.
func (v *visit) said() string {
	form := v.r.PostForm
	what := form.Get("do")
	switch what {
	case "login":
		what = ""
	case "allow":
		what += " " + valetkey.NewScopes(form["scope"]...).String()
	}
	if v.user == nil {
		return what
	}
	return what + " by " + store.Digest(v.user.Token)
}

// interact applies a form, if there is one, and then determines what remains to be asked: nothing, which is a decision, or the
// content of the reply.
func (v *visit) interact(in *flow.Interaction, do string) (*flow.Decision, *reply, error) {
	again := &reply{location: in.ContinueURL}
	switch do {
	case "deny", "cancel": // on the consent page or the log-in page; the latter does not show the destination
		v.logConsent(in, "consent denied", valetkey.Scopes{})
		d := &flow.Decision{Denied: true, Said: v.said()}
		if v.user != nil {
			d.User, d.Informed = &v.user.User, do == "deny"
		}
		return d, nil, nil
	case "login":
		if v.cfg.Handoff != nil {
			return nil, again, nil
		}
		if stop, err := v.logIn(in.ID); stop != nil || err != nil {
			return nil, v.loginFor(in, stop), err
		}
		return nil, again, v.keepSelection(in)
	case "leave":
		if err := v.end(); err != nil || v.cfg.Handoff == nil {
			return nil, again, err
		}
		return nil, again, v.put(leftKey, in.ID)
	}

	if code := v.rejected(in); code != "" {
		return v.denied(code), nil, nil
	}
	silent := in.Prompt == "none"
	switch needed := v.needsLogin(in); {
	case needed && silent:
		return v.denied("login_required"), nil, nil
	case needed && v.cfg.Handoff != nil:
		re, err := v.handOff(in, handoff.Then{For: in.ID, Location: in.ContinueURL})
		return nil, re, err
	case needed:
		return nil, v.loginFor(in, nil), nil
	}

	offered, withheld := v.offer(in)
	consent, err := v.consents.get(v.r.Context(), v.user, in.Client.ID)
	if err != nil {
		return nil, nil, err
	}
	allowed, asked := offered, do == "allow"
	switch ask := asks(in, consent, offered); {
	case do == "know" && !silent:
		return nil, again, v.put(introducedKey, in.ID+in.UserCode)
	case do == "stay" && !silent: // Enter in a checkbox, which is not a decision
		return nil, v.consentPage(in, offered, withheld, chosen(v.r.PostForm["scope"], offered)), nil
	case !v.offers(in, offered) && (silent || in.Client.Trusted):
		return v.denied("access_denied"), nil, nil
	case asked:
		if allowed = chosen(v.r.PostForm["scope"], offered); allowed.Len() == 0 && in.Scopes.Len() > 0 {
			return nil, v.consentPage(in, offered, withheld, valetkey.Scopes{}, problem{"scope", msg("consent.none")}), nil
		}
	case ask && silent:
		return v.denied("consent_required"), nil, nil
	case ask && consent.Scopes.Len() == 0 && v.introduces(in):
		return nil, v.strangerPage(in), nil
	case ask:
		ticked := v.preselected(in, offered)
		if before, ok := v.selection(in); ok {
			ticked = chosen(before, offered)
		}
		return nil, v.consentPage(in, offered, withheld, ticked), nil
	}
	if asked || !consent.covers(in.API.Audience, offered) { // the latter: a trusted client, which is listed with the others
		if err := v.consents.decide(v.r.Context(), v.user, in.Client.ID, in.API.Audience, offered, allowed); err != nil {
			return nil, nil, err
		}
		v.logConsent(in, "consent given", allowed)
	}
	return &flow.Decision{Said: v.said(), User: &v.user.User, Session: v.user.Session, AuthTime: v.user.authTime(), ACR: v.user.ACR, Scopes: allowed}, nil, nil
}

func (v *visit) denied(code string) *flow.Decision {
	return &flow.Decision{Denied: true, Said: v.said(), Error: code}
}

// needsLogin reports whether the user has to log in for the interaction: because no user is logged in, because the log-in is too
// old (max_age) or has none of the acr_values, or because a new one is requested (prompt=login or select_account). A log-in for
// this interaction is sufficient.
func (v *visit) needsLogin(in *flow.Interaction) bool {
	switch {
	case v.user == nil:
		return true
	case v.user.For == in.ID && in.ID != "":
		return false
	default:
		return prompts(in, "login") || prompts(in, "select_account") || in.MaxAge >= 0 && time.Since(v.user.authTime()) > in.MaxAge || !v.meets(in)
	}
}

// asks reports whether the user has to be asked for consent.
func asks(in *flow.Interaction, c *consent, offered valetkey.Scopes) bool {
	switch {
	case in.RedirectURI == "":
		return true // the holder of the device may not be the user who enters the code (RFC 8628, section 5.4)
	case prompts(in, "consent"):
		return true
	case !in.Client.Assured(in.RedirectURI, in.Implicit):
		return true // an application that impersonates the client must not benefit from the client's consent
	case in.Client.Trusted:
		return false
	case len(in.Details) > 0:
		return true // they are about this request, such as one payment
	default:
		return !c.covers(in.API.Audience, offered) || offered.Len() == 0
	}
}

func prompts(in *flow.Interaction, what string) bool {
	return slices.Contains(strings.Fields(in.Prompt), what)
}

// offer divides the requested scopes into those that the user may allow, and the others.
func (v *visit) offer(in *flow.Interaction) (offered, withheld valetkey.Scopes) {
	var may, mayNot []string
	for s := range in.Scopes.All() {
		if v.user.Scopes == nil || slices.Contains(v.user.Scopes, s) {
			may = append(may, s)
		} else {
			mayNot = append(mayNot, s)
		}
	}
	return valetkey.NewScopes(may...), valetkey.NewScopes(mayNot...)
}

// offers reports whether there is anything that the user may allow.
func (v *visit) offers(in *flow.Interaction, offered valetkey.Scopes) bool {
	return offered.Len() > 0 || in.Scopes.Len() == 0 && len(flow.Allowable(in.Details, v.user.Scopes)) > 0
}

// chosen returns the offered scopes that are selected in a form.
func chosen(ticked []string, offered valetkey.Scopes) valetkey.Scopes {
	return valetkey.NewScopes(slices.DeleteFunc(offered.Slice(), func(s string) bool { return !slices.Contains(ticked, s) })...)
}

// A selection is the scopes that a user had selected on the consent page when the session ended. The log-in page carries them, and
// the session of the user who logs in keeps them until the consent page is shown. They are not allowed by that.
type selection struct {
	For    string // ID of the interaction
	Scopes []string
}

const selectionKey = "selection"

func (v *visit) keepSelection(in *flow.Interaction) error {
	scopes := v.r.PostForm["scope"]
	if len(scopes) == 0 {
		return nil
	}
	return v.put(selectionKey, selection{in.ID, slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return !in.Scopes.Has(s) })})
}

func (v *visit) selection(in *flow.Interaction) (scopes []string, ok bool) {
	var s selection
	if !v.get(selectionKey, &s) || s.For != in.ID {
		return nil, false
	}
	return s.Scopes, true
}

// A consentForm is the data of the consent page.
type consentForm struct {
	Action             string
	Client             *clients.Client
	Title              string
	Stranger           *stranger // nil: the operator has approved the client
	Host               string    // where the user is sent back to; empty: nowhere, or to an application on this machine
	UserCode           string    // of a device
	API                string
	Offered            []grant
	Withheld           []grant
	Details            []detail
	Allowable          bool          // there is something to allow
	Lifetime, Renewing time.Duration // Renewing zero: not renewed, or for an unknown time
	Renewed            bool
}

func (v *visit) consentPage(in *flow.Interaction, offered, withheld, ticked valetkey.Scopes, problems ...problem) *reply {
	api := v.api(in.API.Audience)
	f := consentForm{
		Action: in.ContinueURL, Client: in.Client, Title: title(in.Client), Stranger: v.stranger(in), UserCode: in.UserCode, Host: hostOf(in.RedirectURI),
		API: api.Title(), Offered: v.describe(offered.Slice(), api), Withheld: v.describe(withheld.Slice(), api),
		Lifetime: api.Lifetime, Renewing: v.cfg.Renewable, Renewed: slices.Contains(in.Client.GrantTypes, "refresh_token"),
	}
	f.Allowable = v.offers(in, offered)
	for _, d := range in.Details {
		meaning := d.Type
		if t := api.DetailType(d.Type); t != nil {
			meaning = cmp.Or(v.locale.translated(t.Description, t.Descriptions), d.Type)
		}
		if len(flow.Allowable([]flow.Detail{d}, v.user.Scopes)) == 0 {
			f.Withheld = append(f.Withheld, grant{Scope: d.Type, Meaning: meaning})
			continue
		}
		f.Details = append(f.Details, detail{Meaning: meaning, JSON: shown(d.JSON)})
	}
	if in.Client.Lifetime > 0 {
		f.Lifetime = in.Client.Lifetime
	}
	for i := range f.Offered {
		f.Offered[i].Checked = ticked.Has(f.Offered[i].Scope)
	}
	return &reply{page: "consent", title: msg("consent.title", "client", f.Title), data: f, problems: problems, formAction: leadsTo(in.RedirectURI), self: in.ContinueURL, quiet: true}
}

// A detail is an element of authorization_details as shown to users.
type detail struct{ Meaning, JSON string }

// shown returns JSON with indentation. Characters that could change how the text around them is displayed are escaped.
func shown(text string) string {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(text), "", "  "); err != nil {
		return text
	}
	var b strings.Builder
	for _, r := range pretty.String() {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, "\\u%04x", unit)
			}
		}
	}
	return b.String()
}

// title returns the name of a client for users.
func title(c *clients.Client) string {
	if c.Name != "" {
		return c.Name
	}
	return c.ID
}

func (v *visit) logConsent(in *flow.Interaction, what string, scopes valetkey.Scopes) {
	v.cfg.Logger.InfoContext(v.r.Context(), what, "subject", v.subject(), "client", in.Client.ID, "scope", scopes.String())
}
