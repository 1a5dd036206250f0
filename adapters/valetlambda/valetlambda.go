// Package valetlambda makes a Lambda authorizer of Amazon API Gateway from a route table: for REST APIs, HTTP APIs and the $connect
// route of WebSocket APIs.
//
//	guard, err := middleware.New(middleware.Config{Verifier: verifier, URL: valetlambda.URL("https://api.example.com/prod"), ...})
//	...
//	decider, err := table.Decider(guard)
//	...
//	authorizer, err := valetlambda.New(valetlambda.Config{Decider: decider, Kind: valetlambda.REST})
//	...
//	lambda.Start(authorizer)
//
// docs/lambda.md has the settings of API Gateway, and lists what an authorizer cannot do: API Gateway remembers answers, does not pass
// on challenges, and decodes paths. A function that handles requests itself, behind a function URL or a load balancer, does not need
// this package: guard its handler like any other.
package valetlambda

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// A Kind is the kind of an authorizer, as it is configured at API Gateway. It is not derived from events. The zero value is invalid.
type Kind string

// The kinds of authorizers.
const (
	// REST is a REQUEST authorizer of a REST API.
	REST Kind = "rest"

	// RESTToken is a TOKEN authorizer of a REST API, whose token source must be the header Authorization. It sees only that header,
	// the method and the path, so it cannot verify proofs (RFC 9449), and refuses every path with a percent sign.
	RESTToken Kind = "rest-token"

	// WebSocket is the authorizer of the $connect route of a WebSocket API. The row of the table is "GET /$connect".
	WebSocket Kind = "websocket"

	// HTTP is an authorizer of an HTTP API with payload format 2.0 and simple responses.
	HTTP Kind = "http"

	// HTTPPolicy is an authorizer of an HTTP API with payload format 2.0 that responds with IAM policies.
	HTTPPolicy Kind = "http-policy"
)

// Config configures an [Authorizer]. Decider and Kind are required.
type Config struct {
	_ struct{} // keyed literals only

	// Decider decides on the requests, see [routes.Table.Decider]. Required. For proofs (RFC 9449), its guard needs the URL function of
	// this package. It cannot use nonces, because API Gateway does not pass them on, or find tokens in a form, because authorizers do
	// not receive the body.
	Decider *routes.Decider

	// Kind is the kind of the authorizer. Required.
	Kind Kind

	// PathPrefix is what API Gateway puts in front of the path, and the rows of the table do not have: for an HTTP API, the stage,
	// such as "/prod", unless it is $default; with a custom domain, the base path of its mapping. A request without the prefix is
	// refused. Empty: none.
	PathPrefix string

	// AllowDecodedPaths accepts requests to the routes $default and {proxy+} of an HTTP API, which passes paths to its authorizers
	// decoded. Such a path does not show whether a slash was encoded. Set it only if the software behind the route reads the same
	// decoded path, as a Lambda function does. Routes without a greedy parameter do not need it.
	AllowDecodedPaths bool
}

// An Authorizer answers API Gateway whether a request may pass. It is a lambda.Handler, and safe for concurrent use.
//
//   - A request that may pass gets {"isAuthorized": true}, or a policy that allows the ARN of the request and nothing else.
//   - A REST or WebSocket API gets "Unauthorized", for which it responds with 401, if the token is missing or not valid, and a policy
//     that denies the ARN, for which it responds with 403, otherwise. An HTTP API responds with 403 to every refusal.
//   - If no decision is possible, because the issuer cannot be reached or the event is not of the configured Kind, Invoke returns an
//     error, for which API Gateway responds with 500.
//
// The context of an answer has the strings subject, client, scope and expires, the Unix time in seconds at which the token expires. Each
// is empty if it is unknown. A refusal with 403 has challenge instead: the value of WWW-Authenticate, for a gateway response of a REST
// API.
//
// A request with a header that [middleware.IsIdentityHeader] reports is refused, because an authorizer cannot remove it.
type Authorizer struct {
	decider *routes.Decider
	kind    Kind
	prefix  string
	decoded bool
}

