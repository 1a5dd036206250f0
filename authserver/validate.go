package authserver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/scopes"
)

const (
	maxLifetime = 24 * time.Hour
	minSecret   = 16
)

// An inspection checks a Config and continues after a mistake, to find them all.
type inspection struct {
	cfg       *Config
	mistakes  []error
	audiences map[string]bool
	owners    map[string][]string // of each scope: the audiences
}

func (in *inspection) add(field, format string, args ...any) {
	field = strings.TrimPrefix(field, ".") // of a client outside a list
	in.mistakes = append(in.mistakes, &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)})
}

// err adds a mistake that another check has found.
func (in *inspection) err(field string, err error) {
	if err != nil {
		in.add(field, "%w", err)
	}
}

// wrong adds a mistake if is is true.
func (in *inspection) wrong(is bool, field, format string, args ...any) {
	if is {
		in.add(field, format, args...)
	}
}

// inspect checks the APIs, which everything else refers to.
func inspect(cfg *Config) *inspection {
	in := &inspection{cfg: cfg, audiences: map[string]bool{}, owners: map[string][]string{}}
	in.wrong(len(cfg.APIs) == 0, "APIs", "at least one is required")
	for i := range cfg.APIs {
		in.api(&cfg.APIs[i], fmt.Sprintf("APIs[%d]", i))
	}
	if cfg.Signals.Enabled {
		own := cfg.signalsAPI()
		in.api(&own, "Signals")
		for _, name := range own.ScopeNames() { // or the right to it at another API would be one to manage signals
			in.wrong(len(in.owners[name]) > 1, "Signals.Scopes", "%q is also a scope of %s", name, in.owners[name][0])
		}
	}
	for i, a := range cfg.APIs {
		for _, s := range slices.Sorted(maps.Keys(a.Exchange)) {
			field := fmt.Sprintf("APIs[%d].Exchange[%q]", i, s)
			in.wrong(!slices.Contains(in.owners[s], a.Audience), field, "is not a scope of the API")
			in.scopes(a.Exchange[s], field)
			for j, to := range a.Exchange[s] { // else an exchange could lead to more APIs than one
				in.wrong(len(in.owners[to]) > 1, fmt.Sprintf("%s[%d]", field, j), "%q is a scope of several APIs: %s", to, strings.Join(in.owners[to], ", "))
			}
		}
	}
	in.wrong(cfg.DefaultAPI != "" && !in.audiences[cfg.DefaultAPI], "DefaultAPI", "is not the audience of an API")
	return in
}

// Validate joins a [valetkey.ConfigError] for each mistake that [New] would return, except for a Store without a Seal. A Field
// is the path in Go, such as Clients[0].RedirectURIs. [LoadConfig] reports the name in the file.
func (cfg *Config) Validate() error {
	in := inspect(cfg)
	in.issuer()
	in.paths()
	ids := map[string]bool{}
	for i := range cfg.Clients {
		c, field := &cfg.Clients[i], fmt.Sprintf("Clients[%d]", i)
		in.wrong(ids[c.ID], field+".ID", "%q is also the id of another client", c.ID)
		ids[c.ID] = true
		in.client(c, field)
	}
	for i, s := range cfg.PrivateUseSchemes {
		in.err(fmt.Sprintf("PrivateUseSchemes[%d]", i), clients.ValidScheme(s))
	}
	in.handoff()
	in.people()
	in.issuers()
	in.registration()
	in.documents()
	in.signals()
	in.durations()
	in.demoSecrets()
	if cfg.Accent != "" {
		in.err("Accent", pages.ValidAccent(cfg.Accent))
	}
	in.err("Logo", pages.ValidImage(cfg.Logo))
	in.err("Favicon", pages.ValidImage(cfg.Favicon))
	in.err("Links.Privacy", pages.ValidLink(cfg.Links.Privacy))
	in.err("Links.Imprint", pages.ValidLink(cfg.Links.Imprint))
	in.err("Links.Help", pages.ValidLink(cfg.Links.Help, "mailto"))
	in.wrong(cfg.MaxTokens < 0, "MaxTokens", "is negative")
	for i, p := range cfg.Proxies {
		in.wrong(p.Bits() <= 0, fmt.Sprintf("Proxies[%d]", i), "must be an address range, and not the range of all addresses")
	}
	in.wrong(!headerName.MatchString(cfg.ClientCertificate), "ClientCertificate", "must be tls or a header name")
	in.wrong(cfg.ClientCertificate != "" && cfg.ClientCertificate != "tls" && len(cfg.Proxies) == 0, "client_certificate",
		"names a header, which requires proxies")
	in.certificates()
	in.wrong(len(cfg.Seal) > 0 && len(cfg.Seal) < minSeal, "Seal", "has fewer than %d bytes", minSeal)
	in.wrong(len(cfg.SealPrevious) > 0 && len(cfg.SealPrevious) < minSeal, "SealPrevious", "has fewer than %d bytes", minSeal)
	return errors.Join(in.mistakes...)
}

