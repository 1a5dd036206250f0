package valetkey

import (
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/derived"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Token is an access token that a [Verifier] accepted: its claims, its key binding and its freshness. A [Requirement] decides on
// each request whether they are sufficient for a route.
//
// A Token is immutable, so requests and goroutines share it without a copy. The zero value has no claims. [NewToken] creates a
// Token from [TokenFields].
type Token struct {
	fields  TokenFields
	derived atomic.Pointer[derivation]
}

// TokenFields holds the facts from which [NewToken] creates a [Token]. A field with the zero value is one that the issuer did not
// send.
type TokenFields struct {
	Issuer    string // iss, as configured in the verifier
	Subject   string // sub
	ClientID  string // client_id, RFC 8693, section 4.3
	ID        string // jti
	SessionID string // sid, the login session that the token belongs to
	ACR       string // acr, the authentication context class of the login: RFC 9068, section 2.2.1
	Audience  List[string]
	Scopes    Scopes
	Actor     *Actor // act, the party that acts for the subject: RFC 8693, section 4.1; nil: none

	IssuedAt  time.Time
	NotBefore time.Time
	Expiry    time.Time // exp; zero only if an introspection response omits it
	AuthTime  time.Time // auth_time, when the user logged in: RFC 9068, section 2.2.1

	// Deadline is exp plus the leeway of the verifier: from this instant on, the token is refused. Unlike Freshness.Until, it
	// does not depend on how long a result is cached. Zero: the token has no known expiry.
	Deadline time.Time

	// Binding is the key or certificate that the token is bound to. The zero value is a plain bearer token.
	Binding Binding

	// Raw is the JSON object of the claims as received. It has no duplicate members. Claims other than those in the fields above
	// may differ in letter case only (RFC 7519, section 10.1.1), which encoding/json does not tell apart in a struct: see
	// [Token.Claims].
	Raw string

	// Freshness states how long the verifier's result may be used without asking again.
	Freshness Freshness
}

// NewToken returns a Token with the facts in f. It is for verifiers and tests. It copies f.Actor.
func NewToken(f TokenFields) *Token {
	if f.Actor != nil {
		own := *f.Actor
		f.Actor = &own
	}
	return &Token{fields: f}
}

// Fields returns a copy of the facts in t. A verifier that wraps another one changes the copy and passes it to [NewToken].
func (t *Token) Fields() TokenFields {
	f := t.fields
	if f.Actor != nil {
		own := *f.Actor
		f.Actor = &own
	}
	return f
}

// Issuer returns iss, as configured in the verifier.
func (t *Token) Issuer() string { return t.fields.Issuer }

// Subject returns sub; "" if the issuer sends none.
func (t *Token) Subject() string { return t.fields.Subject }

// ClientID returns client_id (RFC 8693, section 4.3); "" if the issuer sends none.
func (t *Token) ClientID() string { return t.fields.ClientID }

// ID returns jti; "" if the issuer sends none.
func (t *Token) ID() string { return t.fields.ID }

// SessionID returns sid, the login session that the token belongs to; "" if the issuer sends none.
func (t *Token) SessionID() string { return t.fields.SessionID }

// ACR returns acr, the authentication context class of the login (RFC 9068, section 2.2.1); "" if the issuer sends none.
func (t *Token) ACR() string { return t.fields.ACR }

// Audience returns aud. At least one value identifies this resource server.
func (t *Token) Audience() List[string] { return t.fields.Audience }

// Scopes returns the scopes, from the claims that the verifier is configured to read.
func (t *Token) Scopes() Scopes { return t.fields.Scopes }

// Actor returns the party that acts for the subject (RFC 8693, section 4.1). It returns false if there is none.
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

// Expiry returns exp; zero only if an introspection response omits it.
func (t *Token) Expiry() time.Time { return t.fields.Expiry }

// AuthTime returns auth_time, when the user logged in (RFC 9068, section 2.2.1); zero if the issuer sends none.
func (t *Token) AuthTime() time.Time { return t.fields.AuthTime }

// Deadline returns the instant from which the token can no longer be accepted: exp plus the leeway of the verifier. It is zero if
// the expiry is.
func (t *Token) Deadline() time.Time { return t.fields.Deadline }

// Binding returns the key or certificate that the token is bound to; zero for a plain bearer token.
func (t *Token) Binding() Binding { return t.fields.Binding }

// Freshness returns how long the verifier's result may be used without asking again.
func (t *Token) Freshness() Freshness { return t.fields.Freshness }

// Raw returns the JSON object of the claims as received; "" if there is none. It has no duplicate members, but names may differ in
// letter case only: see [TokenFields]. To read application claims, see [DeclareClaims].
func (t *Token) Raw() string { return t.fields.Raw }

// Claims decodes all claims of the token into v, as [json.Unmarshal] does. It returns an error if the token carries no claims, or
// if the names of two members of one object differ in letter case only, such as email and Email, and v is not a *map[string]any
// and has no method UnmarshalJSON: json.Unmarshal would store the later one in a field that is meant for the other. It decodes on
// each call; [DeclareClaims] decodes once per token.
func (t *Token) Claims(v any) error {
	if t.fields.Raw == "" {
		return errors.New("valetkey: the token carries no claims")
	}
	return unmarshal(t.fields.Raw, v)
}

// unmarshal decodes the claims raw into v.
func unmarshal(raw string, v any) error {
	data := []byte(raw)
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	switch v.(type) {
	case *map[string]any, *map[string]json.RawMessage, *any, json.Unmarshaler:
		return nil // these keep all names as they are
	}
	if !strictjson.FoldsApart(data) {
		return errors.New("valetkey: the names of two claims differ in letter case only: decode them into a map[string]any")
	}
	return nil
}

// ByClient reports whether a client acts on its own behalf (client credentials) rather than for a resource owner: the subject of
// the token is the client itself (RFC 9068, section 2.2). It returns false for a token without a subject.
func (t *Token) ByClient() bool {
	return t.fields.Subject != "" && t.fields.Subject == t.fields.ClientID
}

// A derivation is a value that a package of this module computed from the claims, see package derived.
type derivation struct {
	key, value any
	next       *derivation
}

// find returns the value stored under key; nil if there is none.
func (d *derivation) find(key any) any {
	for ; d != nil; d = d.next {
		if d.key == key {
			return d.value
		}
	}
	return nil
}

func init() {
	derived.Stored = func(token, key any) any { return token.(*Token).derived.Load().find(key) }
	derived.Of = func(token, key any, make func() any) any {
		t := token.(*Token)
		for {
			head := t.derived.Load()
			if v := head.find(key); v != nil {
				return v
			}
			if v := make(); t.derived.CompareAndSwap(head, &derivation{key, v, head}) {
				return v
			}
		}
	}
}

// An Actor is the party that acts for the subject of a token: act, RFC 8693, section 4.1. A field is empty if the issuer does not
// send the member. Prior actors are in [Token.Raw] only, because access control must not consider them.
type Actor struct {
	Issuer   string // iss
	Subject  string // sub
	ClientID string // client_id
}

// A Binding identifies the keys whose possession the sender of a token must prove: the confirmation (cnf) of RFC 7800. The zero
// value is a plain bearer token.
type Binding struct {
	JWKThumbprint         string       // jkt, RFC 9449, section 6.1
	CertificateThumbprint string       // x5t#S256, RFC 8705, section 3.1
	Unknown               List[string] // names of other confirmation methods
}

// IsZero reports whether b has no confirmation method, as for a plain bearer token.
func (b Binding) IsZero() bool {
	return b.JWKThumbprint == "" && b.CertificateThumbprint == "" && b.Unknown.Len() == 0
}

// and returns a Binding with the confirmation methods of b and o. It returns false if they contradict each other. A binding that
// only one of the two verifiers reports applies.
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

// A Freshness states how long the result of a [Verifier] may be used without asking it again (compare RFC 9111, section 4.2). The
// zero value does not allow any reuse.
type Freshness struct {
	Until time.Time // the latest time; never later than the expiry that the verifier accepts
	While Condition // must hold on each use; nil: only time ends the freshness
}

// A Condition reports whether the grounds on which a token was accepted still exist, for example whether the signing key is still
// in the key set of its issuer. The cache checks it on every use of a cached token.
type Condition interface {
	// Holds must be cheap and safe for concurrent use.
	Holds() bool
}

// And returns the Freshness that both r and o allow: the earlier Until and both conditions.
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
