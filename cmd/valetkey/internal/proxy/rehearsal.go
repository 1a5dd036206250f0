package proxy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/recorder"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// A Request describes a request for [Rehearse].
type Request struct {
	Token       string
	Method      string               // empty: GET
	URL         *url.URL             // without a host: a URL of the proxy; nil: any valid token is sufficient unless Need is set
	Need        valetkey.Requirement // nil: the requirement of the route, or none with a nil URL
	Proof       string               // DPoP proof; empty: the token is sent as a bearer token
	Certificate *x509.Certificate    // of the client; nil: none
	At          time.Time            // zero: now
}

// An Outcome is the result of a rehearsed request.
type Outcome struct {
	Request string // method and URL
	Row     string // pattern of the matching route; empty: none, or Need replaced the routes
	Need    string // requirement of the route, or the one that replaced the routes; empty: none applies
	Checks  []Check
	Passed  bool            // it would go to the upstream
	Status  int             // 200 if Passed, otherwise the status of the response
	Header  http.Header     // of the response
	Refusal *valetkey.Error // nil: not refused
	Failure error           // why the result could not be determined; nil: it was
}

// A Verdict is the result of a check.
type Verdict string

// Verdicts of checks.
const (
	Passed  Verdict = "ok"
	Failed  Verdict = "NO"
	Skipped Verdict = "-" // because an earlier check failed
)

// A Check is the result of one condition that a request must meet.
type Check struct {
	Name    string  `json:"check"`
	Section string  `json:"section"`
	Verdict Verdict `json:"verdict"`
}

// Rehearse sends a request through the proxy that a file configures and returns the result. The proxy is the same as in
// production except for its upstream and the data in Redis: it does not check revocations or whether a proof was used before. It
// fetches keys, status lists and introspection responses from the issuers. The error joins all mistakes in the file.
func Rehearse(ctx context.Context, file string, in Request, drivers driver.Set, log *slog.Logger) (*Outcome, error) {
	re := &rehearsal{need: in.Need}
	if in.URL == nil && in.Need == nil {
		re.need = valetkey.AnyToken
	}
	b := build{log: log, drivers: drivers, rehearsal: re}
	if !in.At.IsZero() {
		b.now = func() time.Time { return in.At }
	}
	p, err := load(file, b)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	p.guard.Readiness().ServeHTTP(&recorder.Response{}, (&http.Request{}).WithContext(ctx)) // unlike a request, a command can wait for keys

	r, err := re.request(ctx, in)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Request: r.Method + " " + re.url(in.URL).String()}
	var w recorder.Response
	p.ServeHTTP(&w, r)
	need, known := re.routes[r.Pattern]
	if known {
		out.Need, re.needs = needText(need), valetkey.Describe(need)
	}
	if known && re.need == nil {
		out.Row = r.Pattern
	}
	out.Passed, out.Status, out.Header = re.passed, w.Status, w.Header()
	if w.Status == http.StatusServiceUnavailable {
		out.Failure = cmp.Or(re.err, errors.New("the response is 503"))
		return out, nil
	}
	if len(w.Header()["Www-Authenticate"]) > 0 {
		out.Refusal = re.refusal()
	}
	if need != valetkey.Public && (re.passed || out.Refusal != nil) {
		out.Checks = re.verdicts(in, out.Refusal)
	}
	return out, nil
}

// A rehearsal replaces the upstream of a proxy and observes its guard.
type rehearsal struct {
	shared *shared // closed: Redis is not used

	need valetkey.Requirement // for all requests; nil: that of the routes

	// Settings from the file.
	origin      string // of the proxy
	certificate string // header with the client certificate; "": none
	format      string // of the certificate in the header
	tokenHeader string // header that replaces Authorization; "": none
	proxies     middleware.Proxies
	routes      routes.Table
	made        []made

	needs  valetkey.Needs // of the route
	passed bool
	err    error           // of the decision of the guard
	told   *valetkey.Error // refusal for which a response was written; nil: none
}

func (re *rehearsal) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	re.passed = true
	w.WriteHeader(http.StatusOK)
}

// table returns the routes for the request.
func (re *rehearsal) table(table routes.Table) routes.Table {
	if re.need != nil {
		table = routes.Table{"/": re.need}
	}
	re.routes = table
	return table
}

// Observe records the full reason of a refusal, which the guard does not send to clients.
func (re *rehearsal) Observe(_ context.Context, e valetkey.Event) {
	if e.Kind == valetkey.RequestDecided {
		re.err = e.Err
	}
}

// body is a middleware.Config.ErrorBody. It records refusals before the decision of the guard, such as those of the path, which
// no observer sees.
func (re *rehearsal) body(ctx context.Context, status int, e *valetkey.Error) (contentType string, body []byte) {
	re.told = e
	return middleware.ProblemJSON(ctx, status, e)
}

// url returns the URL of a request.
func (re *rehearsal) url(given *url.URL) *url.URL {
	at, _ := url.Parse(re.origin)
	if given == nil {
		return at
	}
	if given.Host != "" {
		return given
	}
	there := *given
	there.Scheme, there.Host = at.Scheme, at.Host
	return &there
}

