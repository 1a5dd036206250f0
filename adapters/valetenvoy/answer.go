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

// changes are what an accepted request needs beyond what its token determines.
type changes struct {
	removed []string // headers of the request, in lower case
	set     []field  // headers of the request
	query   []string // parameters to remove
	header  http.Header
}

func (c changes) none() bool {
	return len(c.removed) == 0 && len(c.set) == 0 && len(c.query) == 0 && len(c.header) == 0
}

// changesFor returns the changes that keep identity headers and credentials of the client from the upstream.
func (s *Server) changesFor(in request, d middleware.Decision) changes {
	c := changes{removed: in.aliases}
	if d.Err() == nil { // otherwise the request is a preflight, and the headers are those of a refusal
		c.header = d.Header()
	}
	forwards := s.forwardToken && d.Token() != nil
	if !forwards {
		c.query = tokensIn(in.report.Target)
	}
	if len(s.credentials) == 0 && !forwards {
		return c // Authorization and DPoP, which are always removed
	}
	before := make(http.Header, len(s.credentials)+2)
	for _, name := range append([]string{"Authorization", "Dpop"}, s.credentials...) {
		if lines := in.report.Header[name]; len(lines) > 0 {
			before[name] = lines
		}
	}
	after := maps.Clone(before)
	if forwards {
		s.decider.Guard().RemoveOtherCredentials(after, in.http())
		if before["Authorization"] == nil { // also if the gateway is configured not to report it
			c.removed = append(c.removed, "authorization")
		}
	} else {
		s.decider.Guard().RemoveCredentials(after)
		delete(before, "Authorization")
	}
	delete(before, "Dpop")
	for name, lines := range before {
		left := after[name]
		switch {
		case len(left) > 0 && &left[0] == &lines[0]:
		case len(left) == 1 && utf8.ValidString(left[0]):
			c.set = append(c.set, field{strings.ToLower(name), left[0]})
		default:
			c.removed = append(c.removed, strings.ToLower(name))
		}
	}
	return c
}

// accepted returns the response that lets the request through. Envoy removes headers after it has set others, so no name is in both
// lists.
func (s *Server) accepted(in request, d middleware.Decision, identity http.Header, c changes) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{QueryParametersToRemove: c.query}
	for _, name := range identityNames {
		if value := identity[name.canonical][0]; value != "" {
			ok.Headers = append(ok.Headers, mutation(name.lower, value, overwrite))
		} else {
			ok.HeadersToRemove = append(ok.HeadersToRemove, name.lower)
		}
	}
	for _, f := range c.set {
		ok.Headers = append(ok.Headers, mutation(f.name, f.value, overwrite))
	}
	if !s.forwardToken || d.Token() == nil { // also if the gateway is configured not to report them
		ok.HeadersToRemove = append(ok.HeadersToRemove, "authorization")
	}
	ok.HeadersToRemove = append(ok.HeadersToRemove, "dpop")
	for _, name := range c.removed {
		if !slices.Contains(ok.HeadersToRemove, name) && !slices.ContainsFunc(ok.Headers, func(h *corev3.HeaderValueOption) bool { return h.Header.Key == name }) {
			ok.HeadersToRemove = append(ok.HeadersToRemove, name)
		}
	}
	for name, values := range c.header {
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
