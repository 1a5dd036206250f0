// Package peer has what the servers on other libraries share: the configuration, routes, and the code that a library leaves to its users.
package peer

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// The configuration, which the runner passes in the environment.
var (
	Issuer       = os.Getenv("CONFORM_ISSUER")
	SecondIssuer = os.Getenv("CONFORM_SECOND_ISSUER")
	JWKSURI      = os.Getenv("CONFORM_JWKS_URI")
	Audience     = os.Getenv("CONFORM_AUDIENCE")
	listen       = os.Getenv("CONFORM_LISTEN")
)

// The paths of routes, and what they require.
const (
	Any      = "/any"
	Scope    = "/scope"
	Scopes   = "/scopes"
	Optional = "/optional"
)

// ScopesOf lists the scopes that routes require.
var ScopesOf = map[string][]string{Any: nil, Scope: {"orders:read"}, Scopes: {"orders:read", "orders:write"}}

// Serve serves until the process ends.
func Serve(h http.Handler) {
	server := &http.Server{Addr: listen, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// Caller responds with the caller.
func Caller(w http.ResponseWriter, claims map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(Identity(claims))
}

// Identity returns the claims that describe the caller.
func Identity(claims map[string]any) map[string]any {
	caller := map[string]any{}
	for _, name := range []string{"sub", "client_id", "scope"} {
		if value, ok := claims[name]; ok {
			caller[name] = value
		}
	}
	return caller
}

// Bearer guards next with a library that only verifies tokens. It has what RFC 6750, sections 2.1 and 3, and RFC 9110, section 11, ask of such
// code, so that the result is that of the library.
func Bearer(verify func(ctx context.Context, raw string) (map[string]any, error)) http.Handler {
	refuse := func(w http.ResponseWriter, status int, challenge string) {
		w.Header().Set("WWW-Authenticate", challenge)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := r.Header.Values("Authorization")
		if len(lines) == 0 {
			refuse(w, http.StatusUnauthorized, `Bearer realm="api"`)
			return
		}
		scheme, raw, _ := strings.Cut(lines[0], " ")
		raw = strings.TrimLeft(raw, " ")
		switch {
		case len(lines) > 1 || strings.EqualFold(scheme, "Bearer") && (raw == "" || strings.ContainsAny(raw, " \t,")):
			refuse(w, http.StatusBadRequest, `Bearer realm="api", error="invalid_request"`)
			return
		case !strings.EqualFold(scheme, "Bearer"):
			refuse(w, http.StatusUnauthorized, `Bearer realm="api"`)
			return
		}
		claims, err := verify(r.Context(), raw)
		if err != nil {
			refuse(w, http.StatusUnauthorized, `Bearer realm="api", error="invalid_token"`)
			return
		}
		Caller(w, claims)
	})
}

// Algorithms are those of the keys of the suite.
var Algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

// Options returns the options of golang-jwt, with all checks that fit an access token.
func Options() []jwt.ParserOption {
	return []jwt.ParserOption{jwt.WithValidMethods(Algorithms), jwt.WithIssuer(Issuer), jwt.WithAudience(Audience), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithStrictDecoding()}
}

// Keys returns the function that finds keys for golang-jwt, from the library that its documentation names. Keys for encryption are left out, as
// its option UseWhitelist allows; the empty use is that of keys without one.
func Keys() jwt.Keyfunc {
	storage, err := jwkset.NewDefaultHTTPClient([]string{JWKSURI})
	if err != nil {
		log.Fatal(err)
	}
	keys, err := keyfunc.New(keyfunc.Options{Storage: storage, UseWhitelist: []jwkset.USE{jwkset.UseSig, ""}})
	if err != nil {
		log.Fatal(err)
	}
	return keys.Keyfunc
}
