// Package issuer creates the verifier of one issuer from command-line flags or a configuration file.
package issuer

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const maxKeys = 8 << 20 // bytes of a key set in a file, as of one that is fetched

// Settings holds the flags or fields. Fields without a comment correspond to those of [jwks.Config].
type Settings struct {
	Issuer       string
	Audience     []string
	URL          string
	File         string // contains the key set; if set, keys are not fetched
	InitialFile  string // contains InitialJWKS
	Profile      string // "rfc9068" or "lenient"; empty: "rfc9068"
	Algorithms   []string
	Leeway       time.Duration
	MaxLifetime  time.Duration
	InsecureHTTP bool
	Refresh      time.Duration // RefreshInterval
	MinRefetch   time.Duration // MinRefetchInterval
	Stale        time.Duration // StaleIfError
	MaxToken     int           // MaxTokenBytes
	KeyRequests  jwks.KeyRequests
	Logger       *slog.Logger
	Now          func() time.Time
	Tokens

	// DefaultAudience replaces an Audience that is not given, unless the product of Type has no use for an audience, or Clients are
	// given and would no longer be the audience of its tokens.
	DefaultAudience []string
}

// Tokens are the settings about the tokens of an issuer. Each is a field in configuration files.
//
// If Type is set, the constructor of the product receives the issuer, the audience, Tenants, Clients and Rules. Of the others,
// Allow adds to the settings of the product, and every other one that is given replaces the setting of the product.
type Tokens struct {
	Type           string   `yaml:"issuer_type,filled"` // name of a product; see issuers.Names
	Tenants        []string `yaml:"tenants,single,filled"`
	Clients        []string `yaml:"clients,single,filled"`
	Rules          []string `yaml:"rules,single,filled"`
	IssuerAliases  []string `yaml:"issuer_aliases,single,filled"`
	AudienceClaim  string   `yaml:"audience_claim,filled"`
	AudienceHeader string   `yaml:"audience_header,filled"`
	SoleAudience   *bool    `yaml:"sole_audience"` // nil: not given
	Types          []string `yaml:"types,single,filled"`
	Markers        []string `yaml:"markers,single,filled"`
	RequireScope   *bool    `yaml:"require_scope"` // nil: not given
	ClientIDHeader string   `yaml:"client_id_header,filled"`
	ClientIDClaim  string   `yaml:"client_id_claim,filled"`
	Scopes         []string `yaml:"scopes,single,filled"`
	Allow          []string `yaml:"allow,single,filled"` // names of allowances
}

// Fields returns the names in files of the settings in t.
func (t Tokens) Fields() (all []string) {
	for i := range reflect.TypeOf(t).NumField() {
		name, _, _ := strings.Cut(reflect.TypeOf(t).Field(i).Tag.Get("yaml"), ",")
		all = append(all, name)
	}
	return all
}

// allowances are the names of the settings of jwks.Profile, and of those of jwks.Config that weaken as they do.
var allowances = map[string]func(*jwks.Config) *bool{
	"untyped":           func(c *jwks.Config) *bool { return &c.Profile.AllowUntyped },
	"id_tokens":         func(c *jwks.Config) *bool { return &c.Profile.AllowIDTokens },
	"any_tenant":        func(c *jwks.Config) *bool { return &c.Profile.AllowAnyTenant },
	"missing_issuer":    func(c *jwks.Config) *bool { return &c.Profile.AllowMissingIssuer },
	"missing_key_id":    func(c *jwks.Config) *bool { return &c.Profile.AllowMissingKeyID },
	"key_without_id":    func(c *jwks.Config) *bool { return &c.Profile.AllowKeyWithoutID },
	"missing_subject":   func(c *jwks.Config) *bool { return &c.Profile.AllowMissingSubject },
	"numeric_subject":   func(c *jwks.Config) *bool { return &c.Profile.AllowNumericSubject },
	"missing_client_id": func(c *jwks.Config) *bool { return &c.Profile.AllowMissingClientID },
	"missing_id":        func(c *jwks.Config) *bool { return &c.Profile.AllowMissingID },
	"missing_issued_at": func(c *jwks.Config) *bool { return &c.Profile.AllowMissingIssuedAt },
	"scope_array":       func(c *jwks.Config) *bool { return &c.Profile.AllowScopeArray },
	"padded_segments":   func(c *jwks.Config) *bool { return &c.AllowPaddedSegments },
	"scp":               func(c *jwks.Config) *bool { return &c.Profile.AllowScp },
}

// Allowances returns the values that Tokens.Allow may have, sorted.
func Allowances() []string { return slices.Sorted(maps.Keys(allowances)) }

