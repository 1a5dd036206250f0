package valetlambda

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// A question is what an event asks: whether the reported request may pass.
type question struct {
	arn     string // of the request
	report  routes.Report
	unclear valetkey.Reason // why the request is refused without a decision; empty: it is not
}

// Reasons for refusals that a guard does not have.
var (
	reasonClaimed  = valetkey.NewReason("identity_claimed", "the request contains an X-Valetkey header, which only the gateway may add")
	reasonPath     = valetkey.NewReason("gateway_path", "the path is not clear in the event of the gateway")
	reasonGreedy   = valetkey.NewReason("gateway_greedy_route", "the gateway has decoded the path of a greedy route, which needs AllowDecodedPaths")
	reasonPrefix   = valetkey.NewReason("gateway_path_prefix", "the path does not begin with PathPrefix")
	reasonWildcard = valetkey.NewReason("gateway_wildcard", "the path contains a wildcard of IAM policies")
	reasonHeaders  = valetkey.NewReason("gateway_headers", "the event of the gateway contains a header twice, with different values")
)

// read reads an event of the Authorizer's kind. An error means that the event is not of that kind, or contradicts itself.
func (a *Authorizer) read(payload []byte) (q question, err error) {
	switch a.kind {
	case RESTToken:
		q, err = a.readToken(payload)
	case HTTP, HTTPPolicy:
		q, err = a.readHTTP(payload)
	default:
		q, err = a.readREST(payload)
	}
	if err != nil || q.unclear != "" {
		return q, err
	}
	q.report.Scheme = "https" // API Gateway has no other
	for name := range q.report.Header {
		if middleware.IsIdentityHeader(name) {
			q.unclear = reasonClaimed
		}
	}
	// The ARN contains the path that the client has chosen. In the policy it must mean one resource.
	if a.kind != HTTP && literal(q.arn) != q.arn {
		q.unclear = reasonWildcard
	}
	return q, nil
}

// literal returns the part of an ARN that precedes the first wildcard or variable of an IAM policy.
func literal(arn string) string {
	if i := strings.IndexAny(arn, "*?"); i >= 0 {
		arn = arn[:i]
	}
	arn, _, _ = strings.Cut(arn, "${")
	return arn
}

// errKind is the error for an event that another kind of authorizer receives.
func (a *Authorizer) errKind(event string) error {
	return fmt.Errorf("the event is %s, but Kind is %s", event, a.kind)
}

// A resource is what the ARN of a request names.
type resource struct {
	method, path string // path begins with a slash
}

// parse parses an ARN such as arn:aws:execute-api:eu-west-1:123456789012:abcdef123/prod/GET/orders/7.
func parse(arn string) (resource, error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "execute-api" {
		return resource{}, errors.New("the event has no ARN of a request")
	}
	names := strings.SplitN(parts[5], "/", 4) // API, stage, method, path
	switch len(names) {
	case 3: // a WebSocket API, or a path that is only a slash
		return resource{names[2], "/"}, nil
	case 4:
		return resource{names[2], "/" + names[3]}, nil
	}
	return resource{}, errors.New("the ARN of the event has no method")
}

func (a *Authorizer) readToken(payload []byte) (question, error) {
	var e struct {
		events.APIGatewayCustomAuthorizerRequest
		Path    *string `json:"path"`
		RawPath *string `json:"rawPath"`
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return question{}, err
	}
	if e.Type != "TOKEN" || e.Path != nil || e.RawPath != nil {
		return question{}, a.errKind("not that of a TOKEN authorizer")
	}
	asked, err := parse(e.MethodArn)
	if err != nil {
		return question{}, err
	}
	q := question{arn: e.MethodArn, report: routes.Report{Method: asked.method, Target: asked.path, Header: http.Header{}}}
	if strings.ContainsAny(asked.path, "%?") { // whether the path of an ARN is decoded is not documented
		q.unclear = reasonPath
	}
	if e.AuthorizationToken != "" {
		q.report.Header.Set("Authorization", e.AuthorizationToken)
	}
	return q, nil
}

