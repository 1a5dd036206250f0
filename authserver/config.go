package authserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/scopes"
)

// Config says who issues which tokens to whom. See [LoadConfig] for the file, [Demo] for an example.
type Config struct {
	_ struct{} // keyed literals only

	// Issuer is the server's identifier and the URL that its endpoints are reached at: https, no query, no fragment.
	// Required. With http, its host must be a loopback one unless InsecureHTTP is set.
	Issuer string `yaml:"issuer"`

	// APIs are the resource servers that tokens are issued for. At least one is required. Audiences and scopes are
	// unique among them, so that a scope means one thing.
	APIs []API `yaml:"apis"`

	// Clients may ask for tokens, or introspect them, or both. At least one is required.
	Clients []Client `yaml:"clients"`

	// InsecureHTTP allows an http issuer that is not on loopback: secrets and tokens cross the network in clear text.
	InsecureHTTP bool `yaml:"insecure_http"`

	// MaxTokens bounds how many tokens are kept in memory, which takes about 1.5 KiB for each. If there are more alive,
	// the oldest become inactive: an API that verifies JWTs by their signature does not notice. Zero: 100,000.
	MaxTokens int `yaml:"max_tokens"`

	// Logger is told of each token issued and each request refused, never of a token or a secret. Nil: no log.
	Logger *slog.Logger `yaml:"-"`
}

// A Format is the kind of an API's tokens.
type Format string

// The formats. An empty one means JWT.
const (
	JWT    Format = "jwt"    // RFC 9068: the API verifies it by itself
	Opaque Format = "opaque" // the API has to introspect it
)

// An API is a resource server that tokens are issued for.
type API struct {
	// Audience is the aud of its tokens and the resource that clients name: an absolute URI without a fragment
	// (RFC 8707, section 2). Required.
	Audience string `yaml:"audience"`

	// Name is shown to people. Empty: the audience.
	Name string `yaml:"name"`

	// Scopes are the rights that the API knows, each with its description for people. At least one is required.
	Scopes map[string]string `yaml:"scopes"`

	// Tokens is [JWT], if empty, or [Opaque].
	Tokens Format `yaml:"tokens"`

	// Algorithm signs its JWTs: ES256, if empty, or RS256.
	Algorithm string `yaml:"algorithm"`

	// Lifetime is that of its tokens, in whole seconds: "10m" in a file. Zero: 10 minutes. At most 24 hours.
	Lifetime time.Duration `yaml:"lifetime"`
}

// A Client is an application that is registered, or an API that introspects its tokens.
type Client struct {
	ID string `yaml:"id"` // required

	// Secret is the client's, 16 printable ASCII characters or more, and a random one: only its SHA-256 digest is kept,
	// which does not hide one that can be guessed. SecretSHA256 is that digest in hexadecimal, for a file that gives
	// nothing away. One of the two is required.
	Secret       string `yaml:"secret"`
	SecretSHA256 string `yaml:"secret_sha256"`

	// Scopes are all that the client may ask for; it gets all of an API's if it asks for none. Empty: no tokens.
	Scopes []string `yaml:"scopes"`

	// DefaultAPI is the audience of the token if the client asks for neither a resource nor a scope. It is needed only
	// where Scopes are those of several APIs.
	DefaultAPI string `yaml:"default_api"`

	// Introspects are the audiences that the client answers for: it may introspect their tokens and no others.
	Introspects []string `yaml:"introspects"`
}

const (
	defaultLifetime  = 10 * time.Minute
	maxLifetime      = 24 * time.Hour
	defaultMaxTokens = 100_000
	minSecret        = 16
	maxFile          = 1 << 20 // bytes
)

// LoadConfig reads a YAML document with the fields of [Config], named as its tags say. The error names every mistake: an
// unknown field or a wrong type by its line, the others by the path of the field.
func LoadConfig(r io.Reader) (Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err)
	}
	if len(text) > maxFile {
		return Config{}, fmt.Errorf("authserver: the configuration is longer than %d bytes", maxFile)
	}
	var cfg Config
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	err = d.Decode(&cfg)
	var wrong *yaml.TypeError
	if err != nil && !errors.As(err, &wrong) && err != io.EOF {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err) // not YAML: nothing else can be said
	}
	var more error
	if err == nil && d.Decode(new(yaml.Node)) != io.EOF {
		more = errors.New("the file holds more than one YAML document")
	}
	if wrong == nil {
		err = nil // an empty file lacks all that validate asks for
	}
	if err := errors.Join(err, more, cfg.validate()); err != nil {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err)
	}
	return cfg, nil
}

// mistakes collects what is wrong with a Config.
type mistakes []error

