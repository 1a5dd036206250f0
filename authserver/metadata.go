package authserver

import "slices"

// wellKnown returns the paths where clients look for the metadata of an issuer with this path: RFC 8414, sections 3.1 and 5, and
// OpenID Connect Discovery, section 4.
func wellKnown(path string) []string {
	places := []string{
		"/.well-known/oauth-authorization-server" + path,
		"/.well-known/openid-configuration" + path,
		path + "/.well-known/openid-configuration",
	}
	return slices.Compact(places) // without a path, the last two are the same
}
