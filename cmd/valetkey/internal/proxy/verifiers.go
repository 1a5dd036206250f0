package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

// A list reads the verifiers of a file.
type list struct {
	*file
	made    []made
	issuers []string        // those that the file names
	taken   map[string]bool // issuers whose JWTs have a verifier
	opaque  bool            // opaque tokens have a verifier
	parts   []*part[verifierPart]
	keys    string // path of the section api_keys; "": there is none
}

// A made is a verifier with its configuration.
type made struct {
	at     string             // path in the file
	keys   *jwks.Config       // nil: an introspection
	status *statuslist.Config // nil: no status list
	asks   introspect.Config
	ruled  bool // it is an introspection whose tokens must meet rules
}

// read combines the verifiers. API keys come first, because they cannot be mistaken for tokens. Verifiers with keys of issuers are next,
// regardless of their order in the file, because they need no call per token. If there are mistakes, the result may be used only to find further mistakes.
func (l *list) read() valetkey.Verifier {
	l.taken = map[string]bool{}
	var (
		local []*jwks.Verifier
		all   []valetkey.Verifier
	)
	for i, v := range l.Verifiers {
		at := fmt.Sprintf("verifiers[%d]", i)
		given := 0
		for _, one := range []bool{v.JWKS != nil, v.Introspection != nil, v.APIKeys != nil} {
			if one {
				given++
			}
		}
		if given != 1 {
			l.Mistake(at, "exactly one of jwks, introspection and api_keys is required")
		}
		if v.APIKeys != nil {
			if keys := l.apiKeys(at+".api_keys", v.APIKeys); keys != nil {
				all = slices.Insert(all, 0, valetkey.Verifier(keys))
			}
		}
		if v.JWKS == nil {
			continue
		}
		switch keys, listed := l.jwks(at, v.JWKS); {
		case keys == nil: // a mistake has been reported
			l.ruled(at+".jwks.cel", valetkey.First(), v.JWKS.CEL)
		case listed != nil:
			all = append(all, l.ruled(at+".jwks.cel", listed, v.JWKS.CEL))
		case len(v.JWKS.CEL) > 0:
			all = append(all, l.ruled(at+".jwks.cel", keys, v.JWKS.CEL))
		default:
			local = append(local, keys)
		}
	}
	if len(local) > 0 {
		byIssuer, err := jwks.ByIssuer(local...)
		if err == nil {
			all = append(all, byIssuer)
		} else if l.Err() == nil { // two for one issuer have been reported
			l.Mistake("verifiers", "%w", err)
		}
	}
	for i, v := range l.Verifiers {
		if v.Introspection == nil {
			continue
		}
		at := fmt.Sprintf("verifiers[%d].introspection", i)
		if asks := l.introspection(at, v.Introspection); asks != nil {
			all = append(all, l.ruled(at+".cel", asks, v.Introspection.CEL))
		} else {
			l.ruled(at+".cel", valetkey.First(), v.Introspection.CEL)
		}
	}
	for _, m := range l.made { // a verifier with keys has been compared with the others
		if keys := l.apiKeysSection(); keys != nil && m.keys == nil && m.asks.Issuer == keys.Issuer {
			l.Mistake(m.at+".issuer", "is that of api_keys: API keys need a separate name")
		}
	}
	return valetkey.First(all...)
}

// jwks returns the verifier of one issuer, and its combination with a status list, if it has one.
func (l *list) jwks(item string, s *jwksSection) (keys *jwks.Verifier, listed *statuslist.Verifier) {
	at := item + ".jwks"
	cfg, wrong := l.settings(at, s).Config()
	cfg.Observer = l.observer
	keys, wrong = issuer.Verifier(cfg, wrong)
	for _, m := range wrong {
		l.Mistake(mistakes.Join(at, m.Field), "%w", m.Err)
	}
	status := s.StatusList.config()
	l.made = append(l.made, made{at: at, keys: &cfg, status: status})
	var by valetkey.Verifier = valetkey.First() // a placeholder if there are mistakes, so that the status list can be validated
	if keys != nil {
		by = keys
		l.take(item, cfg)
		if !strings.Contains(cfg.Issuer, "{") && !cfg.Profile.AllowMissingIssuer { // otherwise it is not a server where clients get tokens
			l.issuers = append(l.issuers, cfg.Issuer)
		}
	}
	if status != nil {
		listed = l.listed(at+".status_list", *status, by, cfg)
	}
	if keys == nil {
		if listed != nil {
			listed.Close()
		}
		return nil, nil
	}
	part := verifierPart{keys: keys, listed: listed}
	part.issuers, part.any = issuersOf(cfg)
	part = l.reuse(s, part, func() {
		if listed != nil {
			listed.Close()
		}
		keys.Close()
	})
	return part.keys, part.listed
}