const minSeal = 32 // bytes

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]*$`)

// plainPath matches a path that has no special meaning in a net/http pattern.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9._~/-]*$`)

// certificates checks the settings for certificates of clients.
func (in *inspection) certificates() {
	cfg := in.cfg
	in.wrong(cfg.ClientAuthorities != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(cfg.ClientAuthorities)), "ClientAuthorities",
		"has no certificate in PEM")
	in.wrong(cfg.ClientAuthorities != "" && cfg.ClientCertificate == "", "ClientAuthorities", "requires client_certificate")
	if cfg.MTLSURL != "" {
		u, err := url.Parse(cfg.MTLSURL)
		in.wrong(err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(cfg.MTLSURL, "?#") || u.User != nil, "MTLSURL",
			"is not an https URL without a query")
		in.wrong(cfg.ClientCertificate == "", "MTLSURL", "requires client_certificate")
	}
}

// issuer checks the rules of RFC 8414, section 2.
func (in *inspection) issuer() {
	issuer := in.cfg.Issuer
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		in.add("Issuer", "is required")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		in.add("Issuer", "is not an https URL")
	case strings.ContainsAny(issuer, "?#") || u.User != nil:
		in.add("Issuer", "has a query, a fragment or a user")
	case !plainPath.MatchString(u.EscapedPath()) || path.Clean(in.cfg.path()+"/x") != in.cfg.path()+"/x":
		in.add("Issuer", "has a path with unusual characters or segments")
	case u.Scheme == "http" && !loopback(u.Hostname()) && !in.cfg.InsecureHTTP:
		in.add("Issuer", "is http and not on loopback: use https, or set insecure_http")
	}
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// taken are the paths of the pages, and of the endpoint that cannot be moved.
var taken = []string{"/login", "/logout", "/logged-out", "/language", "/device", "/account", "/developer", "/assets", "/.well-known", "/healthz", "/readyz", "/oauth2/code"}

// paths ensures that no two patterns conflict, which would make net/http panic.
func (in *inspection) paths() {
	all := namedPaths(in.cfg.Paths)
	for i, p := range all {
		switch {
		case p.value == "": // the default
			continue
		case !plainPath.MatchString(p.value) || path.Clean(p.value) != p.value || !strings.HasPrefix(p.value, "/") || len(p.value) < 2:
			in.add("Paths."+p.name, "is not a path such as /oauth2/token")
			continue
		}
		used := taken
		if in.cfg.Signals.Enabled {
			used = slices.Concat(taken, transmitter.Paths())
		}
		for _, other := range used {
			in.wrong(overlap(p.value, other), "Paths."+p.name, "overlaps %s, which is in use", other)
		}
		for j, other := range all {
			if place := other.standard; i != j && overlap(p.value, place) {
				in.add("Paths."+p.name, "overlaps %s, the path of another endpoint", place)
			}
		}
	}
}

