package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A file is a configuration file that is being read. Sections that are absent are nil. Each field needs a description in schema.go.
type file struct {
	Listen            address           `yaml:"listen"`
	TLS               *tlsSection       `yaml:"tls"`
	Upstream          upstream          `yaml:"upstream"`
	Upstreams         []upstreamSection `yaml:"upstreams,filled"`
	Resource          string            `yaml:"resource,filled"`
	Metadata          *metadataSection  `yaml:"metadata"`
	Realm             string            `yaml:"realm"`
	ErrorURI          string            `yaml:"error_uri,filled"`
	ErrorBody         string            `yaml:"error_body" oneof:"text problem_json"`
	ForwardToken      bool              `yaml:"forward_token"`
	TokenHeader       string            `yaml:"token_header,filled"`
	MaxTokenBytes     int               `yaml:"max_token_bytes"`
	MaxBodyBytes      int64             `yaml:"max_body_bytes"` // zero: no limit
	MaxHeaderBytes    int               `yaml:"max_header_bytes"`
	HeaderTimeout     positive          `yaml:"header_timeout"`
	IdleTimeout       positive          `yaml:"idle_timeout"`
	TrustedOrigins    []origin          `yaml:"trusted_origins,single,filled"`
	WebSocketToken    *socketSection    `yaml:"websocket_token"`
	CORS              *corsSection      `yaml:"cors"`
	Probe             address           `yaml:"probe"`
	Drain             duration          `yaml:"drain"`
	Grace             duration          `yaml:"grace"`
	AccessLog         string            `yaml:"access_log" oneof:"all refusals off"`
	Audit             *auditSection     `yaml:"audit"`
	Verifiers         []verifierSection `yaml:"verifiers,required"`
	DPoP              *dpopSection      `yaml:"dpop"`
	MTLS              *mtlsSection      `yaml:"mtls"`
	SenderConstrained bool              `yaml:"sender_constrained"`
	TrustedProxies    []addressRange    `yaml:"trusted_proxies,filled"`
	ForwardedHeader   string            `yaml:"forwarded_header,filled"`
	ForwardedPort     bool              `yaml:"forwarded_port"`
	ForwardedPrefix   bool              `yaml:"forwarded_prefix"`
	CancelWithToken   *bool             `yaml:"cancel_with_token"` // nil: true
	Cache             cacheSection      `yaml:"cache"`
	Revocations       revokedSection    `yaml:"revocations"`
	ReportOnly        bool              `yaml:"insecure_report_only"`
	Profile           string            `yaml:"profile" oneof:"fapi2"`
	Redis             *redisSection     `yaml:"redis"`
	Signals           *signalsSection   `yaml:"signals"`
	Routes            map[string]row    `yaml:"routes"`
	OpenAPI           string            `yaml:"openapi,filled"`
	AllowEncodedSlash []string          `yaml:"allow_encoded_slash,single,filled"`

	*config.Document `yaml:"-"`
	build
	reported middleware.ClientCertificate // where a gateway reports the client's certificate; set by fill for an Authorizer
}

type tlsSection struct {
	Certificate string `yaml:"cert_file,required"`
	Key         string `yaml:"key_file,required"`
}

type verifierSection struct {
	JWKS          *jwksSection          `yaml:"jwks"`
	Introspection *introspectionSection `yaml:"introspection"`
	APIKeys       *apiKeysSection       `yaml:"api_keys"`
}

type apiKeysSection struct {
	Issuer string `yaml:"issuer,required"`
	File   string `yaml:"file,required"`
	Header string `yaml:"header,filled"` // empty: Authorization
}

