package introspect

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

// Auth authenticates this resource server to an introspection endpoint. The zero value is invalid in a [Config]. Printing an
// Auth does not reveal the secret.
type Auth struct {
	id          string                                         // client id; "" if the method has none
	certificate bool                                           // the transport authenticates
	err         error                                          // a mistake in the arguments
	add         func(ctx context.Context, call authCall) error // adds the credentials
}

// An authCall is a request that is being built.
type authCall struct {
	form     url.Values
	header   http.Header
	audience string // of an assertion
	now      time.Time
}

// BasicAuth returns the method client_secret_basic: id and secret are form-encoded and then sent by HTTP Basic (RFC 6749,
// section 2.3.1). For endpoints that do not decode them, see [RawBasicAuth].
func BasicAuth(id, secret string) Auth {
	return basic(id, given(id, secret), url.QueryEscape(id)+":"+url.QueryEscape(secret))
}

// RawBasicAuth sends id and secret by HTTP Basic as they are (RFC 7617), without the form-encoding of RFC 6749, section 2.3.1. It
// is for endpoints that do not decode them, such as Cloud Foundry UAA, HCL Domino and authorization servers built on the retired
// Spring Security OAuth. They report that the client is unknown or that its secret is wrong, because of a character other than
// letters, digits and "-._~". For all other IDs and secrets, RawBasicAuth and [BasicAuth] send the same. id must not contain a
// colon, and neither may contain a control character (RFC 7617, section 2).
func RawBasicAuth(id, secret string) Auth {
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
	return Auth{id: id, err: err, add: func(_ context.Context, c authCall) error {
		c.header.Set("Authorization", header)
		return nil
	}}
}

// PostAuth returns the method client_secret_post: id and secret are sent in the form (RFC 6749, section 2.3.1).
func PostAuth(id, secret string) Auth {
	return Auth{id: id, err: given(id, secret), add: func(_ context.Context, c authCall) error {
		c.form.Set("client_id", id)
		c.form.Set("client_secret", secret)
		return nil
	}}
}

func given(id, secret string) error {
	if id == "" || secret == "" {
		return errors.New("the client id or the secret is empty")
	}
	return nil
}

// BearerAuth authenticates with an access token of this server, which token returns (RFC 7662, section 2.1). token is called
// for every request to the endpoint and must be safe for concurrent use. It should cache the access token until shortly
// before its expiry, and must not put it into an error.
func BearerAuth(token func(ctx context.Context) (string, error)) Auth {
	if token == nil {
		return Auth{err: errors.New("BearerAuth: the function is nil")}
	}
	return Auth{add: func(ctx context.Context, c authCall) error {
		own, err := token(ctx)
		if err != nil {
			// %v hides the wrapped error: it is about this server's token and must not pass for a refusal of the client's.
			return fmt.Errorf("getting an access token of our own: %v", err)
		}
		if own == "" {
			return errors.New("getting an access token of our own: it is empty")
		}
		c.header.Set("Authorization", "Bearer "+own)
		return nil
	}}
}

// assertionLife is the lifetime of an assertion (RFC 7523, section 3: exp). Each assertion is made for one request.
const assertionLife = time.Minute

// PrivateKeyJWT returns the method private_key_jwt: each request carries a new assertion, signed with this server's private
// key (RFC 7523, section 2.2). The audience of the assertion is Config.Issuer or, if that is empty, the URL of the endpoint.
// jwk is a private JWK; alg may be empty if the JWK has one.
func PrivateKeyJWT(id string, jwk []byte, alg string) Auth {
	key, err := jose.ParsePrivateKey(jwk, alg)
	if err != nil {
		return Auth{err: fmt.Errorf("PrivateKeyJWT: %w", err)}
	}
	if id == "" {
		return Auth{err: errors.New("PrivateKeyJWT: the client id is empty")}
	}
	return Auth{id: id, add: func(_ context.Context, c authCall) error {
		claims, err := json.Marshal(map[string]any{ // RFC 7523, section 3
			"iss": id,
			"sub": id,
			"aud": c.audience,
			"iat": c.now.Unix(),
			"exp": c.now.Add(assertionLife).Unix(),
			"jti": rand.Text(),
		})
		if err != nil {
			return fmt.Errorf("writing an assertion: %w", err)
		}
		assertion, err := key.Sign(nil, claims)
		if err != nil {
			return fmt.Errorf("signing an assertion: %w", err)
		}
		c.form.Set("client_id", id)
		c.form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		c.form.Set("client_assertion", assertion)
		return nil
	}}
}

// TLSAuth sends only the client ID. The certificate that Config.Client presents authenticates it (RFC 8705, section 2).
func TLSAuth(id string) Auth {
	if id == "" {
		return Auth{err: errors.New("TLSAuth: the client id is empty")}
	}
	return Auth{id: id, certificate: true, add: func(_ context.Context, c authCall) error {
		c.form.Set("client_id", id)
		return nil
	}}
}

// NoAuth sends no credentials, for an endpoint that requires none. RFC 7662, section 2.1, forbids such endpoints, since
// anyone can try out tokens there.
func NoAuth() Auth {
	return Auth{add: func(context.Context, authCall) error { return nil }}
}
