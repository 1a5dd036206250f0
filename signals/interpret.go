package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// An outcome states what became of a verified SET. [Status].Outcomes counts them.
type outcome string

// The outcomes. Only applied revokes. The others acknowledge the SET, because sending it again would not change anything.
const (
	applied    outcome = "applied"    // revocations are in force
	nothing    outcome = "nothing"    // the event requires no revocation, such as an account that is enabled again
	expired    outcome = "expired"    // all tokens that it could revoke have expired
	disabled   outcome = "disabled"   // the event is not in Config.Events, or unknown
	foreign    outcome = "foreign"    // its subject belongs to another issuer
	unresolved outcome = "unresolved" // no resolver knows the subject
	unmatched  outcome = "unmatched"  // no claim of a token corresponds to the subject: see Config.Widen
	critical   outcome = "critical"   // the subject has a critical member that this receiver does not understand
	ofStream   outcome = "stream"     // about the stream: verification and stream-updated
)

// A reading is the result of interpreting a SET.
type reading struct {
	outcome     outcome
	revocations []valetkey.Revocation
}

// interpret translates an event into revocations. It applies nothing. The error is a *refusal or a failure.
func (r *Receiver) interpret(ctx context.Context, s *set) (reading, error) {
	if !slices.Contains(r.cfg.Events, s.event) {
		r.report(ctx, slog.LevelDebug, disabled, s, nil)
		return reading{outcome: disabled}, nil
	}
	if s.subject == nil {
		return reading{}, refuse(invalidRequest, "sub_id is missing")
	}
	subject, err := parseSubject(s.subject, r.cfg.Legacy.AllowSubjectType)
	if err != nil {
		return reading{}, &refusal{invalidRequest, err}
	}
	for _, name := range r.criticalMembers() { // SSF 1.0, section 3.6
		if _, has := subject.complex[name]; has && !r.understands(name, subject) {
			r.report(ctx, slog.LevelWarn, critical, s, fmt.Errorf("the critical member %.50q is not understood", name))
			return reading{outcome: critical}, nil
		}
	}
	revokes, err := s.revokes()
	if err != nil {
		return reading{}, &refusal{invalidRequest, err}
	}
	if !revokes {
		return reading{outcome: nothing}, nil
	}
	bounds, err := r.bounds(ctx, s)
	if err != nil {
		return reading{}, &refusal{invalidRequest, err}
	}
	if !bounds.until.After(r.cfg.Now().Add(-maxLeeway)) {
		return reading{outcome: expired}, nil
	}
	found, err := r.selectTokens(ctx, s.event, subject)
	if err != nil {
		return reading{}, err
	}
	if len(found.revocations) == 0 {
		r.report(ctx, slog.LevelWarn, found.outcome, s, found.reason)
		return reading{outcome: found.outcome}, nil
	}
	for i := range found.revocations {
		bounds.set(&found.revocations[i])
	}
	return reading{applied, found.revocations}, nil
}

// revokes reports whether an event requires a revocation, for those where the payload decides. No event ever lifts one.
func (s *set) revokes() (bool, error) {
	name, values := "", []string(nil)
	switch s.event {
	case CredentialChange:
		// A value that is unknown is treated like a change, which is the safe side.
		v, err := member(s.payload, "change_type")
		if err != nil {
			return false, err
		}
		change, _ := v.Text()
		return change != "create", nil
	case AssuranceLevelChange:
		name, values = "change_direction", []string{"decrease"}
	case DeviceComplianceChange:
		name, values = "current_status", []string{"not-compliant"}
	case RiskLevelChange:
		name, values = "current_level", []string{"HIGH"}
	default:
		return true, nil
	}
	v, err := member(s.payload, name)
	if err != nil {
		return false, err
	}
	value, _ := v.Text()
	return slices.Contains(values, value), nil
}

// A bounds states which tokens an event revokes by their time of issue, and for how long.
type bounds struct {
	before, at time.Time // one of them
	until      time.Time
}

func (b bounds) set(r *valetkey.Revocation) { r.Before, r.At, r.Until = b.before, b.at, b.until }

// bounds returns the bounds of an event: event_timestamp (CAEP 1.0, section 2), else toe, else iat.
func (r *Receiver) bounds(ctx context.Context, s *set) (bounds, error) {
	when := s.occurred
	if when.IsZero() {
		when = s.issued
	}
	v, err := member(s.payload, "event_timestamp")
	if err != nil {
		return bounds{}, err
	}
	var stated time.Time
	if err := tokenclaims.Date(&stated, "event_timestamp", v, true); err != nil {
		return bounds{}, err
	}
	if !stated.IsZero() {
		when = stated
	}
	return r.boundsAt(ctx, when, s.event), nil
}

