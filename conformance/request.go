package conformance

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/authheader"
)

// request returns the bytes of a step's request, and its method. The token and the proof are made anew.
func (b *bench) request(s Step) (raw []byte, method string, err error) {
	q := s.request()
	b.token, b.proof = "", ""
	b.route, b.method = cmpOr(q.Route, routeAny), cmpOr(q.Method, "GET")
	if _, ok := b.server.routes[b.route]; !ok {
		return nil, "", fmt.Errorf("the target has no route %q", b.route)
	}
	if s.Token != nil {
		if b.token, err = b.mint(s.Token, false); err != nil {
			return nil, "", fmt.Errorf("token: %w", err)
		}
	}
	if q.Proof != nil {
		if b.proof, err = b.mint(q.Proof, true); err != nil {
			return nil, "", fmt.Errorf("proof: %w", err)
		}
	}
	if q.Raw != "" {
		return []byte(b.expand(q.Raw)), b.method, nil
	}

	lines := []string{b.expand(b.method + " " + cmpOr(q.Target, "{path}") + " HTTP/1.1")}
	if !hasField(q.Header, "Host") {
		lines = append(lines, "Host: "+b.server.host)
	}
	for _, value := range b.authorization(s) {
		lines = append(lines, "Authorization: "+value)
	}
	if b.proof != "" && !hasField(q.Header, "DPoP") {
		lines = append(lines, "DPoP: "+b.proof)
	}
	for _, line := range q.Header {
		lines = append(lines, b.expand(line))
	}
	body := b.expand(q.Body)
	if body != "" && !hasField(q.Header, "Content-Length") && !hasField(q.Header, "Transfer-Encoding") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	if !hasField(q.Header, "Connection") {
		lines = append(lines, "Connection: close")
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body), b.method, nil
}

// request returns the request of the step with its default.
func (s Step) request() Request {
	if s.Request == nil {
		return Request{}
	}
	return *s.Request
}

// authorization returns the values of the Authorization lines.
func (b *bench) authorization(s Step) []string {
	q := s.request()
	switch {
	case q.Anonymous:
		return nil
	case q.Authorization != nil:
		values := make([]string, len(q.Authorization))
		for i, value := range q.Authorization {
			values[i] = b.expand(value)
		}
		return values
	case s.Token == nil:
		return nil
	case q.Proof != nil:
		return []string{authheader.DPoP + " " + b.token}
	}
	return []string{authheader.Bearer + " " + b.token}
}

// scheme returns that of the step's token.
func (b *bench) scheme(s Step) string {
	for _, value := range b.authorization(s) {
		if word, _, _ := strings.Cut(value, " "); strings.EqualFold(word, authheader.DPoP) {
			return authheader.DPoP
		}
	}
	return authheader.Bearer
}

func (b *bench) certificate(s Step) (*tls.Certificate, error) {
	if name := s.request().Certificate; name != "" {
		return findCertificate(name)
	}
	return nil, nil
}

// hasField reports whether one of the lines is of the header with this name.
func hasField(lines []string, name string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		field, _, ok := strings.Cut(line, ":")
		return ok && strings.EqualFold(strings.TrimSpace(field), name)
	})
}
