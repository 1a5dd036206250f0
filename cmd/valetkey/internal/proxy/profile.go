package proxy

import (
	"fmt"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/middleware"
)

// fapi2 creates a guard for the FAPI 2.0 Security Profile, or adds a mistake for each setting that contradicts the profile.
// Mistakes within a single part have already been reported.
func (f *file) fapi2(cfg middleware.Config, proofs *dpop.Config, all []made) *fapi.Guard {
	if f.TLS == nil && !f.Given("trusted_proxies") && !f.authorize { // section 5.2
		f.Mistake("tls", "required with profile: fapi2, or trusted_proxies that terminate TLS")
	}
	if f.ReportOnly {
		f.Mistake("insecure_report_only", "cannot be combined with profile: fapi2, which requires that refusals are enforced")
	}
	for i, v := range f.Verifiers {
		if v.APIKeys != nil {
			f.Mistake(fmt.Sprintf("verifiers[%d].api_keys", i), "cannot be combined with profile: fapi2, which accepts access tokens only")
		}
	}
	set := []string{"sender_constrained", "token_header", "websocket_token"} // the profile reads Authorization only
	if len(all) != 1 {
		f.Mistake("verifiers", "profile: fapi2 requires exactly one, got %d", len(all))
		return nil
	}
	v := all[0]
	cfg.Verifier, cfg.DPoP, cfg.SenderConstrained, cfg.Methods, cfg.InsecureReportOnly = nil, nil, false, nil, false
	profile := fapi.Config{DPoP: proofs, Guard: cfg}
	set = append(set, v.at+".insecure_http")
	if v.keys == nil {
		profile.Issuer, profile.Audience = v.asks.Issuer, v.asks.Audience
		profile.Revocation = fapi.OpaqueTokens(v.asks)
	} else {
		profile.Issuer, profile.Audience, profile.Algorithms = v.keys.Issuer, v.keys.Audience, v.keys.Algorithms
		profile.JWKSURL, profile.JWKS = v.keys.JWKSURL, v.keys.JWKS
		profile.SoleAudience, profile.Clients, profile.Rules = v.keys.SoleAudience, v.keys.Clients, v.keys.Rules
		profile.Revocation = f.revocation(v)
		set = append(set, v.at+".profile", v.at+".leeway")
		for _, name := range (issuer.Tokens{}).Fields() {
			restricts := name == "sole_audience" || name == "clients" || name == "rules"
			if field := mistakes.Join(v.at, name); f.Given(field) && !restricts {
				f.Mistake(field, "cannot be combined with profile: fapi2, which accepts tokens by RFC 9068 only")
			}
		}
		for _, name := range []string{"initial_file", "token_file", "ca_file", "cert_file", "key_file", "refresh_interval", "min_refetch_interval", "stale_if_error"} {
			if field := mistakes.Join(v.at, name); f.Given(field) {
				f.Mistake(field, "cannot be combined with profile: fapi2, which sets how keys are requested")
			}
		}
	}
	for _, field := range set {
		if f.Given(field) {
			f.Mistake(field, "must not be set with profile: fapi2, which sets it")
		}
	}
	guard, err := fapi.New(profile)
	for _, m := range valetkey.ConfigErrors(err) {
		f.contradicts(v, m)
	}
	if err != nil && f.Err() == nil {
		f.Mistake("profile", "%w", err)
	}
	return guard
}

// revocation returns how the profile learns of revoked tokens, section 5.3.4.
func (f *file) revocation(m made) fapi.Revocation {
	lifetime := m.at + ".max_lifetime"
	switch {
	case m.status != nil:
		if f.Given(lifetime) {
			f.Mistake(lifetime, "cannot be combined with status_list under profile: fapi2")
		}
		return fapi.StatusList(*m.status)
	case f.Given(lifetime):
		return fapi.ShortLived(m.keys.MaxLifetime)
	}
	f.Mistake(m.at+".status_list", "required with profile: fapi2, or a max_lifetime (FAPI 2.0, section 5.3.4)")
	return fapi.Revocation{}
}

// Names in files of the fields of fapi.Config that can contradict the profile and are not reported elsewhere: those of the
// verifier, and those at the top level.
var (
	fapiInVerifier = map[string]string{"Issuer": "issuer", "Algorithms": "algorithms", "Revocation.ShortLived": "max_lifetime"}
	fapiAtTop      = map[string]string{"DPoP": "dpop", "DPoP.Algorithms": "dpop.algorithms", "Guard.ClientCertificate": "mtls"}
)

// contradicts reports a mistake of package fapi at its field. Mistakes in other fields have already been reported for the part
// that contains them.
func (f *file) contradicts(v made, m *valetkey.ConfigError) {
	if name, known := mistakes.Rename(m.Field, fapiInVerifier); known {
		f.Mistake(mistakes.Join(v.at, name), "%w", m.Err)
	}
	if name, known := mistakes.Rename(m.Field, fapiAtTop); known {
		f.Mistake(name, "%w", m.Err)
	}
}
