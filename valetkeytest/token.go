package valetkeytest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/jose"
)

// Option changes a token before it is signed, or corrupts it afterwards. Options apply in the order given.
type Option func(*draft)

type draft struct {
	now       time.Time
	claims    map[string]any
	header    map[string]any // a nil value removes
	algorithm string
	payload   string           // instead of the claims, unless ""
	secret    []byte           // instead of a private key, unless nil
	own       *jose.PrivateKey // of a client, in place of the issuer's, unless nil
	lenient   bool
	foreign   bool
	unsigned  bool
	spoil     []func(parts []string) error // header, payload, signature, all base64url
}

// scopeList is the scope claim in the form of RFC 9068, section 2.2.3, unless the token is lenient.
type scopeList []string

func (l scopeList) MarshalJSON() ([]byte, error) { return json.Marshal(strings.Join(l, " ")) }

// Scopes sets the scope claim. Default: none.
func Scopes(scope ...string) Option { return Claim("scope", scopeList(scope)) }

// Audience sets aud: a string, or an array if there are several. Default: [DefaultAudience].
func Audience(aud ...string) Option {
	if len(aud) == 1 {
		return Claim("aud", aud[0])
	}
	return Claim("aud", aud)
}

// Subject sets sub. Default: [DefaultSubject].
func Subject(sub string) Option { return Claim("sub", sub) }

// ClientID sets client_id. Default: [DefaultClientID].
func ClientID(id string) Option { return Claim("client_id", id) }

// Claim sets a claim to the JSON encoding of value. A nil value removes the claim; json.RawMessage("null") sets it to null.
func Claim(name string, value any) Option {
	return func(d *draft) {
		if value == nil {
			delete(d.claims, name)
			return
		}
		d.claims[name] = value
	}
}

// Header sets a header parameter of the JWT, including alg. A nil value removes it.
func Header(name string, value any) Option { return func(d *draft) { d.header[name] = value } }

// Payload signs these bytes instead of the claims, for a payload that no JSON encoder would write.
func Payload(payload string) Option { return func(d *draft) { d.payload = payload } }

// ExpiresIn sets exp to life after [Issuer.Now]. Default: [DefaultLifetime].
func ExpiresIn(life time.Duration) Option {
	return func(d *draft) { d.claims["exp"] = d.now.Add(life).Unix() }
}

// Expired makes a token that was issued two hours ago and expired an hour ago.
func Expired() Option {
	return func(d *draft) {
		d.claims["iat"] = d.now.Add(-2 * time.Hour).Unix()
		d.claims["exp"] = d.now.Add(-time.Hour).Unix()
	}
}

// NotYetValid makes a token that becomes valid in an hour and expires an hour later.
func NotYetValid() Option {
	return func(d *draft) {
		d.claims["nbf"] = d.now.Add(time.Hour).Unix()
		d.claims["exp"] = d.now.Add(2 * time.Hour).Unix()
	}
}

// WrongIssuer sets iss to that of another issuer.
func WrongIssuer() Option { return Claim("iss", "https://wrong-issuer.example.com") }

// WrongAudience sets aud to that of another resource server.
func WrongAudience() Option { return Audience("https://wrong-audience.example.com") }

// Algorithm signs with alg: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA or Ed25519. Default: the
// first algorithm of [SignWith], or ES256.
func Algorithm(alg string) Option { return func(d *draft) { d.algorithm = alg } }

// Type sets typ; "" removes it. Default: at+jwt.
func Type(typ string) Option {
	if typ == "" {
		return Header("typ", nil)
	}
	return Header("typ", typ)
}

// KeyID sets kid, regardless of the signing key. Default: the ID of the signing key.
func KeyID(kid string) Option { return Header("kid", kid) }

// NoKeyID removes kid.
func NoKeyID() Option { return Header("kid", nil) }

// Lenient makes a token as many deployed issuers send it, such as light-oauth2: no typ, no kid, no sub, and scope as an
// array.
func Lenient() Option {
	return func(d *draft) {
		d.lenient = true
		d.header["typ"], d.header["kid"] = nil, nil
		delete(d.claims, "sub")
	}
}

// UnknownKey signs with a key that the issuer never publishes, and sets kid to the ID of that key.
func UnknownKey() Option { return func(d *draft) { d.foreign = true } }