type jwksSection struct {
	Issuer       string         `yaml:"issuer,filled"`
	Audience     []string       `yaml:"audience,single,filled"`
	URL          string         `yaml:"url,filled"`
	File         string         `yaml:"file,filled"`
	InitialFile  string         `yaml:"initial_file,filled"`
	Profile      string         `yaml:"profile" oneof:"rfc9068 lenient"`
	Algorithms   []string       `yaml:"algorithms,single,filled"`
	Leeway       duration       `yaml:"leeway"`
	MaxLifetime  positive       `yaml:"max_lifetime"`
	Refresh      positive       `yaml:"refresh_interval"`
	MinRefetch   positive       `yaml:"min_refetch_interval"`
	Stale        duration       `yaml:"stale_if_error"`
	StatusList   *statusSection `yaml:"status_list"`
	InsecureHTTP bool           `yaml:"insecure_http"`
	TokenFile    string         `yaml:"token_file,filled"`
	CAFile       string         `yaml:"ca_file,filled"`
	CertFile     string         `yaml:"cert_file,filled"`
	KeyFile      string         `yaml:"key_file,filled"`

	issuer.Tokens `yaml:",inline"`

	CEL []driver.CELRule `yaml:"cel,single,filled"`
}

// A row is the requirement of a route. All that is given must be met.
type row struct {
	Scopes     need             `yaml:"scopes,short"`
	Claims     []claimRule      `yaml:"claims,single,filled"`
	CEL        []driver.CELRule `yaml:"cel,single,filled"`
	ACR        []acrValue       `yaml:"acr,single,filled"`
	MaxAge     positive         `yaml:"max_age"` // in whole seconds
	Details    []detailSection  `yaml:"authorization_details,single,filled"`
	ReportOnly bool             `yaml:"insecure_report_only"`
}

// A detailSection describes one detail that a token must have (RFC 9396).
type detailSection struct {
	Type       string   `yaml:"type,required"`
	Locations  []string `yaml:"locations,single,filled"`
	Actions    []string `yaml:"actions,single,filled"`
	DataTypes  []string `yaml:"datatypes,single,filled"`
	Identifier string   `yaml:"identifier,filled"`
	Privileges []string `yaml:"privileges,single,filled"`
}

type statusSection struct {
	Required bool     `yaml:"required"`
	Origins  []string `yaml:"origins,single,filled"`
	Allow    []status `yaml:"allow,filled"`
	Refresh  positive `yaml:"refresh_interval"`
	MinTTL   positive `yaml:"min_ttl"`
	MaxTTL   positive `yaml:"max_ttl"`
	Stale    duration `yaml:"stale_if_error"`
}

type introspectionSection struct {
	Type             string         `yaml:"issuer_type,filled"`
	Issuer           string         `yaml:"issuer,filled"`
	Audience         []string       `yaml:"audience,single,filled"`
	URL              string         `yaml:"url,filled"`
	ClientID         string         `yaml:"client_id,filled"`
	ClientSecret     config.Secret  `yaml:"client_secret"`
	Auth             string         `yaml:"auth" oneof:"basic basic_raw post"`
	CacheTTL         duration       `yaml:"cache_ttl"`
	NegativeTTL      duration       `yaml:"negative_ttl"`
	JWTIssuers       []string       `yaml:"jwt_issuers,single,filled"`
	SoleAudience     bool           `yaml:"sole_audience"`
	AudienceByIssuer bool           `yaml:"audience_by_issuer"`
	TypeHint         bool           `yaml:"token_type_hint"`
	Timeout          positive       `yaml:"timeout"`
	MaxInFlight      int            `yaml:"max_in_flight"`
	Signed           *signedSection `yaml:"signed"`
	AllowScopeArray  bool           `yaml:"allow_scope_array"`
	Leeway           duration       `yaml:"leeway"`
	InsecureHTTP     bool           `yaml:"insecure_http"`

	CEL []driver.CELRule `yaml:"cel,single,filled"`
}

type signedSection struct {
	Algorithm string `yaml:"algorithm,filled"`
	Audience  string `yaml:"audience,filled"`
	URL       string `yaml:"url,filled"`
	File      string `yaml:"file,filled"`
}

type metadataSection struct {
	Name          string   `yaml:"name,filled"`
	Documentation string   `yaml:"documentation,filled"`
	Policy        string   `yaml:"policy,filled"`
	TermsOfUse    string   `yaml:"terms_of_use,filled"`
	Scopes        []string `yaml:"scopes,single,filled"`
	MaxAge        duration `yaml:"max_age"`
}

