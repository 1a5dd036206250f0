package transmitter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/scopes"
)

// The paths of the API below the issuer.
const (
	streamsPath = "/ssf/streams"
	statusPath  = "/ssf/status"
	addPath     = "/ssf/subjects:add"
	removePath  = "/ssf/subjects:remove"
	verifyPath  = "/ssf/verify"
	pollPath    = "/ssf/poll/"
	revokePath  = "/global-token-revocation"
)

// Metadata is the Transmitter Configuration Metadata: SSF 1.0, section 7.1, with the members that the CAEP Interoperability Profile
// 1.0, section 2.3 requires.
type Metadata struct {
	SpecVersion     string   `json:"spec_version"`
	Issuer          string   `json:"issuer"`
	JWKS            string   `json:"jwks_uri"`
	DeliveryMethods []string `json:"delivery_methods_supported"`
	Configuration   string   `json:"configuration_endpoint"`
	Status          string   `json:"status_endpoint"`
	AddSubject      string   `json:"add_subject_endpoint"`
	RemoveSubject   string   `json:"remove_subject_endpoint"`
	Verification    string   `json:"verification_endpoint"`
	Schemes         []object `json:"authorization_schemes"`
	DefaultSubjects string   `json:"default_subjects"`
}

// Metadata returns the metadata.
func (t *Transmitter) Metadata() Metadata {
	base := t.cfg.Base
	return Metadata{
		SpecVersion: "1_0", Issuer: t.cfg.Issuer, JWKS: t.cfg.JWKS, DeliveryMethods: []string{push, poll},
		Configuration: base + streamsPath, Status: base + statusPath, AddSubject: base + addPath, RemoveSubject: base + removePath,
		Verification: base + verifyPath, Schemes: []object{{"spec_urn": "urn:ietf:rfc:6749"}}, DefaultSubjects: "ALL",
	}
}

// RevocationEndpoint returns the URL of the endpoint of global token revocation.
func (t *Transmitter) RevocationEndpoint() string { return t.cfg.Base + revokePath }

// Paths returns the paths of the API below the issuer; others lie below them.
func Paths() []string { return []string{"/ssf", revokePath} }

// Routes registers the API below a path.
func (t *Transmitter) Routes(mux *http.ServeMux, path string) {
	read := scopes.Any(ScopeRead, ScopeManage)
	manage := scopes.All(ScopeManage)
	route := func(pattern string, need valetkey.Requirement, h handler) {
		method, below, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+path+below, t.guard.Handler(t.serve(h), need))
	}
	route("GET "+streamsPath, read, t.readStreams)
	route("POST "+streamsPath, manage, t.createStream)
	route("PATCH "+streamsPath, manage, t.updateStream)
	route("PUT "+streamsPath, manage, t.replaceStream)
	route("DELETE "+streamsPath, manage, t.deleteStream)
	route("GET "+statusPath, read, t.readStatus)
	route("POST "+statusPath, manage, t.updateStatus)
	route("POST "+addPath, manage, t.subjects((*Transmitter).addSubject, http.StatusOK))
	route("POST "+removePath, manage, t.subjects((*Transmitter).removeSubject, http.StatusNoContent))
	route("POST "+verifyPath, read, t.verify)
	route("POST "+pollPath+"{id}", read, t.poll)
	route("POST "+revokePath, scopes.All(ScopeRevoke), t.revokeUser)
	mux.Handle(t.guard.Metadata())
}

// A verifier accepts the server's own access tokens for the transmitter's API. Nothing is cached, so that a revoked token loses its
// access immediately.
type verifier struct{ *Transmitter }