// A Mistake is one error in Settings.
type Mistake struct {
	Field string // name in configuration files, such as "insecure_http" or "rules[1]"; "" if the mistake concerns several fields
	Err   error
}

// names maps the fields of jwks.Config to their names in files, without list indexes.
var names = map[string]string{
	"Issuer":       "issuer",
	"Audience":     "audience",
	"JWKSURL":      "url",
	"JWKS":         "file",
	"InitialJWKS":  "initial_file",
	"Algorithms":   "algorithms",
	"Leeway":       "leeway",
	"MaxLifetime":  "max_lifetime",
	"InsecureHTTP": "insecure_http",

	"RefreshInterval":    "refresh_interval",
	"MinRefetchInterval": "min_refetch_interval",
	"StaleIfError":       "stale_if_error",

	"KeyRequests.TokenFile": "token_file",
	"KeyRequests.CAFile":    "ca_file",
	"KeyRequests.CertFile":  "cert_file",
	"KeyRequests.KeyFile":   "key_file",

	"Tenants":        "tenants",
	"Clients":        "clients",
	"Rules":          "rules",
	"IssuerAliases":  "issuer_aliases",
	"AudienceClaim":  "audience_claim",
	"AudienceHeader": "audience_header",
	"SoleAudience":   "sole_audience",
	"Types":          "types",
	"Markers":        "markers",
	"RequireScope":   "require_scope",
	"ClientIDHeader": "client_id_header",
	"ClientIDClaim":  "client_id_claim",
	"Scopes":         "scopes",

	"Profile.AllowMissingIssuer": "allow",
}

// FileName returns the name in files of a field of jwks.Config, and whether there is one.
func FileName(field string) (name string, known bool) { return mistakes.Rename(field, names) }

// found collects mistakes.
type found []Mistake

func (f *found) add(field, format string, args ...any) {
	*f = append(*f, Mistake{field, fmt.Errorf(format, args...)})
}

// has reports whether a field, or an element of it, has a mistake. Later mistakes in such a field are consequences.
func (f found) has(field string) bool {
	return slices.ContainsFunc(f, func(m Mistake) bool { return m.Field == field || field != "" && strings.HasPrefix(m.Field, field+"[") })
}

// Config returns the jwks.Config for s, and the mistakes that package jwks cannot detect. It reads File and does no other I/O.
func (s Settings) Config() (jwks.Config, []Mistake) {
	var wrong found
	cfg, failed := s.product(&wrong)
	s.Tokens.change(&cfg, &wrong)
	if failed { // the other fields can be validated in spite of it
		cfg.Issuer, cfg.Audience = "https://issuer.invalid", []string{"invalid"}
		cfg.AudienceClaim, cfg.Profile.AllowMissingIssuer = "", false
	}
	switch s.Profile {
	case "", "rfc9068":
	case "lenient":
		cfg.Profile = jwks.Lenient()
	default:
		wrong.add("profile", "%q is neither rfc9068 nor lenient", s.Profile)
	}
	if s.Profile != "" && s.Type != "" {
		wrong.add("profile", "cannot be combined with issuer_type, which states what the tokens lack")
	}
	cfg.JWKSURL = cmp.Or(s.URL, cfg.JWKSURL)
	if s.Algorithms != nil {
		cfg.Algorithms = s.Algorithms
	}
	cfg.Leeway, cfg.MaxLifetime = cmp.Or(s.Leeway, cfg.Leeway), cmp.Or(s.MaxLifetime, cfg.MaxLifetime)
	cfg.InsecureHTTP, cfg.Logger, cfg.Now = s.InsecureHTTP, s.Logger, s.Now
	cfg.RefreshInterval, cfg.StaleIfError = cmp.Or(s.Refresh, cfg.RefreshInterval), cmp.Or(s.Stale, cfg.StaleIfError)
	cfg.MinRefetchInterval = cmp.Or(s.MinRefetch, cfg.MinRefetchInterval)
	cfg.MaxTokenBytes = max(cfg.MaxTokenBytes, s.MaxToken)
	r := s.KeyRequests
	cfg.KeyRequests.TokenFile = cmp.Or(r.TokenFile, cfg.KeyRequests.TokenFile)
	cfg.KeyRequests.CAFile = cmp.Or(r.CAFile, cfg.KeyRequests.CAFile)
	cfg.KeyRequests.CertFile = cmp.Or(r.CertFile, cfg.KeyRequests.CertFile)
	cfg.KeyRequests.KeyFile = cmp.Or(r.KeyFile, cfg.KeyRequests.KeyFile)
	if s.InitialFile != "" {
		var err error
		if cfg.InitialJWKS, err = config.Content(s.InitialFile, maxKeys); err != nil {
			wrong.add("initial_file", "%w", err)
		}
	}
	if s.File != "" {
		var err error
		if cfg.JWKS, err = config.Content(s.File, maxKeys); err != nil {
			cfg.JWKS = []byte{} // nil would select discovery
			wrong.add("file", "%w", err)
		}
		if s.URL != "" {
			wrong.add("file", "cannot be combined with url")
		}
		if s.InitialFile != "" {
			wrong.add("file", "cannot be combined with initial_file, whose keys are replaced by those that are fetched")
			cfg.InitialJWKS = nil
		}
		if r.TokenFile+r.CAFile+r.CertFile+r.KeyFile != "" {
			wrong.add("file", "cannot be combined with token_file, ca_file, cert_file and key_file: nothing is fetched")
		}
		if s.Refresh != 0 || s.MinRefetch != 0 || s.Stale != 0 {
			wrong.add("file", "cannot be combined with refresh_interval, min_refetch_interval and stale_if_error: nothing is fetched")
		}
		cfg.JWKSURL, cfg.KeyRequests = "", jwks.KeyRequests{}
	}
	s.contradictions(cfg, &wrong)
	return cfg, wrong
}

