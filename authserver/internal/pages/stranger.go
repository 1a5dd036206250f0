package pages

import (
	"net/url"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
)

// A stranger is an application that the operator has not approved, as pages introduce it. Everything but Host and Age is its own
// statement.
type stranger struct {
	Action        string
	Title         string
	Website       string // empty: none
	Introduction  message
	Host          string // where the user is sent back to; empty: nowhere, or to an application on this machine
	OnThisMachine bool
}

// stranger returns nil for an application that the operator has approved.
func (v *visit) stranger(in *flow.Interaction) *stranger {
	c := in.Client
	if c.Approved() {
		return nil
	}
	s := &stranger{
		Action: in.ContinueURL, Title: title(c), Website: c.URI, Host: hostOf(in.RedirectURI),
		OnThisMachine: in.RedirectURI != "" && !strings.HasPrefix(in.RedirectURI, "https:"),
	}
	switch {
	case c.Document:
		document, _ := url.Parse(c.ID) // the ID of such a client is a URL
		s.Introduction = msg("stranger.document", "client", s.Title, "host", document.Host)
	case c.Owner != "":
		s.Introduction = msg("stranger.portal", "client", s.Title, "ago", ago(c.IssuedAt))
	default:
		s.Introduction = msg("stranger.itself", "client", s.Title, "ago", ago(c.IssuedAt))
	}
	return s
}

// hostOf returns the host of a redirect URI, or "" if it has a private-use scheme, with which an application can put anything there.
func hostOf(redirectURI string) string {
	u, err := url.Parse(redirectURI)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.Host
}

// introducedKey is the session key of the latest interaction whose user has seen the page that introduces the application.
const introducedKey = "introduced"

// introduces reports whether the application of an interaction has to be introduced before the user is asked for consent: the
// operator has not approved it, and the user did not register it.
func (v *visit) introduces(in *flow.Interaction) bool {
	var introduced string
	return !in.Client.Approved() && in.Client.Owner != v.user.Subject &&
		!(v.get(introducedKey, &introduced) && introduced == in.ID+in.UserCode)
}

func (v *visit) strangerPage(in *flow.Interaction) *reply {
	return &reply{
		page: "stranger", title: msg("stranger.title", "client", title(in.Client)), data: v.stranger(in),
		formAction: leadsTo(in.RedirectURI), self: in.ContinueURL, quiet: true,
	}
}

// preselected returns the scopes that are selected on the consent page at first: all but the sensitive ones.
func (v *visit) preselected(in *flow.Interaction, offered valetkey.Scopes) valetkey.Scopes {
	api := v.api(in.API.Audience)
	var all []string
	for s := range offered.All() {
		if scope := api.Scope(s); scope == nil || !scope.Sensitive {
			all = append(all, s)
		}
	}
	return valetkey.NewScopes(all...)
}

// An ago is a time in the past, shown by how long ago it was.
type ago time.Time