// apiKeys returns the verifier of API keys, or nil if there are mistakes.
func (l *list) apiKeys(at string, s *apiKeysSection) *apikey.Verifier {
	if l.keys != "" { // a key does not show to which of them it belongs
		l.Mistake(at, "there is one at %s already: use one file", l.keys)
		return nil
	}
	l.keys = at
	if l.taken[s.Issuer] && s.Issuer != "" {
		l.Mistake(at+".issuer", "another verifier already accepts the issuer %q: API keys need a separate name", s.Issuer)
	}
	l.taken[s.Issuer] = true
	if s.Issuer == "" || s.File == "" { // a mistake has been reported
		return nil
	}
	keys, err := apikey.New(apikey.Config{Issuer: s.Issuer, File: l.Path(s.File), Now: l.now})
	if err != nil {
		l.Blame(at, err, map[string]string{"Issuer": "issuer", "File": "file"})
		return nil
	}
	return l.reuse(s, verifierPart{apiKeys: keys, issuers: []string{s.Issuer}}, func() {}).apiKeys
}

// take adds a mistake if an earlier verifier accepts the tokens of cfg. The item is the verifier of cfg.
func (l *list) take(item string, cfg jwks.Config) {
	for _, iss := range append([]string{cfg.Issuer}, cfg.IssuerAliases...) {
		if l.taken[iss] {
			l.Mistake(item, "another verifier already accepts the issuer %q", iss)
		}
		l.taken[iss] = true
	}
	if cfg.Profile.AllowMissingIssuer {
		if l.taken[""] {
			l.Mistake(item, "another verifier already accepts tokens without iss")
		}
		l.taken[""] = true
	}
}

// settings returns the settings of the section at the path.
func (f *file) settings(at string, s *jwksSection) issuer.Settings {
	settings := issuer.Settings{
		Issuer:       s.Issuer,
		Audience:     s.Audience,
		URL:          s.URL,
		File:         f.Path(s.File),
		InitialFile:  f.Path(s.InitialFile),
		Profile:      s.Profile,
		Algorithms:   s.Algorithms,
		Leeway:       time.Duration(s.Leeway),
		MaxLifetime:  time.Duration(s.MaxLifetime),
		InsecureHTTP: s.InsecureHTTP,
		Refresh:      time.Duration(s.Refresh),
		MinRefetch:   time.Duration(s.MinRefetch),
		Stale:        time.Duration(s.Stale),
		MaxToken:     f.maxToken(),
		KeyRequests: jwks.KeyRequests{
			TokenFile: f.Path(s.TokenFile), CAFile: f.Path(s.CAFile), CertFile: f.Path(s.CertFile), KeyFile: f.Path(s.KeyFile),
		},
		Logger: f.log,
		Now:    f.now,
		Tokens: s.Tokens,
	}
	if !f.Given(at + ".audience") {
		settings.DefaultAudience = f.audience(at, nil)
	}
	return settings
}

// maxToken returns max_token_bytes for a verifier; zero if it is a mistake, which the guard reports.
func (f *file) maxToken() int {
	if _, err := authheader.TokenLimit(f.MaxTokenBytes); err != nil {
		return 0
	}
	return f.MaxTokenBytes
}

const maxKeys = 8 << 20 // bytes of a key set in a file, as of one that is fetched

// names maps the fields of introspect.Config to their names in files.
var names = map[string]string{
	"URL":         "url",
	"Issuer":      "issuer",
	"Audience":    "audience",
	"Auth":        "auth",
	"JWTIssuers":  "jwt_issuers",
	"NegativeTTL": "negative_ttl",
	"Leeway":      "leeway",
	"Timeout":     "timeout",
	"MaxInFlight": "max_in_flight",

	"Signed":           "signed",
	"Signed.Algorithm": "signed.algorithm",
	"Signed.Audience":  "signed.audience",
	"Signed.JWKSURL":   "signed.url",
	"Signed.JWKS":      "signed.file",
}

