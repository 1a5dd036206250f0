package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/signals"
)

// deliveryMethods are the methods of a stream (SSF 1.0, section 6.1; RFC 8935, RFC 8936).
var deliveryMethods = map[signals.Delivery]string{signals.Push: "urn:ietf:rfc:8935", signals.Poll: "urn:ietf:rfc:8936"}

const (
	specVersion = "1_0"                // SSF 1.0, section 7.1
	oauthScheme = "urn:ietf:rfc:6749"  // of authorization_schemes: CAEP Interoperability Profile 1.0, section 2.3.7
	riscName    = "risc-configuration" // in place of ssf-configuration: SSF 1.0, section 7.2.2
)

// transmitterMetadata is the metadata of a transmitter (SSF 1.0, section 7.1).
type transmitterMetadata struct {
	issuer, version, jwksURI            string
	configuration, status, verification string
	subjects                            string // default_subjects
	methods, schemes                    []string
}

func readTransmitter(r response) (*transmitterMetadata, error) {
	m := &transmitterMetadata{}
	err := strictjson.Object(r.body, func(name string, v strictjson.Value) error {
		switch name {
		case "issuer":
			m.issuer, _ = v.Text()
		case "spec_version":
			m.version, _ = v.Text()
		case "jwks_uri":
			m.jwksURI, _ = v.Text()
		case "configuration_endpoint":
			m.configuration, _ = v.Text()
		case "status_endpoint":
			m.status, _ = v.Text()
		case "verification_endpoint":
			m.verification, _ = v.Text()
		case "default_subjects":
			m.subjects, _ = v.Text()
		case "delivery_methods_supported":
			m.methods, _ = v.Strings()
		case "authorization_schemes":
			list, _ := v.Elements()
			for _, e := range list {
				if e.IsObject() {
					urn, _ := strictjson.At(e, "spec_urn").Text()
					m.schemes = append(m.schemes, urn)
				}
			}
		}
		return nil
	}, "issuer", "jwks_uri", "configuration_endpoint", "status_endpoint", "verification_endpoint", "critical_subject_members")
	if err == nil && m.issuer == "" {
		err = errors.New("it has no issuer")
	}
	return m, err
}

// signals examines the transmitter that signals are received from. It changes nothing there. The findings come in the order of their
// levels, so that the first one is the verdict.
func (x *examination) signals(ctx context.Context, about *token) {
	begun := len(x.findings)
	cfg := *x.target.Signals
	x.sender = &sender{}
	if cfg.Client != nil {
		x.client = *cfg.Client
	}
	x.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if cfg.Delivery != signals.NoStream {
		if m := x.transmitter(ctx, cfg); m != nil && !cfg.Stream.Unmanaged && x.target.Manages {
			x.stream(ctx, cfg)
		}
	}
	x.sessions(cfg, about)
	severity := map[Level]int{Fail: 0, Warn: 1, OK: 2}
	slices.SortStableFunc(x.findings[begun:], func(a, b Finding) int { return cmp.Compare(severity[a.Level], severity[b.Level]) })
}