// New returns an Authorizer. It does no I/O. The error joins every mistake in cfg, each a [valetkey.ConfigError].
func New(cfg Config) (*Authorizer, error) {
	var mistakes []error
	mistake := func(field, format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetlambda: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)}))
	}
	if cfg.Decider == nil {
		mistake("Decider", "required")
	}
	switch cfg.Kind {
	case REST, RESTToken, WebSocket, HTTP, HTTPPolicy:
	case "":
		mistake("Kind", "required: rest, rest-token, websocket, http or http-policy")
	default:
		mistake("Kind", "%q is not rest, rest-token, websocket, http or http-policy", string(cfg.Kind))
	}
	if p := cfg.PathPrefix; p != "" {
		switch {
		case cfg.Kind == WebSocket || cfg.Kind == RESTToken:
			mistake("PathPrefix", "has no effect with %s, whose events have the path without it", cfg.Kind)
		case !strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || strings.ContainsAny(p, `%?#\*`):
			mistake("PathPrefix", "%q is not a path such as /prod", p)
		}
	}
	if cfg.AllowDecodedPaths && cfg.Kind != HTTP && cfg.Kind != HTTPPolicy {
		mistake("AllowDecodedPaths", "has no effect unless Kind is http or http-policy")
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return &Authorizer{cfg.Decider, cfg.Kind, cfg.PathPrefix, cfg.AllowDecodedPaths}, nil
}

// URL returns a function for [middleware.Config] that returns the URL for which a client must make a proof (RFC 9449). base is the URL at
// which clients reach the path / of the table: with the stage, unless it is $default, or with the base path of a
// custom domain. Clients of a WebSocket API make a proof for base, with the scheme https.
func URL(base string) func(*http.Request) string {
	base = strings.TrimSuffix(base, "/")
	return func(r *http.Request) string {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		if path == connectPath {
			path = ""
		}
		return base + path
	}
}

const connectPath = "/$connect"

// errUnauthorized makes REST and WebSocket APIs respond with 401. API Gateway compares the text.
var errUnauthorized = errors.New("Unauthorized")

// Invoke answers the event in payload.
func (a *Authorizer) Invoke(ctx context.Context, payload []byte) (answer []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			answer, err = nil, fmt.Errorf("valetlambda: panic while deciding: %v\n%s", v, debug.Stack())
		}
	}()
	q, err := a.read(payload)
	if err != nil {
		return nil, fmt.Errorf("valetlambda: %w", err)
	}
	d := a.decide(ctx, q)
	if err := ctx.Err(); err != nil { // API Gateway no longer waits for the answer
		return nil, fmt.Errorf("valetlambda: %w", context.Cause(ctx))
	}
	token := d.Token()
	if d.Err() == nil {
		if _, err := middleware.IdentityHeaders(token); err != nil { // a name that the software behind might not read as it is
			d = a.decider.Reject(nil, err)
		}
	}
	switch status := d.Status(); {
	case d.Err() == nil:
		return a.answer(q, true, identity(token))
	case status == http.StatusUnauthorized && (a.kind == REST || a.kind == RESTToken || a.kind == WebSocket):
		return nil, errUnauthorized
	case status >= 500:
		return nil, errors.New("valetlambda: no decision was possible; the log of the guard has the cause")
	}
	values := map[string]any{}
	if challenges := d.Header()["Www-Authenticate"]; len(challenges) > 0 {
		values["challenge"] = strings.Join(challenges, ", ") // RFC 9110, section 11.6.1
	}
	return a.answer(q, false, values)
}

func (a *Authorizer) decide(ctx context.Context, q question) middleware.Decision {
	if q.unclear != "" {
		return a.decider.Reject(nil, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: q.unclear})
	}
	d, _ := a.decider.DecideReport(ctx, q.report)
	return d
}

// identity returns the context that identifies the caller.
func identity(t *valetkey.Token) map[string]any {
	values := map[string]any{"subject": "", "client": "", "scope": "", "expires": ""}
	if t != nil {
		values["subject"], values["client"], values["scope"] = t.Subject(), t.ClientID(), t.Scopes().String()
		if !t.Expiry().IsZero() {
			values["expires"] = strconv.FormatInt(t.Expiry().Unix(), 10)
		}
	}
	return values
}

// answer returns the answer about q, with the given values as its context.
func (a *Authorizer) answer(q question, allow bool, values map[string]any) ([]byte, error) {
	if a.kind == HTTP {
		return json.Marshal(events.APIGatewayV2CustomAuthorizerSimpleResponse{IsAuthorized: allow, Context: values})
	}
	effect, resource := "Deny", literal(q.arn)
	if allow {
		effect, resource = "Allow", q.arn
	}
	principal, _ := values["subject"].(string)
	if principal == "" {
		principal = "anonymous" // it is required
	}
	return json.Marshal(events.APIGatewayCustomAuthorizerResponse{
		PrincipalID: principal,
		PolicyDocument: events.APIGatewayCustomAuthorizerPolicy{
			Version:   "2012-10-17",
			Statement: []events.IAMPolicyStatement{{Action: []string{"execute-api:Invoke"}, Effect: effect, Resource: []string{resource}}},
		},
		Context: values,
	})
}

// certificate returns the certificate in a text in PEM, or nil if there is none.
func certificate(text string) (*x509.Certificate, error) {
	if text == "" {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the client certificate is not in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
