package valetkeytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/signals"
)

// The default credentials and names of a [Transmitter].
const (
	ReceiverID       = "receiver"
	ReceiverSecret   = "receiver-secret"
	ReceiverAudience = "https://receiver.example.com" // aud of SETs and logout tokens

	receiverToken = "token-of-the-receiver"
)

const (
	sendLimit  = 30 * time.Second      // of Send
	pushRetry  = 20 * time.Millisecond // after a failure of a receiver; its Retry-After is for transmitters in production
	longPoll   = 5 * time.Second
	mostEvents = 1000 // in an answer to a poll
)

// A Transmitter is a real transmitter of the Shared Signals Framework 1.0 at the URL of an [Issuer], about whose users and sessions it
// sends security event tokens (SETs), pushed and polled. [NewTransmitter] starts one. It is safe for concurrent use.
//
//	tr := valetkeytest.NewTransmitter(t, iss)
//	received, err := signals.New(signals.Config{
//		Transmitter: tr.URL, Delivery: signals.Poll, Credentials: tr.Credentials(), Client: iss.Client(),
//	})
//	...
//	err = tr.Send(tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))) // returns when it is in force
type Transmitter struct {
	// URL is the issuer of the SETs: that of the Issuer.
	URL string

	// TokenURL is a token endpoint for [ReceiverID] and [ReceiverSecret] (RFC 6749, section 4.4).
	TokenURL string

	Metadata     *Endpoint // SSF 1.0, section 7
	Token        *Endpoint
	Streams      *Endpoint // SSF 1.0, section 8.1.1
	Status       *Endpoint // SSF 1.0, section 8.1.2
	Verification *Endpoint // SSF 1.0, section 8.1.4
	Poll         *Endpoint // RFC 8936

	// Client pushes SETs. Change it before the first push. Nil: http.DefaultClient.
	Client *http.Client

	iss *Issuer
	t   testing.TB

	mu      sync.Mutex // guards what follows
	streams []*testStream
	made    int
}

// A testStream is a stream of one receiver.
type testStream struct {
	id, status, reason string
	events             []signals.Event
	method             string // URN
	endpoint           string
	authorization      string
	queue              []*testDelivery // for poll, in order
	arrived            chan struct{}   // closed and replaced when queue grows
}

// A testDelivery is a SET that a receiver has not acknowledged yet.
type testDelivery struct {
	jti, raw string
	done     chan error // buffered
}

// A SETError is the refusal of a SET by a receiver (RFC 8935, section 2.4; RFC 8936, section 2.4.4).
type SETError struct{ Code, Description string }

func (e *SETError) Error() string {
	return fmt.Sprintf("valetkeytest: the receiver refuses the SET: %s: %s", e.Code, e.Description)
}

// NewTransmitter starts a transmitter for the users of iss. It ends with iss, whose keys sign the SETs.
func NewTransmitter(t testing.TB, iss *Issuer) *Transmitter {
	t.Helper()
	tr := &Transmitter{URL: iss.URL, TokenURL: iss.URL + "/ssf/token", iss: iss, t: t}
	tr.Metadata = &Endpoint{done: iss.done, empty: `{}`, URL: iss.URL + "/.well-known/ssf-configuration"}
	tr.Metadata.real = tr.Metadata.document(tr.metadata)
	endpoint := func(path string, serve http.HandlerFunc) *Endpoint {
		e := &Endpoint{done: iss.done, empty: `{}`, URL: iss.URL + path, real: serve}
		iss.mux.Handle(path, e)
		return e
	}
	iss.mux.Handle("GET /.well-known/ssf-configuration", tr.Metadata)
	tr.Token = endpoint("/ssf/token", tr.serveToken)
	tr.Streams = endpoint("/ssf/streams", tr.authenticated(tr.serveStreams))
	tr.Status = endpoint("/ssf/status", tr.authenticated(tr.serveStatus))
	tr.Verification = endpoint("/ssf/verify", tr.authenticated(tr.serveVerification))
	tr.Poll = endpoint("/ssf/poll", tr.authenticated(tr.servePoll))
	return tr
}