// transmitter examines the metadata and the keys. It returns nil if a receiver could not use them.
func (x *examination) transmitter(ctx context.Context, cfg signals.Config) *transmitterMetadata {
	fail := func(f Finding) { f.Level = Fail; x.add(f) }
	m, r := x.transmitterAt(ctx, signals.WellKnown(cfg.Transmitter, cfg.Legacy))
	if m == nil {
		if cfg.Stream.Unmanaged && cfg.JWKSURL != "" {
			x.keysOf(ctx, cfg.JWKSURL) // no metadata is needed
			return nil
		}
		f := Finding{Check: "transmitter", YAML: `transmitter: "https://..."`, Go: `Transmitter: "https://..."`}
		f.Cause, f.Fix = r.trouble()
		if r.err == nil && r.status == http.StatusOK && !r.isPage() {
			_, err := readTransmitter(r)
			f.Cause, f.Fix = fmt.Sprintf("%s is not the metadata of a transmitter: %v", r.url, err), ""
		}
		if r.status == http.StatusNotFound {
			f.Cause = fmt.Sprintf("no metadata at %s: the URL is wrong, or it transmits no signals", r.url)
			f.Fix = "enable the transmitter there; with log-outs alone, use delivery: none and backchannel_logout"
			risc := signals.WellKnown(cfg.Transmitter, signals.Legacy{AllowRISCMetadata: true})
			if old, place := x.transmitterAt(ctx, risc[len(risc)/2:]); old != nil {
				f.Cause = fmt.Sprintf("the metadata is at %s, under the name %s", place.url, riscName)
				f.Fix, f.YAML, f.Go = "", "allow: [risc_metadata]", "Legacy: signals.Legacy{AllowRISCMetadata: true}"
			}
		}
		fail(f)
		return nil
	}
	if m.issuer != cfg.Transmitter { // SSF 1.0, section 7.2.4: identical, or not used
		fail(Finding{Check: "transmitter", Cause: fmt.Sprintf("%q configured, %q in the metadata at %s: %s", cfg.Transmitter, m.issuer, r.url,
			difference(cfg.Transmitter, m.issuer))}.setting("transmitter", "Transmitter", m.issuer))
		return nil
	}
	x.ok("transmitter", "%q is that of the metadata at %s", m.issuer, r.url)
	if m.version != specVersion {
		x.add(Finding{Level: Warn, Check: "version", Cause: fmt.Sprintf("spec_version is %.50q, and the final one is %q: subjects and types of tokens may be those of a draft", m.version, specVersion),
			If: "its events are refused", YAML: "allow: [subject_type, untyped]", Go: "Legacy: signals.Legacy{AllowSubjectType: true, AllowUntyped: true}"})
	}
	x.delivery(cfg, m, r)
	if !cfg.Stream.Unmanaged {
		x.endpoints(cfg, m, r)
	}
	switch {
	case cfg.JWKSURL != "":
		x.keysOf(ctx, cfg.JWKSURL)
	case m.jwksURI == "":
		fail(Finding{Check: "key set", Cause: "the metadata at " + r.url + " has no jwks_uri"}.setting("jwks_url", "JWKSURL", "https://..."))
	default:
		if err := (fetch.Client{InsecureHTTP: cfg.InsecureHTTP}).AllowedBy(cfg.Transmitter, m.jwksURI); err != nil {
			fail(Finding{Check: "key set", Cause: fmt.Sprintf("the metadata at %s names the key set %.200q: %v", r.url, fetch.Bare(m.jwksURI), err),
				YAML: "insecure_http: true", Go: "InsecureHTTP: true"})
			break
		}
		x.keysOf(ctx, m.jwksURI)
	}
	if strings.EqualFold(m.subjects, "NONE") {
		x.add(Finding{Level: Warn, Check: "subjects", Cause: "default_subjects is NONE: the transmitter sends events about users that were added to the stream, and the receiver adds none",
			Fix: "have the transmitter send events about all users"})
	}
	return m
}

// transmitterAt returns the metadata at the first of places that does not respond with 404, as a receiver finds it, or the response
// that shows why there is none.
func (x *examination) transmitterAt(ctx context.Context, places []string) (*transmitterMetadata, response) {
	var first response
	for _, place := range places {
		r := x.get(ctx, place)
		if r.err == nil && r.status == http.StatusNotFound {
			if first.url == "" {
				first = r
			}
			continue
		}
		if r.err == nil && r.status == http.StatusOK && !r.isPage() {
			if m, err := readTransmitter(r); err == nil {
				return m, r
			}
		}
		return nil, r
	}
	return nil, first
}

// delivery compares the delivery with the methods and the schemes of the metadata, which are optional there.
func (x *examination) delivery(cfg signals.Config, m *transmitterMetadata, r response) {
	supports := func(d signals.Delivery) bool { return slices.Contains(m.methods, deliveryMethods[d]) }
	switch {
	case cfg.Delivery == "" && (supports(signals.Poll) || len(m.methods) == 0): // it needs no endpoint
		x.add(Finding{Level: OK, Check: "delivery", Cause: "poll, which needs no endpoint, is possible"}.section(cfg, signals.Poll))
	case cfg.Delivery == "" && supports(signals.Push):
		x.add(Finding{Level: OK, Check: "delivery", Cause: "push is possible, and poll is not"}.section(cfg, signals.Push))
	case cfg.Delivery == "":
		x.add(Finding{Level: Fail, Check: "delivery", Cause: fmt.Sprintf("the transmitter supports %s, and neither push (%s) nor poll (%s)", quoted(m.methods),
			deliveryMethods[signals.Push], deliveryMethods[signals.Poll])})
	case len(m.methods) == 0:
		x.ok("delivery", "%s; the metadata at %s does not state the methods", cfg.Delivery, r.url)
	case supports(cfg.Delivery):
		x.ok("delivery", "%s is one of %s", cfg.Delivery, quoted(m.methods))
	default:
		f := Finding{Level: Fail, Check: "delivery", Cause: fmt.Sprintf("%s (%s) configured, and the transmitter supports %s", cfg.Delivery, deliveryMethods[cfg.Delivery], quoted(m.methods))}
		for _, other := range []signals.Delivery{signals.Poll, signals.Push} {
			if supports(other) {
				f.YAML, f.Go = deliver(other)
			}
		}
		x.add(f)
	}
	if len(m.schemes) > 0 && !slices.Contains(m.schemes, oauthScheme) {
		x.add(Finding{Level: Warn, Check: "authorization", Cause: fmt.Sprintf("the API of the transmitter expects %s, and a receiver sends access tokens (%s)", quoted(m.schemes), oauthScheme),
			If: "an operator has created the stream", YAML: "unmanaged: true, audience: [...]", Go: "Stream: signals.Stream{Unmanaged: true}, Audience: []string{...}"})
	}
}

