package pages

import (
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
)

// An ending is what the page of an interaction that is over shows.
type ending struct {
	Answered   bool
	Client     string // title; empty: not known
	URL, Place string // the way back, http or https, and its host; empty: not known
}

// Ended is an engine.Config.Ended.
func (p *Pages) Ended(w http.ResponseWriter, r *http.Request, over *engine.Ended) {
	e, heading := ending{Answered: over.Answered}, "This request has expired"
	if over.Answered {
		heading = "This request has been answered"
	}
	// One that the operator does not know is named, and linked to, only for a user who has seen its page for consent: anybody
	// can write a link to an interaction that there never was.
	if c := over.Client; c != nil && (over.Answered || c.Approved()) {
		e.Client = title(c)
		e.URL, e.Place = wayBack(c, over.RedirectURI)
	}
	p.write(w, &visit{Pages: p, r: r}, &reply{status: http.StatusBadRequest, page: "ended", title: heading, data: e, quiet: true})
}

// wayBack returns where an application can be found: at its website, if the operator knows it, or where a redirect URI leads,
// which is empty for the first one that has such a place.
func wayBack(c *clients.Client, redirectURI string) (link, host string) {
	places := []string{redirectURI}
	if redirectURI == "" {
		places = c.RedirectURIs
	}
	if c.Approved() && c.URI != "" {
		places = []string{c.URI}
	}
	for _, place := range places {
		u, err := url.Parse(place)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			continue // an application's own scheme says nothing of where it begins
		}
		if place != c.URI {
			u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
		}
		return u.String(), u.Host
	}
	return "", ""
}
