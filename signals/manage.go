package signals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// The delivery methods of a stream (SSF 1.0, section 6.1), and their names before RFC 8935 and RFC 8936.
var methods = map[Delivery][]string{
	Push: {"urn:ietf:rfc:8935", "https://schemas.openid.net/secevent/risc/delivery-method/push"},
	Poll: {"urn:ietf:rfc:8936", "https://schemas.openid.net/secevent/risc/delivery-method/poll"},
}

// metadata is the configuration metadata of a transmitter (SSF 1.0, section 7.1).
type metadata struct {
	jwksURI, configuration, status, verification string
	critical                                     []string
}

// discover fetches the metadata.
func (r *Receiver) discover(ctx context.Context) (*metadata, error) {
	var errs []error
	for _, place := range wellKnown(r.cfg.Transmitter, r.cfg.Legacy.AllowRISCMetadata) {
		answer, err := r.fetch.Get(ctx, place, "")
		if err == nil {
			var m *metadata
			if m, err = r.readMetadata(answer.Body); err == nil {
				r.meta.Store(m)
				return m, nil
			}
			err = fmt.Errorf("metadata at %s: %w", fetch.Bare(place), err)
		}
		errs = append(errs, err)
		if e, is := errors.AsType[*fetch.Error](err); !is || e.Status != http.StatusNotFound {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// wellKnown returns the locations of the metadata in order: the one of SSF 1.0, section 7.2.1, between host and path, without a slash at
// its end; and behind the path, where Keycloak has it.
func wellKnown(transmitter string, risc bool) (places []string) {
	u, err := url.Parse(transmitter)
	if err != nil {
		return nil
	}
	host, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	names := []string{"ssf-configuration"}
	if risc {
		names = append(names, "risc-configuration")
	}
	for _, name := range names {
		places = append(places, host+"/.well-known/"+name+path)
		if path != "" {
			places = append(places, host+path+"/.well-known/"+name)
		}
	}
	return places
}

func (r *Receiver) readMetadata(body []byte) (*metadata, error) {
	var m metadata
	var issuer string
	err := strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "issuer":
			issuer, _ = v.Text()
		case "jwks_uri":
			m.jwksURI, _ = v.Text()
		case "configuration_endpoint":
			m.configuration, _ = v.Text()
		case "status_endpoint":
			m.status, _ = v.Text()
		case "verification_endpoint":
			m.verification, _ = v.Text()
		case "critical_subject_members":
			m.critical, _ = v.Strings()
		}
		return nil
	}, "issuer", "jwks_uri", "configuration_endpoint", "status_endpoint", "verification_endpoint", "critical_subject_members")
	switch {
	case err != nil:
		return nil, err
	case issuer != r.cfg.Transmitter: // SSF 1.0, section 7.2.4: identical, or not used
		return nil, fmt.Errorf("it is of the transmitter %.200q, not %q", issuer, r.cfg.Transmitter)
	}
	return &m, nil
}

// jwksURL returns the URL of the keys in the metadata.
func (r *Receiver) jwksURL(ctx context.Context) (string, error) {
	m, err := r.discover(ctx)
	switch {
	case err != nil:
		return "", err
	case m.jwksURI == "":
		return "", errors.New("the metadata of the transmitter has no jwks_uri")
	}
	if err := r.fetch.AllowedBy(r.cfg.Transmitter, m.jwksURI); err != nil {
		return "", fmt.Errorf("jwks_uri %.100q: %w", fetch.Bare(m.jwksURI), err)
	}
	return m.jwksURI, nil
}

// criticalMembers returns the critical members of subjects (SSF 1.0, section 3.6).
func (r *Receiver) criticalMembers() []string {
	if m := r.meta.Load(); m != nil {
		return m.critical
	}
	return nil
}

// A streamConfig is the configuration of a stream at the transmitter (SSF 1.0, section 8.1.1).
type streamConfig struct {
	id         string
	issuer     string
	audience   []string
	delivered  []Event // nil: it does not state them
	missing    []Event // wanted and not delivered
	method     string
	endpoint   string
	minVerify  time.Duration
	inactivity time.Duration // zero: none
}