// A namedPath is one of Paths.
type namedPath struct{ name, value, standard string }

func namedPaths(p Paths) []namedPath {
	d := p.WithDefaults()
	return []namedPath{
		{"Authorize", p.Authorize, d.Authorize}, {"Token", p.Token, d.Token}, {"Device", p.Device, d.Device}, {"PAR", p.PAR, d.PAR},
		{"Introspect", p.Introspect, d.Introspect}, {"Revoke", p.Revoke, d.Revoke}, {"Register", p.Register, d.Register},
		{"Keys", p.Keys, d.Keys},
	}
}

// overlap reports whether the paths are equal or one is below the other.
func overlap(a, b string) bool {
	return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")
}

func (in *inspection) api(a *API, field string) {
	u, err := url.Parse(a.Audience)
	if a.Audience == "" {
		in.add(field+".Audience", "is required")
	} else {
		in.wrong(err != nil || !u.IsAbs() || strings.Contains(a.Audience, "#"), field+".Audience", "%q is not an absolute URI without a fragment", a.Audience)
	}
	same := func(other string) bool { return tokenclaims.SameResource(other, a.Audience) }
	in.wrong(slices.ContainsFunc(slices.Collect(maps.Keys(in.audiences)), same), field+".Audience", "%q is also the audience of another API", a.Audience)
	in.audiences[a.Audience] = true
	in.wrong(len(a.Scopes) == 0, field+".Scopes", "at least one is required")
	for i, one := range a.Scopes {
		s := one.Name
		in.err(field+".Scopes", scopes.Validate(s))
		in.wrong(s == "openid", field+".Scopes", "openid is not a scope of an API")
		in.wrong(slices.Contains(a.ScopeNames()[:i], s), field+".Scopes", "%q is given twice", s)
		in.owners[s] = append(in.owners[s], a.Audience)
		in.languages(one.Descriptions, fmt.Sprintf("%s.Scopes[%q]", field, s))
	}
	for i, one := range a.DetailTypes {
		in.wrong(!printable(one.Name), field+".DetailTypes", "the name of a type has 1 or more printable ASCII characters")
		in.wrong(a.DetailType(one.Name) != &a.DetailTypes[i], field+".DetailTypes", "%q is given twice", one.Name)
		in.languages(one.Descriptions, fmt.Sprintf("%s.DetailTypes[%q]", field, one.Name))
	}
	in.wrong(!slices.Contains([]Format{"", JWT, Opaque}, a.Tokens), field+".Tokens", "%q, want jwt or opaque", a.Tokens)
	in.wrong(!slices.Contains([]string{"", "ES256", "RS256", "EdDSA"}, a.Algorithm), field+".Algorithm", "%q, want ES256, RS256 or EdDSA", a.Algorithm)
	in.wrong(!slices.Contains([]Profile{"", model.RFC9068, model.User, model.Permissions}, a.Profile), field+".Profile", "%q, want rfc9068, user or permissions", a.Profile)
	in.lifetime(a.Lifetime, field+".Lifetime")
	if a.TryURL != "" {
		u, err := url.Parse(a.TryURL)
		in.wrong(err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http", field+".TryURL", "is not an https URL")
	}
}

// languages checks the tags of translations.
func (in *inspection) languages(descriptions map[string]string, field string) {
	for _, tag := range slices.Sorted(maps.Keys(descriptions)) {
		_, err := language.Parse(tag)
		in.wrong(err != nil, fmt.Sprintf("%s.Descriptions[%q]", field, tag), "is not the tag of a language, such as de")
	}
}

func (in *inspection) lifetime(d time.Duration, field string) {
	in.wrong(d < 0 || d%time.Second != 0 || d > maxLifetime, field, "%s is not a whole number of seconds up to %s, such as 10m", d, maxLifetime)
}

// memberFields maps the members of RFC 7591 to the fields of a Client.
var memberFields = map[string]string{
	"redirect_uris": "RedirectURIs", "client_name": "Name", "client_uri": "URI", "scope": "Scopes", "grant_types": "GrantTypes",
	"token_endpoint_auth_method": "AuthMethod", "token_endpoint_auth_signing_alg": "AssertionAlg", "trusted": "Trusted",
	"backchannel_logout_uri": "LogoutURI", "backchannel_logout_session_required": "LogoutSession",
	"access_lifetime": "Lifetime", "jwks": "JWKS", "jwks_uri": "JWKSURL", "tls_client_auth_subject_dn": "TLSSubjectDN",
	"tls_client_auth_san_dns": "TLSSANDNS", "tls_client_auth_san_uri": "TLSSANURI", "tls_client_auth_san_ip": "TLSSANIP",
	"tls_client_auth_san_email": "TLSSANEmail",
}

func (in *inspection) client(c *Client, field string) {
	in.wrong(!printable(c.ID) || len(c.ID) > 512, field+".ID", "1 to 512 printable ASCII characters are required") // RFC 6749, appendix A.1
	for _, t := range in.cfg.subjectTypes() {
		in.wrong(strings.HasPrefix(c.ID, t+":"), field+".ID", "must not begin with %s: like the subject of a user", t)
	}
	needsSecret := strings.HasPrefix(cmp.Or(c.AuthMethod, "client_secret_basic"), "client_secret_")
	switch _, err := digestOf(c.SecretSHA256); {
	case needsSecret && (c.Secret == "") == (c.SecretSHA256 == ""):
		in.add(field+".Secret", "either this or secret_sha256 is required, or a token_endpoint_auth_method without a secret")
	case !needsSecret && c.Secret+c.SecretSHA256 != "":
		in.add(field+".Secret", "cannot be combined with the token_endpoint_auth_method")
	case c.Secret != "" && (!printable(c.Secret) || len(c.Secret) < minSecret):
		in.add(field+".Secret", "must have at least %d printable ASCII characters", minSecret)
	case c.SecretSHA256 != "" && err != nil:
		in.add(field+".SecretSHA256", "%w", err)
	}
	r := resolved(*c)
	r.PrivateUse = in.cfg.PrivateUseSchemes
	for _, m := range valetkey.ConfigErrors(clients.Validate(&r)) {
		invalid, ok := errors.AsType[*clients.Invalid](m.Err)
		switch {
		case !ok:
			in.add(field, "%w", m.Err)
		case invalid.Index > 0:
			in.add(fmt.Sprintf("%s.%s[%d]", field, memberFields[invalid.Member], invalid.Index-1), "%s", invalid.Problem)
		default:
			in.add(field+"."+memberFields[invalid.Member], "%s", invalid.Problem)
		}
	}
	in.wrong(c.AuthMethod == "tls_client_auth" && in.cfg.ClientAuthorities == "", "ClientAuthorities", "is required by tls_client_auth of client %q", c.ID)
	in.wrong(c.LogoutURI != "" && !in.cfg.Signals.Enabled, field+".LogoutURI", "requires signals")
	ofSignals := in.cfg.signalsAPI()
	atDefault := c.DefaultAPI == ""
	for i, s := range c.Scopes {
		apis := in.owners[s]
		path := fmt.Sprintf("%s.Scopes[%d]", field, i)
		if slices.Contains(ofSignals.ScopeNames(), s) && !in.cfg.Signals.Enabled {
			in.wrong(apis == nil, path, "%s requires signals", s)
		} else {
			in.wrong(apis == nil, path, "is not a scope of any API")
		}
		atDefault = atDefault || slices.Contains(apis, c.DefaultAPI)
	}
	in.wrong(!atDefault, field+".DefaultAPI", "is not the audience of an API that the client has a scope of")
	for i, a := range c.Introspects {
		in.wrong(!in.audiences[a], fmt.Sprintf("%s.Introspects[%d]", field, i), "is not the audience of an API")
	}
	in.wrong(len(c.Scopes) == 0 && len(c.Introspects) == 0, field, "has neither scopes nor introspects: at least one is required")
	in.wrong(slices.Contains(c.GrantTypes, "implicit") && !in.cfg.Legacy.Implicit, field+".GrantTypes", "implicit needs legacy.implicit")
	in.wrong(slices.Contains(c.GrantTypes, "password") && !in.cfg.Legacy.Password, field+".GrantTypes", "password needs legacy.password")
	in.lifetime(c.Lifetime, field+".Lifetime")
}

// printable reports whether s is 1*VSCHAR of RFC 6749, appendix A.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// digestOf reads a SHA-256 digest.
func digestOf(hexadecimal string) ([]byte, error) {
	raw, err := hex.DecodeString(hexadecimal)
	if err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("is not %d hexadecimal digits", 2*sha256.Size)
	}
	return raw, nil
}

