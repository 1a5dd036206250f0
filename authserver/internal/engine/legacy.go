package engine

import (
	"errors"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
)

// Grants that RFC 9700 advises against but old clients still need: the implicit grant and the password grant (RFC 6749, sections
// 4.2 and 4.3).

// warn logs at startup which of them are enabled.
func (e *Engine) warn() {
	if e.cfg.Implicit {
		e.cfg.Logger.Warn("the implicit grant is enabled: tokens appear in URLs, which histories and logs record")
	}
	if e.cfg.Password != nil {
		e.cfg.Logger.Warn("the password grant is enabled: applications receive the passwords of users")
	}
}

// responseTypes returns the response types that are offered.
func (e *Engine) responseTypes() []string {
	if e.cfg.Implicit {
		return []string{"code", "token"}
	}
	return []string{"code"}
}

// The grant of each response type, and its response mode.
var (
	grantOf = map[string]string{"code": "authorization_code", "token": "implicit"}
	modeOf  = map[string]string{"code": "query", "token": "fragment"}
)

// logIn returns the grant of a user whose name and password the client has sent.
func (e *Engine) logIn(c *call) (*grant, error) {
	name, password := c.form.Get("username"), c.form.Get("password")
	if name == "" || password == "" {
		return nil, invalidRequest("username or password is missing")
	}
	api, asked, err := e.wanted(c.client, c.form["resource"], c.form.Get("scope"))
	if err != nil {
		return nil, err
	}
	user, err := e.cfg.Password.Login(c.r.Context(), c.r.RemoteAddr, name, password)
	if _, many := errors.AsType[*login.TooMany](err); many {
		return nil, tooMany(err)
	}
	if errors.Is(err, login.ErrRefused) {
		return nil, badRequest("invalid_grant", "the name or the password is wrong")
	}
	if err == nil && (user.Type == "" || !strings.HasPrefix(user.Subject, user.Type+":")) { // it could be a client's ID
		err = errors.New("the login answered with a subject that is not of its type")
	}
	if err != nil {
		return nil, err
	}
	d := &flow.Decision{User: user, AuthTime: time.Now(), Scopes: asked}
	scopes := grantedBy(d, &flow.Interaction{Scopes: asked})
	if scopes.Len() == 0 {
		return nil, errScope
	}
	g := newGrant(c.client, api, scopes)
	g.identity = identityOf(d)
	e.startFamily(c, g)
	return g, nil
}
