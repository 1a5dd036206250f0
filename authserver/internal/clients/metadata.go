package clients

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// members are the members of a JSON object that a client sent. Null members count as omitted (RFC 7592, section 2.2).
type members map[string]strictjson.Value

func readMembers(text []byte) (members, error) {
	m := members{}
	err := strictjson.Object(text, func(name string, v strictjson.Value) error {
		m[name] = v
		return nil
	})
	return m, err
}

// A reader reads members of known types. It keeps the first mistake.
type reader struct {
	members
	err error
}

func (r *reader) wrong(name, why string) {
	if r.err == nil {
		r.err = &Invalid{Code: InvalidMetadata, Member: name, Problem: why}
	}
}

func (r *reader) text(name string) string {
	v, there := r.members[name]
	s, ok := v.Text()
	if there && !ok {
		r.wrong(name, "is not a string")
	}
	return strings.Clone(s)
}

func (r *reader) list(name string) []string {
	v, there := r.members[name]
	list, ok := v.Strings()
	if there && !ok {
		r.wrong(name, "is not an array of strings")
	}
	return list
}

func (r *reader) flag(name string) bool {
	v, there := r.members[name]
	is, ok := v.Bool()
	if there && !ok {
		r.wrong(name, "is neither true nor false")
	}
	return is
}

// client returns the client that the members describe, with the defaults of RFC 7591, section 2. Unknown members are ignored
// ("The authorization server MUST ignore any client metadata sent by the client that it does not understand"), and so are those
// that only the operator may set: no client becomes trusted by claiming it.
func (m members) client() (Client, error) {
	r := reader{members: m}
	c := Client{
		Name:              r.text("client_name"),
		URI:               r.text("client_uri"),
		RedirectURIs:      r.list("redirect_uris"),
		GrantTypes:        r.list("grant_types"),
		AuthMethod:        r.text("token_endpoint_auth_method"),
		AssertionAlg:      r.text("token_endpoint_auth_signing_alg"),
		JWKS:              string(m["jwks"]),
		JWKSURL:           r.text("jwks_uri"),
		TLSSubjectDN:      r.text("tls_client_auth_subject_dn"),
		TLSSANDNS:         r.text("tls_client_auth_san_dns"),
		TLSSANURI:         r.text("tls_client_auth_san_uri"),
		TLSSANIP:          r.text("tls_client_auth_san_ip"),
		TLSSANEmail:       r.text("tls_client_auth_san_email"),
		Scopes:            strings.Fields(r.text("scope")),
		RequirePAR:        r.flag("require_pushed_authorization_requests"),
		DPoPBound:         r.flag("dpop_bound_access_tokens"),
		CertBound:         r.flag("tls_client_certificate_bound_access_tokens"),
		LogoutURI:         r.text("backchannel_logout_uri"),
		LogoutSession:     r.flag("backchannel_logout_session_required"),
		SoftwareID:        r.text("software_id"),
		SoftwareVersion:   r.text("software_version"),
		SoftwareStatement: r.text("software_statement"),
	}
	if m["grant_types"] == nil {
		c.GrantTypes = []string{authorizationCode}
	}
	if c.AuthMethod == "" {
		c.AuthMethod = "client_secret_basic"
	}
	switch r.text("application_type") {
	case "":
		c.Native = slices.ContainsFunc(c.RedirectURIs, onDevice)
	case "native":
		c.Native = true
	case "web":
	default:
		r.wrong("application_type", "is neither web nor native")
	}
	// RFC 7591, section 2.1. Response types that are omitted are those of the grants.
	if m["response_types"] != nil && !sameSet(r.list("response_types"), responseTypes(&c)) {
		r.wrong("response_types", "do not match grant_types")
	}
	return c, r.err
}

// onDevice reports whether a redirect URI is only possible for an application on the user's device (RFC 8252, section 7). An
// application with such a URI is native unless it states otherwise, even if it has an https URI for its other editions:
// otherwise it could not use any port.
func onDevice(uri string) bool {
	u, err := webURI(uri)
	return err == nil && u.Scheme != "https" && (u.Scheme != "http" || isLoopback(u.Hostname()))
}

// responseTypes returns the response types of the grants (RFC 7591, section 2.1).
func responseTypes(c *Client) []string {
	types := []string{}
	if has(c, authorizationCode) {
		types = append(types, "code")
	}
	if has(c, implicit) {
		types = append(types, "token")
	}
	return types
}

