package engine

import (
	"log/slog"
	"time"
)

// An Event is an entry for an audit log. It contains no secret, no token and no data of an unknown client.
type Event struct {
	Name     string
	Path     string // of the endpoint
	Client   string
	Subject  string // empty: the client itself
	Audience string
	Scope    string
	Format   string // of a token: jwt or opaque
	Grant    string // the ID that links the events of one grant
	Expires  time.Time
	Error    string // the code that the client received
	Count    int    // of grants
}

// The names of events.
const (
	Granted      = "authorization granted" // by the user; tokens follow later
	Issued       = "token issued"
	Refused      = "request refused"
	Revoked      = "grant revoked"
	UserGone     = "grant ended with its user" // the user no longer exists or has a new password
	CodeReused   = "code presented again"
	TokenReused  = "refresh token presented again"
	NotItsTokens = "introspection of another API's token"
)

// Attrs returns the members that are set, in a fixed order.
func (e Event) Attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, m := range []struct{ name, value string }{
		{"path", e.Path}, {"client", e.Client}, {"subject", e.Subject}, {"audience", e.Audience}, {"scope", e.Scope},
		{"format", e.Format}, {"grant", e.Grant}, {"error", e.Error},
	} {
		if m.value != "" {
			attrs = append(attrs, slog.String(m.name, m.value))
		}
	}
	if !e.Expires.IsZero() {
		attrs = append(attrs, slog.Time("expires", e.Expires.UTC()))
	}
	if e.Count != 0 {
		attrs = append(attrs, slog.Int("grants", e.Count))
	}
	return attrs
}