func readStream(v strictjson.Value) (*streamConfig, error) {
	var s streamConfig
	err := strictjson.Object(v, func(name string, v strictjson.Value) error {
		switch name {
		case "stream_id":
			s.id, _ = v.Text()
		case "iss":
			s.issuer, _ = v.Text()
		case "aud":
			if v.IsEmpty() {
				return nil
			}
			aud, err := tokenclaims.Audience(v, true)
			if err != nil {
				return err
			}
			for a := range aud.All() {
				if a != "" {
					s.audience = append(s.audience, a)
				}
			}
		case "events_delivered":
			list, _ := v.Strings()
			s.delivered = make([]Event, len(list))
			for i, e := range list {
				s.delivered[i] = Event(e)
			}
		case "delivery":
			if !v.IsObject() {
				return nil
			}
			return strictjson.Object(v, func(name string, v strictjson.Value) error {
				switch name {
				case "method":
					s.method, _ = v.Text()
				case "endpoint_url":
					s.endpoint, _ = v.Text()
				}
				return nil
			}, "method", "endpoint_url")
		case "min_verification_interval":
			s.minVerify = secondsOf(v)
		case "inactivity_timeout":
			s.inactivity = secondsOf(v)
		}
		return nil
	}, "stream_id", "iss", "aud", "events_delivered", "delivery")
	switch {
	case err != nil:
		return nil, err
	case s.id == "":
		return nil, errors.New("it has no stream_id")
	}
	return &s, nil
}

// secondsOf returns a number of seconds, bounded to a year; zero for a negative one and for anything else.
func secondsOf(v strictjson.Value) time.Duration {
	n, _ := v.Number()
	return time.Duration(min(max(n, 0), 365*24*60*60) * float64(time.Second))
}

var (
	// errGone means that the stream does not exist (any more).
	errGone = errors.New("the transmitter does not know the stream")

	errPending = errors.New("the transmitter has not completed the request yet")
)

// An apiError is a response of the API with an unexpected status.
type apiError struct {
	what       string
	status     int
	retryAfter time.Duration
}

func (e *apiError) Error() string {
	if e.status == http.StatusForbidden { // RFC 6750, section 3.1: insufficient_scope
		return fmt.Sprintf("%s: the transmitter answers with status 403: the access token does not allow it. Does the client have the scope ssf.manage, "+
			"and do the Credentials request it?", e.what)
	}
	return fmt.Sprintf("%s: the transmitter answers with status %d", e.what, e.status)
}

// call sends a request to the API with an access token, which is requested again once if it is refused.
func (r *Receiver) call(ctx context.Context, what, method, to string, body any, limit time.Duration, maxBody int) (*fetch.Sent, error) {
	if err := r.trusted(to); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // of texts and numbers, which does not fail
	}
	c := r.fetch
	c.MaxBody = maxBody
	for again := false; ; again = true {
		token, err := r.cfg.Credentials.token(ctx, r.fetch, again)
		if err != nil {
			return nil, fmt.Errorf("%s: getting an access token: %w", what, err)
		}
		sent, err := c.Send(ctx, fetch.Call{Method: method, URL: to, Body: text, Limit: limit, Header: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		if sent.Status == http.StatusUnauthorized && !again {
			continue
		}
		return sent, nil
	}
}

// trusted returns an error if no access token may be sent to a URL.
func (r *Receiver) trusted(to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return errors.New("the endpoint is malformed")
	}
	for _, origin := range append([]string{r.cfg.Transmitter, r.cfg.Stream.PollURL}, r.cfg.TrustedOrigins...) {
		if own, err := url.Parse(origin); err == nil && origin != "" && fetch.SameOrigin(own, u) {
			return nil
		}
	}
	return fmt.Errorf("the endpoint %.100q is not on the origin of the transmitter, so no access token is sent there; TrustedOrigins allows it", fetch.Bare(to))
}

