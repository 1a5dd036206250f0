package doctor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/jwks"
)

// A token is the unverified content of a token. A nil token is none.
type token struct {
	raw    string
	header jose.Header
	padded bool
	claims map[string]strictjson.Value // nil: it is not a JWT
	broken error                       // why it is a malformed JWT
}

func tokenOf(raw string) *token {
	if raw == "" {
		return nil
	}
	t := &token{raw: raw}
	c, err := jose.ParseWith(raw, jose.Options{Limit: authheader.MaxTokenLimit, AllowPadding: true})
	switch {
	case errors.Is(err, jose.ErrMalformed):
		return t
	case err != nil:
		t.broken, t.claims = err, map[string]strictjson.Value{}
		return t
	}
	t.header, t.padded, t.claims = c.Header, c.Padded, map[string]strictjson.Value{}
	t.broken = strictjson.Object(c.Payload, func(name string, v strictjson.Value) error {
		if !v.IsEmpty() {
			t.claims[strings.Clone(name)] = v
		}
		return nil
	})
	return t
}

func (t *token) isJWT() bool { return t.claims != nil }

// text returns a claim that is a string; "" if it is not, or t is nil.
func (t *token) text(claim string) string {
	if t == nil {
		return ""
	}
	s, _ := t.claims[claim].Text()
	return s
}

// opaque returns the finding about a token that is not a signed JWT, for a verifier with keys.
func (t *token) opaque() Finding {
	f := Finding{Level: Fail, Check: "token",
		YAML: `introspection: {issuer: "...", client_id: "...", client_secret_file: "..."} in place of jwks`,
		Go:   `introspect.New(introspect.Config{Issuer: "...", Audience: ..., Auth: introspect.BasicAuth(id, secret)})`}
	if strings.Count(t.raw, ".") == 4 {
		f.Cause = "it is encrypted (JWE), which is not supported"
		f.Fix = "have the issuer sign tokens for this API only; Auth0 encrypts a token that was requested without an audience"
		f.YAML, f.Go = "", ""
		return f
	}
	f.Cause = fmt.Sprintf("it is opaque (%d characters), and a verifier with keys accepts JWTs only", len(t.raw))
	f.Fix = "ask its issuer about it, or have the issuer issue JWTs for this API"
	return f
}

// maxSteps bounds the settings that one token needs.
const maxSteps = 20

// token has the verifier verify a token, with one more setting at a time, until it accepts the token or no setting would help.
// The verdicts are those of the real verifier.
func (x *examination) token(ctx context.Context, cfg jwks.Config, keys []*jose.Key, t *token) {
	if !t.isJWT() {
		x.add(t.opaque())
		return
	}
	needed := 0
	for range maxSteps {
		accepted, err := verify(ctx, cfg, t.raw)
		if err == nil {
			x.accepted(ctx, cfg, t, accepted, needed)
			return
		}
		var refusal *valetkey.Error
		if !errors.As(err, &refusal) {
			x.add(Finding{Level: Warn, Check: "token", Cause: fmt.Sprintf("its signature cannot be checked: %v", err), Fix: "see the findings about the key set"})
			return
		}
		f, next := remedy(ctx, cfg, keys, t, refusal)
		f.Level, f.Check = Fail, cmp.Or(f.Check, "token")
		x.add(f)
		if needed++; next == nil {
			return
		}
		cfg = *next
	}
}

// accepted adds the findings about a token that the verifier accepts once the reported settings are made.
func (x *examination) accepted(ctx context.Context, cfg jwks.Config, t *token, accepted *valetkey.Token, needed int) {
	if needed == 0 {
		x.ok("token", "accepted: subject %.200q, client %.200q", accepted.Subject(), accepted.ClientID())
	} else {
		x.product(ctx, cfg, t)
	}
	if accepted.Scopes().Len() > 0 {
		x.ok("scopes", "%.500s", accepted.Scopes())
		return
	}
	for _, claim := range []string{"scp", "permissions", "roles", "authorities", "groups", "realm_access.roles"} {
		v := t.claims[claim]
		if name, path, nested := strings.Cut(claim, "."); nested {
			v = strictjson.At(t.claims[name], path)
		}
		if v != nil && !v.IsEmpty() {
			x.add(Finding{Level: Warn, Check: "scopes", Cause: fmt.Sprintf("the token has none, and a claim %s that may contain them", claim)}.
				list("scopes", "Scopes", []string{"scope", claim}))
			return
		}
	}
	x.add(Finding{Level: Warn, Check: "scopes", Cause: "the token has none, so it is sufficient only for routes that need none", Fix: "have the client request them"})
}