// Credentials returns credentials for the API of the transmitter.
func (tr *Transmitter) Credentials() signals.Credentials {
	return signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: tr.TokenURL, Auth: clientauth.Basic(ReceiverID, ReceiverSecret)})
}

// OfUser is about all sessions of a user.
func OfUser(sub string) Option {
	return func(d *draft) { d.claims["sub_id"] = subject(d, sub) }
}

// OfSession is about one session of a user: the sid of its tokens.
func OfSession(sub, sid string) Option {
	return func(d *draft) {
		d.claims["sub_id"] = map[string]any{"format": "complex", "user": subject(d, sub), "session": map[string]any{"format": "opaque", "id": sid}}
	}
}

// OfToken is about one token: its jti (SSF 1.0, section 3.5.1).
func OfToken(jti string) Option {
	return func(d *draft) {
		d.claims["sub_id"] = map[string]any{"format": "jwt_id", "iss": d.claims["iss"], "jti": jti}
	}
}

// OfEmail is about the user with an email address, for receivers with a resolver.
func OfEmail(address string) Option {
	return Claim("sub_id", map[string]any{"format": "email", "email": address})
}

// SID sets the claim sid of an access token, the session that [OfSession] ends.
func SID(sid string) Option { return Claim("sid", sid) }

func subject(d *draft, sub string) map[string]any {
	return map[string]any{"format": "iss_sub", "iss": d.claims["iss"], "sub": sub}
}

// EventMember sets a member of the event in a SET: EventMember("current_level", "HIGH").
func EventMember(name string, value any) Option {
	return func(d *draft) {
		events, _ := d.claims["events"].(map[string]any)
		for _, event := range events {
			if members, is := event.(map[string]any); is {
				members[name] = value
			}
		}
	}
}

// revoking are the members with which the events revoke that do not always do so.
var revoking = map[signals.Event]map[string]any{
	signals.CredentialChange:       {"credential_type": "password", "change_type": "update"},
	signals.AssuranceLevelChange:   {"namespace": "NIST-AAL", "current_level": "nist-aal1", "previous_level": "nist-aal2", "change_direction": "decrease"},
	signals.DeviceComplianceChange: {"current_status": "not-compliant", "previous_status": "compliant"},
	signals.RiskLevelChange:        {"principal": "USER", "current_level": "HIGH"},
	signals.TokenClaimsChange:      {"claims": map[string]any{"role": "guest"}},
}

// SET returns a signed SET with one event that occurred now, such that it revokes the tokens of its subject if the event is on at the
// receiver. The subject is [DefaultSubject], unless an option such as [OfSession] sets another. Options of tokens, such as [Claim],
// [Header] and [TamperedSignature], apply too.
func (tr *Transmitter) SET(event signals.Event, opts ...Option) string {
	tr.t.Helper()
	now := tr.iss.Now()
	members := map[string]any{"event_timestamp": now.Unix()}
	maps.Copy(members, revoking[event])
	return tr.signed("secevent+jwt", map[string]any{"events": map[string]any{string(event): members}}, append([]Option{OfUser(DefaultSubject)}, opts...))
}

// LogoutToken returns a logout token of OpenID Connect Back-Channel Logout 1.0 for [DefaultSubject]. The option [SID] selects a session.
func (tr *Transmitter) LogoutToken(opts ...Option) string {
	tr.t.Helper()
	return tr.signed("logout+jwt", map[string]any{
		"sub": DefaultSubject, "exp": tr.iss.Now().Add(time.Minute).Unix(), "events": map[string]any{string(signals.Logout): map[string]any{}},
	}, opts)
}

func (tr *Transmitter) signed(typ string, claims map[string]any, opts []Option) string {
	tr.t.Helper()
	return tr.iss.Token(append([]Option{func(d *draft) {
		jti, iat := d.claims["jti"], d.claims["iat"]
		d.claims = map[string]any{"iss": tr.URL, "aud": ReceiverAudience, "iat": iat, "jti": jti}
		maps.Copy(d.claims, claims)
		d.header["typ"] = typ
	}}, opts...)...)
}