// boundsAt returns the bounds of an event at a time by the clock of the transmitter.
func (r *Receiver) boundsAt(ctx context.Context, when time.Time, event Event) bounds {
	now := r.cfg.Now()
	if latest := now.Add(r.cfg.Leeway); when.After(latest) {
		// Milliseconds in place of seconds occur. Such a time would revoke all future tokens of the user.
		if n := r.complaint.Permit(); n > 0 {
			r.log.LogAttrs(ctx, slog.LevelWarn, "signals: the time of an event is in the future, perhaps in milliseconds, so the present applies",
				slog.String("event", string(event)), slog.Time("time", when), slog.Int("events", n))
		}
		when = latest
	}
	// iat has whole seconds, rounded down, so a token of the same second may have been issued before the event.
	next := when.Truncate(time.Second).Add(time.Second)
	b := bounds{until: next.Add(r.cfg.MaxTokenLifetime)}
	if latest := now.Add(r.cfg.MaxTokenLifetime); b.until.After(latest) {
		b.until = latest // valetredis refuses a later one
	}
	if r.ownClock {
		b.before = next
	} else {
		b.at = next
	}
	return b
}

// A selection is the result of matching a subject with tokens.
type selection struct {
	revocations []valetkey.Revocation
	outcome     outcome // if there are no revocations
	reason      error
}

// sessionEvents are the events whose subject may be a session by itself: an opaque ID without a member (CAEP 1.0, section 3.1).
var sessionEvents = []Event{SessionRevoked, RiskLevelChange, AssuranceLevelChange}

// selectTokens returns the revocations for a subject, without bounds. An absent member of a complex subject is a wildcard (SSF 1.0,
// section 3.3.1): a user without a session means all sessions of the user.
func (r *Receiver) selectTokens(ctx context.Context, event Event, p parsed) (selection, error) {
	if p.complex == nil {
		return r.selectSimple(ctx, p.simple, slices.Contains(sessionEvents, event))
	}
	user, session := p.complex["user"], p.complex["session"]
	if r.cfg.Legacy.AllowAllSessions && isAll(session) && user != nil {
		session = nil // Keycloak: the session ALL
	}
	// A user of another issuer is not ours, and neither is the session of that user, whose ID may be equal to one of ours.
	ofUser, err := r.selectSimple(ctx, user, false)
	if err != nil || ofUser.outcome == foreign {
		return ofUser, err
	}
	switch {
	case session != nil:
		found := r.selectSession(session)
		if r.cfg.Widen {
			found.revocations = append(found.revocations, ofUser.revocations...)
		}
		return found, nil
	case user != nil:
		for _, name := range []string{"device", "application", "org_unit", "group"} {
			if _, narrower := p.complex[name]; narrower && !r.cfg.Widen {
				return selection{outcome: unmatched, reason: fmt.Errorf("the subject is a user with a %s, which no claim of a token states; "+
					"Widen revokes all tokens of the user", name)}, nil
			}
		}
		return ofUser, nil
	case p.complex["tenant"] != nil && len(p.complex) == 1:
		if r.isOurTenant(p.complex["tenant"]) {
			return selection{revocations: []valetkey.Revocation{{Issuer: r.cfg.Issuer, All: true}}}, nil
		}
		return selection{outcome: foreign, reason: errors.New("the subject is a tenant other than Config.Tenant")}, nil
	case p.complex["application"] != nil && len(p.complex) == 1:
		return r.selectClient(p.complex["application"]), nil
	}
	return selection{outcome: unmatched, reason: errors.New("the subject has neither a user nor a session")}, nil
}

// selectSimple returns the revocations for all identifiers of one subject. If opaqueSession is set, an opaque ID is that of a session.
func (r *Receiver) selectSimple(ctx context.Context, all []Subject, opaqueSession bool) (found selection, err error) {
	found = selection{outcome: unresolved, reason: errors.New("no resolver knows the subject")}
	for _, s := range all {
		if r.isOurs(s.Issuer) {
			one := valetkey.Revocation{Issuer: r.cfg.Issuer, Subject: s.ID}
			if s.Format == "jwt_id" {
				one = valetkey.Revocation{Issuer: r.cfg.Issuer, ID: s.ID}
			}
			found.revocations = append(found.revocations, one)
			continue
		}
		if s.Issuer != "" {
			// The same sub of another issuer is another person. Only a resolver can know who it is here.
			found.outcome, found.reason = foreign, fmt.Errorf("the subject is of the issuer %.200q, not %q", s.Issuer, r.cfg.Issuer)
		}
		if s.Format == "opaque" && opaqueSession {
			found.revocations = append(found.revocations, valetkey.Revocation{Issuer: r.cfg.Issuer, SessionID: s.ID})
		}
		subs, err := r.resolve(ctx, s)
		if err != nil {
			return selection{}, err
		}
		for _, sub := range subs {
			found.revocations = append(found.revocations, valetkey.Revocation{Issuer: r.cfg.Issuer, Subject: sub})
		}
	}
	if len(found.revocations) > 0 {
		found.outcome = applied
	}
	return found, nil
}