// deliver returns the lines that set a delivery.
func deliver(d signals.Delivery) (yaml, field string) {
	if d == signals.Push {
		return `delivery: push, endpoint: "https://..."`, `Delivery: signals.Push, Endpoint: "https://..."`
	}
	return "delivery: poll", "Delivery: signals.Poll"
}

// section returns f with the section signals for a transmitter, as a whole.
func (f Finding) section(cfg signals.Config, d signals.Delivery) Finding {
	yaml, field := deliver(d)
	issuer, also := "", ""
	if cfg.Issuer != "" && cfg.Issuer != cfg.Transmitter {
		issuer, also = fmt.Sprintf("issuer: %q, ", cfg.Issuer), fmt.Sprintf("Issuer: %q, ", cfg.Issuer)
	}
	f.YAML = fmt.Sprintf(`signals: {transmitter: %q, %s%s, client_id: "...", client_secret_file: "..."}`, cfg.Transmitter, issuer, yaml)
	f.Go = fmt.Sprintf("signals.Config{Transmitter: %q, %s%s, Credentials: signals.ClientCredentialsGrant(...)}", cfg.Transmitter, also, field)
	return f
}

// endpoints examines the endpoints of the API of streams. Tokens are sent to the origin of the transmitter, and to trusted ones.
func (x *examination) endpoints(cfg signals.Config, m *transmitterMetadata, r response) {
	if m.configuration == "" {
		x.add(Finding{Level: Fail, Check: "stream", Cause: "the metadata at " + r.url + " has no configuration_endpoint, so no stream can be found or created",
			If: "an operator has created one", YAML: "unmanaged: true, audience: [...]", Go: "Stream: signals.Stream{Unmanaged: true}, Audience: []string{...}"})
	}
	if m.configuration != "" && m.verification == "" {
		x.add(Finding{Level: Warn, Check: "stream", Cause: "the metadata at " + r.url + " has no verification_endpoint: a dead stream looks like one without events"})
	}
	var foreign []string
	for _, endpoint := range []string{m.configuration, m.status, m.verification} {
		u, err := url.Parse(endpoint)
		if err != nil || endpoint == "" {
			continue
		}
		trusted := slices.ContainsFunc(append([]string{cfg.Transmitter}, cfg.TrustedOrigins...), func(origin string) bool {
			own, err := url.Parse(origin)
			return err == nil && fetch.SameOrigin(own, u)
		})
		if at := u.Scheme + "://" + u.Host; !trusted && !slices.Contains(foreign, at) {
			foreign = append(foreign, at)
		}
	}
	if len(foreign) > 0 {
		x.add(Finding{Level: Fail, Check: "stream", Cause: fmt.Sprintf("the metadata at %s names endpoints on another origin, to which no token is sent", r.url),
			If: "they belong to the transmitter"}.list("trusted_origins", "TrustedOrigins", append(slices.Clone(cfg.TrustedOrigins), foreign...)))
	}
}

// keysOf examines the keys that sign the events.
func (x *examination) keysOf(ctx context.Context, at string) {
	r := x.get(ctx, at)
	f := Finding{Level: Fail, Check: "key set"}.setting("jwks_url", "JWKSURL", "https://...")
	if r.err != nil || r.status != http.StatusOK || r.isPage() {
		f.Cause, f.Fix = r.trouble()
		x.add(f)
		return
	}
	keys, _, err := keyset.Parse(r.body, keyset.MaxKeys)
	if err != nil {
		f.Cause = fmt.Sprintf("%s is not a usable key set: %v", r.url, err)
		x.add(f)
		return
	}
	accepted := x.target.Signals.Algorithms
	if accepted == nil {
		accepted = jose.DefaultAlgorithms()
	}
	if !slices.ContainsFunc(keys, func(k *jose.Key) bool {
		return slices.ContainsFunc(k.Algorithms(), func(alg string) bool { return slices.Contains(accepted, alg) })
	}) {
		x.add(Finding{Level: Fail, Check: "key set", Cause: fmt.Sprintf("%s has %s, and %s are accepted", r.url, described(keys), strings.Join(accepted, ", ")),
			Go: "Algorithms: []string{...}"})
		return
	}
	x.ok("key set", "%s has %s", r.url, described(keys))
}