func sameSet(a, b []string) bool {
	return !unknown(a, b) && !unknown(b, a)
}

// information is the response about a registration: RFC 7591, section 3.2.1, and RFC 7592, section 3.
type information struct {
	ID                string `json:"client_id"`
	IssuedAt          int64  `json:"client_id_issued_at"`
	Secret            string `json:"client_secret,omitempty"`
	SecretExpires     *int64 `json:"client_secret_expires_at,omitempty"` // zero: never; present if the client has a secret
	RegistrationToken string `json:"registration_access_token"`
	RegistrationURI   string `json:"registration_client_uri"`

	Name              string          `json:"client_name,omitempty"`
	URI               string          `json:"client_uri,omitempty"`
	ApplicationType   string          `json:"application_type"`
	RedirectURIs      []string        `json:"redirect_uris,omitempty"`
	GrantTypes        []string        `json:"grant_types"`
	ResponseTypes     []string        `json:"response_types"`
	AuthMethod        string          `json:"token_endpoint_auth_method"`
	AssertionAlg      string          `json:"token_endpoint_auth_signing_alg,omitempty"`
	JWKS              json.RawMessage `json:"jwks,omitempty"`
	JWKSURL           string          `json:"jwks_uri,omitempty"`
	TLSSubjectDN      string          `json:"tls_client_auth_subject_dn,omitempty"`
	TLSSANDNS         string          `json:"tls_client_auth_san_dns,omitempty"`
	TLSSANURI         string          `json:"tls_client_auth_san_uri,omitempty"`
	TLSSANIP          string          `json:"tls_client_auth_san_ip,omitempty"`
	TLSSANEmail       string          `json:"tls_client_auth_san_email,omitempty"`
	Scope             string          `json:"scope"`
	RequirePAR        bool            `json:"require_pushed_authorization_requests,omitempty"`
	DPoPBound         bool            `json:"dpop_bound_access_tokens,omitempty"`
	CertBound         bool            `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	LogoutURI         string          `json:"backchannel_logout_uri,omitempty"`
	LogoutSession     bool            `json:"backchannel_logout_session_required,omitempty"`
	SoftwareID        string          `json:"software_id,omitempty"`
	SoftwareVersion   string          `json:"software_version,omitempty"`
	SoftwareStatement string          `json:"software_statement,omitempty"`

	// Warnings state which of the requested values were not registered, and why. It is not a member of RFC 7591, whose section
	// 3.2.1 has the client compare the values.
	Warnings []string `json:"warnings,omitempty"`
}

// inform returns the response about c. The secret is empty unless it is new, because it is not stored.
func (e *registration) inform(c *Client, secret, token string, warnings ...string) *information {
	info := &information{
		ID:                c.ID,
		IssuedAt:          c.IssuedAt.Unix(),
		Secret:            secret,
		RegistrationToken: token,
		RegistrationURI:   e.cfg.URL + "/" + c.ID,
		Name:              c.Name,
		URI:               c.URI,
		ApplicationType:   "web",
		RedirectURIs:      c.RedirectURIs,
		GrantTypes:        c.GrantTypes,
		ResponseTypes:     responseTypes(c),
		AuthMethod:        c.AuthMethod,
		AssertionAlg:      c.AssertionAlg,
		JWKS:              json.RawMessage(c.JWKS),
		JWKSURL:           c.JWKSURL,
		TLSSubjectDN:      c.TLSSubjectDN,
		TLSSANDNS:         c.TLSSANDNS,
		TLSSANURI:         c.TLSSANURI,
		TLSSANIP:          c.TLSSANIP,
		TLSSANEmail:       c.TLSSANEmail,
		Scope:             strings.Join(c.Scopes, " "),
		RequirePAR:        c.RequirePAR,
		DPoPBound:         c.DPoPBound,
		CertBound:         c.CertBound,
		LogoutURI:         c.LogoutURI,
		LogoutSession:     c.LogoutSession,
		SoftwareID:        c.SoftwareID,
		SoftwareVersion:   c.SoftwareVersion,
		SoftwareStatement: c.SoftwareStatement,
		Warnings:          warnings,
	}
	if usesSecret(c.AuthMethod) {
		info.SecretExpires = new(int64)
	}
	if c.Native {
		info.ApplicationType = "native"
	}
	return info
}