// selectSession returns the revocations for a session.
func (r *Receiver) selectSession(all []Subject) selection {
	found := selection{outcome: unmatched, reason: errors.New("the session is neither opaque nor a JWT")}
	for _, s := range all {
		switch {
		case s.Issuer != "" && !r.isOurs(s.Issuer):
			found.outcome, found.reason = foreign, fmt.Errorf("the session is of the issuer %.200q, not %q", s.Issuer, r.cfg.Issuer)
		case s.Format == "jwt_id":
			found.revocations = append(found.revocations, valetkey.Revocation{Issuer: r.cfg.Issuer, ID: s.ID})
		case s.Format == "opaque" || s.Format == "iss_sub":
			found.revocations = append(found.revocations, valetkey.Revocation{Issuer: r.cfg.Issuer, SessionID: s.ID})
		}
	}
	return found
}

// selectClient returns the revocation for a client. No format of SSF names one, so this is by agreement: the client ID as an opaque ID,
// or with the issuer.
func (r *Receiver) selectClient(all []Subject) selection {
	found := selection{outcome: unmatched, reason: errors.New("the application is neither opaque nor of this issuer")}
	for _, s := range all {
		if s.Format == "opaque" || s.Format == "iss_sub" && r.isOurs(s.Issuer) {
			found.revocations = append(found.revocations, valetkey.Revocation{Issuer: r.cfg.Issuer, ClientID: s.ID})
		}
	}
	return found
}

// resolve returns the users that the caller's resolver knows for a subject.
func (r *Receiver) resolve(ctx context.Context, s Subject) ([]string, error) {
	if r.cfg.Resolve == nil {
		return nil, nil
	}
	subs, err := r.cfg.Resolve(ctx, s)
	if err != nil {
		return nil, &valetkey.Unavailable{Err: fmt.Errorf("resolving a subject: %w", err)}
	}
	return slices.DeleteFunc(slices.Clone(subs), func(sub string) bool { return sub == "" }), nil
}

func (r *Receiver) isOurs(issuer string) bool {
	return issuer == r.cfg.Issuer || slices.Contains(r.cfg.IssuerAliases, issuer)
}

// isOurTenant reports whether a tenant is the one that the issuer belongs to.
func (r *Receiver) isOurTenant(all []Subject) bool {
	return r.cfg.Tenant != "" && slices.ContainsFunc(all, func(s Subject) bool {
		return s.ID == r.cfg.Tenant && (s.Issuer == "" || r.isOurs(s.Issuer))
	})
}

// understands reports whether a critical member has an effect here.
func (r *Receiver) understands(name string, p parsed) bool {
	switch name {
	case "user", "session":
		return true
	case "tenant":
		return r.isOurTenant(p.complex[name])
	case "application":
		return len(p.complex) == 1
	}
	return false
}

func isAll(session []Subject) bool {
	return len(session) == 1 && session[0].Format == "opaque" && session[0].ID == "ALL"
}

// report logs a SET that revokes nothing, at most one line per minute for each outcome.
func (r *Receiver) report(ctx context.Context, level slog.Level, o outcome, s *set, reason error) {
	if n := r.complaints[o].Permit(); n > 0 {
		r.log.LogAttrs(ctx, level, "signals: an event revokes nothing", slog.String("outcome", string(o)), slog.String("event", string(s.event)),
			slog.Any("reason", reason), slog.Int("events", n))
	}
}

// A stateful is the payload of the events of a stream.
type stateful struct {
	state  string // of a verification; "": none
	status string // of stream-updated: enabled, paused or disabled
	reason string
	about  bool // it is about one subject, for which stream-updated has a meaning
}

// ofStream decodes an event of the stream itself. It returns false for other events.
func (s *set) ofStream() (p stateful, is bool, err error) {
	switch s.event {
	case eventVerification, riscVerification, eventStreamUpdated:
	default:
		return p, false, nil
	}
	err = strictjson.Object(s.payload, func(name string, v strictjson.Value) error {
		switch name {
		case "state":
			p.state, _ = v.Text()
		case "status":
			if p.status, _ = v.Text(); v.IsObject() { // Keycloak sends an object with the same member
				inner, err := member(v, "status")
				if err != nil {
					return err
				}
				p.status, _ = inner.Text()
			}
		case "reason":
			p.reason, _ = v.Text()
		case "subject":
			p.about = v.IsObject()
		}
		return nil
	}, "state", "status")
	// SSF 1.0, section 8.1.5: sub_id of the stream itself is an opaque ID; with any other one, the status is that of the subject.
	subject, bad := parseSubject(s.subject, true)
	p.about = p.about || bad == nil && (len(subject.simple) != 1 || subject.simple[0].Format != "opaque")
	return p, true, err
}