// handoff checks the page that log-ins are handed to.
func (in *inspection) handoff() {
	l := in.cfg.Login
	if !l.on() {
		in.wrong(l.PublicKey != "" || l.Logout != "" || l.UserType != "" || len(l.ACRValues) > 0, "Login.Redirect", "is required with the other fields of login")
		return
	}
	in.page("Login.Redirect", l.Redirect)
	if l.Logout != "" {
		in.page("Login.Logout", l.Logout)
	}
	u, err := url.Parse(l.Redirect)
	for _, name := range []string{"login_challenge", "iss"} {
		in.wrong(err == nil && u.Query().Has(name), "Login.Redirect", "has the parameter %s, which this server sets", name)
	}
	if l.PublicKey == "" {
		in.add("Login.PublicKey", "is required")
	} else if _, err := handoff.ParseKeys(l.PublicKey); err != nil {
		in.add("Login.PublicKey", "%w", err)
	}
	for i, acr := range l.ACRValues {
		in.wrong(!printable(acr) || strings.Contains(acr, " "), fmt.Sprintf("Login.ACRValues[%d]", i), "must be printable ASCII without spaces")
	}
	in.wrong(len(in.cfg.UserTypes) > 0, "Login.Redirect", "cannot be combined with user_types: all users log in at that page")
	in.wrong(len(in.cfg.Users) > 0, "Users", "cannot be combined with login.redirect: all users log in at that page")
	in.wrong(in.cfg.Legacy.Password, "Legacy.Password", "cannot be combined with login.redirect: this server knows no passwords")
}

