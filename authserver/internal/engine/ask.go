package engine

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// The values stored with an authorization session, some of them later with the grant.
const (
	keptBrowser  = "browser" // digest
	keptACRs     = "acr_values"
	keptLocales  = "ui_locales"
	keptType     = "type" // of the user
	keptAuthTime = "auth_time"
	keptSince    = "since" // of the user's credential
	keptACR      = "acr"
	keptKey      = "dpop_jkt"
	keptSession  = "session" // Decision.Session
)

// prepare is the library's hook that sets up a session. It stores the data that only this request contains. It is called again
// when the page of a pushed request is reloaded.
func (e *Engine) prepare(r *http.Request, as *goidc.AuthnSession, _ *goidc.Client) bool {
	c := callOf(r.Context())
	if as.Store == nil {
		as.Store = map[string]any{}
	}
	if as.PushedAuthReqID == "" {
		as.Store[keptACRs], as.Store[keptKey], as.Store[keptLocales] = c.form.Get("acr_values"), c.form.Get("dpop_jkt"), c.form.Get("ui_locales")
	}
	if as.Store[keptBrowser] == nil {
		as.Store[keptBrowser] = store.Digest(c.browser)
	}
	return true
}

// keepPushed is the library's hook for a pushed session.
func (e *Engine) keepPushed(ctx context.Context, as *goidc.AuthnSession, _ *goidc.Client) error {
	c := callOf(ctx)
	as.Store[keptACRs], as.Store[keptKey], as.Store[keptLocales] = c.form.Get("acr_values"), c.form.Get("dpop_jkt"), c.form.Get("ui_locales")
	c.outage = c.useProof()
	return c.outage
}

// ask is the library's policy: it asks the user, and converts the decision to what the library grants.
func (e *Engine) ask(w http.ResponseWriter, r *http.Request, as *goidc.AuthnSession, _ *goidc.Client) (goidc.Status, error) {
	c := callOf(r.Context())
	pending := func(err error) (goidc.Status, error) {
		c.failed = err
		return goidc.StatusPending, nil
	}
	if c.browser == "" || as.Store[keptBrowser] != store.Digest(c.browser) {
		c.redirect = "" // the error is for the user of the wrong browser
		return pending(errBrowser)
	}
	if c.client == nil { // a continued interaction
		if err := e.find(c, as.ClientID); err != nil {
			return pending(err)
		}
	}
	if !registered(c.client, as.RedirectURI) { // unregistered since
		c.redirect = ""
		return pending(errInteraction)
	}
	in, err := e.interaction(as, c)
	if err != nil {
		return pending(err)
	}
	d, err := e.cfg.Interact(w, c.page, in)
	if err != nil {
		return pending(fmt.Errorf("ask the user: %w", err))
	}
	if d == nil {
		return goidc.StatusPending, nil
	}
	if c.last != nil {
		c.last()
	}
	c.informed, c.said, c.hasDecided = d.Denied && d.Informed, d.Said, true
	if c.keeps {
		c.decided = as
	}
	code := refusalOf(d, in, int64(as.CreatedAt))
	if code != "" {
		return goidc.StatusFailure, goidc.NewError(goidc.ErrorCode(code), descriptions[code])
	}
	granted := grantedBy(d, in)
	as.Subject, as.Username = d.User.Subject, d.User.Name
	as.GrantedScopes, as.GrantedResources = granted.String(), goidc.Resources{in.API.Audience}
	as.Store[keptType], as.Store[keptACR] = d.User.Type, d.ACR
	as.Store[keptAuthTime] = strconv.FormatInt(d.AuthTime.Unix(), 10)
	as.Store[keptSince], as.Store[keptSession] = sinceText(d.User.Since), d.Session
	return goidc.StatusSuccess, nil
}

var errBrowser = invalidRequest("the request was begun in another browser, or cookies are off: go back to the application and start again")

// interaction returns the data of a session that the pages need.
func (e *Engine) interaction(as *goidc.AuthnSession, c *call) (*flow.Interaction, error) {
	api, scopes, err := e.wanted(c.client, as.Resources, as.Scopes) // again: the client, or the configuration, may have changed since
	if err != nil {
		return nil, err
	}
	acrs, _ := as.Store[keptACRs].(string)
	in := &flow.Interaction{
		ID:          as.ID,
		ContinueURL: e.continueURL(as.ID, as.ClientID),
		Client:      c.client,
		API:         api,
		Scopes:      scopes,
		RedirectURI: as.RedirectURI,
		Implicit:    as.ResponseType.Contains(goidc.ResponseTypeToken),
		LoginHint:   as.LoginHint,
		Prompt:      strings.Join(strings.Fields(string(as.Prompt)), " "),
		MaxAge:      -1,
		ACRValues:   strings.Fields(acrs),
	}
	in.UILocales, _ = as.Store[keptLocales].(string)
	if as.MaxAuthnAgeSecs != nil {
		in.MaxAge = time.Duration(*as.MaxAuthnAgeSecs) * time.Second
	}
	return in, nil
}

// descriptions are the descriptions of the errors that a decision may have; the first is for any other. RFC 6749, section
// 4.1.2.1; OpenID Connect Core 1.0, section 3.1.2.6; RFC 9470, section 5.
var descriptions = map[string]string{
	"access_denied":        "the user, or the server for the user, has denied the request",
	"login_required":       "the user has to log in",
	"consent_required":     "the user has to consent",
	"interaction_required": "the user has to be asked",
	unmet:                  "the user's log-in does not meet the requested acr_values",
}

const unmet = "unmet_authentication_requirements"

// meets reports whether one of the available acr values is among those requested.
func meets(asked []string, had ...string) bool {
	return slices.ContainsFunc(had, func(acr string) bool { return slices.Contains(asked, acr) })
}

// refusalOf returns the error code of a decision that grants nothing, or "". began is in Unix seconds.
func refusalOf(d *flow.Decision, in *flow.Interaction, began int64) string {
	switch {
	case d.Denied && descriptions[d.Error] != "":
		return d.Error
	case d.Denied, d.User == nil, grantedBy(d, in).Len() == 0:
		return "access_denied"
	case in.MaxAge >= 0 && d.AuthTime.Unix() < began-int64(in.MaxAge.Seconds()):
		return "login_required" // regardless of the pages
	case len(in.ACRValues) > 0 && !meets(in.ACRValues, d.ACR):
		return unmet
	default:
		return ""
	}
}

// grantedBy returns the scopes that the user has allowed, out of those that were requested and that the user may allow.
func grantedBy(d *flow.Decision, in *flow.Interaction) valetkey.Scopes {
	return valetkey.NewScopes(slices.DeleteFunc(d.Scopes.Slice(), func(s string) bool {
		return !in.Scopes.Has(s) || d.User.Scopes != nil && !slices.Contains(d.User.Scopes, s)
	})...)
}