// verify returns the verdict of a verifier with the given configuration.
func verify(ctx context.Context, cfg jwks.Config, raw string) (*valetkey.Token, error) {
	v, err := jwks.New(cfg)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if err := v.Ready(ctx); err != nil { // the checks that need no key come first
		if _, verdict := v.Verify(ctx, raw); verdict != nil {
			return nil, verdict
		}
		return nil, err
	}
	return v.Verify(ctx, raw)
}

// fixed returns the URL of a key set and a client that has the given response for it.
func fixed(r response) (string, *http.Client) {
	return "https://keys.invalid/", &http.Client{Transport: answer(r)}
}

type answer response

func (a answer) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.err != nil || a.status == 0 {
		return nil, errors.New("the key set is not available")
	}
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: req,
	}, nil
}

// remedy returns the finding about a refusal, and the configuration with the setting that it names; nil if none would help.
func remedy(ctx context.Context, cfg jwks.Config, keys []*jose.Key, t *token, refusal *valetkey.Error) (Finding, *jwks.Config) {
	f := Finding{Cause: refusal.Reason.Description()}
	if refusal.Err != nil {
		f.Cause += ": " + refusal.Err.Error()
	}
	now := time.Now()
	if cfg.Now != nil {
		now = cfg.Now()
	}
	switch refusal.Reason {
	case valetkey.ReasonMalformed, valetkey.ReasonNotJWT:
		return form(cfg, t, f)
	case valetkey.ReasonIssuer:
		iss := t.text("iss")
		if iss == "" {
			f.Cause = "the token has no iss"
			f.YAML, f.Go = "allow: [missing_issuer], rules: [...]", "Profile: jwks.Profile{AllowMissingIssuer: true}, Rules: ..."
			return f, nil
		}
		f.Check, f.Cause = "issuer", fmt.Sprintf("%.200q in the token, %q configured: %s", iss, cfg.Issuer, difference(cfg.Issuer, iss))
		f = f.setting("issuer", "Issuer", iss)
		cfg.Issuer = iss
		return f, &cfg
	case valetkey.ReasonNotAccessToken:
		return kind(cfg, t, f)
	case valetkey.ReasonAlgorithm:
		alg := t.header.Algorithm
		f.Check = "algorithms"
		if !slices.Contains(jose.Algorithms(), alg) {
			f.Fix = "have the issuer sign with RS256 or ES256"
			return f, nil
		}
		allowed := cfg.Algorithms
		if len(allowed) == 0 {
			allowed = jose.DefaultAlgorithms()
		}
		f = f.list("algorithms", "Algorithms", []string{alg})
		cfg.Algorithms = append(slices.Clone(allowed), alg)
		return f, &cfg
	case valetkey.ReasonNoKeyID:
		f.Cause = "the token has no kid"
		return allow(f, cfg, profileSetting{"AllowMissingKeyID", func(p *jwks.Profile) { p.AllowMissingKeyID = true }})
	case valetkey.ReasonClaimMalformed:
		return claim(ctx, cfg, t, f, refusal)
	case valetkey.ReasonAudience:
		aud, _ := tokenclaims.Audience(t.claims["aud"], true)
		f.Check, f.Cause = "audience", fmt.Sprintf("%s in the token, %s configured", quoted(aud.Slice()), quoted(cfg.Audience))
		if strings.Contains(t.text("iss"), "/realms/") && slices.Equal(aud.Slice(), []string{"account"}) {
			f.Fix = "every user's token of a realm of Keycloak has this audience; add a mapper of the type Audience to a client scope"
		} else {
			f.If = "the token is meant for this API"
			f = f.list("audience", "Audience", aud.Slice())
		}
		cfg.Audience, cfg.SoleAudience = append(slices.Clone(cfg.Audience), aud.Slice()...), false
		return f, &cfg
	case valetkey.ReasonClient:
		client := cmp.Or(t.text(cmp.Or(cfg.ClientIDClaim, "client_id")), t.text("azp"), t.text("cid"), t.text("appid"))
		f = f.list("clients", "Clients", []string{client})
		cfg.Clients = append(slices.Clone(cfg.Clients), client)
		return f, &cfg
	case valetkey.ReasonClaimRule:
		f.Fix = "the token is of a subject that Rules exclude"
		return f, nil
	case valetkey.ReasonLivesTooLong:
		f.YAML, f.Go = "max_lifetime, longer or not at all", "MaxLifetime, longer or not at all"
		cfg.MaxLifetime = 0
		return f, &cfg
	case valetkey.ReasonExpired:
		var exp time.Time
		_ = tokenclaims.Date(&exp, "exp", t.claims["exp"], false)
		f.Cause = fmt.Sprintf("it expired at %s, %v ago", exp.UTC().Format(time.RFC3339), now.Sub(exp).Round(time.Second))
		f.Fix = "get a new token; if it is new, the clock of this machine is ahead"
		cfg.Now = func() time.Time { return exp.Add(-time.Second) }
		return f, &cfg
	case valetkey.ReasonNotYetValid:
		return early(cfg, t, f, now)
	case valetkey.ReasonUnknownKey:
		if f.Check = "key set"; keys == nil { // each key is at its own URL, which the cause names
			f.Fix = "the token is from another environment"
			return f, nil
		}
		f.Cause = fmt.Sprintf("the kid of the token, %.100q, with alg %s is not among the keys: %s", t.header.KeyID, t.header.Algorithm, described(keys))
		f.Fix = "the token is from another environment or from before a key rotation, or the key set is another one"
		return f.setting("url", "JWKSURL", "https://..."), nil
	case valetkey.ReasonSignature:
		f.Fix = "the token was changed on the way, or the issuer has another key with the same kid"
	case valetkey.ReasonFarDate:
		f.Fix = "the issuer must write seconds, not milliseconds"
	}
	return f, nil
}

