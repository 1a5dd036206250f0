package routes

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// This file asks net/http which requests a pattern matches, and which of several patterns wins. It does so with probes: requests
// in which every wildcard has a value that no pattern contains. The result for a probe applies to all requests that the pattern
// matches, except for those that another pattern matches literally.

// A lookup finds the row of a table that serves a request.
type lookup struct {
	mux   *http.ServeMux
	names names
}

// rowName marks a row in a lookup.
type rowName string

func (rowName) ServeHTTP(http.ResponseWriter, *http.Request) {}

// newLookup returns a lookup for the rows. The patterns in others can be probed too. errs maps each invalid row to its error.
func newLookup(rows []string, others ...string) (l lookup, errs map[string]error) {
	l = lookup{mux: http.NewServeMux()}
	errs = map[string]error{}
	for _, pattern := range rows {
		if err := register(l.mux, pattern, rowName(pattern)); err != nil {
			errs[pattern] = err
		}
	}
	l.names = newNames(slices.Concat(rows, others))
	return l, errs
}

// row returns the pattern of the row that serves p; "" if none does.
func (l lookup) row(p probe) string {
	r := p.request()
	if ambiguous(r.URL, false) {
		return ""
	}
	h, _ := l.mux.Handler(withPlainHost(r))
	pattern, _ := h.(rowName) // "" for a redirect or an error response of net/http
	return string(pattern)
}

// A probe holds the parts of a request that matter for matching.
type probe struct {
	method, host string
	segments     []string // decoded
	slash        bool     // there is a slash after the segments
}

func (p probe) request() *http.Request {
	var decoded, sent strings.Builder
	for _, s := range p.segments {
		decoded.WriteString("/" + s)
		sent.WriteString("/" + url.PathEscape(s))
	}
	if p.slash {
		decoded.WriteByte('/')
		sent.WriteByte('/')
	}
	return &http.Request{Method: p.method, Host: p.host, URL: &url.URL{Path: decoded.String(), RawPath: sent.String()}}
}

func (p probe) String() string {
	r := p.request()
	return r.Method + " " + r.URL.EscapedPath() + " of host " + r.Host
}

// text returns p without its host if that is anyHost.
func (p probe) text(anyHost string) string {
	if p.host == anyHost {
		return strings.TrimSuffix(p.String(), " of host "+anyHost)
	}
	return p.String()
}

// A shape is a parsed pattern that net/http has accepted.
type shape struct {
	method, host string
	segments     []segment
	end          ending
}

type segment struct {
	literal string // decoded
	wild    bool
}

type ending int

const (
	atSegment ending = iota
	atSlash          // {$}
	anywhere         // a trailing slash, or {name...}
)

func shapeOf(pattern string) (s shape) {
	rest := pattern
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		s.method, rest = pattern[:i], strings.TrimLeft(pattern[i:], " \t")
	}
	host, path, _ := strings.Cut(rest, "/")
	s.host = host
	all := strings.Split(path, "/")
	for i, text := range all {
		wild := strings.HasPrefix(text, "{")
		switch last := i == len(all)-1; {
		case last && text == "{$}":
			s.end = atSlash
		case last && (text == "" || wild && strings.HasSuffix(text, "...}")):
			s.end = anywhere
		case wild:
			s.segments = append(s.segments, segment{wild: true})
		default:
			literal, err := url.PathUnescape(text)
			if err != nil {
				literal = text // as net/http does
			}
			s.segments = append(s.segments, segment{literal: literal})
		}
	}
	return s
}

// everything reports whether s matches every path.
func (s shape) everything() bool { return len(s.segments) == 0 && s.end == anywhere }

// names holds a segment, a method and a host that do not occur in a set of patterns.
type names struct {
	segment, method, host string
	depth                 int // more segments than any pattern has
}

func newNames(patterns []string) names {
	used := map[string]bool{}
	n := names{segment: "x", method: "X", host: "other.example"}
	for _, pattern := range patterns {
		if !strings.Contains(pattern, "/") { // net/http has reported it as invalid
			continue
		}
		s := shapeOf(pattern)
		used[s.method], used[s.host] = true, true
		for _, segment := range s.segments {
			used[segment.literal] = true
		}
		n.depth = max(n.depth, len(s.segments)+1)
	}
	for used[n.segment] {
		n.segment += "x"
	}
	for used[n.host] {
		n.host = "an" + n.host
	}
	for used[n.method] {
		n.method += "X"
	}
	for _, known := range []string{"DELETE", "PATCH", "PUT", "POST", "OPTIONS"} { // a real method reads better in errors
		if !used[known] {
			n.method = known
			break
		}
	}
	return n
}

// probes returns requests that s matches, one for each number of segments that can affect the result.
func (n names) probes(s shape) []probe {
	p := probe{method: s.method, host: s.host, slash: s.end != atSegment}
	if p.method == "" {
		p.method = n.method
	}
	if p.host == "" {
		p.host = n.host
	}
	for _, segment := range s.segments {
		if segment.wild {
			segment.literal = n.segment
		}
		p.segments = append(p.segments, segment.literal)
	}
	all := []probe{p}
	if s.end == anywhere {
		for len(p.segments) < n.depth {
			p = n.longer(p)
			all = append(all, p, toggled(p))
		}
	}
	return all
}

// neighbours returns requests that differ in one respect from p, which s matches.
func (n names) neighbours(s shape, p probe) []probe {
	all := []probe{toggled(p), n.longer(p)}
	if s.method != "" {
		other := p
		other.method = n.method
		all = append(all, other)
	}
	if s.host != "" {
		other := p
		other.host = n.host
		all = append(all, other)
	}
	return all
}

// longer returns p with one more segment.
func (n names) longer(p probe) probe {
	p.segments, p.slash = append(slices.Clip(p.segments), n.segment), false
	return p
}

// toggled returns p with a trailing slash if it had none, and without it otherwise.
func toggled(p probe) probe {
	p.slash = !p.slash || len(p.segments) == 0
	return p
}
