package valetkey

import (
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/derived"
)

// A Token holds the facts about an access token that a [Verifier] accepted. Whether they are enough for a route is decided by a
// [Requirement], anew for each request.
//
// A Token cannot be changed, so it is shared by requests and goroutines without a copy. The zero value is a token that says
// nothing. [NewToken] makes one of its fields.
type Token struct {
	fields  TokenFields
	derived atomic.Pointer[derivation]
}

// TokenFields are the facts of which [NewToken] makes a [Token]. The zero value of a field means that the issuer does not say.
type TokenFields struct {
	Issuer    string // iss, as the verifier was configured with
	Subject   string // sub
	ClientID  string // client_id, RFC 8693, section 4.3
	ID        string // jti
	SessionID string // sid, the login session that the token belongs to
	ACR       string // acr, how the user logged in: RFC 9068, section 2.2.1
	Audience  List[string]
	Scopes    Scopes
	Actor     *Actor // act, who acts for the subject: RFC 8693, section 4.1; nil: nobody does

	IssuedAt  time.Time
	NotBefore time.Time
	Expiry    time.Time // zero only where an issuer answers an introspection without exp
	AuthTime  time.Time // auth_time, when the user logged in: RFC 9068, section 2.2.1

	// Deadline is exp plus the leeway of the verifier: the token can be accepted before this instant, and never at it or
	// later. Unlike Freshness.Until, it does not depend on how long a result is remembered. Zero: unknown, as Expiry is.
	Deadline time.Time

	// Binding is the key that the token is bound to; zero for a plain bearer token.
	Binding Binding

	// Raw is the JSON object of the claims as received. It has no duplicate members and none that differ in letter case only.
	Raw string

	// Freshness is how long the verifier's result may be relied on.
	Freshness Freshness
}

// NewToken returns a Token of f, for verifiers and tests.
func NewToken(f TokenFields) *Token {
	if f.Actor != nil {
		own := *f.Actor
		f.Actor = &own
	}
	return &Token{fields: f}
}

// Fields returns the facts of t, from which a verifier that wraps another makes a token of its own.
func (t *Token) Fields() TokenFields {
	f := t.fields
	if f.Actor != nil {
		own := *f.Actor
		f.Actor = &own
	}
	return f
}

// Issuer returns iss, as the verifier was configured with.
func (t *Token) Issuer() string { return t.fields.Issuer }

// Subject returns sub; "" if the issuer sends none.
func (t *Token) Subject() string { return t.fields.Subject }

// ClientID returns client_id (RFC 8693, section 4.3); "" if the issuer sends none.
func (t *Token) ClientID() string { return t.fields.ClientID }

// ID returns jti; "" if the issuer sends none.
func (t *Token) ID() string { return t.fields.ID }

// SessionID returns sid, the login session that the token belongs to; "" if the issuer sends none.
func (t *Token) SessionID() string { return t.fields.SessionID }

// ACR returns acr, how the user logged in (RFC 9068, section 2.2.1); "" if the issuer sends none.
func (t *Token) ACR() string { return t.fields.ACR }

// Audience returns aud, at least one of which is this resource server.
func (t *Token) Audience() List[string] { return t.fields.Audience }

// Scopes returns the scopes, of whichever claims the verifier reads.
func (t *Token) Scopes() Scopes { return t.fields.Scopes }

// Actor returns who acts for the subject (RFC 8693, section 4.1), and whether anybody does.
func (t *Token) Actor() (a Actor, ok bool) {
	if t.fields.Actor == nil {
		return Actor{}, false
	}
	return *t.fields.Actor, true
}

// IssuedAt returns iat; zero if the issuer sends none.
func (t *Token) IssuedAt() time.Time { return t.fields.IssuedAt }

// NotBefore returns nbf; zero if the issuer sends none.
func (t *Token) NotBefore() time.Time { return t.fields.NotBefore }

// Expiry returns exp; zero only where an issuer answers an introspection without it.
func (t *Token) Expiry() time.Time { return t.fields.Expiry }

// AuthTime returns auth_time, when the user logged in (RFC 9068, section 2.2.1); zero if the issuer sends none.
func (t *Token) AuthTime() time.Time { return t.fields.AuthTime }

// Deadline returns the instant at and after which the token can no longer be accepted: exp plus the leeway of the verifier. It is
// zero if the expiry is.
func (t *Token) Deadline() time.Time { return t.fields.Deadline }