// form returns the finding about a token whose text the verifier does not accept.
func form(cfg jwks.Config, t *token, f Finding) (Finding, *jwks.Config) {
	limit, _ := authheader.TokenLimit(cfg.MaxTokenBytes)
	switch {
	case len(t.raw) > limit && limit < authheader.MaxTokenLimit:
		enough := min((len(t.raw)/limit+1)*limit, authheader.MaxTokenLimit)
		f.Cause, f.Fix = fmt.Sprintf("it has %d bytes, and at most %d are accepted", len(t.raw), limit), "the guard has the same limit"
		f.YAML, f.Go = fmt.Sprintf("max_token_bytes: %d, at the top level", enough), fmt.Sprintf("MaxTokenBytes: %d, also of middleware.Config", enough)
		cfg.MaxTokenBytes = enough
		return f, &cfg
	case t.padded && !cfg.AllowPaddedSegments:
		f.Cause, f.Go = "its parts are padded with '='", "AllowPaddedSegments: true"
		cfg.AllowPaddedSegments = true
		return f, &cfg
	}
	return f, nil
}

// early returns the finding about a token that is from the future.
func early(cfg jwks.Config, t *token, f Finding, now time.Time) (Finding, *jwks.Config) {
	var iat, nbf time.Time
	_ = tokenclaims.Date(&iat, "iat", t.claims["iat"], true)
	_ = tokenclaims.Date(&nbf, "nbf", t.claims["nbf"], true)
	begin := iat
	if nbf.After(begin) {
		begin = nbf
	}
	ahead := begin.Sub(now).Round(time.Second)
	f.Check = "clock"
	f.Cause = fmt.Sprintf("the token is valid from %s, %v ahead of the clock of this machine", begin.UTC().Format(time.RFC3339), ahead)
	f.Fix = "synchronize both clocks with NTP"
	if enough := ahead.Truncate(10*time.Second) + 10*time.Second; enough <= maxLeeway {
		f.YAML, f.Go = fmt.Sprintf("leeway: %v", enough), fmt.Sprintf("Leeway: %d * time.Second", int(enough.Seconds()))
	} else {
		f.Fix += fmt.Sprintf("; leeway is at most %v", maxLeeway)
	}
	cfg.Now = func() time.Time { return begin.Add(time.Second) }
	return f, &cfg
}