// page checks a URL where browsers are sent.
func (in *inspection) page(field, value string) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		in.add(field, "is not an https URL")
	case u.Fragment != "" || u.User != nil:
		in.add(field, "has a fragment or a user")
	case u.Scheme == "http" && !loopback(u.Hostname()) && !in.cfg.InsecureHTTP:
		in.add(field, "is http and not on loopback: use https, or set insecure_http")
	}
}

// people checks the user types, the users and the portal.
func (in *inspection) people() {
	types := map[string]*login.Database{} // nil: not in the database
	for i, t := range in.cfg.userTypes() {
		field := fmt.Sprintf("UserTypes[%d]", i)
		if err := login.ValidType(t.Type); err != nil {
			in.add(field+".Type", "%w", err)
			continue
		}
		_, twice := types[t.Type]
		in.wrong(twice, field+".Type", "%q is duplicated", t.Type)
		types[t.Type] = nil
		if t.Login == nil {
			types[t.Type], _ = login.NewDatabase(store.NewMemory(0), t.Type)
		}
	}
	for i, u := range in.cfg.Users {
		field := fmt.Sprintf("Users[%d]", i)
		db := types[in.cfg.typeOf(u)]
		if db == nil && in.cfg.Login.on() {
			break // handoff reports all of them: the database has no users
		}
		if db == nil {
			in.add(field+".Type", "user type %q has no users in the database", in.cfg.typeOf(u))
			continue
		}
		if u.Password != "" {
			in.err(field+".Password", login.ValidPassword(u.Password))
		}
		if (u.Password == "") == (u.Hash == "") {
			in.add(field+".Password", "either this or password_hash is required")
		}
		add := u.add()
		add.Hash, add.Password = cmp.Or(u.Hash, someHash), "" // hashing a password is slow
		switch _, err := db.Add(context.Background(), add); {
		case errors.Is(err, store.ErrConflict):
			in.add(field, "another user has the name or the id")
		case err != nil:
			for _, m := range valetkey.ConfigErrors(err) {
				in.add(mistakes.Join(field, m.Field), "%w", m.Err)
			}
		}
		in.rights(u.Scopes, field+".Scopes")
	}
	for i, t := range in.cfg.Portal.Developers {
		_, known := types[t]
		in.wrong(!known, fmt.Sprintf("Portal.Developers[%d]", i), "%q is not a user type", t)
	}
	for i, t := range in.cfg.Portal.Services {
		in.wrong(!slices.Contains(in.cfg.Portal.Developers, t), fmt.Sprintf("Portal.Services[%d]", i), "%q is not one of portal.developers", t)
	}
}