// Secret signs with a shared secret and HS256, or the HMAC algorithm given with [Algorithm]. With a public key as the secret,
// this is the confusion attack of RFC 8725, section 2.1.
func Secret(secret []byte) Option {
	return func(d *draft) {
		d.secret = slices.Clone(secret)
		if !slices.Contains(jose.HMACAlgorithms(), d.algorithm) {
			d.algorithm = "HS256"
		}
	}
}

// Unsigned makes a token with the algorithm none and an empty signature (RFC 7519, section 6).
func Unsigned() Option {
	return func(d *draft) {
		d.unsigned = true
		d.header["alg"] = "none"
	}
}

// TamperedSignature flips one bit of the signature.
func TamperedSignature() Option {
	return spoil(func(parts []string) error {
		sig, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil || len(sig) == 0 {
			return errors.New("there is no signature to tamper with")
		}
		sig[len(sig)/2] ^= 1
		parts[2] = base64.RawURLEncoding.EncodeToString(sig)
		return nil
	})
}

// TamperedPayload changes the subject to mallory after signing.
func TamperedPayload() Option {
	return func(d *draft) {
		spoil(func(parts []string) error {
			claims := maps.Clone(d.claims)
			claims["sub"] = "mallory"
			payload, err := json.Marshal(claims)
			parts[1] = base64.RawURLEncoding.EncodeToString(payload)
			return err
		})(d)
	}
}

func spoil(f func(parts []string) error) Option {
	return func(d *draft) { d.spoil = append(d.spoil, f) }
}

// Token returns a signed JWT access token of RFC 9068. Options from which no token can be made, such as an unsupported
// algorithm, fail the test.
func (iss *Issuer) Token(opts ...Option) string {
	iss.t.Helper()
	raw, err := iss.sign(iss.draft(opts))
	if err != nil {
		iss.t.Errorf("valetkeytest: minting a token: %v", err)
	}
	return raw
}

func (iss *Issuer) draft(opts []Option) *draft {
	now := iss.Now()
	d := &draft{
		now:       now,
		algorithm: iss.algorithm(),
		header:    map[string]any{"typ": "at+jwt"},
		// RFC 9068, section 2.2.
		claims: map[string]any{
			"iss":       iss.URL,
			"sub":       DefaultSubject,
			"aud":       DefaultAudience,
			"client_id": DefaultClientID,
			"iat":       now.Unix(),
			"exp":       now.Add(DefaultLifetime).Unix(),
			"jti":       rand.Text(),
		},
	}
	for _, o := range opts {
		o(d)
	}
	if list, ok := d.claims["scope"].(scopeList); ok && d.lenient {
		d.claims["scope"] = []string(list)
	}
	return d
}

func (iss *Issuer) sign(d *draft) (string, error) {
	payload, err := d.encode()
	if err != nil {
		return "", err
	}
	raw, err := iss.signature(d, payload)
	if err != nil {
		return "", err
	}
	parts := strings.Split(raw, ".")
	for _, f := range d.spoil {
		if err := f(parts); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, "."), nil
}

func (d *draft) encode() ([]byte, error) {
	if d.payload != "" {
		return []byte(d.payload), nil
	}
	payload, err := json.Marshal(d.claims)
	if err != nil {
		return nil, fmt.Errorf("encoding the claims: %w", err)
	}
	return payload, nil
}

func (iss *Issuer) signature(d *draft, payload []byte) (string, error) {
	switch {
	case d.unsigned:
		maps.DeleteFunc(d.header, func(_ string, v any) bool { return v == nil })
		header, err := json.Marshal(d.header)
		if err != nil {
			return "", fmt.Errorf("encoding the header: %w", err)
		}
		enc := base64.RawURLEncoding
		return enc.EncodeToString(header) + "." + enc.EncodeToString(payload) + ".", nil
	case d.secret != nil:
		return jose.SignSecret(d.secret, d.algorithm, d.header, payload)
	}
	key, err := iss.keyFor(d)
	if err != nil {
		return "", err
	}
	return key.Sign(d.header, payload)
}

func (iss *Issuer) keyFor(d *draft) (*jose.PrivateKey, error) {
	if d.foreign {
		return iss.foreignKey(d.algorithm)
	}
	if d.own != nil {
		return d.own, nil
	}
	return iss.signingKey(d.algorithm)
}