// request returns the request as a server receives it.
func (re *rehearsal) request(ctx context.Context, in Request) (*http.Request, error) {
	u := re.url(in.URL)
	r, err := http.NewRequestWithContext(ctx, cmp.Or(in.Method, http.MethodGet), u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.RequestURI, r.Host = u.RequestURI(), u.Host
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		return nil, err
	}
	r.RemoteAddr = "192.0.2.1:1" // RFC 5737: an address for documentation
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{}
	}
	if re.tokenHeader != "" {
		r.Header.Set(re.tokenHeader, in.Token)
	} else {
		r.Header.Set("Authorization", "Bearer "+in.Token)
	}
	if in.Proof != "" {
		r.Header.Set("Authorization", "DPoP "+in.Token)
		r.Header.Set("DPoP", in.Proof)
	}
	switch {
	case in.Certificate == nil:
	case re.certificate == "":
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{in.Certificate}}
	case re.format == "rfc9440":
		r.Header.Set(re.certificate, ":"+base64.StdEncoding.EncodeToString(in.Certificate.Raw)+":")
	case re.format == "der":
		r.Header.Set(re.certificate, base64.StdEncoding.EncodeToString(in.Certificate.Raw))
	case re.format == "xfcc":
		r.Header.Set(re.certificate, fmt.Sprintf("Hash=%x", sha256.Sum256(in.Certificate.Raw)))
	default:
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: in.Certificate.Raw})
		r.Header.Set(re.certificate, url.PathEscape(string(block)))
	}
	switch re.proxies.Forwarded {
	case middleware.Forwarded:
		r.Header.Set("Forwarded", fmt.Sprintf("for=192.0.2.1;proto=%s;host=%q", u.Scheme, u.Host))
	case middleware.XForwarded:
		r.Header.Set("X-Forwarded-Proto", u.Scheme)
		r.Header.Set("X-Forwarded-Host", u.Host)
	}
	if (re.certificate != "" || re.proxies.Forwarded != "") && len(re.proxies.Trusted) > 0 { // the headers count only from a trusted proxy
		r.RemoteAddr = net.JoinHostPort(re.proxies.Trusted[0].Addr().String(), "1")
	}
	return r, nil
}

// refusal returns the refusal of the guard with its cause, or else the refusal that was sent to the client.
func (re *rehearsal) refusal() *valetkey.Error {
	if refusal, ok := errors.AsType[*valetkey.Error](re.err); ok {
		return refusal
	}
	return re.told
}

// verdicts returns the checks of a request, given its refusal or nil.
func (re *rehearsal) verdicts(in Request, refusal *valetkey.Error) []Check {
	var reason valetkey.Reason
	if refusal != nil {
		reason = refusal.Reason
	}
	var all []Check
	verdict := Passed
	for _, c := range re.checks(in, reason) {
		if verdict == Failed {
			verdict = Skipped
		}
		if verdict == Passed && c.refuses(reason) {
			verdict = Failed
		}
		all = append(all, Check{c.name, c.section, verdict})
	}
	return all
}

// checks returns the checks that apply to a request like this one.
func (re *rehearsal) checks(in Request, reason valetkey.Reason) []check {
	of, bound := re.verifiedBy(in.Token)
	refused := func(c check) bool { return c.refuses(reason) }
	all := slices.Concat(pathChecks, of, schemeChecks)
	if bound.CertificateThumbprint != "" || slices.ContainsFunc(certificateChecks, refused) {
		all = append(all, certificateChecks...)
	}
	if in.Proof != "" || slices.ContainsFunc(proofChecks, refused) {
		all = append(all, proofChecks...)
	}
	if len(re.needs.DetailTypes) > 0 {
		all = append(all, detailChecks...)
	}
	if re.needs.StepUp != nil {
		all = append(all, loginChecks...)
	}
	return append(all, routeChecks...)
}

// accepts reports whether m has the tokens with an iss; "": none.
func (m made) accepts(iss string) bool {
	return issuer.HasIssuer(m.keys, iss) || slices.Contains(m.keys.IssuerAliases, iss) || iss == "" && m.keys.Profile.AllowMissingIssuer
}

// verifiedBy returns the checks of the verifier that is responsible for a token, and the unverified binding of the token.
func (re *rehearsal) verifiedBy(raw string) ([]check, valetkey.Binding) {
	var (
		iss   string
		bound valetkey.Binding
	)
	c, err := jose.ParseWith(raw, jose.Options{Limit: authheader.MaxTokenLimit, AllowPadding: true})
	isJWT := !errors.Is(err, jose.ErrMalformed)
	if err == nil {
		_ = strictjson.Object(c.Payload, func(name string, v strictjson.Value) error { // an error means that the token is refused as malformed
			switch name {
			case "iss":
				iss, _ = v.Text()
			case "cnf":
				bound, _ = tokenclaims.Binding(v)
			}
			return nil
		})
	}
	for _, m := range re.made { // verifiers with keys first, in the order of the proxy
		if m.keys != nil && isJWT && m.accepts(iss) {
			if m.status != nil {
				return slices.Concat(jwtChecks, statusChecks), bound
			}
			return jwtChecks, bound
		}
	}
	for _, m := range re.made {
		if m.keys == nil && (!isJWT || slices.Contains(m.asks.JWTIssuers, iss) || slices.Contains(m.asks.JWTIssuers, introspect.AnyIssuer)) {
			if m.ruled {
				return slices.Concat(askedChecks, ruleChecks), bound
			}
			return askedChecks, bound
		}
	}
	if isJWT {
		return jwtChecks, bound
	}
	noJWT := jwtChecks[0]
	noJWT.refusals = append(slices.Clip(noJWT.refusals), valetkey.ReasonUntrustedIssuer) // the reason that a combination of verifiers gives
	return slices.Concat([]check{noJWT}, jwtChecks[1:]), bound
}