func (v verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	claims, err := v.cfg.Engine.Claims(ctx, raw)
	if err != nil {
		return nil, err
	}
	text := func(name string) string { s, _ := claims[name].(string); return s }
	refuse := func(reason valetkey.Reason) error {
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason}
	}
	switch aud := claims["aud"].(type) {
	case string:
		if aud != Resource(v.cfg.Base) {
			return nil, refuse(valetkey.ReasonAudience)
		}
	case []any:
		if !slices.Contains(aud, any(Resource(v.cfg.Base))) {
			return nil, refuse(valetkey.ReasonAudience)
		}
	default:
		return nil, refuse(valetkey.ReasonInactive)
	}
	if text("sub") != text("client_id") { // a user cannot allow an application to manage streams
		return nil, refuse(reasonUser)
	}
	f := valetkey.TokenFields{
		Issuer: v.cfg.Issuer, Subject: text("sub"), ClientID: text("client_id"), ID: text("jti"),
		Audience: valetkey.ListOf(Resource(v.cfg.Base)), Scopes: valetkey.NewScopes(strings.Fields(text("scope"))...), Raw: "{}",
	}
	if exp, ok := claims["exp"].(float64); ok {
		f.Expiry = time.Unix(int64(exp), 0)
		f.Deadline = f.Expiry
	}
	if bound, ok := claims["cnf"].(map[string]any); ok {
		f.Binding.JWKThumbprint, _ = bound["jkt"].(string)
		f.Binding.CertificateThumbprint, _ = bound["x5t#S256"].(string)
	}
	return valetkey.NewToken(f), nil
}

var reasonUser = valetkey.NewReason("token_of_user", "the token is a user's: a client must obtain one for itself")

// A refusal is an error that the receiver sees.
type refusal struct {
	status      int
	description string
	retryAfter  time.Duration
}

func (e *refusal) Error() string { return e.description }

func invalid(format string, args ...any) error {
	return &refusal{status: http.StatusBadRequest, description: fmt.Sprintf(format, args...)}
}

// errNoStream does not reveal whether the stream exists and is another client's (SSFTX-02).
var errNoStream = &refusal{status: http.StatusNotFound, description: "there is no such stream of this client"}

// A call is a request of a client.
type call struct {
	*http.Request
	client string
	manage bool // with ssf.manage
}

// A handler returns the status and the body of its response; nil: none.
type handler func(c *call) (status int, body any, err error)

const maxBody = 64 << 10

func (t *Transmitter) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		token := valetkey.FromContext(r.Context())
		status, body, err := h(&call{r, token.ClientID(), token.Scopes().Has(ScopeManage)})
		w.Header().Set("Cache-Control", "no-store")
		if err != nil {
			told, ok := errors.AsType[*refusal](err)
			switch {
			case ok:
			case errors.Is(err, store.ErrNotFound):
				told = errNoStream
			case errors.Is(err, store.ErrConflict):
				told = &refusal{http.StatusConflict, "the stream is being changed by another request: try again", time.Second}
			default:
				t.failed(r.Context(), "request of a receiver not answered", err, "path", r.URL.Path)
				told = &refusal{http.StatusServiceUnavailable, "internal error: the request may be valid", 5 * time.Second}
			}
			if told.retryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int((told.retryAfter+time.Second-1)/time.Second)))
			}
			code := "invalid_request"
			if told.status >= 500 {
				code = "temporarily_unavailable"
			}
			status, body = told.status, object{"err": code, "description": told.description}
		}
		if body == nil {
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	})
}

// members reads the JSON object of a request, without members that are repeated.
func (c *call) members() (map[string]strictjson.Value, error) {
	if t, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); c.Header.Get("Content-Type") != "" && (err != nil || t != "application/json") {
		return nil, invalid("the content type is not application/json")
	}
	body, err := io.ReadAll(c.Body)
	if err != nil {
		return nil, invalid("the body ends early or is too long")
	}
	return objectOf(body)
}

func objectOf(text []byte) (map[string]strictjson.Value, error) {
	m := map[string]strictjson.Value{}
	err := strictjson.Object(text, func(name string, v strictjson.Value) error {
		m[name] = v
		return nil
	})
	if err != nil {
		return nil, invalid("the body is not one JSON object with each member once")
	}
	return m, nil
}

// text returns a string member; "" if it is missing.
func text(m map[string]strictjson.Value, name string) (string, error) {
	v, there := m[name]
	s, ok := v.Text()
	if there && !ok {
		return "", invalid("%s: not a string", name)
	}
	return s, nil
}

// own returns a stream of the client.
func (t *Transmitter) own(c *call, id string) (*stream, error) {
	if id == "" {
		return nil, invalid("stream_id: required")
	}
	if !isID(id) { // not every store accepts every text
		return nil, errNoStream
	}
	s, err := t.stream(c.Context(), id)
	if err != nil {
		return nil, err
	}
	if s.Client != c.client {
		return nil, errNoStream
	}
	return t.called(c.Context(), s), nil
}

