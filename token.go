package valetkey

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// A Token is an access token that some [Verifier] has accepted. It states facts; whether they are enough for a route
// is decided by a [Requirement], anew for each request.
//
// A Token that a Verifier returns may be shared by many requests and must not be modified.
type Token struct {
	Issuer    string   // iss, as the verifier was configured with
	Subject   string   // sub; "" where the issuer sends none
	ClientID  string   // client_id, RFC 8693, section 4.3
	ID        string   // jti
	SessionID string   // sid, the login session the token belongs to; "" where the issuer sends none
	Audience  []string // aud, at least one of which is this resource server
	Scopes    Scopes

	IssuedAt  time.Time // zero where the issuer sends none
	NotBefore time.Time // zero where the issuer sends none
	Expiry    time.Time // zero only where an issuer answers an introspection without exp

	// Deadline is exp plus the leeway of the verifier: the token can be accepted before this instant, and never at it or
	// later. Unlike Freshness.Until, it does not depend on how long an answer is remembered. Zero: unknown, as Expiry is.
	Deadline time.Time

	// Binding is the key the token is tied to; zero for a plain bearer token.
	Binding Binding

	// Raw is the JSON object of the claims as received. It has no duplicate members, none that differ in letter
	// case only, and its time claims are numbers.
	Raw json.RawMessage

	// Freshness says how long this answer may be relied on.
	Freshness Freshness
}

// Claims decodes all claims of the token into v, as [json.Unmarshal] does.
func (t *Token) Claims(v any) error {
	if len(t.Raw) == 0 {
		return errors.New("valetkey: the token carries no claims")
	}
	return json.Unmarshal(t.Raw, v)
}

// ByClient reports whether the token says that a client acts on its own behalf (client credentials) rather than for a
// resource owner: its subject is the client itself (RFC 9068, section 2.2). A token without a subject does not say.
func (t *Token) ByClient() bool {
	return t.Subject != "" && t.Subject == t.ClientID
}

// Clone returns a copy that shares nothing which could be modified.
func (t *Token) Clone() *Token {
	c := *t
	c.Audience = slices.Clone(t.Audience)
	c.Scopes = slices.Clone(t.Scopes)
	c.Raw = slices.Clone(t.Raw)
	c.Binding.Unknown = slices.Clone(t.Binding.Unknown)
	return &c
}

// A Binding names the key that the sender of a token must prove to hold: the confirmation (cnf) of RFC 7800.
type Binding struct {
	JWKThumbprint         string   // jkt, RFC 9449, section 6.1
	CertificateThumbprint string   // x5t#S256, RFC 8705, section 3.1
	Unknown               []string // confirmation methods of other names
}

// IsZero reports whether the token is a plain bearer token.
func (b Binding) IsZero() bool {
	return b.JWKThumbprint == "" && b.CertificateThumbprint == "" && len(b.Unknown) == 0
}

// A Freshness says how long the answer of a [Verifier] may be relied on without asking it again. The zero value: not at
// all.
type Freshness struct {
	Until time.Time // no longer than this, which is never past what the verifier accepts as the token's expiry
	While Condition // and only while this holds; nil: nothing but time ends it
}

// A Condition is asked on every use of a remembered token whether what vouched for it still does, as a signing key
// does while it stands in its issuer's key set. Holds must be cheap and safe for concurrent use.
type Condition interface {
	Holds() bool
}

// Scopes are the scopes of a token: sorted, each once. The zero value holds none.
type Scopes []string

// NewScopes returns the scopes of list, sorted, each once, without the empty string. It does not keep list.
func NewScopes(list ...string) Scopes {
	s := slices.DeleteFunc(slices.Clone(list), func(v string) bool { return v == "" })
	slices.Sort(s)
	return Scopes(slices.Compact(s))
}

// Has reports whether scope is one of s. Scopes are compared byte by byte (RFC 6749, section 3.3).
func (s Scopes) Has(scope string) bool {
	_, found := slices.BinarySearch(s, scope)
	return found
}

// String returns the scopes separated by single spaces, as RFC 6749, section 3.3 writes them.
func (s Scopes) String() string {
	return strings.Join(s, " ")
}

// union returns the scopes of s and o. It does not modify either.
func (s Scopes) union(o Scopes) Scopes {
	if len(o) == 0 {
		return s
	}
	return NewScopes(slices.Concat(s, o)...)
}