func (m *mistakes) add(field, format string, args ...any) {
	*m = append(*m, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
}

func (cfg Config) validate() error {
	var m mistakes
	if why := wrongIssuer(cfg.Issuer, cfg.InsecureHTTP); why != "" {
		m.add("issuer", "%s", why)
	}
	if cfg.MaxTokens < 0 {
		m.add("max_tokens", "is negative")
	}
	if len(cfg.APIs) == 0 {
		m.add("apis", "at least one is required")
	}
	audiences, owner := map[string]bool{}, map[string]string{}
	for i, a := range cfg.APIs {
		a.validate(&m, fmt.Sprintf("apis[%d]", i), audiences, owner)
	}
	if len(cfg.Clients) == 0 {
		m.add("clients", "at least one is required")
	}
	ids := map[string]bool{}
	for i, c := range cfg.Clients {
		field := fmt.Sprintf("clients[%d]", i)
		if ids[c.ID] {
			m.add(field+".id", "%q is the id of another client too", c.ID)
		}
		ids[c.ID] = true
		c.validate(&m, field, audiences, owner)
	}
	return errors.Join(m...)
}

// plainPath matches a path that stands for itself in a pattern of net/http.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9._~/-]*$`)

// wrongIssuer says what is wrong with an issuer (RFC 8414, section 2); "" if nothing is.
func wrongIssuer(issuer string, insecure bool) string {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		return "is required"
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an https URL"
	case strings.ContainsAny(issuer, "?#") || u.User != nil:
		return "has a query, a fragment or a user"
	case !plainPath.MatchString(u.EscapedPath()) || path.Clean(issuerPath(issuer)+"/x") != issuerPath(issuer)+"/x":
		return "has a path with unusual characters or segments"
	case u.Scheme == "http" && !loopback(u.Hostname()) && !insecure:
		return "is http and not on loopback: use https, or set insecure_http"
	default:
		return ""
	}
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (a API) validate(m *mistakes, field string, audiences map[string]bool, owner map[string]string) {
	if u, err := url.Parse(a.Audience); err != nil || !u.IsAbs() || strings.Contains(a.Audience, "#") {
		m.add(field+".audience", "%q is not an absolute URI without a fragment", a.Audience)
	}
	if audiences[a.Audience] {
		m.add(field+".audience", "%q is the audience of another API too", a.Audience)
	}
	audiences[a.Audience] = true
	if len(a.Scopes) == 0 {
		m.add(field+".scopes", "at least one is required")
	}
	for _, s := range a.scopes() {
		if err := scopes.Valid(s); err != nil {
			m.add(field+".scopes", "%w", err)
		}
		if s == "openid" {
			m.add(field+".scopes", "openid is not a right at an API")
		}
		if _, taken := owner[s]; taken {
			m.add(field+".scopes", "%q is a scope of another API too", s)
		}
		owner[s] = a.Audience
	}
	if a.Tokens != "" && a.Tokens != JWT && a.Tokens != Opaque {
		m.add(field+".tokens", "%q is neither jwt nor opaque", a.Tokens)
	}
	if a.Algorithm != "" && a.Algorithm != "ES256" && a.Algorithm != "RS256" {
		m.add(field+".algorithm", "%q is neither ES256 nor RS256", a.Algorithm)
	}
	if a.Lifetime < 0 || a.Lifetime%time.Second != 0 || a.Lifetime > maxLifetime {
		m.add(field+".lifetime", "%s is not a whole number of seconds up to %s, such as 10m", a.Lifetime, maxLifetime)
	}
}

func (c Client) validate(m *mistakes, field string, audiences map[string]bool, owner map[string]string) {
	if !printable(c.ID) {
		m.add(field+".id", "printable ASCII characters are required") // RFC 6749, appendix A.1
	}
	switch digest, err := hex.DecodeString(c.SecretSHA256); {
	case (c.Secret == "") == (c.SecretSHA256 == ""):
		m.add(field+".secret", "either this or secret_sha256 is required")
	case c.Secret != "" && (!printable(c.Secret) || len(c.Secret) < minSecret):
		m.add(field+".secret", "has fewer than %d characters, or other ones than printable ASCII", minSecret)
	case c.SecretSHA256 != "" && (err != nil || len(digest) != sha256.Size):
		m.add(field+".secret_sha256", "is not %d hexadecimal digits", 2*sha256.Size)
	}
	atDefault := c.DefaultAPI == ""
	for _, s := range c.Scopes {
		api, known := owner[s]
		if !known {
			m.add(field+".scopes", "no API has %q", s)
		}
		atDefault = atDefault || api == c.DefaultAPI
	}
	if !atDefault {
		m.add(field+".default_api", "%q is not an API that the client has a scope of", c.DefaultAPI)
	}
	for _, a := range c.Introspects {
		if !audiences[a] {
			m.add(field+".introspects", "%q is not the audience of an API", a)
		}
	}
	if len(c.Scopes) == 0 && len(c.Introspects) == 0 {
		m.add(field, "has neither scopes nor introspects: it could do nothing")
	}
}

// printable reports whether s is 1*VSCHAR of RFC 6749, appendix A.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

func (a API) scopes() []string { return slices.Sorted(maps.Keys(a.Scopes)) }

func (cfg Config) logger() *slog.Logger {
	if cfg.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return cfg.Logger
}

// compile returns what the engine needs of a valid Config, with the defaults in place.
func (cfg Config) compile() engine.Config {
	out := engine.Config{Issuer: cfg.Issuer, MaxTokens: cfg.MaxTokens, Logger: cfg.logger()}
	if out.MaxTokens == 0 {
		out.MaxTokens = defaultMaxTokens
	}
	for _, a := range cfg.APIs {
		api := engine.API{Audience: a.Audience, Scopes: a.scopes(), Opaque: a.Tokens == Opaque, Algorithm: a.Algorithm, Lifetime: a.Lifetime}
		if api.Algorithm == "" {
			api.Algorithm = "ES256"
		}
		if api.Lifetime == 0 {
			api.Lifetime = defaultLifetime
		}
		out.APIs = append(out.APIs, api)
	}
	for _, c := range cfg.Clients {
		secret := sha256.Sum256([]byte(c.Secret))
		if c.Secret == "" {
			hex.Decode(secret[:], []byte(c.SecretSHA256))
		}
		out.Clients = append(out.Clients, engine.Client{
			ID: c.ID, Secret: secret, Scopes: slices.Clone(c.Scopes), DefaultAPI: c.DefaultAPI, Introspects: slices.Clone(c.Introspects),
		})
	}
	return out
}