// A profileSetting is a field of jwks.Profile.
type profileSetting struct {
	name string
	set  func(*jwks.Profile)
}

// allow returns f with the lines for a setting of the profile, and cfg with it.
func allow(f Finding, cfg jwks.Config, s profileSetting) (Finding, *jwks.Config) {
	f.YAML, f.Go = "allow: ["+issuer.Allowance(s.name)+"]", "Profile: jwks.Profile{"+s.name+": true}"
	s.set(&cfg.Profile)
	return f, &cfg
}

// claim returns the finding about a claim that is missing or of another form. It tries which setting changes the verdict.
func claim(ctx context.Context, cfg jwks.Config, t *token, f Finding, refusal *valetkey.Error) (Finding, *jwks.Config) {
	for _, s := range []profileSetting{
		{"AllowMissingSubject", func(p *jwks.Profile) { p.AllowMissingSubject = true }},
		{"AllowNumericSubject", func(p *jwks.Profile) { p.AllowNumericSubject = true }},
		{"AllowMissingClientID", func(p *jwks.Profile) { p.AllowMissingClientID = true }},
		{"AllowMissingID", func(p *jwks.Profile) { p.AllowMissingID = true }},
		{"AllowMissingIssuedAt", func(p *jwks.Profile) { p.AllowMissingIssuedAt = true }},
		{"AllowScopeArray", func(p *jwks.Profile) { p.AllowScopeArray = true }},
	} {
		changed := cfg
		s.set(&changed.Profile)
		if changed.Profile == cfg.Profile {
			continue
		}
		if _, err := verify(ctx, changed, t.raw); err == nil || err.Error() != error(refusal).Error() {
			return allow(f, cfg, s)
		}
	}
	if t.claims["aud"] == nil && cfg.AudienceClaim+cfg.AudienceHeader == "" {
		return recipient(cfg, t, f)
	}
	f.Fix = "the issuer must write this claim as RFC 9068 requires"
	return f, nil
}

// recipient returns the finding about a token without aud.
func recipient(cfg jwks.Config, t *token, f Finding) (Finding, *jwks.Config) {
	f.Check = "audience"
	for _, name := range []string{"client_id", "azp", "cid", "appid"} {
		value := t.text(name)
		if value == "" {
			continue
		}
		f.Cause = fmt.Sprintf("the token has no aud; its %s is %.200q", name, value)
		cfg.AudienceClaim, cfg.Audience = name, []string{value}
		more := Finding{YAML: "require_scope: true", Go: "RequireScope: true"}
		switch m := t.marker(); {
		case m != "":
			more = more.marker(m, t.text(m))
			cfg.Markers = append(slices.Clone(cfg.Markers), claims.Equal(m, t.text(m)))
		case t.claims["scope"] == nil:
			f.Cause += "; nothing in it shows that it is an access token"
			continue
		default:
			cfg.RequireScope = true
		}
		f.YAML = fmt.Sprintf("audience_claim: %q, audience: %q, %s", name, value, more.YAML)
		f.Go = fmt.Sprintf("AudienceClaim: %q, Audience: []string{%q}, %s", name, value, more.Go)
		return f, &cfg
	}
	f.Fix = "have the issuer write the name of this API into aud"
	return f, nil
}

