package proxy

import (
	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/internal/mistakes"
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
	for _, m := range valetkey.ConfigErrors(err) {
		n.contradicts(top, v, m)
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

// What a file calls the fields of fapi.Config whose contradictions to the profile are not reported otherwise: in the verifier,
// in dpop, and at the top.
var (
	fapiInVerifier = map[string]string{"Issuer": "issuer", "Algorithms": "algorithms", "Revocation.ShortLived": "max_lifetime"}
	fapiInDPoP     = map[string]string{"DPoP.Algorithms": "algorithms"}
	fapiAtTop      = map[string]string{"DPoP": "dpop", "Guard.ClientCertificate": "mtls"}
)

// contradicts writes down a mistake of package fapi where its field stands. One in another field is the mistake of a part,
// which is reported already.
func (n node) contradicts(top map[string]node, v made, m *valetkey.ConfigError) {
	for _, place := range []struct {
		node
		fields map[string]node
		names  map[string]string
	}{{v.node, v.fields, fapiInVerifier}, {top["dpop"], nil, fapiInDPoP}, {n, top, fapiAtTop}} {
		if name, known := mistakes.Rename(m.Field, place.names); known {
			place.blame(place.fields, []issuer.Mistake{{Field: name, Err: m.Err}})
		}
	}
}