// stream examines the stream of the receiver, with its credentials.
func (x *examination) stream(ctx context.Context, cfg signals.Config) {
	receiver, err := signals.New(cfg)
	if err != nil { // it has been checked
		x.add(Finding{Level: Fail, Check: "stream", Cause: err.Error()})
		return
	}
	defer receiver.Close()
	ctx, cancel := context.WithTimeout(ctx, 4*requestTimeout) // a token, the metadata, the stream, its status
	defer cancel()
	st, err := receiver.Examine(ctx)
	switch {
	case err != nil:
		f := Finding{Level: Fail, Check: "stream", Cause: err.Error()}
		switch e, is := errors.AsType[*signals.TokenError](err); {
		case !is:
		case e.NotFound:
			f = f.setting("token_url", "TokenURL", "https://...")
		case e.Code == "invalid_scope":
			f.If, f.YAML, f.Go = "the transmitter has other scopes", "scopes: [...]", "Scope: []string{...}"
		case e.Code != "":
			f.Fix = "the client id or the secret is wrong, or the endpoint expects them in another form"
			f.YAML, f.Go = "auth: basic_raw, or auth: post", "Auth: introspect.RawBasicAuth(id, secret), or introspect.PostAuth(id, secret)"
		}
		x.add(f)
	case st.StreamID == "":
		x.ok("stream", "there is none yet: the receiver creates it when it starts")
	case st.Stream == "paused" || st.Stream == "disabled":
		x.add(Finding{Level: Fail, Check: "stream", Cause: fmt.Sprintf("the transmitter has %s the stream %.100q: no event arrives", st.Stream, st.StreamID),
			Fix: "enable it there"})
	default:
		x.ok("stream", "%.100q is %s", st.StreamID, cmp.Or(st.Stream, "found; its status is unknown"))
	}
	if err != nil || st.StreamID == "" {
		return
	}
	wanted := cfg.Events
	if wanted == nil {
		wanted = signals.DefaultEvents()
	}
	names := func(events []signals.Event) string {
		var all []string
		for _, e := range events {
			all = append(all, string(e[strings.LastIndexByte(string(e), '/')+1:]))
		}
		return strings.Join(all, ", ")
	}
	switch effective := slices.ContainsFunc(wanted, func(e signals.Event) bool { return slices.Contains(st.Delivered, e) }); {
	case !effective:
		x.add(Finding{Level: Fail, Check: "events", Cause: fmt.Sprintf("the stream delivers none of the events that revoke: it delivers %.500q", names(st.Delivered)),
			Fix: "have the transmitter deliver " + names(wanted)})
	case len(st.Missing) > 0:
		x.add(Finding{Level: Warn, Check: "events", Cause: "the stream does not deliver " + names(st.Missing), Fix: "have the transmitter deliver them, or expect no revocation for them"})
	default:
		x.ok("events", "the stream delivers those that revoke: %.500s", names(st.Delivered))
	}
}

// sessions examines whether the tokens of the issuer can be matched with the end of a session.
func (x *examination) sessions(cfg signals.Config, about *token) {
	iss := cmp.Or(cfg.Issuer, cfg.Transmitter)
	switch {
	case about == nil:
		x.ok("sessions", "not examined: pass an access token of a user (--token) to learn whether it has a sid, by which the end of its session revokes it")
	case !about.isJWT():
		x.ok("sessions", "not examined: the token is opaque; its sid is in the response of the introspection endpoint, if anywhere")
	case about.text("iss") != iss && !slices.Contains(cfg.IssuerAliases, about.text("iss")):
		x.ok("sessions", "not examined: the token is of the issuer %.200q, and the signals are about tokens of %q", about.text("iss"), iss)
	case about.text("sid") != "":
		x.ok("sessions", "the token has the sid %.100q", about.text("sid"))
	case about.text("sub") == "" || about.text("sub") == cmp.Or(about.text("client_id"), about.text("azp")):
		x.ok("sessions", "the token has no sid, and is that of a client, which has no session")
	case cfg.Widen:
		x.ok("sessions", "the token has no sid: the end of a session revokes all tokens of its user, as configured")
	default:
		x.add(Finding{Level: Warn, Check: "sessions", Cause: "the token has no sid, so the end of a session revokes nothing of it",
			Fix: "have the issuer put the sid into access tokens", If: "all tokens of a user may end with one session", YAML: "widen: true", Go: "Widen: true"})
	}
}