// product returns the settings of the product of Type, or those of RFC 9068 if there is no Type. failed reports whether the
// constructor of the product found mistakes.
func (s Settings) product(wrong *found) (cfg jwks.Config, failed bool) {
	rules := s.rules("rules", s.Tokens.Rules, wrong)
	audience := s.Audience
	if audience == nil {
		audience = s.DefaultAudience
	}
	if s.Type == "" {
		if s.Tenants != nil {
			wrong.add("tenants", "requires issuer_type")
		}
		return jwks.Config{Issuer: s.Issuer, Audience: audience, Clients: s.Clients, Rules: rules}, false
	}
	if known := issuers.Names(); !slices.Contains(known, s.Type) {
		wrong.add("issuer_type", "%s", UnknownType(s.Type, known))
		return cfg, true
	}
	construct := func(audience []string) []Mistake {
		var err error
		cfg, err = issuers.Named(s.Type, issuers.Params{
			Issuer: s.Issuer, Audience: audience, Tenants: s.Tenants, Clients: s.Clients, Rules: rules,
		})
		return Mistakes(err, names)
	}
	all := construct(audience)
	if s.Audience == nil {
		with := cfg
		without := construct(nil)
		switch {
		case len(all) == 0 && len(without) == 0 && !contains(with.Audience, cfg.Audience):
			// The tokens of listed clients are for these clients. An audience that was not given does not change that.
		case found(all).has("audience") && !found(without).has("audience"):
			all = without
		default:
			cfg = with
		}
	}
	for _, m := range all {
		if !wrong.has(m.Field) {
			*wrong = append(*wrong, m)
		}
	}
	return cfg, len(all) > 0
}

// contains reports whether every element of part is in all.
func contains(all, part []string) bool {
	return !slices.ContainsFunc(part, func(e string) bool { return !slices.Contains(all, e) })
}

// change applies the settings that the constructor of a product does not receive.
func (t Tokens) change(cfg *jwks.Config, wrong *found) {
	for _, list := range []struct {
		given []string
		of    *[]string
	}{
		{t.IssuerAliases, &cfg.IssuerAliases}, {t.Types, &cfg.Types}, {t.Scopes, &cfg.Scopes},
	} {
		if list.given != nil {
			*list.of = list.given
		}
	}
	if t.Markers != nil {
		ofProduct := cfg.Markers
		cfg.Markers = t.rules("markers", t.Markers, wrong)
		if slices.ContainsFunc(ofProduct, claims.Rule.NeedsClaim) && !slices.ContainsFunc(cfg.Markers, claims.Rule.NeedsClaim) && !wrong.has("markers") {
			wrong.add("markers", "must require a claim, as the markers of %s do that they replace: otherwise its ID tokens are accepted", t.Type)
		}
	}
	cfg.AudienceClaim = cmp.Or(t.AudienceClaim, cfg.AudienceClaim)
	cfg.AudienceHeader = cmp.Or(t.AudienceHeader, cfg.AudienceHeader)
	cfg.ClientIDHeader = cmp.Or(t.ClientIDHeader, cfg.ClientIDHeader)
	cfg.ClientIDClaim = cmp.Or(t.ClientIDClaim, cfg.ClientIDClaim)
	if t.SoleAudience != nil {
		cfg.SoleAudience = *t.SoleAudience
	}
	if t.RequireScope != nil {
		if cfg.RequireScope && !*t.RequireScope {
			wrong.add("require_scope", "cannot be false for %s: tokens without a scope may be its ID tokens", t.Type)
		}
		cfg.RequireScope = *t.RequireScope
	}
	for i, name := range t.Allow {
		setting, known := allowances[name]
		if !known {
			wrong.add(fmt.Sprintf("allow[%d]", i), "%q is not one of %s", name, strings.Join(Allowances(), ", "))
			continue
		}
		*setting(cfg) = true
	}
}

