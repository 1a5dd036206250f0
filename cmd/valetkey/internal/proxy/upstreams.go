package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey/routes"
)

// Default timeouts of connections to an upstream.
const (
	connectTimeout  = 5 * time.Second
	tlsTimeout      = 5 * time.Second
	responseTimeout = time.Minute
	upstreamIdle    = 90 * time.Second
)

type upstreamSection struct {
	URL             upstream `yaml:"url,required"`
	Prefix          string   `yaml:"prefix,filled"`
	Host            string   `yaml:"host,filled"`
	StripPrefix     bool     `yaml:"strip_prefix"`
	CAFile          string   `yaml:"ca_file,filled"`
	CertFile        string   `yaml:"cert_file,filled"`
	KeyFile         string   `yaml:"key_file,filled"`
	ConnectTimeout  positive `yaml:"connect_timeout"`
	TLSTimeout      positive `yaml:"tls_timeout"`
	ResponseTimeout duration `yaml:"response_header_timeout"`
	IdleTimeout     positive `yaml:"idle_timeout"`
}

// An upstream is the URL of a server. The scheme h2c means HTTP/2 without TLS.
type upstream struct {
	*url.URL
	h2c bool // the scheme of URL is then http
}

func (u *upstream) UnmarshalText(text []byte) (err error) {
	u.URL, err = url.Parse(string(text))
	switch {
	case len(text) == 0:
		return errors.New("is empty")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c" || u.Host == "":
		return errors.New("is not an http, https or h2c URL") // do not print it: it may contain a password
	case u.User != nil || strings.ContainsAny(string(text), "?#"):
		return errors.New("has a user, a query or a fragment")
	case u.Port() != "":
		if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil { // digits only, as url.Parse has checked
			return errors.New("has a port above 65535")
		}
	}
	if u.h2c = u.Scheme == "h2c"; u.h2c {
		u.Scheme = "http"
	}
	return nil
}

// A target is an upstream that receives the requests of some rows of the table. It is chosen when the configuration is read, by the
// pattern of a row, so that a request never goes to an upstream that its row does not belong to.
type target struct {
	at        string // path in the file
	to        *url.URL
	host      string   // in lower case; "": any
	prefix    []string // segments that begin the paths of the rows, decoded; empty: all paths
	strip     bool     // removes the prefix from paths
	h2c       bool
	transport *transport
	patterns  int // rows that lead here
}

// path returns the prefix as a path without a slash at the end.
func (t *target) path() string {
	var b strings.Builder
	for _, s := range t.prefix {
		b.WriteString("/" + s)
	}
	return b.String()
}

// A place is the part of a pattern of net/http that selects an upstream.
type place struct {
	method, host string
	segments     []string // of the path up to the first wildcard, decoded
	all          []string // all segments; "": a wildcard
	subtree      bool     // the pattern also matches all longer paths
}

// placeOf returns the place of a valid pattern.
func placeOf(pattern string) (p place) {
	rest := pattern
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		p.method, rest = pattern[:i], strings.TrimLeft(pattern[i:], " \t")
	}
	host, rest, _ := strings.Cut(rest, "/")
	p.host = strings.ToLower(host)
	literal := true
	for text := range strings.SplitSeq(rest, "/") {
		switch wild := strings.HasPrefix(text, "{"); {
		case text == "" || wild && strings.HasSuffix(text, "...}"):
			p.subtree = true
			return p
		case text == "{$}":
			return p
		case wild:
			p.all, literal = append(p.all, ""), false
		default:
			if decoded, err := url.PathUnescape(text); err == nil {
				text = decoded // as net/http does
			}
			if p.all = append(p.all, text); literal {
				p.segments = append(p.segments, text)
			}
		}
	}
	return p
}

// exactly reports whether the pattern matches no other path than the one of prefix, without a slash at the end.
func (p place) exactly(prefix []string) bool {
	return !p.subtree && len(p.all) == len(p.segments) && slices.Equal(p.segments, prefix)
}

// covers reports whether the pattern matches every path below prefix.
func (p place) covers(prefix []string) bool {
	if !p.subtree || len(p.all) > len(prefix) {
		return false
	}
	for i, s := range p.all {
		if s != "" && s != prefix[i] {
			return false
		}
	}
	return true
}

