package engine

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Token is the token endpoint (RFC 6749, section 3.2), for POST.
func (e *Engine) Token(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	rec, err := e.token(w, c)
	if err != nil {
		e.refuse(w, c, err)
		return
	}
	answer(w, rec.Status, "application/json", rec.Body.Bytes())
}

func (e *Engine) token(w http.ResponseWriter, c *call) (*recorded, error) {
	if err := c.readForm(w); err != nil {
		if err == errTooLong {
			return nil, invalidRequest(errTooLong.description) // RFC 6749, section 5.2: 400
		}
		return nil, err
	}
	if !c.form.Has("grant_type") {
		return nil, invalidRequest("grant_type is missing")
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.Token); err != nil {
		return nil, err
	}
	if err := e.checkToken(c); err != nil {
		return nil, err
	}
	if err := e.bind(w, c); err != nil {
		return nil, err
	}
	if grant := e.own(c.form.Get("grant_type")); grant != nil {
		return e.issue(c, grant)
	}
	form := c.pick("grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "scope", "resource")
	return e.answered(c, http.MethodPost, "/token", form)
}

// checkToken checks parameters that the library accepts unchecked.
func (e *Engine) checkToken(c *call) error {
	// RFC 7636, section 4.1: unreserved characters; the library checks only the length.
	if v := c.form.Get("code_verifier"); v != "" && (len(v) < 43 || len(v) > 128 || strings.Trim(v, base64urlAlphabet+".~") != "") {
		return invalidRequest("code_verifier does not conform to RFC 7636")
	}
	switch {
	case len(c.form["resource"]) > 1:
		return errTarget
	case c.form.Has("scope"):
		_, asked, err := e.wanted(c.client, c.form["resource"], c.form.Get("scope"))
		if err != nil {
			return err
		}
		c.form.Set("scope", asked.String())
	}
	return nil
}

// answered is run for an endpoint that responds with JSON.
func (e *Engine) answered(c *call, method, path string, form url.Values) (*recorded, error) {
	rec := e.run(c, method, path, form)
	if c.outage != nil {
		return nil, c.outage
	}
	if c.failed == nil && (rec.Status < 200 || rec.Status > 299) {
		return nil, fmt.Errorf("the library answered %d to %s", rec.Status, path)
	}
	return rec, c.failed
}
