package jwks

import (
	"errors"
	"strings"
)

// A template is an issuer with the name of a claim in braces.
type template struct{ before, claim, after string }

// newTemplate returns the template in issuer, or nil if it has no braces.
func newTemplate(issuer string) (*template, error) {
	if !strings.ContainsAny(issuer, "{}") {
		return nil, nil
	}
	before, rest, _ := strings.Cut(issuer, "{")
	claim, after, closed := strings.Cut(rest, "}")
	if !closed || claim == "" || strings.ContainsAny(before+claim+after, "{}") {
		return nil, errors.New("has braces that are not one {claim}")
	}
	return &template{before, claim, after}, nil
}

// matches reports whether iss is the issuer of the tenant that the claims in name.
func (t *template) matches(iss string, in *unread) bool {
	rest, ok := strings.CutPrefix(iss, t.before)
	if !ok {
		return false
	}
	tenant, ok := strings.CutSuffix(rest, t.after)
	if !ok || tenant == "" || strings.ContainsFunc(tenant, notInTenant) {
		return false
	}
	named, _ := in.at(t.claim).View() // "", which is not a tenant, if it is not a string
	return named == tenant
}

func notInTenant(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_'
}

// issuerOf returns the issuer of the token with the claims in, and whether v verifies its tokens. It compares byte by byte, without
// normalization.
func (v *Verifier) issuerOf(in *unread) (string, bool) {
	iss, _ := in.iss.View()
	switch {
	case iss == "":
		return v.issuer, in.iss == nil && v.profile.AllowMissingIssuer
	case v.template != nil:
		return iss, v.template.matches(iss, in)
	case iss == v.issuer:
		return v.issuer, true
	}
	for _, alias := range v.aliases {
		if iss == alias {
			return v.issuer, true
		}
	}
	return iss, false
}