// api calls an endpoint and returns the body of a response with an expected status.
func (r *Receiver) api(ctx context.Context, what, method, to string, body any, expect ...int) (*fetch.Sent, error) {
	sent, err := r.call(ctx, what, method, to, body, 0, 0)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(expect, sent.Status):
		return sent, nil
	case sent.Status == http.StatusAccepted: // SSF 1.0, section 8.1.1
		return nil, fmt.Errorf("%s: %w", what, errPending)
	case sent.Status == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", what, errGone)
	}
	return nil, &apiError{what, sent.Status, sent.RetryAfter}
}

// withStream adds the stream to the query of a URL.
func withStream(to, id string) string {
	u, err := url.Parse(to)
	if err != nil {
		return to
	}
	q := u.Query()
	q.Set("stream_id", id)
	u.RawQuery = q.Encode()
	return u.String()
}

// open finds the stream, or creates it and reports created.
func (r *Receiver) open(ctx context.Context, m *metadata, knownID string) (s *streamConfig, created bool, err error) {
	if m.configuration == "" {
		return nil, false, errors.New("the metadata has no configuration_endpoint: set Stream.Unmanaged")
	}
	if r.cfg.Stream.ID != "" {
		s, err = r.readOne(ctx, m, r.cfg.Stream.ID)
		return s, false, err
	}
	if knownID != "" {
		if s, err = r.readOne(ctx, m, knownID); !errors.Is(err, errGone) {
			return s, false, err
		}
	}
	if s, err = r.find(ctx, m); s != nil || err != nil {
		return s, false, err
	}
	s, err = r.create(ctx, m)
	if conflict := new(apiError); errors.As(err, &conflict) && conflict.status == http.StatusConflict {
		// SSF 1.0, section 8.1.1.1: there is one already. It is used as it is.
		if s, err = r.find(ctx, m); s == nil && err == nil {
			err = errors.New("the transmitter allows no second stream, and the existing one has another delivery: set Stream.ID, or delete it")
		}
		return s, false, err
	}
	return s, err == nil, err
}

func (r *Receiver) readOne(ctx context.Context, m *metadata, id string) (*streamConfig, error) {
	sent, err := r.api(ctx, "reading the stream", http.MethodGet, withStream(m.configuration, id), nil, http.StatusOK)
	if err != nil {
		return nil, err
	}
	all, err := readStreams(sent.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the stream: %w", err)
	}
	for _, s := range all {
		if s.id == id {
			return s, r.usable(s)
		}
	}
	return nil, fmt.Errorf("reading the stream: %w", errGone)
}

// readStreams reads one configuration or a list of them.
func readStreams(body []byte) (all []*streamConfig, err error) {
	text := strings.TrimSpace(string(body))
	if !strings.HasPrefix(text, "[") {
		s, err := readStream(strictjson.Value(text))
		return []*streamConfig{s}, err
	}
	err = strictjson.Object([]byte(`{"streams":`+text+`}`), func(_ string, v strictjson.Value) error {
		list, _ := v.Elements() // the text begins with "["
		for _, e := range list {
			s, err := readStream(e)
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		return nil
	})
	return all, err
}

// find returns the only stream of this receiver with the configured delivery; nil: there is none.
func (r *Receiver) find(ctx context.Context, m *metadata) (*streamConfig, error) {
	sent, err := r.api(ctx, "listing the streams", http.MethodGet, m.configuration, nil, http.StatusOK)
	if errors.Is(err, errGone) { // instead of an empty list
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := readStreams(sent.Body)
	if err != nil {
		return nil, fmt.Errorf("listing the streams: %w", err)
	}
	all = slices.DeleteFunc(all, func(s *streamConfig) bool {
		return !slices.Contains(methods[r.cfg.Delivery], s.method) || r.cfg.Delivery == Push && s.endpoint != r.cfg.Endpoint
	})
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], r.usable(all[0])
	}
	return nil, fmt.Errorf("listing the streams: %d have this delivery; select one with Stream.ID", len(all))
}

