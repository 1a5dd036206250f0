package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/jwks"
)

const (
	defaultLeeway = 30 * time.Second // of jwks.Config
	maxLeeway     = 5 * time.Minute
	visibleSkew   = 5 * time.Second // more than the resolution of a Date header and a slow response
)

// metadata is what an issuer's metadata states.
type metadata struct {
	response
	issuer, jwksURI string
	resources       []string // RFC 9728, section 4
}

// readMetadata reads a response as a verifier does. It returns nil if the response is not the metadata of an issuer; the error states why, if
// there is a response with status 200.
func readMetadata(r response) (*metadata, error) {
	if r.err != nil || r.status != http.StatusOK {
		return nil, nil
	}
	m := &metadata{response: r}
	err := strictjson.Object(r.body, func(name string, v strictjson.Value) error {
		switch name {
		case "issuer":
			m.issuer, _ = v.Text()
		case "jwks_uri":
			m.jwksURI, _ = v.Text()
		case "protected_resources":
			m.resources, _ = v.Strings()
		}
		return nil
	}, "issuer", "jwks_uri")
	if err == nil && m.issuer == "" {
		err = errors.New("it has no issuer")
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// discover returns the metadata at the well-known locations of an issuer, or the response that explains best why there is none.
func (s *sender) discover(ctx context.Context, issuer string) (*metadata, response) {
	var worst response
	for _, place := range fetch.WellKnown(issuer) {
		r := s.get(ctx, place)
		if m, _ := readMetadata(r); m != nil {
			return m, r
		}
		if worst.url == "" || worst.status == http.StatusNotFound && r.status != http.StatusNotFound {
			worst = r
		}
		if r.unreachable() {
			break // the other locations are on the same host
		}
	}
	return nil, worst
}

// keys examines a verifier with keys.
func (x *examination) keys(ctx context.Context, about *token) {
	cfg := *x.target.Keys
	var keys []*jose.Key
	switch {
	case cfg.Secret != nil:
		x.ok("key set", "a shared secret, nothing to fetch")
	case cfg.JWKS != nil:
		keys, _, _ = keyset.Parse(cfg.JWKS, keyset.MaxKeys) // the configuration has been checked
		x.ok("key set", "given, nothing to fetch: %s", described(keys))
	case strings.Contains(cfg.JWKSURL, keyset.KeyIDPlace):
		x.ok("key set", "each key is at its own URL, %s, and is fetched with a token that names it", cfg.JWKSURL)
	default:
		var (
			served response
			err    error
		)
		if x.sender, err = senderOf(cfg); err != nil {
			x.add(Finding{Level: Fail, Check: "key set", Cause: err.Error()})
			return
		}
		published, url := x.issuer(ctx, &cfg, about)
		if url != "" {
			keys, served = x.keySet(ctx, url, published != nil && cfg.JWKSURL == "")
			x.clock(cfg, cmp.Or(published.date(), served.date()))
		}
		cfg.JWKSURL, cfg.Client = fixed(served)
		cfg.KeyRequests, cfg.InitialJWKS = jwks.KeyRequests{}, nil
	}
	if keys != nil {
		x.algorithms(cfg, keys)
	}
	if about != nil {
		x.token(ctx, cfg, keys, about)
	}
}

// issuer compares the issuer with its metadata, and returns the metadata, if there is any, and the URL of the key set, if it is
// known. It corrects cfg.Issuer, so that the rest is examined as if the setting were right.
func (x *examination) issuer(ctx context.Context, cfg *jwks.Config, about *token) (*metadata, string) {
	optional := cfg.JWKSURL != "" // then the metadata is not needed
	if optional && (strings.Contains(cfg.Issuer, "{") || fetch.Client{InsecureHTTP: true}.Discoverable(cfg.Issuer) != nil) {
		return nil, cfg.JWKSURL
	}
	m, r := x.discover(ctx, cfg.Issuer)
	if m == nil && optional {
		return nil, cfg.JWKSURL
	}
	if m == nil {
		f, meant := x.unreachable(ctx, cfg, r, about)
		if x.add(f); meant == nil {
			return nil, ""
		}
		m, r = meant, meant.response
	}
	differs := Finding{Level: Fail, Check: "issuer",
		Cause: fmt.Sprintf("%q configured, %q in the metadata at %s: %s", cfg.Issuer, m.issuer, r.url, difference(cfg.Issuer, m.issuer))}
	switch {
	case m.issuer == cfg.Issuer:
		x.ok("issuer", "%q is that of the metadata at %s", cfg.Issuer, r.url)
	case about.text("iss") == cfg.Issuer && optional:
		x.ok("issuer", "%q is that of the token", cfg.Issuer)
	case about.text("iss") == cfg.Issuer: // the metadata of another host name: discovery refuses it (RFC 8414, section 3.3)
		differs.Cause += "; the token is of the configured one"
		x.add(differs.setting("url", "JWKSURL", m.jwksURI))
	case optional && (about == nil || slices.Contains(cfg.IssuerAliases, about.text("iss"))): // perhaps on purpose
		differs.Level = Warn
		x.add(differs.setting("issuer", "Issuer", m.issuer))
	default:
		x.add(differs.setting("issuer", "Issuer", m.issuer))
		cfg.Issuer = m.issuer
	}
	if len(m.resources) > 0 && !tokenclaims.IsFor(valetkey.ListOf(m.resources...), cfg.Audience, false) {
		x.add(Finding{Level: Warn, Check: "audience", Cause: fmt.Sprintf("the metadata lists the APIs %s, and %s is configured", quoted(m.resources), quoted(cfg.Audience))}.
			list("audience", "Audience", m.resources))
	}
	switch {
	case optional:
		return m, cfg.JWKSURL
	case m.jwksURI == "":
		x.add(Finding{Level: Fail, Check: "key set", Cause: "the metadata at " + r.url + " has no jwks_uri"}.setting("url", "JWKSURL", "https://..."))
		return m, ""
	}
	if err := (fetch.Client{InsecureHTTP: cfg.InsecureHTTP}).AllowedBy(cfg.Issuer, m.jwksURI); err != nil {
		x.add(Finding{Level: Fail, Check: "key set", Cause: fmt.Sprintf("the metadata at %s names the key set %.200q: %v", r.url, fetch.Bare(m.jwksURI), err),
			YAML: "insecure_http: true", Go: "InsecureHTTP: true"})
		return m, "" // the verifier does not request it either
	}
	return m, m.jwksURI
}

// unreachable returns the finding about an issuer without metadata. It tries the issuer that is most probably meant, sets
// cfg.Issuer to it, and returns its metadata, if there is any.
func (x *examination) unreachable(ctx context.Context, cfg *jwks.Config, r response, about *token) (f Finding, found *metadata) {
	cause, fix := r.trouble()
	f = Finding{Level: Fail, Check: "issuer", Cause: cause, Fix: fix}
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return f, nil
	}
	meant := *u
	switch {
	case r.wantsTLS():
		meant.Scheme = "https"
	case r.wantsPlain():
		meant.Scheme = "http"
	case r.refused() && u.Port() != "":
		meant.Host = u.Hostname()
	case f.forbidden(r):
		return f, nil
	case r.redirects(), r.isPage() && r.status == http.StatusOK:
		f.Go = "Client: &http.Client{Transport: ...}"
		f.YAML = "the variables HTTPS_PROXY and NO_PROXY of the process, or issuer"
		return f, nil
	case r.err == nil && r.status != http.StatusOK:
		f.Cause = fmt.Sprintf("no metadata at %s and the other well-known locations: status %d", r.url, r.status)
		f.Fix = "the path is wrong or incomplete, such as that of a realm, or the issuer has no metadata and the URL of its key set is needed"
		f.YAML, f.Go = `issuer, or url: "https://..."`, `Issuer, or JWKSURL: "https://..."`
		return f, nil
	case r.err == nil:
		_, err := readMetadata(r)
		f.Cause = fmt.Sprintf("%s returns something that is not the metadata of an issuer: %v", r.url, err)
	}
	guess := meant.String()
	if guess != cfg.Issuer {
		if found, _ = x.discover(ctx, guess); found != nil {
			guess = found.issuer
		}
	}
	if found == nil && (guess == cfg.Issuer || r.refused()) { // nothing suggests it
		guess = ""
	}
	if iss := about.text("iss"); guess == "" && r.refused() && iss != "" && host(iss) != host(cfg.Issuer) {
		if guess = iss; (fetch.Client{InsecureHTTP: cfg.InsecureHTTP}).Discoverable(iss) == nil && hostname(iss) == hostname(cfg.Issuer) {
			found, _ = x.discover(ctx, iss)
		}
	}
	f = f.setting("issuer", "Issuer", cmp.Or(guess, u.Scheme+"://HOST:PORT"+u.EscapedPath()))
	if r.wantsPlain() && (fetch.Client{}).Allowed(guess) != nil {
		f.YAML, f.Go = f.YAML+", insecure_http: true", f.Go+", InsecureHTTP: true"
	}
	cfg.Issuer = cmp.Or(guess, cfg.Issuer) // examine the rest as if it were set
	return f, found
}

// forbidden reports whether the server has an unknown certificate, or wants credentials. It adds the setting for them.
func (f *Finding) forbidden(r response) bool {
	switch {
	case r.untrusted():
		f.YAML, f.Go = `ca_file: "ca.pem"`, `KeyRequests: jwks.KeyRequests{CAFile: "ca.pem"}`
	case r.err == nil && (r.status == http.StatusUnauthorized || r.status == http.StatusForbidden):
		f.YAML, f.Go = `token_file: "..."`, `KeyRequests: jwks.KeyRequests{TokenFile: "..."}`
	default:
		return false
	}
	return true
}

// difference describes in which part two issuers differ.
func difference(a, b string) string {
	u, err1 := url.Parse(a)
	v, err2 := url.Parse(b)
	switch {
	case strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/"):
		if strings.HasSuffix(a, "/") {
			return "without a slash at the end"
		}
		return "with a slash at the end"
	case strings.EqualFold(a, b):
		return "in another letter case"
	case err1 != nil || err2 != nil:
		return "another text"
	}
	var parts []string
	for _, part := range []struct{ name, a, b string }{
		{"scheme", u.Scheme, v.Scheme}, {"host", u.Hostname(), v.Hostname()}, {"port", u.Port(), v.Port()}, {"path", u.EscapedPath(), v.EscapedPath()},
	} {
		if part.a != part.b {
			parts = append(parts, "another "+part.name)
		}
	}
	return strings.Join(parts, ", ")
}

// keySet fetches and reads the key set. discovered means that its URL is from the metadata.
func (x *examination) keySet(ctx context.Context, u string, discovered bool) ([]*jose.Key, response) {
	r := x.get(ctx, u)
	f := Finding{Level: Fail, Check: "key set"}
	if !f.forbidden(r) {
		f = f.setting("url", "JWKSURL", "https://...")
	}
	if r.err != nil || r.status != http.StatusOK || r.isPage() {
		f.Cause, f.Fix = r.trouble()
		if discovered {
			f.Cause += ", and is the jwks_uri of the metadata"
		}
		x.add(f)
		return nil, r
	}
	keys, dropped, err := keyset.Parse(r.body, keyset.MaxKeys)
	for _, d := range dropped {
		x.add(Finding{Level: Warn, Check: "key set", Cause: fmt.Sprintf("the key with the kid %.100q is not used: %v", d.ID, d.Err), Fix: "the issuer must publish it in another form"})
	}
	if err != nil {
		f.Cause = fmt.Sprintf("%s is not a usable key set: %v", r.url, err)
		x.add(f)
		return nil, r
	}
	x.ok("key set", "%s has %s", r.url, described(keys))
	return keys, r
}

// described returns the keys in words.
func described(keys []*jose.Key) string {
	var all []string
	for _, k := range keys[:min(len(keys), 5)] {
		all = append(all, fmt.Sprintf("%.100q (%s)", k.ID(), strings.Join(k.Algorithms(), " ")))
	}
	if len(keys) > 5 {
		all = append(all, "...")
	}
	usable := fmt.Sprintf("%d usable keys", len(keys))
	if len(keys) == 1 {
		usable = "1 usable key"
	}
	return usable + ": " + strings.Join(all, ", ")
}

// algorithms compares the keys with the allowed algorithms.
func (x *examination) algorithms(cfg jwks.Config, keys []*jose.Key) {
	allowed := cfg.Algorithms
	if len(allowed) == 0 {
		allowed = jose.DefaultAlgorithms()
	}
	var useful, offered []string
	idle := 0
	for _, k := range keys {
		fits := false
		for _, alg := range k.Algorithms() {
			if !slices.Contains(offered, alg) {
				offered = append(offered, alg)
			}
			if slices.Contains(allowed, alg) {
				fits = true
				if !slices.Contains(useful, alg) {
					useful = append(useful, alg)
				}
			}
		}
		if !fits {
			idle++
		}
	}
	f := Finding{Check: "algorithms", Cause: fmt.Sprintf("the keys are for %s, and %s configured", strings.Join(offered, ", "), areConfigured(allowed))}
	switch {
	case len(useful) == 0:
		f.Level = Fail
		x.add(f.list("algorithms", "Algorithms", offered[:1]))
	case idle > 0:
		f.Level = Warn
		f.Cause += fmt.Sprintf(": %d of %d keys cannot be used", idle, len(keys))
		x.add(f.list("algorithms", "Algorithms", offered))
	default:
		x.ok("algorithms", "%s", strings.Join(useful, ", "))
	}
}

func areConfigured(algorithms []string) string {
	if len(algorithms) == 1 {
		return algorithms[0] + " is"
	}
	return strings.Join(algorithms, ", ") + " are"
}

// A reading is a Date header and when it was received.
type reading struct{ theirs, ours time.Time }

// date returns the Date of the response; the zero value if it has none, or m is nil.
func (r response) date() reading {
	theirs, err := http.ParseTime(r.header.Get("Date"))
	if err != nil {
		return reading{}
	}
	age, _ := strconv.Atoi(r.header.Get("Age"))                                      // in a cache; zero if there is none
	return reading{theirs.Add(time.Duration(age)*time.Second + time.Second/2), r.at} // the header omits the fraction
}

func (m *metadata) date() reading {
	if m == nil {
		return reading{}
	}
	return m.response.date()
}

// clock compares the clocks. A Date header has a resolution of one second.
func (x *examination) clock(cfg jwks.Config, r reading) {
	if r.theirs.IsZero() {
		return
	}
	ahead := r.ours.Sub(r.theirs).Round(time.Second)
	leeway := cfg.Leeway
	if leeway == 0 {
		leeway = defaultLeeway
	}
	leeway = max(0, leeway)
	direction, effect := "ahead of", "tokens expire early"
	if ahead < 0 {
		direction, effect = "behind", "new tokens are refused as not yet valid"
	}
	cause := fmt.Sprintf("the clock of this machine is %v %s that of the issuer", ahead.Abs(), direction)
	f := Finding{Check: "clock", Cause: cause + ": " + effect, Fix: "synchronize both with NTP"}
	switch {
	case ahead.Abs() <= visibleSkew:
		x.ok("clock", "%v from that of the issuer", ahead.Abs())
		return
	case ahead.Abs() > leeway+time.Second:
		f.Level = Fail
	default:
		f.Level = Warn
		f.Cause = cause + fmt.Sprintf(", within the leeway of %v", leeway)
	}
	if enough := ahead.Abs().Truncate(10*time.Second) + 10*time.Second; enough <= maxLeeway {
		f.YAML, f.Go = fmt.Sprintf("leeway: %v", enough), fmt.Sprintf("Leeway: %d * time.Second", int(enough.Seconds()))
	} else {
		f.Fix += fmt.Sprintf("; leeway is at most %v", maxLeeway)
	}
	x.add(f)
}