// WrongSETs returns SETs that every receiver must refuse, each with a name for its defect. Without the defect, each would revoke what
// event means. The options apply to each.
func (tr *Transmitter) WrongSETs(event signals.Event, opts ...Option) iter.Seq2[string, string] {
	tr.t.Helper()
	two := func(d *draft) {
		events, _ := d.claims["events"].(map[string]any)
		d.claims["events"] = map[string]any{string(event): events[string(event)], "https://events.example.com/other": map[string]any{}}
	}
	return func(yield func(name, set string) bool) {
		for _, w := range []struct {
			name string
			opt  Option
		}{
			{"the type of another token", Type("JWT")}, {"the type of an access token", Type("at+jwt")}, {"no type", Type("")},
			{"the algorithm none", Unsigned()}, {"a shared secret", Secret(tr.iss.JWKS())},
			{"an unknown key", UnknownKey()}, {"an unknown key under the ID of the issuer's key", func(d *draft) { UnknownKey()(d); KeyID(tr.iss.KeyID())(d) }},
			{"a signature with a bit flipped", TamperedSignature()}, {"claims changed after signing", TamperedPayload()},
			{"another issuer", WrongIssuer()}, {"the issuer with a slash", Claim("iss", tr.URL+"/")},
			{"another audience", WrongAudience()}, {"no audience", Claim("aud", nil)},
			{"an expiry", func(d *draft) { Claim("exp", d.now.Add(time.Hour).Unix())(d) }}, {"a top-level sub", Subject(DefaultSubject)},
			{"no jti", Claim("jti", nil)}, {"no iat", Claim("iat", nil)}, {"no events", Claim("events", nil)},
			{"an empty events", Claim("events", map[string]any{})}, {"two events", two},
		} {
			if !yield(w.name, tr.SET(event, append(opts[:len(opts):len(opts)], w.opt)...)) {
				return
			}
		}
	}
}

var errNoStream = errors.New("valetkeytest: there is no stream yet: wait for Receiver.Ready")

// Send delivers a SET over every stream that is enabled and whose receiver gets its event, and waits until each receiver has acknowledged
// it: by then it is in force. It sends again while a receiver fails. The error is a [*SETError] for the first refusal, or states that
// there is no stream or that no acknowledgment came within 30 s.
func (tr *Transmitter) Send(set string) error {
	tr.t.Helper()
	deliveries, err := tr.queue(set, "")
	if err != nil {
		return err
	}
	var errs []error
	limit := time.NewTimer(sendLimit)
	defer limit.Stop()
	for _, d := range deliveries {
		select {
		case err := <-d.done:
			errs = append(errs, err)
		case <-limit.C:
			errs = append(errs, fmt.Errorf("valetkeytest: no acknowledgment within %v", sendLimit))
		case <-tr.iss.done:
			errs = append(errs, context.Canceled)
		}
	}
	return errors.Join(errs...)
}

// Queue begins the delivery of a SET as [Transmitter.Send] does, and does not wait.
func (tr *Transmitter) Queue(set string) error {
	_, err := tr.queue(set, "")
	return err
}

// queue begins the delivery over the stream, or all of them.
func (tr *Transmitter) queue(set, stream string) (all []*testDelivery, err error) {
	jti := jtiOf(set)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, s := range tr.streams {
		if stream != "" && s.id != stream || stream == "" && s.status != enabled {
			continue
		}
		d := &testDelivery{jti: jti, raw: set, done: make(chan error, 1)}
		all = append(all, d)
		if s.method == pollMethod {
			s.queue = append(s.queue, d)
			close(s.arrived)
			s.arrived = make(chan struct{})
			continue
		}
		go tr.push(s.endpoint, s.authorization, d)
	}
	if len(all) == 0 {
		return nil, errNoStream
	}
	return all, nil
}