type cacheSection struct {
	Entries int      `yaml:"entries"`
	Bytes   int64    `yaml:"bytes"`
	MaxAge  positive `yaml:"max_age"`
}

type revokedSection struct {
	Bytes int64    `yaml:"bytes"`
	Keep  positive `yaml:"keep"`
}

type corsSection struct {
	Origins     []string `yaml:"origins,single,required"`
	Methods     []string `yaml:"methods,single,filled"` // nil: all
	Headers     []string `yaml:"headers,single,filled"`
	Expose      []string `yaml:"expose_headers,single,filled"`
	Credentials bool     `yaml:"credentials"`
	MaxAge      duration `yaml:"max_age"`
}

type auditSection struct {
	Grants   share         `yaml:"grants"`
	Identity string        `yaml:"identity" oneof:"clear hashed omitted"`
	Key      config.Secret `yaml:"key"`
	Queue    int           `yaml:"queue"`
	Block    bool          `yaml:"block"`
}

type dpopSection struct {
	Origin     string        `yaml:"origin,filled"`
	Nonce      string        `yaml:"nonce" oneof:"off on"`
	Key        config.Secret `yaml:"key"`
	Window     positive      `yaml:"window"`
	Leeway     duration      `yaml:"leeway"`
	Algorithms []string      `yaml:"algorithms,single,filled"`
	Replays    string        `yaml:"replay_store" oneof:"memory redis"`
}

type mtlsSection struct {
	Header string `yaml:"header,filled"`
	Format string `yaml:"format" oneof:"pem der xfcc rfc9440"`
}

type socketSection struct {
	Prefix    string `yaml:"prefix,filled"`
	Base64URL string `yaml:"base64url_prefix,filled"`
	Pair      string `yaml:"pair,filled"`
}

type redisSection struct {
	Address       address          `yaml:"address"`
	Socket        string           `yaml:"socket,filled"`
	Cluster       []address        `yaml:"cluster,single,filled"`
	Sentinel      *sentinelSection `yaml:"sentinel"`
	Username      string           `yaml:"username,filled"`
	Password      config.Secret    `yaml:"password"`
	TLS           bool             `yaml:"tls"`
	TLSCAFile     string           `yaml:"tls_ca_file,filled"`
	TLSCertFile   string           `yaml:"tls_cert_file,filled"`
	TLSKeyFile    string           `yaml:"tls_key_file,filled"`
	TLSServerName string           `yaml:"tls_server_name,filled"`
	DB            uint16           `yaml:"db"`
	Key           config.Secret    `yaml:"key"`
	Prefix        string           `yaml:"prefix,filled"`
	Timeout       duration         `yaml:"timeout"`
	MinReplicas   uint16           `yaml:"min_replicas"`
	Unreplicated  bool             `yaml:"allow_unreplicated"`
	AllowLate     bool             `yaml:"allow_before_caught_up"`
}

type sentinelSection struct {
	Addresses []address     `yaml:"addresses,single,required"`
	Master    string        `yaml:"master,required"`
	Username  string        `yaml:"username,filled"`
	Password  config.Secret `yaml:"password"`
}

// An address is the host and port of a listener or a server.
type address string

func (a *address) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("is empty")
	}
	if _, _, err := net.SplitHostPort(string(text)); err != nil {
		return fmt.Errorf("%q is not an address such as 127.0.0.1:8080", text)
	}
	*a = address(text)
	return nil
}

// An addressRange is a range of addresses of trusted proxies. A single address is a range of one.
type addressRange struct{ netip.Prefix }

func (r *addressRange) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if addr, bad := netip.ParseAddr(string(text)); bad == nil && addr.Zone() == "" {
		prefix, err = addr.Prefix(addr.BitLen())
	}
	switch {
	case len(text) == 0:
		return errors.New("is empty")
	case err != nil || prefix.Addr().Is4In6():
		return fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", text)
	case prefix.Bits() == 0:
		return fmt.Errorf("%s contains all addresses, so any client would be trusted as a proxy", text)
	}
	r.Prefix = prefix
	return nil
}