func (r *Receiver) create(ctx context.Context, m *metadata) (*streamConfig, error) {
	delivery := map[string]string{"method": methods[r.cfg.Delivery][0]}
	if r.cfg.Delivery == Push {
		delivery["endpoint_url"] = r.cfg.Endpoint
		if r.cfg.AuthorizationHeader != "" {
			delivery["authorization_header"] = r.cfg.AuthorizationHeader
		}
	}
	body := map[string]any{"events_requested": requested(r.cfg.Events), "delivery": delivery}
	if r.cfg.Stream.Description != "" {
		body["description"] = r.cfg.Stream.Description
	}
	sent, err := r.api(ctx, "creating the stream", http.MethodPost, m.configuration, body, http.StatusCreated, http.StatusOK)
	if err != nil {
		return nil, err
	}
	s, err := readStream(sent.Body)
	if err != nil {
		return nil, fmt.Errorf("creating the stream: %w", err)
	}
	return s, r.usable(s)
}

// usable returns an error if a stream cannot be used.
func (r *Receiver) usable(s *streamConfig) error {
	switch {
	case s.issuer != "" && s.issuer != r.cfg.Transmitter: // SSF 1.0, section 8.1.1: the iss of the SETs
		return fmt.Errorf("the stream has the iss %.200q, not %q", s.issuer, r.cfg.Transmitter)
	case s.method != "" && !slices.Contains(methods[r.cfg.Delivery], s.method):
		return fmt.Errorf("the stream has the delivery %.100q, not %s", s.method, r.cfg.Delivery)
	case r.cfg.Delivery == Poll && s.endpoint == "":
		return errors.New("the stream has no endpoint_url to poll")
	case len(s.audience) == 0 && len(r.cfg.Audience) == 0:
		return errors.New("the stream has no aud: set Audience")
	}
	if r.cfg.Delivery == Poll {
		if err := r.trusted(s.endpoint); err != nil {
			return err
		}
	}
	// What was requested or is supported does not matter (SSF 1.0, section 8.1.1).
	for _, e := range requested(r.cfg.Events) {
		if e == SessionsRevoked && slices.Contains(s.delivered, SessionRevoked) && slices.Contains(r.cfg.Events, SessionRevoked) {
			continue // RISC 1.0, section 2.11: deprecated in favor of it
		}
		if !slices.Contains(s.delivered, e) {
			s.missing = append(s.missing, e)
		}
	}
	return nil
}

// readStatus reads the status of the stream.
func (r *Receiver) readStatus(ctx context.Context, m *metadata, id string) error {
	sent, err := r.api(ctx, "reading the status of the stream", http.MethodGet, withStream(m.status, id), nil, http.StatusOK)
	if err != nil {
		return err
	}
	status, reason := "", ""
	err = strictjson.Object(sent.Body, func(name string, v strictjson.Value) error {
		switch name {
		case "status":
			status, _ = v.Text()
		case "reason":
			reason, _ = v.Text()
		}
		return nil
	}, "status")
	if err != nil {
		return fmt.Errorf("reading the status of the stream: %w", err)
	}
	r.stream.setStatus(ctx, status, reason)
	return nil
}

// verify requests a verification event.
func (r *Receiver) verify(ctx context.Context, m *metadata, id string) error {
	body := map[string]string{"stream_id": id, "state": r.stream.newState()}
	r.stream.change(func() {
		if r.stream.requested {
			r.stream.unanswered++
			if r.stream.unanswered == unprovenAfter {
				r.log.LogAttrs(ctx, slog.LevelError, "signals: verification events do not arrive, so the stream may be dead",
					slog.String("transmitter", r.cfg.Transmitter), slog.String("stream", id))
			}
		}
		r.stream.requested, r.stream.requestedAt = true, r.cfg.Now()
	})
	_, err := r.api(ctx, "verifying the stream", http.MethodPost, m.verification, body, http.StatusNoContent, http.StatusOK)
	if busy := new(apiError); errors.As(err, &busy) && busy.status == http.StatusTooManyRequests { // no event will come
		r.stream.change(func() { r.stream.requested = false })
	}
	return err
}

// verifies reports whether the stream is to be verified.
func (r *Receiver) verifies(m *metadata) bool {
	return m.verification != "" && r.cfg.VerifyInterval > 0
}

// verifyInterval returns the interval of verifications that the transmitter permits.
func (r *Receiver) verifyInterval(s *streamConfig) time.Duration {
	return max(r.cfg.VerifyInterval, s.minVerify)
}