func isID(id string) bool {
	return len(id) == 26 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz") == ""
}

// ownOf returns the stream that the body of a request names.
func (t *Transmitter) ownOf(c *call) (*stream, map[string]strictjson.Value, error) {
	m, err := c.members()
	if err != nil {
		return nil, nil, err
	}
	id, err := text(m, "stream_id")
	if err != nil {
		return nil, nil, err
	}
	s, err := t.own(c, id)
	return s, m, err
}

// configuration is a stream as receivers see it: SSF 1.0, section 8.1.1. The header is shown only to clients that may set it: other
// readers of the stream could use it to send events to the receiver (SSFTX-04).
func (t *Transmitter) configuration(c *call, s *stream) (object, error) {
	delivery := object{"method": s.Method, "endpoint_url": s.Endpoint}
	if s.Method == poll {
		delivery["endpoint_url"] = t.pollURL(s)
	}
	if s.Authorization != nil && c.manage {
		header, err := t.cfg.Keys.Reveal(s.Authorization, s.ID)
		if err != nil {
			return nil, err
		}
		delivery["authorization_header"] = header
	}
	o := object{
		"stream_id": s.ID, "iss": t.cfg.Issuer, "aud": s.Client, "delivery": delivery,
		"events_supported": supported, "events_delivered": s.delivered(), "min_verification_interval": int(minVerification / time.Second),
	}
	if s.Requested != nil {
		o["events_requested"] = s.Requested
	}
	if s.Description != "" {
		o["description"] = s.Description
	}
	return o, nil
}

func (t *Transmitter) pollURL(s *stream) string { return t.cfg.Base + pollPath + s.ID }

// readStreams implements SSF 1.0, section 8.1.1.2.
func (t *Transmitter) readStreams(c *call) (int, any, error) {
	if id := c.URL.Query().Get("stream_id"); id != "" {
		s, err := t.own(c, id)
		if err != nil {
			return 0, nil, err
		}
		o, err := t.configuration(c, s)
		return http.StatusOK, o, err
	}
	all, err := t.ownStreams(c)
	if err != nil {
		return 0, nil, err
	}
	list := []object{}
	for _, s := range all {
		o, err := t.configuration(c, t.called(c.Context(), s))
		if err != nil {
			return 0, nil, err
		}
		list = append(list, o)
	}
	return http.StatusOK, list, nil
}

func (t *Transmitter) ownStreams(c *call) ([]*stream, error) {
	return t.findStreams(c.Context(), store.Key{Name: keyClient, Value: c.client}, 10*maxOwned)
}

// createStream implements section 8.1.1.1.
func (t *Transmitter) createStream(c *call) (int, any, error) {
	m, err := c.members()
	if err != nil {
		return 0, nil, err
	}
	s := &stream{ID: newID(), Client: c.client, Method: poll, Status: enabled, Created: time.Now().UTC()}
	if err := t.configure(s, m, false); err != nil {
		return 0, nil, err
	}
	own, err := t.ownStreams(c)
	if err != nil {
		return 0, nil, err
	}
	all, err := t.streams(c.Context())
	if err != nil {
		return 0, nil, err
	}
	if len(own) >= maxOwned || len(all) >= maxStreams {
		return 0, nil, &refusal{status: http.StatusConflict, description: "there are too many streams: use or delete one"}
	}
	if err := t.put(c.Context(), s); err != nil {
		return 0, nil, err
	}
	t.cfg.Audit(c.Context(), "signal stream created", slog.String("stream", s.ID), slog.String("client", s.Client), slog.String("method", s.Method))
	o, err := t.configuration(c, s)
	return http.StatusCreated, o, err
}

// updateStream implements section 8.1.1.3, and replaceStream section 8.1.1.4.
func (t *Transmitter) updateStream(c *call) (int, any, error)  { return t.reconfigure(c, false) }
func (t *Transmitter) replaceStream(c *call) (int, any, error) { return t.reconfigure(c, true) }

func (t *Transmitter) reconfigure(c *call, replace bool) (int, any, error) {
	s, m, err := t.ownOf(c)
	if err != nil {
		return 0, nil, err
	}
	s, err = t.change(c.Context(), s.ID, func(s *stream) error {
		if replace {
			s.Description, s.Requested = "", nil
		}
		return t.configure(s, m, replace)
	})
	if err != nil {
		return 0, nil, err
	}
	t.cfg.Audit(c.Context(), "signal stream changed", slog.String("stream", s.ID), slog.String("client", s.Client), slog.String("method", s.Method))
	t.announce(s)
	o, err := t.configuration(c, s)
	return http.StatusOK, o, err
}