// An origin is the origin of web pages, such as https://app.example.com.
type origin string

func (o *origin) UnmarshalText(text []byte) error {
	if err := new(http.CrossOriginProtection).AddTrustedOrigin(string(text)); err != nil {
		return fmt.Errorf("%q is not an origin such as https://app.example.com", text)
	}
	*o = origin(text)
	return nil
}

// A duration is zero or positive, stored as a Config expects it: 0 if absent, -1 if the file has zero.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil || t < 0 {
		return fmt.Errorf("%q is not a duration such as 30s", text)
	}
	if *d = duration(t); t == 0 {
		*d = -1
	}
	return nil
}

// A positive is a positive duration, or zero if absent.
type positive time.Duration

func (p *positive) UnmarshalText(text []byte) error {
	err := (*duration)(p).UnmarshalText(text)
	if *p < 0 {
		*p, err = 0, fmt.Errorf("%q is not a positive duration", text)
	}
	return err
}

// A share is a number from 0 to 1.
type share float64

func (s *share) UnmarshalText(text []byte) error {
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(n >= 0 && n <= 1) {
		return fmt.Errorf("%q is not a number from 0 to 1, such as 0.01", text)
	}
	*s = share(n)
	return nil
}

// A status is a value in a status list other than valid (0) and invalid (1), whose meanings are fixed.
type status uint8

func (s *status) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 8)
	if *s = status(n); err != nil || n < 2 {
		return errors.New("is not a status from 2 to 255")
	}
	return nil
}

// A need is the requirement of a route. The zero value belongs to a row with a mistake.
type need struct{ valetkey.Requirement }

func (n *need) UnmarshalText(text []byte) error {
	switch expr := string(text); {
	case expr == "@public":
		n.Requirement = valetkey.Public
	case expr == "@any":
		n.Requirement = valetkey.AnyToken
	case expr == "@optional":
		n.Requirement = valetkey.Optional
	case strings.HasPrefix(expr, "@"):
		return fmt.Errorf("%q is not @public, @optional or @any", expr)
	default:
		parsed, err := scopes.Parse(expr)
		for _, m := range valetkey.ConfigErrors(err) {
			return m.Err
		}
		n.Requirement = parsed
	}
	return nil
}

// An acrValue is an authentication context class reference that a challenge can carry.
type acrValue string

var acrPattern = regexp.MustCompile(`^[!#-\[\]-~]+$`)

func (a *acrValue) UnmarshalText(text []byte) error {
	if !acrPattern.Match(text) {
		return fmt.Errorf("%q is not an acr value: it is empty, or has a space or another character that a challenge cannot carry", text)
	}
	*a = acrValue(text)
	return nil
}

// A claimRule is a rule on claims, in the text form of claims.Rule. A value in braces is a part of the path: tenant_id = {tenant}. The
// zero value belongs to a mistake.
type claimRule struct{ valetkey.Requirement }

var pathValue = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

func (c *claimRule) UnmarshalText(text []byte) error {
	rule, err := claims.Parse(string(text))
	if err != nil {
		return errors.Unwrap(err) // without the text of the rule, which is on the line
	}
	c.Requirement = rule
	values, beginnings := rule.Values()
	for _, value := range values {
		if !strings.HasPrefix(value, "{") || !strings.HasSuffix(value, "}") {
			continue
		}
		name := pathValue.FindStringSubmatch(value)
		if name == nil || beginnings || len(values) > 1 {
			return fmt.Errorf("%q: a part of the path has the form claim = {wildcard} or claim ~= {wildcard}", text)
		}
		c.Requirement = claims.EqualPathValue(rule.Claim(), name[1])
		if strings.HasPrefix(string(text), rule.Claim()+" ~= ") {
			c.Requirement = claims.ContainsPathValue(rule.Claim(), name[1])
		}
	}
	return nil
}