// rules returns the rules of the texts of a field.
func (Tokens) rules(field string, texts []string, wrong *found) (all []claims.Rule) {
	for i, text := range texts {
		r, err := claims.Parse(text)
		if err != nil {
			wrong.add(fmt.Sprintf("%s[%d]", field, i), "%w", errors.Unwrap(err))
			continue
		}
		all = append(all, r)
	}
	return all
}

// UnknownType returns the message about a product whose name is not known: with a similar name, or else with all.
func UnknownType(name string, known []string) string {
	similar := config.Similar(name, known)
	if i := slices.IndexFunc(known, func(other string) bool { return letters(other) == letters(name) }); i >= 0 {
		similar = known[i]
	}
	if similar != "" {
		return fmt.Sprintf("%q is not the name of a product; did you mean %s?", name, similar)
	}
	return fmt.Sprintf("%q is not one of %s", name, strings.Join(known, ", "))
}

// letters returns the name of a product as people spell it, such as GitHub-Actions, without case, spaces and punctuation.
func letters(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(name))
}

// contradictions reports what package jwks would report too, but under the names of Go.
func (s Settings) contradictions(cfg jwks.Config, wrong *found) {
	if cfg.AudienceClaim != "" && !slices.ContainsFunc(cfg.Markers, claims.Rule.NeedsClaim) && !cfg.RequireScope && !wrong.has("markers") {
		wrong.add("audience_claim", "requires markers or require_scope, because the other tokens of the client have that claim too")
	}
	if cfg.Profile.AllowMissingIssuer && len(cfg.Rules) == 0 && !wrong.has("rules") {
		wrong.add("allow", "missing_issuer requires rules that state whose tokens are accepted, such as a prefix of sub")
	}
	if strings.Contains(cfg.Issuer, "{") && cfg.JWKSURL == "" && cfg.JWKS == nil {
		wrong.add("url", "required, or file, because the metadata of an issuer with a claim in braces has no URL")
	}
	for i, t := range cfg.Types {
		if jose.SameType(t, "JWT") {
			wrong.add(fmt.Sprintf("types[%d]", i), "%q marks no kind of token; to accept it, use allow: untyped", t)
		}
	}
}

// HasIssuer reports whether iss is the issuer of cfg: its Issuer, or one for a tenant if Issuer contains a claim in braces.
func HasIssuer(cfg *jwks.Config, iss string) bool {
	before, rest, template := strings.Cut(cfg.Issuer, "{")
	if !template {
		return iss == cfg.Issuer
	}
	_, after, _ := strings.Cut(rest, "}")
	tenant, begins := strings.CutPrefix(iss, before)
	tenant, ends := strings.CutSuffix(tenant, after)
	return begins && ends && tenant != "" && !strings.ContainsAny(tenant, "/{}")
}

// Verifier returns the verifier for s, or all mistakes in s. It does the same I/O as [Settings.Config].
func (s Settings) Verifier() (*jwks.Verifier, []Mistake) {
	cfg, mistakes := s.Config()
	return Verifier(cfg, mistakes)
}

// Verifier returns the verifier for the results of [Settings.Config], or all mistakes.
func Verifier(cfg jwks.Config, mistakes []Mistake) (*jwks.Verifier, []Mistake) {
	v, err := jwks.New(cfg)
	reported := found(mistakes)
	for _, m := range Mistakes(err, names) {
		if !reported.has(m.Field) {
			mistakes = append(mistakes, m)
		}
	}
	if len(mistakes) == 0 {
		return v, nil
	}
	if v != nil {
		v.Close()
	}
	return nil, mistakes
}

// Mistakes returns the mistakes that a constructor reported, each on one line and under the name of its field in files. names
// maps the fields of the constructor's Config, without list indexes. The text of a mistake in an unmapped field begins with the
// Go name of the field.
func Mistakes(err error, names map[string]string) (all []Mistake) {
	for _, m := range valetkey.ConfigErrors(err) {
		name, known := mistakes.Rename(m.Field, names)
		if !known {
			all = append(all, Mistake{"", errors.New(oneLine(m))})
			continue
		}
		all = append(all, Mistake{name, errors.New(oneLine(m.Err))})
	}
	return all
}

func oneLine(err error) string { return InFiles(strings.ReplaceAll(err.Error(), "\n", "; ")) }
