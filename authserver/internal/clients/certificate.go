package clients

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tlsClientAuth authenticates a client by a certificate of an authority that the server trusts (RFC 8705, section 2.1).
const tlsClientAuth = "tls_client_auth"

// A subject is one of the members of RFC 8705, section 2.1.2 that name the subject of a client's certificate.
type subject struct {
	member, value string
	valid         func(value string) error
	matches       func(value string, c *x509.Certificate) bool
}

// subjects returns those that the client has.
func subjects(c *Client) []subject {
	all := []subject{
		{"tls_client_auth_subject_dn", c.TLSSubjectDN, validDN, hasDN},
		{"tls_client_auth_san_dns", c.TLSSANDNS, validDNS, func(v string, c *x509.Certificate) bool {
			return slices.ContainsFunc(c.DNSNames, func(name string) bool { return strings.EqualFold(name, v) })
		}},
		{"tls_client_auth_san_uri", c.TLSSANURI, validURI, func(v string, c *x509.Certificate) bool {
			for _, u := range c.URIs {
				if u.String() == v { // as a string, as all identifiers
					return true
				}
			}
			return false
		}},
		{"tls_client_auth_san_ip", c.TLSSANIP, validIP, func(v string, c *x509.Certificate) bool {
			want, err := netip.ParseAddr(v)
			return err == nil && slices.ContainsFunc(c.IPAddresses, func(ip net.IP) bool {
				a, ok := netip.AddrFromSlice(ip)
				return ok && a.Unmap() == want.Unmap()
			})
		}},
		{"tls_client_auth_san_email", c.TLSSANEmail, validEmail, func(v string, c *x509.Certificate) bool {
			return slices.Contains(c.EmailAddresses, v)
		}},
	}
	return slices.DeleteFunc(all, func(s subject) bool { return s.value == "" })
}

// HasSubject reports whether a certificate, which the caller has verified, is of the client: its subject is that of the client's
// metadata.
func HasSubject(c *Client, certificate *x509.Certificate) bool {
	all := subjects(c)
	return len(all) == 1 && all[0].matches(all[0].value, certificate)
}

// validateSubject checks the members of RFC 8705, section 2.1.2.
func validateSubject(c *Client, refuse func(code, member, why string)) {
	all := subjects(c)
	switch {
	case c.AuthMethod != tlsClientAuth && len(all) > 0:
		refuse(InvalidMetadata, all[0].member, "is only for the authentication method "+tlsClientAuth)
	case c.AuthMethod == tlsClientAuth && len(all) == 0:
		refuse(InvalidMetadata, "tls_client_auth_subject_dn", "or one of the other names of a subject is required by the authentication method")
	case len(all) > 1: // "MUST use exactly one of the below metadata parameters"
		refuse(InvalidMetadata, all[1].member, "cannot be combined with "+all[0].member)
	}
	for _, s := range all {
		if len(s.value) > maxURI {
			refuse(InvalidMetadata, s.member, "is too long")
		} else if err := s.valid(s.value); err != nil {
			refuse(InvalidMetadata, s.member, err.Error())
		}
	}
}

func validDNS(v string) error {
	if strings.Contains(v, "*") || strings.Trim(strings.ToLower(v), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return errors.New("is not a DNS name without a wildcard")
	}
	return nil
}

func validURI(v string) error {
	_, err := webURI(v)
	return err
}

func validIP(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || a.Zone() != "" {
		return errors.New("is not an IP address")
	}
	return nil
}

func validEmail(v string) error {
	if local, host, ok := strings.Cut(v, "@"); !ok || local == "" || host == "" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > 0x7e }) {
		return errors.New("is not an email address")
	}
	return nil
}

func validDN(v string) error {
	_, err := parseDN(v)
	return err
}

// hasDN reports whether the certificate has the distinguished name. Names are compared attribute by attribute, regardless of how
// their string is written; values must be equal, including their case.
func hasDN(v string, c *x509.Certificate) bool {
	want, err := parseDN(v)
	if err != nil {
		return false
	}
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &sequence); err != nil || len(rest) > 0 || len(sequence) != len(want) {
		return false
	}
	for i, set := range sequence {
		var has []attribute
		for _, a := range set {
			value, ok := a.Value.(string)
			if !ok {
				return false
			}
			has = append(has, attribute{a.Type.String(), value})
		}
		slices.SortFunc(has, attribute.compare)
		if !slices.Equal(has, want[len(want)-1-i]) { // RFC 4514, section 2.1: a string begins with the last one
			return false
		}
	}
	return true
}

