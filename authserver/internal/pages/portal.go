package pages

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// A kind is an application type as developers know it. It determines which grants the application uses, and whether it can keep
// a secret.
type kind struct {
	ID             string // the messages kind.ID and kind.ID.about are about it
	native, secret bool
	grants         []string
}

var kinds = []kind{
	{"web", false, true, []string{"authorization_code", "refresh_token"}},
	{"spa", false, false, []string{"authorization_code", "refresh_token"}},
	{"native", true, false,
		[]string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}},
	{"service", false, true, []string{"client_credentials"}},
}

// kindOf returns the kind of a client registered in the portal.
func kindOf(c *clients.Client) kind {
	for _, k := range kinds {
		if k.native == c.Native && k.secret != c.Public() && slices.Contains(c.GrantTypes, k.grants[0]) {
			return k
		}
	}
	return kinds[0]
}

// Name and Words describe the kind to users.
func (k kind) Name() message  { return msg("kind." + k.ID) }
func (k kind) Words() message { return msg("kind." + k.ID + ".about") }

// Redirects reports whether users are sent to the application and back.
func (k kind) Redirects() bool { return k.grants[0] == "authorization_code" }

// mayRegister returns the kinds that the user may register. A service gets the scopes that it requests without a user's consent.
func (v *visit) mayRegister() []kind {
	if slices.Contains(v.cfg.Services, v.user.Type) {
		return kinds
	}
	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.ID == "service" })
}

func (v *visit) applications() (*reply, error) {
	list, err := v.cfg.Clients.ByOwner(v.r.Context(), v.user.Subject)
	if err != nil {
		return nil, err
	}
	type row struct {
		ID, Title string
		Kind      kind
		Since     day
	}
	rows := make([]row, len(list))
	for i := range list {
		rows[i] = row{list[i].ID, title(&list[i]), kindOf(&list[i]), day(list[i].IssuedAt)}
	}
	return &reply{page: "applications", title: msg("applications.title"), data: rows}, nil
}