func (l *list) introspection(at string, s *introspectionSection) *introspect.Verifier {
	cfg, failed := l.introspectionOf(at, s)
	cfg.MaxTokenBytes = l.maxToken()
	cfg.URL = cmp.Or(s.URL, cfg.URL)
	cfg.AudienceByIssuer = cfg.AudienceByIssuer || s.AudienceByIssuer
	cfg.Auth = l.auth(at, s)
	if l.Given(at + ".jwt_issuers") {
		cfg.JWTIssuers = s.JWTIssuers
	}
	cfg.AllowScopeArray = cfg.AllowScopeArray || s.AllowScopeArray
	cfg.SoleAudience, cfg.TypeHint = cfg.SoleAudience || s.SoleAudience, cfg.TypeHint || s.TypeHint
	if s.Signed != nil {
		cfg.Signed = l.signed(at+".signed", s.Signed, s.ClientID)
	}
	cfg.Timeout, cfg.MaxInFlight = time.Duration(s.Timeout), s.MaxInFlight
	cfg.CacheTTL, cfg.NegativeTTL = time.Duration(s.CacheTTL), time.Duration(s.NegativeTTL)
	cfg.Leeway, cfg.InsecureHTTP = time.Duration(s.Leeway), s.InsecureHTTP
	cfg.Logger, cfg.Observer, cfg.Now = l.log, l.observer, l.now
	if l.shared != nil {
		cfg.SharedCache = l.shared
	}
	if cfg.Issuer == "" && cfg.URL != "" && l.Redis != nil {
		l.Mistake(at+".issuer", "required with redis, because a revocation contains the issuer")
	}
	for _, iss := range cfg.JWTIssuers {
		if l.taken[iss] || l.taken[introspect.AnyIssuer] {
			l.Mistake(at+".jwt_issuers", "another verifier already accepts the JWTs of %q", iss)
		}
		l.taken[iss] = true
	}
	// The first introspection decides about every opaque token.
	if l.opaque && !l.Given(at+".jwt_issuers") && cfg.JWTIssuers == nil {
		l.Mistake(at+".jwt_issuers", "required, because an earlier introspection handles opaque tokens")
	}
	l.opaque = true
	l.made = append(l.made, made{at: at, asks: cfg, ruled: len(s.CEL) > 0})

	v, err := introspect.New(cfg)
	for _, m := range issuer.Mistakes(err, names) {
		l.Mistake(mistakes.Join(at, m.Field), "%w", m.Err)
	}
	if err != nil {
		return nil
	}
	if failed {
		v.Close()
		return nil
	}
	if cfg.Issuer != "" && !slices.Contains(l.issuers, cfg.Issuer) {
		l.issuers = append(l.issuers, cfg.Issuer)
	}
	part := verifierPart{asks: v}
	part.issuers, part.any = askedIssuers(cfg)
	return l.reuse(s, part, v.Close).asks
}

// signed returns the settings of the section at the path. client is the client ID of the introspection.
func (f *file) signed(at string, s *signedSection, client string) *introspect.Signed {
	cfg := &introspect.Signed{Algorithm: s.Algorithm, Audience: cmp.Or(s.Audience, client), JWKSURL: s.URL}
	if s.File == "" {
		return cfg
	}
	if s.URL != "" {
		f.Mistake(at+".file", "cannot be combined with url")
		return cfg
	}
	var err error
	if cfg.JWKS, err = config.Content(f.Path(s.File), maxKeys); err != nil {
		f.Mistake(at+".file", "%w", err)
	}
	return cfg
}

// introspectionOf returns the settings of the product of s, or those of RFC 7662 if s has no product. failed reports whether there are
// mistakes in the parameters of the product; then the result serves to find mistakes in the other fields.
func (l *list) introspectionOf(at string, s *introspectionSection) (cfg introspect.Config, failed bool) {
	audience := l.audience(at, s.Audience)
	if s.Type == "" {
		return introspect.Config{Issuer: s.Issuer, Audience: audience}, false
	}
	placeholder := introspect.Config{Issuer: "https://issuer.invalid", Audience: []string{"invalid"}}
	if known := issuers.IntrospectionNames(); !slices.Contains(known, s.Type) {
		l.Mistake(at+".issuer_type", "%s", issuer.UnknownType(s.Type, known))
		return placeholder, true
	}
	cfg, err := issuers.NamedIntrospection(s.Type, issuers.Params{Issuer: s.Issuer, Audience: audience})
	for _, m := range issuer.Mistakes(err, names) {
		l.Mistake(mistakes.Join(at, m.Field), "%w", m.Err)
	}
	if err != nil {
		return placeholder, true
	}
	return cfg, false
}

func (f *file) audience(at string, given []string) []string {
	if !f.Given(at+".audience") && f.Resource != "" {
		return []string{f.Resource}
	}
	return given
}

// auth returns the authentication at the endpoint, or NoAuth if there are mistakes, so that the other fields can be validated.
func (l *list) auth(at string, s *introspectionSection) introspect.Auth {
	if !l.Given(at + ".client_id") {
		l.Mistake(at+".client_id", "required")
	}
	password := l.Secret(s.ClientSecret)
	if !l.SecretGiven(s.ClientSecret) {
		l.Mistake(at+".client_secret_file", "required, or client_secret_env or client_secret")
	}
	if s.ClientID == "" || password == "" {
		return introspect.NoAuth()
	}
	return clientAuth(s.Auth)(s.ClientID, password)
}
