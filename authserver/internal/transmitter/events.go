package transmitter

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
)

// The types of events.
const (
	sessionRevoked   = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"   // CAEP 1.0, section 3.1
	credentialChange = "https://schemas.openid.net/secevent/caep/event-type/credential-change" // section 3.3
	accountDisabled  = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"  // RISC 1.0, section 2.3
	accountPurged    = "https://schemas.openid.net/secevent/risc/event-type/account-purged"    // section 2.2
	verification     = "https://schemas.openid.net/secevent/ssf/event-type/verification"       // SSF 1.0, section 8.1.4
	streamUpdated    = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"     // section 8.1.5
)

// supported are the types that a stream can request. It gets the others, which are about the stream, in any case.
var supported = []string{sessionRevoked, credentialChange, accountDisabled, accountPurged}

// delivered returns the supported types among those requested; nil requests all.
func delivered(requested []string) []string {
	types := []string{}
	for _, kind := range supported {
		if requested == nil || slices.Contains(requested, kind) {
			types = append(types, kind)
		}
	}
	return types
}

type object = map[string]any

// A payload is an event about a subject.
type payload struct {
	kind    string
	subject object // RFC 9493
	event   object
}

// reasons are the reason_admin of session-revoked events, which must not be empty (CAEP Interoperability Profile 1.0, section 3.1).
// initiators are the initiating_entity (CAEP 1.0, section 2); a cause without one may have several.
var (
	reasons = map[endings.Cause]string{
		endings.LoggedOut:           "The user logged out.",
		endings.EndedByUser:         "The user ended the session.",
		endings.ConsentRevoked:      "The user withdrew the application's access.",
		endings.TokenRevoked:        "The application revoked its token.",
		endings.Reused:              "A code or a refresh token was presented again, so one of the parties that have it is a thief.",
		endings.ClientRemoved:       "The application was removed.",
		endings.PasswordStale:       "The session began with an earlier password.",
		endings.LoggedOutEverywhere: "The user logged out everywhere.",
		endings.Revoked:             "All sessions of the user were ended.",
		endings.UserRemoved:         "The user was removed.",
		endings.UserDisabled:        "The user is disabled or no longer exists.",
		endings.PasswordChanged:     "The password was replaced.",
		endings.PasswordKept:        "The user replaced the password and kept all sessions.",
	}
	initiators = map[endings.Cause]string{
		endings.LoggedOut: "user", endings.EndedByUser: "user", endings.ConsentRevoked: "user", endings.LoggedOutEverywhere: "user", endings.PasswordKept: "user",
		endings.TokenRevoked: "system", endings.UserDisabled: "system", endings.PasswordStale: "policy", endings.Reused: "policy",
		endings.Revoked: "admin", endings.UserRemoved: "admin",
	}
)

// payloads returns the events that announce an ending at a time. Those that share a cause are in this order in every stream.
func (t *Transmitter) payloads(e endings.Ending, at time.Time) []payload {
	user := object{"format": "iss_sub", "iss": t.cfg.Issuer, "sub": e.Subject}
	caep := func(more object) object {
		more["event_timestamp"] = at.Unix() // CAEP 1.0, section 2: in seconds
		more["reason_admin"] = object{"en": reasons[e.Cause]}
		if by := initiators[e.Cause]; by != "" {
			more["initiating_entity"] = by
		}
		return more
	}
	changed := payload{credentialChange, user, nil}
	switch {
	case e.Cause == endings.PasswordKept:
		changed.event = caep(object{"credential_type": "password", "change_type": "update"})
		return []payload{changed}
	case e.Cause.OfUser():
		// SSF 1.0, section 3.3.1: without a session, all sessions of the user. An account's own event is in addition: a receiver may
		// have requested only one of the two.
		all := []payload{{sessionRevoked, object{"format": "complex", "user": user}, caep(object{})}}
		switch e.Cause {
		case endings.UserRemoved:
			all = append(all, payload{accountPurged, user, object{}})
		case endings.UserDisabled:
			all = append(all, payload{accountDisabled, user, object{}})
		case endings.PasswordChanged:
			changed.event = caep(object{"credential_type": "password", "change_type": "update"})
			all = append(all, changed)
		}
		return all
	case e.Session != "":
		session := object{"format": "opaque", "id": e.Session}
		return []payload{{sessionRevoked, object{"format": "complex", "user": user, "session": session}, caep(object{})}}
	default: // SSF 1.0, section 3.5.1
		return []payload{{sessionRevoked, object{"format": "jwt_id", "iss": t.cfg.Issuer, "jti": e.Token}, caep(object{})}}
	}
}

// claims returns the claims of a security event token: RFC 8417, section 2.2, with the restrictions of SSF 1.0, section 4.1: no sub and
// no exp.
func (t *Transmitter) claims(s *stream, jti, txn string, at time.Time, p payload) ([]byte, error) {
	c := object{
		"iss": t.cfg.Issuer, "aud": s.Client, "jti": jti, "iat": time.Now().Unix(), "sub_id": p.subject,
		"events": object{p.kind: p.event},
	}
	if txn != "" { // shared by the tokens of one cause: SSF 1.0, section 4.1.9
		c["txn"], c["toe"] = txn, at.Unix()
	}
	return json.Marshal(c)
}

// sign returns a security event token (RFC 8417, section 2.3: explicitly typed).
func (t *Transmitter) sign(claims []byte) (string, error) {
	key, err := t.cfg.Keys.Signing(Algorithm)
	if err != nil {
		return "", err
	}
	return key.Sign(object{"typ": "secevent+jwt"}, claims)
}