// owned wraps a handler for an application of the user. For other users, the application does not exist.
func owned(h func(v *visit, c *clients.Client) (*reply, error)) handler {
	return func(v *visit) (*reply, error) {
		c, err := v.own(v.r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		re, err := h(v, c)
		if errors.Is(err, store.ErrConflict) {
			return nil, &refusal{status: http.StatusConflict, title: msg("application.conflict.title"), words: msg("application.conflict")}
		}
		return re, err
	}
}

// own returns the application if it belongs to the user.
func (v *visit) own(id string) (*clients.Client, error) {
	c, err := v.cfg.Clients.Get(v.r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errNotFound
	case err != nil:
		return nil, err
	case c.Static || c.Owner != v.user.Subject:
		return nil, errNotFound
	}
	return c, nil
}

func (v *visit) seeApplication(id, more string) *reply {
	return v.see("/developer/applications/" + id + more)
}

// An applicationForm is the data of the pages for registering and editing.
type applicationForm struct {
	ID        string // empty: new
	Kinds     []kind // to choose from; one: it cannot be changed
	Kind      string
	Name, URI string
	Redirects string // one per line
	Scopes    []scopesOf
}

// scopesOf are the scopes of one API, to be selected.
type scopesOf struct {
	API    string
	Grants []grant
}

func (v *visit) newApplication() (*reply, error) {
	if form := v.draft(); form != nil {
		return v.applicationPage(filledIn(form, "", v.mayRegister(), form.Get("kind")), form["scope"]), nil
	}
	return v.applicationPage(applicationForm{Kinds: v.mayRegister(), Kind: "web"}, nil), nil
}

func (v *visit) applicationPage(f applicationForm, scopes []string, problems ...problem) *reply {
	for _, a := range v.cfg.APIs {
		list := v.describe(a.ScopeNames(), a)
		for i := range list {
			list[i].Checked = slices.Contains(scopes, list[i].Scope)
		}
		f.Scopes = append(f.Scopes, scopesOf{a.Title(), list})
	}
	re := &reply{page: "edit", title: msg("edit.new"), data: f, problems: problems}
	if f.ID != "" {
		re.title = msg("edit.title")
	}
	return re
}

// readApplication sets the fields of c from the form, and returns the problems with it. The kind cannot be changed.
func (v *visit) readApplication(c *clients.Client, k kind) (problems []problem) {
	form := v.r.PostForm
	c.Name, c.URI = strings.TrimSpace(form.Get("client_name")), strings.TrimSpace(form.Get("client_uri"))
	c.Native, c.GrantTypes = k.native, k.grants
	c.RedirectURIs, c.Scopes = nil, valetkey.NewScopes(form["scope"]...).Slice()

	if c.Name == "" {
		problems = append(problems, problem{"client_name", msg("edit.name.empty")})
	}
	if k.Redirects() {
		for i, line := range strings.Split(form.Get("redirect_uris"), "\n") {
			uri := strings.TrimSpace(line)
			if uri == "" || uri == v.tryURI {
				continue
			}
			if err := v.cfg.Clients.ValidRedirectURI(uri, c.Native); err != nil {
				problems = append(problems, problem{"redirect_uris", msg("edit.redirects.line", "line", i+1, "problem", err)})
			}
			c.RedirectURIs = append(c.RedirectURIs, uri)
		}
		if len(c.RedirectURIs) == 0 {
			problems = append(problems, problem{"redirect_uris", msg("edit.redirects.empty")})
		}
		if v.tryURI != "" {
			c.RedirectURIs = append(c.RedirectURIs, v.tryURI)
		}
	}
	switch {
	case len(c.Scopes) == 0:
		problems = append(problems, problem{"scope", msg("edit.scopes.empty")})
	case slices.ContainsFunc(c.Scopes, func(s string) bool { return v.apiOf(s) == "" }):
		problems = append(problems, problem{"scope", msg("edit.scopes.gone")})
	}
	return problems
}

// apiOf returns the audience of the API that has the scope, or "".
func (p *Pages) apiOf(scope string) string {
	for _, a := range p.cfg.APIs {
		if a.Scope(scope) != nil {
			return a.Audience
		}
	}
	return ""
}

// invalid converts errors of the registry to problems with the fields, which have the same names.
func invalid(err error) (problems []problem) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			problems = append(problems, invalid(err)...)
		}
		return problems
	}
	if no, ok := errors.AsType[*clients.Invalid](err); ok {
		switch no.Member {
		case "":
			return []problem{{"client_name", msg("edit.refused", "problem", no.Problem)}}
		case "client_name":
			problems = append(problems, problem{no.Member, msg("edit.name.invalid")})
		case "client_uri":
			problems = append(problems, problem{no.Member, msg("edit.website.invalid")})
		default:
			problems = append(problems, problem{no.Member, msg("edit.invalid", "problem", no.Problem)})
		}
	}
	return problems
}

// filledIn returns the form as it was submitted.
func filledIn(form url.Values, id string, kinds []kind, k string) applicationForm {
	return applicationForm{ID: id, Kinds: kinds, Kind: k, Name: form.Get("client_name"), URI: form.Get("client_uri"), Redirects: form.Get("redirect_uris")}
}

func (v *visit) register() (*reply, error) {
	may := v.mayRegister()
	f := filledIn(v.r.PostForm, "", may, v.r.PostForm.Get("kind"))
	i := slices.IndexFunc(may, func(k kind) bool { return k.ID == f.Kind })
	if i < 0 {
		return v.applicationPage(f, v.r.PostForm["scope"], problem{"kind", msg("edit.kind.choose")}), nil
	}
	c := clients.Client{Owner: v.user.Subject}
	if problems := v.readApplication(&c, may[i]); problems != nil {
		return v.applicationPage(f, c.Scopes, problems...), nil
	}
	made, secret, err := v.cfg.Clients.Create(v.r.Context(), c, may[i].secret)
	if problems := invalid(err); problems != nil {
		return v.applicationPage(f, c.Scopes, problems...), nil
	}
	if err != nil {
		return nil, err
	}
	v.cfg.Logger.InfoContext(v.r.Context(), "application registered", "subject", v.user.Subject, "client", made.ID, "kind", f.Kind)
	return v.seeApplication(made.ID, ""), v.showOnce(made.ID, secret)
}

// A flash is a secret that is shown on the next page only.
type flash struct{ Client, Secret string }

const flashKey = "flash"

func (v *visit) showOnce(client, secret string) error {
	if secret == "" {
		return nil
	}
	return v.put(flashKey, flash{client, secret})
}