// push delivers a SET by push (RFC 8935), until the receiver accepts or refuses it or the test ends.
func (tr *Transmitter) push(to, authorization string, d *testDelivery) {
	client := tr.Client
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendLimit)
	defer cancel()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader([]byte(d.raw)))
		if err != nil {
			d.done <- err
			return
		}
		req.Header.Set("Content-Type", "application/secevent+jwt")
		req.Header.Set("Accept", "application/json")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if res, err := client.Do(req); err == nil {
			var refused struct{ Err, Description string }
			body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
			res.Body.Close()
			switch {
			case res.StatusCode == http.StatusAccepted:
				d.done <- nil
				return
			case res.StatusCode < http.StatusInternalServerError:
				json.Unmarshal(body, &refused)
				d.done <- &SETError{refused.Err, refused.Description}
				return
			}
		}
		select {
		case <-tr.iss.done:
			return
		case <-time.After(pushRetry):
		}
	}
}

// Waiting returns the number of SETs that wait to be polled.
func (tr *Transmitter) Waiting() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, s := range tr.streams {
		n += len(s.queue)
	}
	return n
}

// The statuses of a stream (SSF 1.0, section 8.1.2.1).
const (
	enabled  = "enabled"
	paused   = "paused"
	disabled = "disabled"
)

// SetStatus makes all streams enabled, paused or disabled, and sends each receiver a stream-updated event (SSF 1.0, section 8.1.5). Send
// does not use a stream that is paused or disabled, so its events are lost.
func (tr *Transmitter) SetStatus(status, reason string) error {
	tr.t.Helper()
	if !slices.Contains([]string{enabled, paused, disabled}, status) {
		return fmt.Errorf("valetkeytest: %q is none of enabled, paused and disabled", status)
	}
	tr.mu.Lock()
	var ids []string
	for _, s := range tr.streams {
		s.status, s.reason = status, reason
		ids = append(ids, s.id)
	}
	tr.mu.Unlock()
	for _, id := range ids {
		set := tr.aboutStream("stream-updated", id, map[string]any{"status": status, "reason": reason})
		if _, err := tr.queue(set, id); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes all streams, as a transmitter does that has lost its data. Receivers make new ones.
func (tr *Transmitter) Forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.streams = nil
}

// aboutStream returns a SET about a stream itself.
func (tr *Transmitter) aboutStream(event, id string, members map[string]any) string {
	return tr.signed("secevent+jwt", map[string]any{
		"sub_id": map[string]any{"format": "opaque", "id": id},
		"events": map[string]any{"https://schemas.openid.net/secevent/ssf/event-type/" + event: members},
	}, nil)
}

const (
	pushMethod = "urn:ietf:rfc:8935"
	pollMethod = "urn:ietf:rfc:8936"
)

func (tr *Transmitter) metadata() []byte {
	return mustJSON(map[string]any{
		"spec_version": "1_0", "issuer": tr.URL, "jwks_uri": tr.iss.KeySet.URL, "delivery_methods_supported": []string{pushMethod, pollMethod},
		"configuration_endpoint": tr.Streams.URL, "status_endpoint": tr.Status.URL, "verification_endpoint": tr.Verification.URL,
		"authorization_schemes": []any{map[string]string{"spec_urn": "urn:ietf:rfc:6749"}},
	})
}

func (tr *Transmitter) serveToken(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if r.Method != http.MethodPost || id != ReceiverID || secret != ReceiverSecret {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"access_token": receiverToken, "token_type": "Bearer", "expires_in": 3600})
}

