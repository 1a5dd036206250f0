package authserver

import (
	"mime"
	"net/http"
	"net/url"
	"slices"

	"github.com/valetkey/valetkey/authserver/internal/engine"
)

// maxForm is the most bytes of a request's body: room for the longest token that the module's verifiers look at, 16 KiB.
const maxForm = 32 << 10

func invalidRequest(description string) error {
	return &engine.Refusal{Status: http.StatusBadRequest, Code: "invalid_request", Description: description}
}

// readRequest returns r as the engine wants it: each parameter once and not empty, the client's credentials as client_id
// and client_secret in PostForm, however they were sent. Nothing is verified. It returns a request with an error too.
func readRequest(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	r = r.Clone(r.Context())
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return r, invalidRequest("the content type is not application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return r, invalidRequest("the form is malformed or too long")
	}
	// RFC 6749, section 2.3.1: credentials "MUST NOT be included in the request URI".
	if r.URL.Query().Has("client_secret") {
		return r, invalidRequest("credentials stand in the URL, where logs keep them: change the secret")
	}
	for name, values := range r.PostForm {
		// RFC 6749, section 3.2; only resource may come several times (RFC 8707, section 2).
		if len(values) > 1 && name != "resource" {
			return r, invalidRequest("a parameter is repeated")
		}
		// "Parameters sent without a value MUST be treated as if they were omitted."
		values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
		if r.PostForm[name] = values; len(values) == 0 {
			delete(r.PostForm, name)
		}
	}
	if r.URL.Path == engine.TokenPath && !r.PostForm.Has("grant_type") {
		return r, invalidRequest("grant_type is missing")
	}
	return r, readCredentials(r)
}

// readCredentials moves the credentials of an Authorization header into the form.
func readCredentials(r *http.Request) error {
	sent := r.Header.Values("Authorization")
	r.Header.Del("Authorization")
	if len(sent) == 0 {
		return nil
	}
	id, secret, ok := (&http.Request{Header: http.Header{"Authorization": sent}}).BasicAuth()
	if !ok || len(sent) > 1 {
		return &engine.Refusal{Status: http.StatusUnauthorized, Code: "invalid_client", Description: "the Authorization header is not Basic"}
	}
	// RFC 6749, section 2.3: "MUST NOT use more than one authentication method".
	if r.PostForm.Has("client_secret") || r.PostForm.Has("client_assertion") {
		return invalidRequest("the client authenticates in two ways")
	}
	// RFC 6749, section 2.3.1: both are form-encoded within the header.
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	if errID != nil || errSecret != nil {
		return invalidRequest("the credentials are not form-encoded within the Authorization header")
	}
	if named := r.PostForm.Get("client_id"); named != "" && named != id {
		return invalidRequest("client_id differs from the Authorization header")
	}
	r.PostForm.Set("client_id", id)
	r.PostForm.Set("client_secret", secret)
	return nil
}
