package signals

import "slices"

// An Event is the URI of an event type.
type Event string

// The events on which a receiver can act. [DefaultEvents] are on unless [Config].Events names others.
const (
	// SessionRevoked ends a session, all sessions of a user, or one token (CAEP 1.0, section 3.1).
	SessionRevoked Event = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
	// TokenClaimsChange changes claims in tokens (CAEP 1.0, section 3.2). A receiver never writes the new values into tokens. It revokes
	// the tokens, so that new ones contain them.
	TokenClaimsChange Event = "https://schemas.openid.net/secevent/caep/event-type/token-claims-change"
	// CredentialChange changes a credential of a user (CAEP 1.0, section 3.3). A new credential revokes nothing.
	CredentialChange Event = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
	// AssuranceLevelChange changes the assurance of a login (CAEP 1.0, section 3.4). Only a decrease revokes.
	AssuranceLevelChange Event = "https://schemas.openid.net/secevent/caep/event-type/assurance-level-change"
	// DeviceComplianceChange changes the compliance of a device (CAEP 1.0, section 3.5). Only not-compliant revokes, and only a session or
	// user that the subject names beside the device.
	DeviceComplianceChange Event = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
	// RiskLevelChange changes the risk of a user or session (CAEP 1.0, section 3.8). Only HIGH revokes, and LOW lifts nothing.
	RiskLevelChange Event = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"

	// AccountCredentialChangeRequired demands a new credential of a user (RISC 1.0, section 2.1).
	AccountCredentialChangeRequired Event = "https://schemas.openid.net/secevent/risc/event-type/account-credential-change-required"
	// AccountPurged removes a user for good (RISC 1.0, section 2.2).
	AccountPurged Event = "https://schemas.openid.net/secevent/risc/event-type/account-purged"
	// AccountDisabled disables a user (RISC 1.0, section 2.3), whatever the reason. AccountEnabled, section 2.4, lifts no revocation.
	AccountDisabled Event = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
	// CredentialCompromise finds that a credential of a user is compromised (RISC 1.0, section 2.7).
	CredentialCompromise Event = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise"
	// SessionsRevoked ends all sessions of a user (RISC 1.0, section 2.11; deprecated there, but sent by Google).
	SessionsRevoked Event = "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked"

	// TokensRevoked ends all tokens of a user. Google defines and sends it.
	TokensRevoked Event = "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked"

	// Logout is the event in a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4). [Receiver.Logout] receives it.
	Logout Event = "http://schemas.openid.net/event/backchannel-logout"
)

// The events of a stream itself. They are always on.
const (
	eventVerification  Event = "https://schemas.openid.net/secevent/ssf/event-type/verification"   // SSF 1.0, section 8.1.4.1
	eventStreamUpdated Event = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated" // SSF 1.0, section 8.1.5

	riscVerification Event = "https://schemas.openid.net/secevent/risc/event-type/verification" // of Google and of drafts
)

// DefaultEvents returns the events that are on by default: those that end sessions and users.
func DefaultEvents() []Event {
	return []Event{SessionRevoked, AccountDisabled, AccountPurged, SessionsRevoked, Logout}
}

// Events returns all events on which a receiver can act.
func Events() []Event {
	return append(DefaultEvents(), TokensRevoked, CredentialChange, CredentialCompromise, AccountCredentialChangeRequired, TokenClaimsChange,
		AssuranceLevelChange, DeviceComplianceChange, RiskLevelChange)
}

// requested returns the events to request of a transmitter: Logout never comes over a stream.
func requested(events []Event) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e == Logout })
}