// Binding returns the key that the token is bound to; zero for a plain bearer token.
func (t *Token) Binding() Binding { return t.fields.Binding }

// Freshness returns how long the verifier's result may be relied on.
func (t *Token) Freshness() Freshness { return t.fields.Freshness }

// Raw returns the JSON object of the claims as received; "" if there is none. It has no duplicate members and none that differ in
// letter case only. To read claims of your own, see [DeclareClaims].
func (t *Token) Raw() string { return t.fields.Raw }

// Claims decodes all claims of the token into v, as [json.Unmarshal] does, at each call. [DeclareClaims] does it once per token.
func (t *Token) Claims(v any) error {
	if t.fields.Raw == "" {
		return errors.New("valetkey: the token carries no claims")
	}
	return json.Unmarshal([]byte(t.fields.Raw), v)
}

// ByClient reports whether the token says that a client acts on its own behalf (client credentials) rather than for a
// resource owner: its subject is the client itself (RFC 9068, section 2.2). A token without a subject does not say.
func (t *Token) ByClient() bool {
	return t.fields.Subject != "" && t.fields.Subject == t.fields.ClientID
}

// A derivation is what a package of this module has made of the claims, see package derived.
type derivation struct {
	key, value any
	next       *derivation
}

func init() {
	derived.Of = func(token, key any, make func() any) any {
		t := token.(*Token)
		for {
			head := t.derived.Load()
			for d := head; d != nil; d = d.next {
				if d.key == key {
					return d.value
				}
			}
			if v := make(); t.derived.CompareAndSwap(head, &derivation{key, v, head}) {
				return v
			}
		}
	}
}

// An Actor is the party that acts for the subject of a token: act, RFC 8693, section 4.1. Members that the issuer does not send
// are empty. Actors before this one are in [Token.Raw] only, since they must not count for access control.
type Actor struct {
	Issuer   string // iss
	Subject  string // sub
	ClientID string // client_id
}

// A Binding names the key that the sender of a token must prove to hold: the confirmation (cnf) of RFC 7800.
type Binding struct {
	JWKThumbprint         string       // jkt, RFC 9449, section 6.1
	CertificateThumbprint string       // x5t#S256, RFC 8705, section 3.1
	Unknown               List[string] // confirmation methods of other names
}

// IsZero reports whether the token is a plain bearer token.
func (b Binding) IsZero() bool {
	return b.JWKThumbprint == "" && b.CertificateThumbprint == "" && b.Unknown.Len() == 0
}

// and returns the binding to what b or o names, and whether the two agree: a binding that only one of two verifiers knows of is one.
func (b Binding) and(o Binding) (both Binding, ok bool) {
	for _, thumbprint := range []struct{ to, from *string }{
		{&b.JWKThumbprint, &o.JWKThumbprint}, {&b.CertificateThumbprint, &o.CertificateThumbprint},
	} {
		switch {
		case *thumbprint.to == "":
			*thumbprint.to = *thumbprint.from
		case *thumbprint.from != "" && *thumbprint.from != *thumbprint.to:
			return Binding{}, false
		}
	}
	b.Unknown = List[string]{slices.Concat(b.Unknown.items, o.Unknown.items)}
	return b, true
}

// A Freshness is how long the result of a [Verifier] may be relied on without asking it again (compare RFC 9111, section 4.2). The
// zero value: not at all.
type Freshness struct {
	Until time.Time // no longer than this, which is never past what the verifier accepts as the token's expiry
	While Condition // and only while this holds; nil: nothing but time ends it
}

// A Condition is asked on every use of a remembered token whether what vouched for it still does, as a signing key
// does while it stands in its issuer's key set. Holds must be cheap and safe for concurrent use.
type Condition interface {
	Holds() bool
}

// And returns what both r and o allow.
func (r Freshness) And(o Freshness) Freshness {
	both := Freshness{Until: r.Until, While: r.While}
	if o.Until.Before(r.Until) {
		both.Until = o.Until
	}
	switch {
	case r.While == nil:
		both.While = o.While
	case o.While != nil:
		both.While = allOf{r.While, o.While}
	}
	return both
}

type allOf [2]Condition

func (c allOf) Holds() bool { return c[0].Holds() && c[1].Holds() }
