package engine

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// authenticate identifies the client and verifies its secret or assertion; a public client has neither.
func (e *Engine) authenticate(c *call, endpoint string) error {
	err := e.prove(c, endpoint)
	if errors.Is(err, errClient) {
		if err := e.failures.Allow(c.sender()); err != nil { // RFC 6749, section 2.3.1: against brute force
			return tooMany(err)
		}
	}
	return err
}

func (e *Engine) prove(c *call, endpoint string) error {
	id, secret, err := c.credentials()
	if err != nil {
		return err
	}
	assertion := c.form.Get("client_assertion")
	var claims *assertionClaims
	if assertion != "" {
		if claims, err = readAssertion(assertion, c.form.Get("client_assertion_type"), id); err != nil {
			return err
		}
		id = claims.subject
	}
	if err := e.find(c, id); err != nil {
		return err
	}
	switch c.client.AuthMethod {
	case "none":
		c.proven = secret == "" && assertion == ""
	case "client_secret_basic", "client_secret_post":
		c.proven = assertion == "" && secret != "" && c.client.HasSecret(secret)
	case "private_key_jwt":
		if assertion == "" || secret != "" {
			return errClient
		}
		if err := e.verifyAssertion(c.r.Context(), c.client, claims, endpoint); err != nil {
			return err
		}
		c.proven = true
	case "self_signed_tls_client_auth":
		if assertion != "" || secret != "" {
			return errClient
		}
		if err := e.ownCertificate(c); err != nil {
			return err
		}
		c.proven = true
	case "tls_client_auth":
		if assertion != "" || secret != "" {
			return errClient
		}
		if err := e.issuedCertificate(c); err != nil {
			return err
		}
		c.proven = true
	}
	if !c.proven {
		return errClient // RFC 6749, section 5.2; also for a confidential client that sends its id only (section 3.2.1)
	}
	return nil
}

// confidential is authenticate for endpoints where an ID alone is not sufficient.
func (e *Engine) confidential(c *call, endpoint string) error {
	if err := e.authenticate(c, endpoint); err != nil {
		return err
	}
	if c.client.Public() {
		return errClient
	}
	return nil
}

// find sets the client of the call.
func (e *Engine) find(c *call, id string) error {
	if id == "" {
		return errClient
	}
	client, err := e.cfg.Clients.Get(c.r.Context(), id)
	switch {
	case errors.As(err, new(*clients.DocumentError)):
		return err // see explain
	case errors.Is(err, store.ErrNotFound):
		return errClient
	case errors.As(err, new(*login.TooMany)):
		return tooMany(err)
	case err != nil:
		return fmt.Errorf("find the client: %w", err)
	}
	c.client = client
	return nil
}

// credentials returns the client's ID and secret from the header or the form.
func (c *call) credentials() (id, secret string, err error) {
	sent := c.r.Header.Values("Authorization")
	id, secret = c.form.Get("client_id"), c.form.Get("client_secret")
	// RFC 6749, section 2.3: "MUST NOT use more than one authentication method".
	if secret != "" && c.form.Has("client_assertion") {
		return "", "", invalidRequest("the client authenticates in two ways")
	}
	if len(sent) == 0 {
		return id, secret, nil
	}
	basicID, basicSecret, ok := (&http.Request{Header: http.Header{"Authorization": sent}}).BasicAuth()
	if !ok || len(sent) > 1 {
		return "", "", &refusal{status: http.StatusUnauthorized, code: "invalid_client", description: "the Authorization header is not Basic"}
	}
	if secret != "" || c.form.Has("client_assertion") {
		return "", "", invalidRequest("the client authenticates in two ways")
	}
	// RFC 6749, section 2.3.1: both are form-encoded within the header.
	basicID, errID := url.QueryUnescape(basicID)
	basicSecret, errSecret := url.QueryUnescape(basicSecret)
	if errID != nil || errSecret != nil {
		return "", "", invalidRequest("the credentials are not form-encoded within the Authorization header")
	}
	if id != "" && id != basicID {
		return "", "", invalidRequest("client_id differs from the Authorization header")
	}
	return basicID, basicSecret, nil
}