// An attribute is part of a relative distinguished name.
type attribute struct{ oid, value string }

func (a attribute) compare(b attribute) int {
	return strings.Compare(a.oid+"="+a.value, b.oid+"="+b.value)
}

// keywords are the short names of attribute types: RFC 4514, section 3, and two that are common in certificates.
var keywords = map[string]string{
	"CN": "2.5.4.3", "L": "2.5.4.7", "ST": "2.5.4.8", "O": "2.5.4.10", "OU": "2.5.4.11", "C": "2.5.4.6", "STREET": "2.5.4.9",
	"DC": "0.9.2342.19200300.100.1.25", "UID": "0.9.2342.19200300.100.1.1", "SERIALNUMBER": "2.5.4.5", "EMAILADDRESS": "1.2.840.113549.1.9.1",
}

var errDN = errors.New("is not a distinguished name as in RFC 4514, such as CN=client,O=Example")

// parseDN parses the string of a distinguished name (RFC 4514, section 3), which must not be empty. Each relative name is sorted.
func parseDN(s string) (names [][]attribute, err error) {
	if !utf8.ValidString(s) {
		return nil, errDN
	}
	var name []attribute
	for {
		kind, rest, ok := strings.Cut(s, "=")
		oid, valid := attributeType(strings.Trim(kind, " "))
		if !ok || !valid {
			return nil, errDN
		}
		value, end, rest, ok := attributeValue(strings.TrimLeft(rest, " "))
		if !ok {
			return nil, errDN
		}
		name = append(name, attribute{oid, value})
		if end != '+' {
			slices.SortFunc(name, attribute.compare)
			names, name = append(names, name), nil
		}
		if end == 0 {
			return names, nil
		}
		s = rest
	}
}

func attributeType(s string) (oid string, ok bool) {
	if oid := keywords[strings.ToUpper(s)]; oid != "" {
		return oid, true
	}
	arcs := strings.Split(s, ".")
	for _, arc := range arcs {
		n, err := strconv.Atoi(arc)
		if err != nil || n < 0 || strconv.Itoa(n) != arc {
			return "", false
		}
	}
	return s, len(arcs) > 1
}

// attributeValue reads a value up to an unescaped comma, semicolon or plus, or to the end, for which it returns 0.
func attributeValue(s string) (value string, end byte, rest string, ok bool) {
	if strings.HasPrefix(s, "#") { // the BER encoding, in hexadecimal
		i := strings.IndexAny(s, ",;+")
		if i < 0 {
			i = len(s)
		} else {
			end, rest = s[i], s[i+1:]
		}
		raw, err := hex.DecodeString(strings.TrimRight(s[1:i], " "))
		if err != nil {
			return "", 0, "", false
		}
		left, err := asn1.Unmarshal(raw, &value)
		return value, end, rest, err == nil && len(left) == 0
	}
	var b strings.Builder
	kept := 0 // length without unescaped spaces at the end
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ',' || c == ';' || c == '+':
			value = b.String()[:kept]
			return value, c, s[i+1:], value != "" && utf8.ValidString(value)
		case c == '\\' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			raw, _ := hex.DecodeString(s[i+1 : i+3])
			b.WriteByte(raw[0])
			i, kept = i+2, b.Len()
		case c == '\\' && i+1 < len(s) && strings.IndexByte(` "#+,;<=>\`, s[i+1]) >= 0:
			b.WriteByte(s[i+1])
			i, kept = i+1, b.Len()
		case strings.IndexByte("\\\"<>\x00", c) >= 0:
			return "", 0, "", false
		default:
			if b.WriteByte(c); c != ' ' {
				kept = b.Len()
			}
		}
	}
	value = b.String()[:kept]
	return value, 0, "", value != "" && utf8.ValidString(value)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
