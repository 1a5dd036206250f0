package pages

import (
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
)

// An ending is the data of the page of an interaction that has ended.
type ending struct {
	End        string // answered, expired, no_cookie or elsewhere: the messages ended.END.title and ended.END
	Client     string // title; empty: unknown
	URL, Place string // the way back, http or https, and its host; empty: unknown
}

// Words describes the end. link leads to what the user has allowed.
func (e ending) Words(link string) message {
	return msg("ended."+e.End, "client", e.Answerer(), "link", link)
}

// Answerer and Sender name the client in sentences.
func (e ending) Answerer() message { return e.named(msg("ended.the_application")) }
func (e ending) Sender() message   { return e.named(msg("ended.the_sender")) }

func (e ending) named(unknown message) message {
	if e.Client == "" {
		return unknown
	}
	return verbatim(e.Client)
}

// Ended shows that an interaction has ended, and the way back.
func (p *Pages) Ended(w http.ResponseWriter, r *http.Request, over *flow.Ended) {
	e := ending{End: "expired"}
	switch {
	case over.Answered:
		e.End = "answered"
	case over.NoCookie:
		e.End = "no_cookie"
	case over.Elsewhere:
		e.End = "elsewhere"
	}
	// A client that the operator does not know is named and linked to only if the user has seen its consent page: anyone can
	// write a link to an interaction that never existed.
	if c := over.Client; c != nil && (over.Answered || c.Approved()) {
		e.Client = title(c)
		e.URL, e.Place = wayBack(c, over.RedirectURI)
	}
	p.write(w, p.visit(r), &reply{status: http.StatusBadRequest, page: "ended", title: msg("ended." + e.End + ".title"), data: e, quiet: true})
}

// wayBack returns the address of an application: its website, if the operator knows the application, or the host of redirectURI.
// If redirectURI is empty, it is the first registered one with a host.
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
			continue // a private-use scheme has no address to start from
		}
		if place != c.URI {
			u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
		}
		return u.String(), u.Host
	}
	return "", ""
}