// configure applies the members that a receiver sent to a stream. Members that only the transmitter sets must match it if they are
// sent (sections 8.1.1.3 and 8.1.1.4).
func (t *Transmitter) configure(s *stream, m map[string]strictjson.Value, whole bool) error {
	for name, want := range map[string]string{"iss": t.cfg.Issuer, "aud": s.Client} {
		got, err := text(m, name)
		if list, ok := m[name].Strings(); name == "aud" && ok && len(list) == 1 {
			got, err = list[0], nil
		}
		if err != nil {
			return err
		}
		if got != "" && got != want && s.version != 0 {
			return invalid("%s: %q, the stream has %q", name, got, want)
		}
	}
	if v, there := m["description"]; there {
		d, ok := v.Text()
		if !ok || !validText(d) {
			return invalid("description: not a string of at most %d characters", maxText)
		}
		s.Description = d
	}
	if v, there := m["events_requested"]; there {
		list, ok := v.Strings()
		if !ok || len(list) > maxRequested || slices.ContainsFunc(list, func(s string) bool { return len(s) > maxURL }) {
			return invalid("events_requested: not an array of at most %d event types", maxRequested)
		}
		s.Requested = append([]string{}, list...)
	}
	if v, there := m["events_delivered"]; there && s.version != 0 {
		if list, ok := v.Strings(); !ok || !sameSet(list, s.delivered()) {
			return invalid("events_delivered: differs from that of the stream, which the transmitter sets")
		}
	}
	v, there := m["delivery"]
	switch {
	case there:
		return t.configureDelivery(s, v)
	case whole:
		return invalid("delivery: required")
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// configureDelivery applies the member delivery (section 6.1).
func (t *Transmitter) configureDelivery(s *stream, v strictjson.Value) error {
	m, err := objectOf(v)
	if err != nil {
		return invalid("delivery: not an object")
	}
	method, err := text(m, "method")
	if err != nil {
		return err
	}
	endpoint, err := text(m, "endpoint_url")
	if err != nil {
		return err
	}
	header, err := text(m, "authorization_header")
	if err != nil {
		return err
	}
	switch method {
	case poll:
		if endpoint != "" && endpoint != t.pollURL(s) {
			return invalid("delivery.endpoint_url: set by the transmitter, which is polled")
		}
		if header != "" {
			return invalid("delivery.authorization_header: for push only")
		}
		s.Method, s.Endpoint, s.Authorization = poll, "", nil
		return nil
	case push:
	case "":
		return invalid("delivery.method: required")
	default:
		return invalid("delivery.method: want %s or %s", push, poll)
	}
	if err := t.checkEndpoint(endpoint); err != nil {
		return invalid("delivery.endpoint_url: %v", err)
	}
	if !validHeader(header) {
		return invalid("delivery.authorization_header: not the value of a header of at most %d bytes", maxAuthorization)
	}
	s.Method, s.Endpoint, s.Authorization = push, endpoint, nil
	if header != "" {
		s.Authorization, err = t.cfg.Keys.Protect(header, s.ID)
	}
	return err
}

// deleteStream implements section 8.1.1.5.
func (t *Transmitter) deleteStream(c *call) (int, any, error) {
	s, err := t.own(c, c.URL.Query().Get("stream_id"))
	if err != nil {
		return 0, nil, err
	}
	if err := t.remove(c.Context(), s); err != nil {
		return 0, nil, err
	}
	t.cfg.Audit(c.Context(), "signal stream deleted", slog.String("stream", s.ID), slog.String("client", s.Client))
	return http.StatusNoContent, nil, nil
}

func statusOf(s *stream) object {
	o := object{"stream_id": s.ID, "status": s.Status}
	if s.Reason != "" {
		o["reason"] = s.Reason
	}
	return o
}

// readStatus implements section 8.1.2.1.
func (t *Transmitter) readStatus(c *call) (int, any, error) {
	s, err := t.own(c, c.URL.Query().Get("stream_id"))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, statusOf(s), nil
}

// updateStatus implements section 8.1.2.2.
func (t *Transmitter) updateStatus(c *call) (int, any, error) {
	s, m, err := t.ownOf(c)
	if err != nil {
		return 0, nil, err
	}
	status, err := text(m, "status")
	if err != nil {
		return 0, nil, err
	}
	reason, err := text(m, "reason")
	if err != nil {
		return 0, nil, err
	}
	switch {
	case !slices.Contains([]string{enabled, paused, disabled}, status):
		return 0, nil, invalid("status: want enabled, paused or disabled")
	case !validText(reason):
		return 0, nil, invalid("reason: longer than %d characters", maxText)
	}
	s, err = t.change(c.Context(), s.ID, func(s *stream) error { s.Status, s.Reason = status, reason; return nil })
	if err != nil {
		return 0, nil, err
	}
	t.cfg.Audit(c.Context(), "signal stream "+status, slog.String("stream", s.ID), slog.String("client", s.Client), slog.String("by", "the receiver"))
	t.announce(s)
	return http.StatusOK, statusOf(s), nil
}

// subjects implements sections 8.1.3.2 and 8.1.3.3. The response does not reveal whether there is such a user (section 9.1).
func (t *Transmitter) subjects(do func(*Transmitter, context.Context, *stream, string) error, status int) handler {
	return func(c *call) (int, any, error) {
		s, m, err := t.ownOf(c)
		if err != nil {
			return 0, nil, err
		}
		if err := t.changes.Allow(s.ID); err != nil {
			return 0, nil, tooMany(err)
		}
		subject, _, err := t.user(m["subject"])
		if err != nil {
			return 0, nil, err
		}
		if subject == "" { // of another issuer: no event is about it
			return status, nil, nil
		}
		return status, nil, do(t, c.Context(), s, subject)
	}
}

// user returns the subject of the user that a subject identifier names, alone or as the user of a complex one, or "" if its issuer is
// neither this server nor a trusted issuer, and the issuer. Other identifiers are refused: the server does not know the e-mail
// addresses and telephone numbers of its users.
func (t *Transmitter) user(v strictjson.Value) (subject, issuer string, err error) {
	m, err := objectOf(v)
	if err != nil {
		return "", "", invalid("subject: not an object")
	}
	format, err := text(m, "format")
	if err != nil {
		return "", "", err
	}
	if format == "complex" {
		if len(m) != 2 || m["user"] == nil {
			return "", "", invalid("subject: only user is supported in the format complex")
		}
		if m, err = objectOf(m["user"]); err != nil {
			return "", "", invalid("subject.user: not an object")
		}
		if format, err = text(m, "format"); err != nil {
			return "", "", err
		}
	}
	if format != "iss_sub" { // RFC 9493, section 3.2.3
		return "", "", invalid("subject: the format is not iss_sub")
	}
	issuer, err = text(m, "iss")
	if err != nil {
		return "", "", err
	}
	sub, err := text(m, "sub")
	if err != nil {
		return "", "", err
	}
	if issuer == "" || sub == "" || len(sub) > 255 || strings.ContainsFunc(sub, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", "", invalid("subject: iss and sub are required")
	}
	if issuer == t.cfg.Issuer {
		return sub, issuer, nil
	}
	if kind := t.cfg.SubjectTypes[issuer]; kind != "" {
		return kind + ":" + sub, issuer, nil
	}
	return "", issuer, nil
}

// verify implements section 8.1.4.2.
func (t *Transmitter) verify(c *call) (int, any, error) {
	s, m, err := t.ownOf(c)
	if err != nil {
		return 0, nil, err
	}
	state, err := text(m, "state")
	if err != nil {
		return 0, nil, err
	}
	if !validText(state) {
		return 0, nil, invalid("state: longer than %d characters", maxText)
	}
	if err := t.checks.Allow(s.ID); err != nil {
		return 0, nil, tooMany(err)
	}
	event := object{}
	if state != "" {
		event["state"] = state
	}
	return http.StatusNoContent, nil, t.tell(c.Context(), s, payload{verification, aboutStream(s), event}, "")
}

func tooMany(err error) error {
	told := &refusal{status: http.StatusTooManyRequests, description: "too many requests for this stream", retryAfter: time.Second}
	if many, ok := errors.AsType[*login.TooMany](err); ok {
		told.retryAfter = many.RetryAfter
	}
	return told
}