// someHash is not the hash of any known password.
const someHash = "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func (in *inspection) scopes(list []string, field string) {
	for i, s := range list {
		in.wrong(in.owners[s] == nil, fmt.Sprintf("%s[%d]", field, i), "is not a scope of any API")
	}
}

// rights checks the scopes of a user, which contain types of details, too.
func (in *inspection) rights(list []string, field string) {
	for i, s := range list {
		typed := slices.ContainsFunc(in.cfg.APIs, func(a API) bool { return a.DetailType(s) != nil })
		in.wrong(in.owners[s] == nil && !typed, fmt.Sprintf("%s[%d]", field, i), "is not a scope of any API")
	}
}

// issuers checks the trusted issuers.
func (in *inspection) issuers() {
	names := map[string]bool{in.cfg.Issuer: true}
	types := map[string]bool{}
	for _, t := range in.cfg.userTypes() {
		types[t.Type] = true
	}
	for i, t := range in.cfg.TrustedIssuers {
		field := fmt.Sprintf("TrustedIssuers[%d]", i)
		in.wrong(t.Issuer == "", field+".Issuer", "is required")
		in.wrong(names[t.Issuer], field+".Issuer", "is this server's own, or duplicated")
		names[t.Issuer] = true
		in.wrong((t.JWKS == "") == (t.JWKSURL == ""), field+".JWKSURL", "either this or jwks is required")
		if t.JWKS != "" {
			_, _, err := keyset.Parse([]byte(t.JWKS), keyset.MaxForeignKeys)
			in.err(field+".JWKS", err)
		}
		if t.JWKSURL != "" {
			in.err(field+".JWKSURL", fetch.Client{}.Allowed(t.JWKSURL))
		}
		in.err(field+".SubjectType", login.ValidType(t.SubjectType))
		in.wrong(types[t.SubjectType], field+".SubjectType", "is already in use")
		types[t.SubjectType] = true
		in.wrong(len(t.Scopes) == 0, field+".Scopes", "at least one is required")
		in.scopes(t.Scopes, field+".Scopes")
		in.wrong(t.GrantProfile != "" && t.GrantProfile != IDJAG, field+".GrantProfile", "%q, want id-jag", t.GrantProfile)
	}
}

