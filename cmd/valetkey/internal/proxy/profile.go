package proxy

import (
	"errors"
	"strings"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/middleware"
)

// fapi2 makes a guard of the FAPI 2.0 Security Profile out of what was read, or says what contradicts it: n is the root. That
// something is wrong with a part by itself is said already.
func (n node) fapi2(top map[string]node, cfg middleware.Config, proofs *dpop.Config, all []made) *fapi.Guard {
	if top["tls"].Node == nil && top["trusted_proxies"].Node == nil { // section 5.2
		n.mistake("tls: required with profile: fapi2, or the trusted_proxies that end it")
	}
	if f := top["sender_constrained"]; f.Node != nil {
		f.mistake("profile: fapi2 sets it")
	}
	if len(all) != 1 {
		top["verifiers"].mistake("there must be one with profile: fapi2, not %d", len(all))
		return nil
	}
	v := all[0]
	cfg.Verifier, cfg.DPoP, cfg.SenderConstrained = nil, nil, false
	profile := fapi.Config{DPoP: proofs, Guard: cfg}
	if v.keys == nil {
		profile.Issuer, profile.Audience = v.asks.Issuer, v.asks.Audience
		profile.Revocation = fapi.OpaqueTokens(v.asks)
	} else {
		profile.Issuer, profile.Audience, profile.Algorithms = v.keys.Issuer, v.keys.Audience, v.keys.Algorithms
		profile.KeysURL, profile.Keys = v.keys.URL, v.keys.Keys
		profile.Revocation = v.revocation()
	}
	for _, name := range []string{"profile", "leeway", "insecure_http"} {
		if f := v.fields[name]; f.Node != nil && (v.keys != nil || name == "insecure_http") {
			f.mistake("profile: fapi2 sets it")
		}
	}
	guard, err := fapi.New(profile)
	for _, m := range issuer.Mistakes(err, nil) {
		n.contradicts(top, v, m.Err.Error())
	}
	if err != nil && len(n.doc.mistakes) == 0 {
		top["profile"].mistake("%v", err)
	}
	return guard
}

// revocation returns how the profile learns of revoked tokens, section 5.3.4.
func (m made) revocation() fapi.Revocation {
	lifetime := m.fields["max_lifetime"]
	switch {
	case m.status != nil:
		if lifetime.Node != nil {
			lifetime.mistake("stands beside status_list: profile: fapi2 takes one of them")
		}
		return fapi.StatusList(*m.status)
	case lifetime.Node != nil:
		return fapi.ShortLived(m.keys.MaxLifetime)
	}
	m.mistake("status_list: required with profile: fapi2, or a max_lifetime (FAPI 2.0, section 5.3.4)")
	return fapi.Revocation{}
}

// contradicts writes down a mistake of package fapi where its field stands.
func (n node) contradicts(top map[string]node, v made, text string) {
	field, rest, _ := strings.Cut(text, ": ")
	switch {
	case field == strings.ToLower(field): // of a part, such as "jwks: Audience: required"
	case field == "Issuer":
		v.blame(v.fields, []issuer.Mistake{{Field: "issuer", Err: errors.New(rest)}})
	case field == "DPoP, Guard.ClientCertificate":
		n.mistake("dpop, mtls: %s", rest)
	case strings.HasPrefix(field, "Algorithms["):
		v.fields["algorithms"].mistake("%s", rest)
	case strings.HasPrefix(field, "DPoP.Algorithms["):
		top["dpop"].mistake("algorithms: %s", rest)
	case strings.HasPrefix(rest, "ShortLived: "):
		v.fields["max_lifetime"].mistake("%s", strings.TrimPrefix(rest, "ShortLived: "))
	case field != "Revocation": // which is said where there is none
		top["profile"].mistake("%s", text)
	}
}