func (a *Authorizer) readREST(payload []byte) (question, error) {
	var e struct {
		events.APIGatewayCustomAuthorizerRequestTypeRequest
		Version        string `json:"version"` // only in events of HTTP APIs
		RequestContext struct {
			events.APIGatewayCustomAuthorizerRequestTypeRequestContext
			DomainName   string `json:"domainName"`
			ConnectionID string `json:"connectionId"` // only in events of WebSocket APIs
			EventType    string `json:"eventType"`
		} `json:"requestContext"`
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return question{}, err
	}
	if e.Version != "" {
		return question{}, a.errKind("that of an HTTP API with payload format " + e.Version)
	}
	if e.Type != "REQUEST" {
		return question{}, a.errKind("not that of a REQUEST authorizer")
	}
	asked, err := parse(e.MethodArn)
	if err != nil {
		return question{}, err
	}
	q := question{arn: e.MethodArn, report: routes.Report{Method: e.HTTPMethod, Host: e.RequestContext.DomainName}}
	switch connects := e.RequestContext.ConnectionID != "" || strings.HasSuffix(e.MethodArn, connectPath) && e.Path == ""; {
	case connects && a.kind != WebSocket:
		return question{}, a.errKind("that of a WebSocket API")
	case a.kind == WebSocket && !connects:
		return question{}, a.errKind("not that of a WebSocket API")
	case connects:
		if asked != (resource{connectPath[1:], "/"}) || e.RequestContext.EventType != "" && e.RequestContext.EventType != "CONNECT" {
			return question{}, errors.New("the event is not for the route $connect, the only one with an authorizer")
		}
		q.report.Method, q.report.Target = http.MethodGet, connectPath // RFC 6455, section 4.1
	case asked.method != e.HTTPMethod:
		return question{}, fmt.Errorf("the method is %q in the ARN of the event, %q in httpMethod", asked.method, e.HTTPMethod)
	default:
		target, ok := strings.CutPrefix(e.Path, a.prefix)
		if !ok || !strings.HasPrefix(target, "/") {
			q.unclear = reasonPrefix
			return q, nil
		}
		if q.report.Target = target; strings.ContainsAny(target, "?#") { // the path is as sent, so neither can be part of it
			q.unclear = reasonPath
			return q, nil
		}
	}
	query := url.Values(e.MultiValueQueryStringParameters)
	if query == nil {
		query = url.Values{}
		for name, value := range e.QueryStringParameters {
			query.Set(name, value)
		}
	}
	if len(query) > 0 {
		q.report.Target += "?" + query.Encode()
	}
	var ok bool
	if q.report.Header, ok = merge(e.Headers, e.MultiValueHeaders); !ok {
		q.unclear = reasonHeaders
		return q, nil
	}
	q.report.Certificate, err = certificate(e.RequestContext.Identity.ClientCert.ClientCertPem)
	return q, err
}

// merge returns the headers of an event, which API Gateway sends in two forms. It returns false if multi, the complete form, lacks a
// value of the other one.
func merge(single map[string]string, multi map[string][]string) (h http.Header, ok bool) {
	h = http.Header{}
	for name, values := range multi {
		name = textproto.CanonicalMIMEHeaderKey(name)
		h[name] = append(h[name], values...)
	}
	for name, value := range single {
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case multi == nil:
			h[name] = append(h[name], value)
		case !slices.Contains(h[name], value):
			return nil, false
		}
	}
	return h, true
}

func (a *Authorizer) readHTTP(payload []byte) (question, error) {
	var e events.APIGatewayV2CustomAuthorizerV2Request
	if err := json.Unmarshal(payload, &e); err != nil {
		return question{}, err
	}
	if e.Version != "2.0" || e.Type != "REQUEST" {
		return question{}, a.errKind("not that of an HTTP API with payload format 2.0")
	}
	asked, err := parse(e.RouteArn)
	if err != nil {
		return question{}, err
	}
	method := e.RequestContext.HTTP.Method
	if a.kind == HTTPPolicy && asked.method != method {
		return question{}, fmt.Errorf("the method is %q in the ARN of the event, %q in the request", asked.method, method)
	}
	q := question{arn: e.RouteArn, report: routes.Report{Method: method, Host: e.RequestContext.DomainName, Header: http.Header{}}}
	path, ok := strings.CutPrefix(e.RawPath, a.prefix)
	switch {
	case !ok || !strings.HasPrefix(path, "/"):
		q.unclear = reasonPrefix
	case unclear(path):
		q.unclear = reasonPath
	default:
		q.unclear = a.differs(path, e.RouteKey, e.PathParameters)
	}
	if q.unclear != "" {
		return q, nil
	}
	q.report.Target = (&url.URL{Path: path}).EscapedPath()
	if e.RawQueryString != "" {
		q.report.Target += "?" + e.RawQueryString
	}
	for name, value := range e.Headers { // repeated headers are joined with commas
		q.report.Header[name] = []string{value}
	}
	if len(e.Cookies) > 0 {
		q.report.Header["Cookie"] = []string{strings.Join(e.Cookies, "; ")}
	}
	q.report.Certificate, err = certificate(e.RequestContext.Authentication.ClientCert.ClientCertPem)
	return q, err
}

// unclear reports whether a decoded path contains what must not be decoded twice, or what would end it.
func unclear(path string) bool {
	return !utf8.ValidString(path) || strings.ContainsAny(path, `%?#\`) || strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f })
}

// differs returns the reason if the path is not the one for which an HTTP API has chosen the route. The API decodes the path, and ends it
// at a decoded question mark, so the path alone does not show what the client has sent.
func (a *Authorizer) differs(path, routeKey string, parameters map[string]string) valetkey.Reason {
	_, template, named := strings.Cut(routeKey, " ")
	if !named { // $default
		if !a.decoded {
			return reasonGreedy
		}
		return ""
	}
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if last := want[len(want)-1]; strings.HasPrefix(last, "{") && strings.HasSuffix(last, "+}") {
		if !a.decoded {
			return reasonGreedy
		}
		if len(got) < len(want) {
			return reasonPath
		}
		want, got = want[:len(want)-1], got[:len(want)-1]
	}
	if len(want) != len(got) {
		return reasonPath
	}
	for i, segment := range want {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			value := parameters[strings.TrimSuffix(name, "}")]
			decoded, err := url.PathUnescape(value)
			if value != got[i] && (err != nil || decoded != got[i]) || value == "" {
				return reasonPath
			}
		} else if segment != got[i] {
			return reasonPath
		}
	}
	return ""
}