func (tr *Transmitter) authenticated(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+receiverToken {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve(w, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(mustJSON(v))
}

// json returns the configuration of a stream (SSF 1.0, section 8.1.1).
func (s *testStream) json(tr *Transmitter) map[string]any {
	delivery := map[string]any{"method": s.method, "endpoint_url": s.endpoint}
	if s.method == pollMethod {
		delivery["endpoint_url"] = tr.Poll.URL + "?stream_id=" + s.id
	}
	return map[string]any{
		"stream_id": s.id, "iss": tr.URL, "aud": ReceiverAudience, "delivery": delivery, "events_supported": signals.Events(),
		"events_requested": s.events, "events_delivered": s.events,
	}
}

// find returns the stream of a request, or responds with 404. The caller must hold the lock.
func (tr *Transmitter) find(w http.ResponseWriter, id string) *testStream {
	for _, s := range tr.streams {
		if s.id == id {
			return s
		}
	}
	w.WriteHeader(http.StatusNotFound)
	return nil
}

func (tr *Transmitter) serveStreams(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch id := r.URL.Query().Get("stream_id"); {
	case r.Method == http.MethodGet && id == "":
		all := []any{}
		for _, s := range tr.streams {
			all = append(all, s.json(tr))
		}
		writeJSON(w, http.StatusOK, all)
	case r.Method == http.MethodGet:
		if s := tr.find(w, id); s != nil {
			writeJSON(w, http.StatusOK, s.json(tr))
		}
	case r.Method == http.MethodDelete:
		if s := tr.find(w, id); s != nil {
			tr.streams = slices.DeleteFunc(tr.streams, func(other *testStream) bool { return other == s })
			w.WriteHeader(http.StatusNoContent)
		}
	case r.Method == http.MethodPost:
		var asked struct {
			Events   []signals.Event `json:"events_requested"`
			Delivery struct {
				Method        string `json:"method"`
				Endpoint      string `json:"endpoint_url"`
				Authorization string `json:"authorization_header"`
			} `json:"delivery"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || !slices.Contains([]string{pushMethod, pollMethod}, asked.Delivery.Method) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		tr.made++
		s := &testStream{
			id: fmt.Sprintf("stream-%d", tr.made), status: enabled, events: asked.Events, method: asked.Delivery.Method,
			endpoint: asked.Delivery.Endpoint, authorization: asked.Delivery.Authorization, arrived: make(chan struct{}),
		}
		tr.streams = append(tr.streams, s)
		writeJSON(w, http.StatusCreated, s.json(tr))
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (tr *Transmitter) serveStatus(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if s := tr.find(w, r.URL.Query().Get("stream_id")); s != nil {
		writeJSON(w, http.StatusOK, map[string]string{"stream_id": s.id, "status": s.status, "reason": s.reason})
	}
}

func (tr *Transmitter) serveVerification(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Stream string `json:"stream_id"`
		State  string `json:"state"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if _, err := tr.queue(tr.aboutStream("verification", asked.Stream, map[string]any{"state": asked.State}), asked.Stream); err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// servePoll implements RFC 8936, section 2.
func (tr *Transmitter) servePoll(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Max       *int                                         `json:"maxEvents"`
		Immediate bool                                         `json:"returnImmediately"`
		Ack       []string                                     `json:"ack"`
		Errs      map[string]struct{ Err, Description string } `json:"setErrs"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	limit := mostEvents
	if asked.Max != nil {
		limit = min(max(*asked.Max, 0), mostEvents)
	}
	id := r.URL.Query().Get("stream_id")
	tr.mu.Lock()
	defer tr.mu.Unlock()
	s := tr.find(w, id)
	if s == nil {
		return
	}
	s.queue = slices.DeleteFunc(s.queue, func(d *testDelivery) bool {
		refused, wrong := asked.Errs[d.jti]
		switch {
		case wrong:
			d.done <- &SETError{refused.Err, refused.Description}
		case slices.Contains(asked.Ack, d.jti):
			d.done <- nil
		default:
			return false
		}
		return true
	})
	if len(s.queue) == 0 && !asked.Immediate && limit > 0 {
		arrived := s.arrived
		tr.mu.Unlock()
		timer := time.NewTimer(longPoll)
		select {
		case <-arrived:
		case <-timer.C:
		case <-r.Context().Done():
		case <-tr.iss.done:
		}
		timer.Stop()
		tr.mu.Lock()
	}
	sets := map[string]string{}
	for _, d := range s.queue[:min(limit, len(s.queue))] {
		sets[d.jti] = d.raw
	}
	writeJSON(w, http.StatusOK, map[string]any{"sets": sets, "moreAvailable": len(s.queue) > len(sets)})
}

// jtiOf returns the jti of a SET, or a name for one without.
func jtiOf(set string) string {
	parts := strings.Split(set, ".")
	var claims struct {
		JTI string `json:"jti"`
	}
	if len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			json.Unmarshal(payload, &claims) // a wrong SET may have any payload
		}
	}
	if claims.JTI == "" {
		return rand.Text()
	}
	return claims.JTI
}
