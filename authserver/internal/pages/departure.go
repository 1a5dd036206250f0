package pages

import (
	"errors"
	"html/template"
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/authserver/internal/flow"
)

// A departure is the data of the page that is shown before an error leads to a client that the operator has not approved.
type departure struct {
	Title       string       // of the client
	Place       string       // the destination of the link: a host, or the scheme of an application
	App         bool         // it is an application on the user's device
	URL         template.URL // a registered redirect URI: https, http to loopback, or a private-use scheme, so it runs no script
	Description string
	Code        string
}

// Leave is an [flow.Leave]. The user is sent to the client immediately after allowing it something that has not been revoked,
// or if the user has registered the client.
func (p *Pages) Leave(w http.ResponseWriter, r *http.Request, d *flow.Departure) (bool, error) {
	v, err := p.open(r)
	if err != nil {
		return false, err
	}
	err = v.check()
	if saved := v.save(w); err == nil {
		err = saved
	}
	if err != nil {
		return false, err
	}
	if v.user != nil {
		c, err := p.consents.get(r.Context(), v.user, d.Client.ID)
		if err != nil {
			return false, err
		}
		if c.Scopes.Len() > 0 || d.Client.Owner == v.user.Subject {
			return true, nil
		}
	}
	to, err := url.Parse(d.URL)
	if err != nil {
		return false, errors.New("the redirect URI cannot be parsed")
	}
	about := departure{
		Title: title(d.Client), Place: to.Scheme, App: true, URL: template.URL(d.URL), Description: d.Description, Code: d.Code,
	}
	if to.Scheme == "https" || to.Scheme == "http" {
		about.Place, about.App = to.Host, to.Scheme == "http" // http is loopback
	}
	p.write(w, v, &reply{status: http.StatusBadRequest, page: "leave", title: msg("leave.title"), data: about, quiet: true})
	return false, nil
}