// targets returns the upstream of each row of the table by its pattern. Every row must have one, and every upstream a row.
func (f *file) targets(table routes.Table) map[string]*target {
	all := f.upstreams()
	byRow := map[string]*target{}
	if len(all) == 0 || table == nil || f.Wrong("upstreams") || f.Wrong("routes") || f.Wrong("openapi") {
		return byRow // the mistakes have been reported
	}
	patterns := slices.Sorted(maps.Keys(table))
	for _, pattern := range patterns {
		at := "openapi"
		if f.Given("routes") {
			at = fmt.Sprintf("routes[%q]", pattern)
		}
		p := placeOf(pattern)
		to := choose(all, p)
		switch {
		case to == nil:
			f.Mistake(at, "%q leads to no upstream: add one without host whose prefix begins its path, or one without prefix", pattern)
			continue
		case to.strip && p.exactly(to.prefix) && strings.Trim(to.to.Path, "/") == "":
			f.Mistake(at, "%q has no path without the prefix of %s, which has strip_prefix: end it in /{$}", pattern, to.at)
		}
		byRow[pattern] = to
		to.patterns++
	}
	for _, to := range all {
		if to.patterns == 0 {
			f.Mistake(to.at, "no row of the routes leads to it: a row belongs to the upstream with its host and the longest prefix of its path before the first wildcard")
			continue
		}
		for _, pattern := range patterns {
			wide := placeOf(pattern)
			if byRow[pattern] == nil || byRow[pattern] == to || !wide.covers(to.prefix) || wide.host != to.host && wide.host != "" {
				continue
			}
			if !slices.ContainsFunc(patterns, func(row string) bool {
				p := placeOf(row)
				return byRow[row] == to && p.host == to.host && (p.method == "" || p.method == wide.method) && p.covers(to.prefix)
			}) {
				below := strings.TrimPrefix(wide.method+" ", " ") + to.host + to.path() + "/"
				f.Mistake(to.at, "the row %q, which leads to %s, serves other requests for this upstream: add the row %q", pattern, byRow[pattern].at, below)
			}
		}
	}
	return byRow
}

// choose returns the target of a row: of those with its host, or else of those without a host, the one with the longest prefix.
func choose(all []*target, p place) (best *target) {
	for _, t := range all {
		if t.host != "" && t.host != p.host || len(t.prefix) > len(p.segments) || !slices.Equal(t.prefix, p.segments[:len(t.prefix)]) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(len(t.host), len(best.host)), cmp.Compare(len(t.prefix), len(best.prefix))) > 0 {
			best = t
		}
	}
	return best
}

// upstreams returns the targets in the order of the file.
func (f *file) upstreams() (all []*target) {
	switch one, several := f.Given("upstream"), f.Given("upstreams"); {
	case one && several:
		f.Mistake("upstreams", "cannot be combined with upstream")
		return nil
	case one:
		if f.Upstream.URL == nil {
			return nil
		}
		return []*target{{at: "upstream", to: f.Upstream.URL, h2c: f.Upstream.h2c, transport: f.transport("upstream", upstreamSection{URL: f.Upstream})}}
	case !several:
		f.Mistake("upstream", "required, or upstreams")
		return nil
	}
	for i, s := range f.Upstreams {
		at := fmt.Sprintf("upstreams[%d]", i)
		t := &target{at: at, to: s.URL.URL, host: strings.ToLower(s.Host), strip: s.StripPrefix, h2c: s.URL.h2c, transport: f.transport(at, s)}
		if strings.ContainsFunc(s.Host, notInName) {
			f.Mistake(at+".host", "%q is not a host name without a port", s.Host)
		}
		switch prefix := s.Prefix; {
		case prefix == "":
			if s.StripPrefix {
				f.Mistake(at+".strip_prefix", "requires prefix")
			}
		case !strings.HasPrefix(prefix, "/") || path.Clean(prefix) != prefix || prefix == "/" || strings.ContainsFunc(prefix, notInPrefix):
			f.Mistake(at+".prefix", "%q is not a path such as /api: it must begin with a slash and not end with one, and have no wildcards and no escapes", prefix)
		default:
			t.prefix = strings.Split(prefix[1:], "/")
		}
		if f.Wrong(at + ".prefix") {
			continue
		}
		if same := slices.IndexFunc(all, func(o *target) bool { return o.host == t.host && slices.Equal(o.prefix, t.prefix) }); same >= 0 {
			f.Mistake(at, "%s has the same host and prefix", all[same].at)
		}
		all = append(all, t)
	}
	return all
}