func (in *inspection) registration() {
	r := in.cfg.Registration
	in.scopes(r.Scopes, "registration.scopes")
	issuers := map[string]bool{}
	for i, t := range r.StatementIssuers {
		field := fmt.Sprintf("Registration.StatementIssuers[%d]", i)
		in.wrong(t.Issuer == "", field+".Issuer", "is required")
		in.wrong(issuers[t.Issuer], field+".Issuer", "is duplicated")
		issuers[t.Issuer] = true
		_, _, err := keyset.Parse([]byte(t.JWKS), keyset.MaxForeignKeys)
		in.err(field+".JWKS", err)
	}
	for i, g := range r.GrantTypes {
		in.wrong(!slices.Contains(in.cfg.grantTypes(), g), fmt.Sprintf("Registration.GrantTypes[%d]", i), "%q is not one of %v", g, in.cfg.grantTypes())
		in.wrong(r.Open && len(r.InitialTokens) == 0 && !clients.RequiresConsent(g), fmt.Sprintf("Registration.GrantTypes[%d]", i),
			"%q requires no consent of a user, so it can be registered only with one of registration.initial_tokens, and there is none", g)
	}
	for i, t := range r.InitialTokens {
		field := fmt.Sprintf("Registration.InitialTokens[%d]", i)
		if _, err := digestOf(t.SHA256); err != nil {
			in.add(field+".SHA256", "%w", err)
		}
		in.wrong(t.Uses < 0, field+".Uses", "is negative")
	}
}

// documents checks ClientDocuments.
func (in *inspection) documents() {
	d := in.cfg.ClientDocuments
	for i, host := range d.Hosts {
		in.wrong(clients.HostOf("https://"+host) != host || !clients.IsDocument("https://"+host+"/client"), fmt.Sprintf("ClientDocuments.Hosts[%d]", i),
			"is not a host name in lower case, such as app.example.com")
	}
	in.wrong(!d.Enabled && (len(d.Hosts) > 0 || d.InsecureHTTP != nil), "ClientDocuments.Enabled", "is required by the other settings")
}

// durations checks the durations and rates that no other check covers.
func (in *inspection) durations() {
	l, k := in.cfg.Lifetimes, in.cfg.Keys
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"Lifetimes.Code", l.Code}, {"Lifetimes.Interaction", l.Interaction}, {"Lifetimes.Pushed", l.Pushed}, {"Lifetimes.Device", l.Device},
		{"Lifetimes.Refresh", l.Refresh}, {"Lifetimes.RefreshGrace", l.RefreshGrace}, {"Lifetimes.Session", l.Session},
		{"Keys.Rotate", k.Rotate}, {"Keys.Publish", k.Publish},
	} {
		in.wrong(d.value < 0 || d.value%time.Second != 0, d.field, "%s is not a whole number of seconds, such as 10m", d.value)
	}
	if publish := cmp.Or(k.Publish, defaultPublish); k.Rotate > 0 {
		in.wrong(k.Rotate < publish, "Keys.Rotate", "%s is shorter than keys.publish, %s", k.Rotate, publish)
		in.wrong(k.Rotate < time.Hour/2, "Keys.Rotate", "%s is less than half an hour", k.Rotate)
	}
	for _, r := range in.cfg.Limits.named() {
		_, err := login.NewLimiter(r.rate, 1)
		for _, m := range valetkey.ConfigErrors(err) {
			in.add(r.field, "%w", m.Err)
		}
	}
}

// DemoSecrets returns the fields of the secrets that are publicly known, such as [Demo]'s: those that begin with "demo-".
func (cfg *Config) DemoSecrets() (fields []string) {
	for i, c := range cfg.Clients {
		if strings.HasPrefix(c.Secret, demoPrefix) {
			fields = append(fields, fmt.Sprintf("Clients[%d].Secret", i))
		}
	}
	for i, u := range cfg.Users {
		if strings.HasPrefix(u.Password, demoPrefix) {
			fields = append(fields, fmt.Sprintf("Users[%d].Password", i))
		}
	}
	return fields
}

const demoPrefix = "demo-"

// demoSecrets restricts publicly known secrets to loopback.
func (in *inspection) demoSecrets() {
	u, err := url.Parse(in.cfg.Issuer)
	if err != nil || u.Host == "" || loopback(u.Hostname()) {
		return
	}
	for _, field := range in.cfg.DemoSecrets() {
		in.add(field, "begins with %s, which marks a publicly known secret: allowed only with an issuer on loopback", demoPrefix)
	}
}
