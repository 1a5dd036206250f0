package authserver

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/engine"
)

const keySetPath = "/oauth2/keys"

// metadata is the document of RFC 8414, section 2. Members that would be empty are omitted (section 3.2), except for
// response_types_supported, which is required and empty where no grant has an authorization endpoint.
type metadata struct {
	Issuer            string   `json:"issuer"`
	TokenEndpoint     string   `json:"token_endpoint"`
	KeySet            string   `json:"jwks_uri"`
	Scopes            []string `json:"scopes_supported,omitempty"`
	ResponseTypes     []string `json:"response_types_supported"`
	GrantTypes        []string `json:"grant_types_supported"` // omitted, it would mean authorization_code and implicit
	TokenAuth         []string `json:"token_endpoint_auth_methods_supported"`
	Introspection     string   `json:"introspection_endpoint"`
	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
	Revocation        string   `json:"revocation_endpoint"`
	RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`
}

func describe(cfg Config) metadata {
	base := strings.TrimSuffix(cfg.Issuer, "/")
	auth := []string{"client_secret_basic", "client_secret_post"}
	var scopes []string
	for _, a := range cfg.APIs {
		scopes = slices.Concat(scopes, a.scopes())
	}
	return metadata{
		Issuer:            cfg.Issuer,
		TokenEndpoint:     base + engine.TokenPath,
		KeySet:            base + keySetPath,
		Scopes:            valetkey.NewScopes(scopes...),
		ResponseTypes:     []string{},
		GrantTypes:        []string{"client_credentials"},
		TokenAuth:         auth,
		Introspection:     base + engine.IntrospectPath,
		IntrospectionAuth: auth,
		Revocation:        base + engine.RevokePath,
		RevocationAuth:    auth,
	}
}

// wellKnown returns where clients look for the metadata of an issuer with this path: RFC 8414, sections 3.1 and 5, and
// OpenID Connect Discovery, section 4.
func wellKnown(path string) []string {
	places := []string{
		"/.well-known/oauth-authorization-server" + path,
		"/.well-known/openid-configuration" + path,
		path + "/.well-known/openid-configuration",
	}
	return slices.Compact(places) // the last two are one where there is no path
}
