package valetenvoy

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// identityNames are the names of the identity headers, sorted, and their lowercase forms.
var identityNames = func() (names []struct{ canonical, lower string }) {
	none, _ := middleware.IdentityHeaders(nil)
	for _, name := range slices.Sorted(maps.Keys(none)) {
		names = append(names, struct{ canonical, lower string }{name, strings.ToLower(name)})
	}
	return names
}()

// These are shared by all responses, which are not modified.
var (
	yes, no    = wrapperspb.Bool(true), wrapperspb.Bool(false)
	passStatus = &rpcstatus.Status{Code: int32(codes.OK)}
)

const (
	overwrite = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	appended  = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
)

func header(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action}
}

// mutation is header with the older field, too: Envoy obeys it if it is set, and other gateways may know only one of the two.
func mutation(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	h, older := header(name, value, action), no
	if action == appended {
		older = yes
	}
	//lint:ignore SA1019 for versions of Envoy that do not read AppendAction
	h.Append = older
	return h
}

// accepted returns the response that lets the request through. Envoy removes headers after it has set others, so no name is in both
// lists.
func (s *Server) accepted(in request, d middleware.Decision, identity http.Header) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{HeadersToRemove: make([]string, 0, len(identityNames)+len(in.aliases)+2)}
	remove := func(name string) {
		if !slices.Contains(ok.HeadersToRemove, name) {
			ok.HeadersToRemove = append(ok.HeadersToRemove, name)
		}
	}
	for _, name := range identityNames {
		if value := identity[name.canonical][0]; value != "" {
			ok.Headers = append(ok.Headers, mutation(name.lower, value, overwrite))
		} else {
			remove(name.lower)
		}
	}
	for _, alias := range in.aliases {
		if !slices.ContainsFunc(ok.Headers, func(h *corev3.HeaderValueOption) bool { return h.Header.Key == alias }) {
			remove(alias)
		}
	}
	s.withoutCredentials(in.report.Header, d.Token() != nil, remove, func(name, value string) { ok.Headers = append(ok.Headers, mutation(name, value, overwrite)) })
	if !s.forwardToken || d.Token() == nil {
		ok.QueryParametersToRemove = tokensIn(in.report.Target)
	}
	for name, values := range d.Header() {
		action := overwrite
		if name == "Vary" || name == "Access-Control-Expose-Headers" { // in addition to those of the upstream
			action = appended
		}
		ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, mutation(name, text(strings.Join(values, ", ")), action))
	}
	return &authv3.CheckResponse{
		Status:          passStatus,
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: metadata(d.Token()),
	}
}

// withoutCredentials calls remove and set for the changes to h, the headers of the client, that keep credentials from the upstream.
func (s *Server) withoutCredentials(h http.Header, verified bool, remove func(name string), set func(name, value string)) {
	left := maps.Clone(h)
	if s.forwardToken && verified {
		s.decider.Guard().RemoveOtherCredentials(left)
	} else {
		s.decider.Guard().RemoveCredentials(left)
		remove("authorization") // also if the gateway is configured not to report it
	}
	remove("dpop")
	for name, before := range h {
		after := left[name]
		switch {
		case len(after) > 0 && &after[0] == &before[0]:
		case len(after) == 1 && utf8.ValidString(after[0]):
			set(strings.ToLower(name), after[0])
		default:
			remove(strings.ToLower(name))
		}
	}
}

// tokensIn returns the names of the parameters in the query of target, as sent, that an upstream may read as access_token (RFC 6750,
// section 2.3).
func tokensIn(target string) (names []string) {
	_, query, _ := strings.Cut(target, "?")
	for query != "" {
		var name string
		name, query, _ = strings.Cut(query, "&")
		name, _, _ = strings.Cut(name, "=")
		if readsAsToken(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// readsAsToken reports whether a framework may read a parameter as access_token. Some ignore letter case, or leading brackets, treat the
// rest after a bracket or a dot as an index, or take some characters for an underscore.
func readsAsToken(name string) bool {
	const token = "access_token"
	if decoded, err := url.QueryUnescape(name); err == nil {
		name = decoded
	}
	if len(name) < len(token) {
		return false
	}
	name = asUnderscore.Replace(strings.TrimLeft(name, "[]. \t\r\n\x00"))
	if len(name) < len(token) || !strings.EqualFold(name[:len(token)], token) {
		return false
	}
	rest := name[len(token):]
	return rest == "" || strings.Trim(rest[:1], "_-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != ""
}

var asUnderscore = strings.NewReplacer("access.", "access_", "access ", "access_", "access[", "access_")

// metadata returns what filters behind ext_authz and access logs can read of a token, or nil without a token.
func metadata(t *valetkey.Token) *structpb.Struct {
	if t == nil {
		return nil
	}
	fields := make(map[string]*structpb.Value, 5)
	for _, f := range [...]struct{ name, value string }{
		{"issuer", t.Issuer()}, {"subject", t.Subject()}, {"client", t.ClientID()}, {"scope", t.Scopes().String()},
	} {
		if f.value != "" {
			fields[f.name] = structpb.NewStringValue(text(f.value))
		}
	}
	if !t.Expiry().IsZero() {
		fields["exp"] = structpb.NewNumberValue(float64(t.Expiry().Unix()))
	}
	return &structpb.Struct{Fields: fields}
}

// denied returns the response that refuses the request, for a client of gRPC with the status of a call.
func denied(d middleware.Decision, grpc bool) *authv3.CheckResponse {
	response := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(d.Status())},
		Body:   text(string(d.Body())),
	}
	add := func(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) {
		response.Headers = append(response.Headers, header(name, text(value), action))
	}
	lines := d.Header()
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		switch {
		case name == "Content-Length": // Envoy sets it
		case name == "Content-Type" && grpc:
		case name == "Set-Cookie": // has no form with several values in one line
			for _, value := range lines[name] {
				add(name, value, appended)
			}
		default:
			add(name, strings.Join(lines[name], ", "), overwrite)
		}
	}
	if grpc { // Envoy takes the message from the body, and the code from the header if there is one
		response.Body = message(d)
		add("grpc-status", strconv.Itoa(int(callCode(d.Status()))), overwrite)
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(checkCode(d.Status()))},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: response},
	}
}

// checkCode returns the code of a response to a check that denies a request. It is never OK, which would let the request through.
func checkCode(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.PermissionDenied
}

// callCode returns the code of a refused call, as valetgrpc does: a malformed token is UNAUTHENTICATED, because INVALID_ARGUMENT is about
// the message of the call.
func callCode(httpStatus int) codes.Code {
	if httpStatus == http.StatusBadRequest {
		return codes.Unauthenticated
	}
	return checkCode(httpStatus)
}

// message returns the message of a refused call.
func message(d middleware.Decision) string {
	m := http.StatusText(d.Status())
	var refusal *valetkey.Error
	if errors.As(d.Err(), &refusal) && refusal.Reason.Description() != "" {
		m += ": " + refusal.Reason.Description()
	}
	return m
}

// text returns s as a string field can hold it.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