// notInName reports whether c cannot be in the name of a host.
func notInName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c)
}

// notInPrefix reports whether c is refused in a prefix: everything that the parser of a URL, a pattern or a server might not read as
// a plain character of a segment (RFC 3986, section 3.3).
func notInPrefix(c rune) bool { return notInName(c) && c != '/' && c != '~' }

// A transport is the client side for an upstream. Calls of gRPC have connections without a timeout for the headers of the response:
// a service sends them with its first message, and a call has its own deadline.
type transport struct{ ordinary, calls *http.Transport }

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if isGRPC(r) {
		return t.calls.RoundTrip(r)
	}
	return t.ordinary.RoundTrip(r)
}

// CloseIdleConnections closes the connections that no request uses.
func (t *transport) CloseIdleConnections() {
	t.ordinary.CloseIdleConnections()
	t.calls.CloseIdleConnections()
}

// transport returns the client side for an upstream.
func (f *file) transport(at string, s upstreamSection) *transport {
	t := &transport{ordinary: f.ordinary(at, s)}
	t.calls = t.ordinary.Clone()
	t.calls.ResponseHeaderTimeout = 0
	return t
}

func (f *file) ordinary(at string, s upstreamSection) *http.Transport {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: cmp.Or(time.Duration(s.ConnectTimeout), connectTimeout)}).DialContext,
		TLSHandshakeTimeout:   cmp.Or(time.Duration(s.TLSTimeout), tlsTimeout),
		ResponseHeaderTimeout: max(0, cmp.Or(time.Duration(s.ResponseTimeout), responseTimeout)),
		IdleConnTimeout:       cmp.Or(time.Duration(s.IdleTimeout), upstreamIdle),
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   100,
		DisableCompression:    true, // pass responses unchanged
		Protocols:             new(http.Protocols),
	}
	if s.URL.h2c {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(true)
	}
	if s.CAFile+s.CertFile+s.KeyFile == "" && s.TLSTimeout == 0 {
		return t
	}
	if s.URL.URL != nil && s.URL.Scheme != "https" {
		f.Mistake(at, "ca_file, cert_file, key_file and tls_timeout have no effect without an https URL")
		return t
	}
	t.TLSClientConfig = f.clientTLS(at+".", s.CAFile, s.CertFile, s.KeyFile)
	return t
}

// stripped sets the path of u without its first n segments. The result begins with one slash, as the table refuses empty segments.
// Segments are those of the path as sent, by which the table has matched it, so an encoded slash is not a boundary.
func stripped(u *url.URL, n int) {
	rest := u.EscapedPath()
	for range n {
		_, rest, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	}
	u.RawPath = "/" + rest
	u.Path, _ = url.PathUnescape(u.RawPath) // cannot fail: the whole path was decoded
}

// notReplayable makes sure that the transport sends an unsafe request at most once. A transport sends a request without a body again
// if a kept connection breaks before a response: one with a safe method, but also any other with an Idempotency-Key, which it finds
// under the canonical names only. Names are not case-sensitive for upstreams. The upstream may have acted on the first request, and
// not every upstream that receives such a key honors it. Over HTTP/2, a transport sends requests without a body again after several
// errors; an empty body prevents that. Where TLS negotiates HTTP/2, which is not known yet here, the transport may repeat a request
// that the upstream has reset because it did not process it (RFC 9113, section 8.7) or because it was malformed.
//
// A request of which no byte was written goes to another connection.
func notReplayable(r *http.Request, h2c bool) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v, ok := r.Header[name]; ok {
			delete(r.Header, name)
			r.Header[strings.ToLower(name)] = v
		}
	}
	if h2c && r.Body == nil {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
}
