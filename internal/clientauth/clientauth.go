// Package clientauth authenticates this server to the endpoints of an authorization server (RFC 6749, section 2.3; RFC 7523; RFC 8705).
package clientauth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/valetkey/valetkey/internal/jose"
)

// Auth is a method of client authentication with its credentials. The zero value is none. Printing an Auth does not reveal the
// secret. Auth has neither fields nor methods to export, because package introspect exports it as a separate type; the
// functions of this package do what methods would.
type Auth struct {
	id          string                                     // client id; "" if the method has none
	certificate bool                                       // the transport authenticates
	err         error                                      // a mistake in the arguments
	add         func(ctx context.Context, call Call) error // adds the credentials
}

// A Call is a request that is being built.
type Call struct {
	Form     url.Values
	Header   http.Header
	Audience string // of an assertion
	Now      time.Time
}

// Add adds the credentials of a to call. a must be neither zero nor a mistake.
func Add(ctx context.Context, a Auth, call Call) error { return a.add(ctx, call) }

// Err returns the mistake in the arguments that a was created with, or nil.
func Err(a Auth) error { return a.err }

// IsZero reports whether a is the zero value.
func IsZero(a Auth) bool { return a.add == nil && a.err == nil }

// ID returns the client ID, or "" if the method has none.
func ID(a Auth) string { return a.id }

// ByCertificate reports whether the certificate of the transport authenticates the client.
func ByCertificate(a Auth) bool { return a.certificate }

// Basic returns the method client_secret_basic: id and secret are form-encoded and then sent by HTTP Basic (RFC 6749,
// section 2.3.1). For endpoints that do not decode them, see [RawBasic].
func Basic(id, secret string) Auth {
	return basic(id, given(id, secret), url.QueryEscape(id)+":"+url.QueryEscape(secret))
}

// RawBasic sends id and secret by HTTP Basic as they are (RFC 7617), without the form-encoding of RFC 6749, section 2.3.1. It
// is for endpoints that do not decode them, such as Cloud Foundry UAA, HCL Domino and authorization servers built on the retired
// Spring Security OAuth. They report that the client is unknown or that its secret is wrong, because of a character other than
// letters, digits and "-._~". For all other IDs and secrets, RawBasic and [Basic] send the same. id must not contain a
// colon, and neither may contain a control character (RFC 7617, section 2).
func RawBasic(id, secret string) Auth {
	err := given(id, secret)
	switch {
	case err != nil:
	case strings.Contains(id, ":"):
		err = errors.New("the client id contains a colon, so it cannot be sent raw; use another method")
	case strings.ContainsFunc(id+secret, unicode.IsControl):
		err = errors.New("the client id or the secret contains a control character, so it cannot be sent raw; use another method")
	}
	return basic(id, err, id+":"+secret)
}

func basic(id string, err error, credentials string) Auth {
	header := "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	return Auth{id: id, err: err, add: func(_ context.Context, c Call) error {
		c.Header.Set("Authorization", header)
		return nil
	}}
}

// Post returns the method client_secret_post: id and secret are sent in the form (RFC 6749, section 2.3.1).
func Post(id, secret string) Auth {
	return Auth{id: id, err: given(id, secret), add: func(_ context.Context, c Call) error {
		c.Form.Set("client_id", id)
		c.Form.Set("client_secret", secret)
		return nil
	}}
}

func given(id, secret string) error {
	if id == "" || secret == "" {
		return errors.New("the client id or the secret is empty")
	}
	return nil
}

// Bearer authenticates with an access token of this server, which token returns (RFC 7662, section 2.1). token is called
// for every request to the endpoint and must be safe for concurrent use. It should cache the access token until shortly
// before its expiry, and must not put it into an error.
func Bearer(token func(ctx context.Context) (string, error)) Auth {
	if token == nil {
		return Auth{err: errors.New("BearerAuth: the function is nil")}
	}
	return Auth{add: func(ctx context.Context, c Call) error {
		own, err := token(ctx)
		if err != nil {
			// %v hides the wrapped error: it is about this server's token and must not pass for a refusal of the client's.
			return fmt.Errorf("getting an access token of our own: %v", err)
		}
		if own == "" {
			return errors.New("getting an access token of our own: it is empty")
		}
		c.Header.Set("Authorization", "Bearer "+own)
		return nil
	}}
}

// assertionLife is the lifetime of an assertion (RFC 7523, section 3: exp). Each assertion is made for one request.
const assertionLife = time.Minute

// PrivateKeyJWT returns the method private_key_jwt: each request carries a new assertion, signed with this server's private
// key (RFC 7523, section 2.2). The audience of the assertion is Call.Audience.
// jwk is a private JWK; alg may be empty if the JWK has one.
func PrivateKeyJWT(id string, jwk []byte, alg string) Auth {
	key, err := jose.ParsePrivateKey(jwk, alg)
	if err != nil {
		return Auth{err: fmt.Errorf("PrivateKeyJWT: %w", err)}
	}
	if id == "" {
		return Auth{err: errors.New("PrivateKeyJWT: the client id is empty")}
	}
	return Auth{id: id, add: func(_ context.Context, c Call) error {
		claims, err := json.Marshal(map[string]any{ // RFC 7523, section 3
			"iss": id,
			"sub": id,
			"aud": c.Audience,
			"iat": c.Now.Unix(),
			"exp": c.Now.Add(assertionLife).Unix(),
			"jti": rand.Text(),
		})
		if err != nil {
			return fmt.Errorf("writing an assertion: %w", err)
		}
		assertion, err := key.Sign(nil, claims)
		if err != nil {
			return fmt.Errorf("signing an assertion: %w", err)
		}
		c.Form.Set("client_id", id)
		c.Form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		c.Form.Set("client_assertion", assertion)
		return nil
	}}
}

// TLS sends only the client ID. The certificate that the transport presents authenticates it (RFC 8705, section 2).
func TLS(id string) Auth {
	if id == "" {
		return Auth{err: errors.New("TLSAuth: the client id is empty")}
	}
	return Auth{id: id, certificate: true, add: func(_ context.Context, c Call) error {
		c.Form.Set("client_id", id)
		return nil
	}}
}

// None sends no credentials, for an endpoint that requires none. RFC 7662, section 2.1, forbids such endpoints, since
// anyone can try out tokens there.
func None() Auth {
	return Auth{add: func(context.Context, Call) error { return nil }}
}