// An application is the data of its page.
type application struct {
	*clients.Client
	Title                  string
	Kind                   kind
	Redirects              []string // without the one of trials
	Grants                 []grant
	APIs                   []model.API // to try it with; empty: it cannot be tried
	Secret                 string      // shown once
	Issuer, Authorize, Use string      // for the developer
}

func (v *visit) application(c *clients.Client) (*reply, error) {
	a := application{
		Client: c, Title: title(c), Kind: kindOf(c), Redirects: v.ownRedirects(c), Grants: v.describe(c.Scopes, v.cfg.APIs...), APIs: v.trialAPIs(c),
		Issuer: v.cfg.Issuer, Authorize: v.cfg.AuthorizeURL, Use: v.cfg.TokenURL,
	}
	var f flash
	if v.get(flashKey, &f) && f.Client == c.ID && v.r.Method == http.MethodGet {
		a.Secret = f.Secret
		v.drop(flashKey)
	}
	return &reply{page: "application", title: verbatim(a.Title), data: a}, nil
}

func (v *visit) ownRedirects(c *clients.Client) []string {
	return slices.DeleteFunc(slices.Clone(c.RedirectURIs), func(uri string) bool { return uri == v.tryURI })
}

func (v *visit) showEdit(c *clients.Client) (*reply, error) {
	k := kindOf(c)
	if form := v.draft(); form != nil {
		return v.applicationPage(filledIn(form, c.ID, []kind{k}, k.ID), form["scope"]), nil
	}
	f := applicationForm{ID: c.ID, Kinds: []kind{k}, Kind: k.ID, Name: c.Name, URI: c.URI, Redirects: strings.Join(v.ownRedirects(c), "\n")}
	return v.applicationPage(f, c.Scopes), nil
}

func (v *visit) edit(c *clients.Client) (*reply, error) {
	k := kindOf(c)
	problems := v.readApplication(c, k)
	if problems == nil {
		err := v.cfg.Clients.Update(v.r.Context(), *c)
		if problems = invalid(err); err != nil && problems == nil {
			return nil, err
		}
	}
	if problems != nil {
		return v.applicationPage(filledIn(v.r.PostForm, c.ID, []kind{k}, k.ID), c.Scopes, problems...), nil
	}
	v.cfg.Logger.InfoContext(v.r.Context(), "application changed", "subject", v.user.Subject, "client", c.ID)
	return v.seeApplication(c.ID, ""), nil
}

// A question is a page that asks for confirmation before a permanent change.
type question struct {
	ID        string
	Words, Do message
}

func (v *visit) askRotate(c *clients.Client) (*reply, error) {
	if c.Public() {
		return nil, errNotFound
	}
	return &reply{page: "ask", title: msg("rotate.title", "client", title(c)), data: question{c.ID, msg("rotate.about"), msg("rotate.do")}}, nil
}

func (v *visit) rotate(c *clients.Client) (*reply, error) {
	if c.Public() {
		return nil, errNotFound
	}
	secret, err := v.cfg.Clients.RotateSecret(v.r.Context(), c.ID)
	if err != nil {
		return nil, err
	}
	v.cfg.Logger.InfoContext(v.r.Context(), "secret replaced", "subject", v.user.Subject, "client", c.ID)
	return v.seeApplication(c.ID, ""), v.showOnce(c.ID, secret)
}

func (v *visit) askDelete(c *clients.Client) (*reply, error) {
	return &reply{page: "ask", title: msg("delete.title", "client", title(c)), data: question{c.ID, msg("delete.about"), msg("delete.do")}}, nil
}

func (v *visit) remove(c *clients.Client) (*reply, error) {
	ctx := v.r.Context()
	// The tokens end first: if that fails, the application still exists, so the user can try again.
	n, err := v.cfg.Engine.RevokeGrants(ctx, "", c.ID)
	if err == nil {
		err = v.cfg.Clients.Delete(ctx, c.ID)
	}
	if err != nil {
		return nil, err
	}
	v.cfg.Logger.InfoContext(ctx, "application deleted", "subject", v.user.Subject, "client", c.ID, "grants", n)
	if err := v.consents.forgetClient(ctx, c.ID); err != nil {
		return nil, err
	}
	return v.see("/developer"), v.notify("delete.done", "client", title(c))
}