// marker returns f with the lines that make a claim the marker of access tokens.
func (f Finding) marker(claim, value string) Finding {
	f.YAML = fmt.Sprintf("markers: [%q]", claims.Equal(claim, value))
	f.Go = fmt.Sprintf("Markers: []claims.Rule{claims.Equal(%q, %q)}", claim, value)
	return f
}

// marker returns the claim that states that this is an access token; "" if there is none.
func (t *token) marker() string {
	for _, name := range tokenclaims.KindClaims {
		if tokenclaims.KindOf(t.text(name)) == tokenclaims.AccessToken {
			return name
		}
	}
	return ""
}

// other returns what the token is if it shows that it is not an access token, and the evidence.
func (t *token) other() (kind, evidence string) {
	for typ, kind := range map[string]string{
		"dpop+jwt": "a DPoP proof", "logout+jwt": "a logout token", "secevent+jwt": "a security event token",
		"statuslist+jwt": "a status list", "token-introspection+jwt": "an introspection response", "id_token+jwt": "an ID token", "rt+jwt": "a refresh token",
	} {
		if jose.SameType(t.header.Type, typ) {
			return kind, fmt.Sprintf("its typ is %.50q", t.header.Type)
		}
	}
	for _, name := range tokenclaims.KindClaims {
		if kind := tokenclaims.KindOf(t.text(name)); kind != "" && kind != tokenclaims.AccessToken {
			return string(kind), fmt.Sprintf("its claim %s is %.50q", name, t.text(name))
		}
	}
	if t.claims["events"] != nil {
		return "a security event or logout token", "it has the claim events"
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		if t.claims[name] != nil && t.marker() == "" {
			return "an ID token", "it has the claim " + name
		}
	}
	return "", ""
}

// kind returns the finding about a token that the verifier does not take for an access token.
func kind(cfg jwks.Config, t *token, refused Finding) (Finding, *jwks.Config) {
	if kind, evidence := t.other(); kind != "" {
		f := Finding{Cause: fmt.Sprintf("it is %s, not an access token: %s", kind, evidence), Fix: "the client must send the access token"}
		if kind == "an ID token" && len(cfg.Markers) == 0 { // with Markers, allow: id_tokens would not accept it
			client := cmp.Or(t.text("azp"), t.text("aud"))
			f.If = "this API is for ID tokens"
			f.YAML = fmt.Sprintf("allow: [id_tokens], clients: [%q]", client)
			f.Go = fmt.Sprintf("Profile: jwks.Profile{AllowIDTokens: true}, Clients: []string{%q}", client)
		}
		return f, nil
	}
	typ, untyped := t.header.Type, t.header.Type == "" || jose.SameType(t.header.Type, "JWT")
	marker := t.marker()
	switch {
	case !untyped && !jose.SameType(typ, "at+jwt") && !slices.Contains(cfg.Types, typ):
		f := Finding{Cause: fmt.Sprintf("its typ is %.50q, not at+jwt", typ)}
		cfg.Types = append(slices.Clone(cfg.Types), typ)
		return f.list("types", "Types", []string{typ}), &cfg
	case untyped && !cfg.Profile.AllowUntyped:
		f := Finding{Cause: fmt.Sprintf("its typ is %q, not at+jwt", typ)}
		return allow(f, cfg, profileSetting{"AllowUntyped", func(p *jwks.Profile) { p.AllowUntyped = true }})
	case marker != "" && len(cfg.Markers) == 0:
		f := Finding{Cause: fmt.Sprintf("it looks like an ID token, and its claim %s shows that it is none", marker)}
		cfg.Markers = []claims.Rule{claims.Equal(marker, t.text(marker))}
		return f.marker(marker, t.text(marker)), &cfg
	}
	refused.Fix = "the client must send the access token of this issuer, or markers (Markers) and require_scope (RequireScope) do not fit its tokens"
	return refused, nil
}

// quoted returns at most five values, each with at most 200 bytes.
func quoted(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	var all []string
	for _, v := range values[:min(len(values), 5)] {
		all = append(all, fmt.Sprintf("%.200q", v))
	}
	if len(values) > 5 {
		all = append(all, "...")
	}
	return strings.Join(all, ", ")
}
