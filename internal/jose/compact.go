// Package jose takes signed tokens and keys apart, verifies signatures and makes them.
//
// It is the only package that imports jwx, of which it uses the signature algorithms and the JWK of a checked key.
// What comes from outside goes through a strict front door of our own first: [Parse] for tokens, [ParseProof] for proofs
// of possession, [ParseKey] for keys.
//
// What is not done: encrypted tokens (RFC 7516), the JSON serialisation, detached and unencoded payloads (RFC 7797),
// nested tokens, critical extensions, and keys that a token itself brings or points to; a proof brings its own.
package jose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unsafe"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// MaxToken is the length of the longest token that is read, in bytes.
const MaxToken = valetkey.MaxToken

// maxKeyID is the length of the longest key id, in bytes.
const maxKeyID = 256

// ErrMalformed is wrapped by the refusal of a text that is not a signed token in the compact form at all, but might be
// an opaque one: it has not three parts in base64url, or the first of them does not begin as a JSON object does.
var ErrMalformed = errors.New("not a signed JWT in the compact form")

// A Header is what is used of the JOSE header of a token. Nothing of it is to be believed before the signature is
// verified, and a key id is never to be put in a path, a query or a metric's label.
type Header struct {
	Algorithm string // alg
	KeyID     string // kid: at most 256 bytes without control characters
	Type      string // typ, "" if there is none; see [SameType]
	HasKeyID  bool
	Key       *Key // jwk: of a proof never nil, of a token always; see [ParseProof]
}

// A Compact is a token in its three parts. It must not be modified.
type Compact struct {
	Header    Header
	Payload   []byte // not empty; that it is the JSON object of a JWT is for its reader to check
	input     []byte // header "." payload, as sent: what is signed. The memory of a string, so only ever read
	signature []byte // not empty
	fresh     *seen  // the header as sent, unless it was remembered
}

// Parse takes a token in the compact form of RFC 7515, section 7.1 apart. It verifies nothing, and does not look into
// the payload. An error never holds any of the token's text.
//
// A token has one spelling only: base64url must be canonical. Yet of an ECDSA signature (r, s) everybody can make the
// equally good (r, n-s) (RFC 7515 does not forbid either), so the text of a token still is no identity: deny-lists go by jti.
func Parse(raw string) (*Compact, error) { return ParseLong(raw, MaxToken) }

// ParseLong is [Parse] for what may be longer than an access token, up to limit bytes: a status list.
func ParseLong(raw string, limit int) (*Compact, error) {
	return parse(raw, limit, seenHeaders[:], (*Header).read)
}

// ParseProof is [Parse] for a proof of possession, whose header brings the public key that verifies it (RFC 9449, section
// 4.2): Header.Key. That the key is anybody's in particular is for the caller to find out, by its thumbprint.
func ParseProof(raw string) (*Compact, error) {
	return parse(raw, MaxToken, seenProofs[:], (*Header).readProof)
}

func parse(raw string, limit int, seenBefore memory, read func(*Header, []byte) error) (*Compact, error) {
	if len(raw) > limit { // before any work
		return nil, fmt.Errorf("the token has more than %d bytes", limit)
	}
	// RFC 7515, section 7.1: two dots; four are an encrypted token (RFC 7516, section 9).
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, two := strings.Cut(rest, ".")
	if !two || strings.Contains(signature, ".") {
		return nil, fmt.Errorf("%w: it has not exactly two dots", ErrMalformed)
	}
	// encoding/base64 skips line breaks, RFC 7515, section 2 allows none.
	if strings.IndexByte(raw, '\n') >= 0 || strings.IndexByte(raw, '\r') >= 0 {
		return nil, fmt.Errorf("%w: it has a line break", ErrMalformed)
	}
	// RFC 7515, section 5.2, steps 2, 6 and 7.
	var (
		c         = &Compact{input: bytesOf(raw[:len(header)+1+len(payload)])}
		buffer    = make([]byte, 0, base64url.DecodedLen(len(raw))) // for all parts, one behind the other
		canonical = true
	)
	decode := func(part string) []byte {
		start, err := len(buffer), error(nil)
		buffer, err = base64url.AppendDecode(buffer, bytesOf(part))
		canonical = canonical && err == nil
		return buffer[start:len(buffer):len(buffer)]
	}
	c.Payload, c.signature = decode(payload), decode(signature)
	known := seenBefore.recall(header)
	var object []byte
	if known == nil {
		object = decode(header)
	}
	switch {
	case !canonical:
		return nil, fmt.Errorf("%w: a part is not canonical base64url", ErrMalformed)
	case known != nil:
		c.Header = known.header
	case !bytes.HasPrefix(bytes.TrimLeft(object, " \t\r\n"), []byte("{")):
		return nil, fmt.Errorf("%w: its header is not a JSON object", ErrMalformed)
	default:
		if err := read(&c.Header, object); err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
		c.fresh = &seen{header, c.Header, seenBefore}
	}
	if len(c.Payload) == 0 { // RFC 7515, appendix F: sent elsewhere
		return nil, errors.New("the token has no payload")
	}
	if len(c.signature) == 0 { // RFC 7515, appendix A.5: alg none
		return nil, errors.New("the token has no signature")
	}
	return c, nil
}

// bytesOf returns the memory of s, which nobody may write to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// base64url is canonical: without padding, and with the bits that stand for nothing zero, so that some bytes have one
// text only (RFC 7515, section 2; RFC 4648, section 3.5).
var base64url = base64.RawURLEncoding.Strict()

// The members of a header that change what a token means. A spelling of them in other letter case is refused, too: what
// compares names so would see another header (RFC 7515, section 4: names are case-sensitive).
var headerMembers = []string{"alg", "kid", "typ", "cty", "crit", "b64", "enc", "zip"}

// read reads the JOSE header of a token. What names or brings a key (jku, jwk, x5u, x5c, x5t) is not even looked at: keys
// come from the issuer's key set only (RFC 8725, section 3.10).
func (h *Header) read(object []byte) error {
	return h.members(object, func(strictjson.Value) error { return nil })
}

// readProof reads the JOSE header of a proof, of which jwk counts and nothing else that names or brings a key (RFC 9449,
// section 4.3, checks 6 and 7).
func (h *Header) readProof(object []byte) error {
	err := h.members(object, func(v strictjson.Value) (err error) {
		h.Key, err = ParseKey(v)
		return err
	})
	if err == nil && h.Key == nil {
		err = errors.New("jwk is missing")
	}
	return err
}

// members reads the JOSE header. RFC 7515, section 5.2, steps 3 to 5.
func (h *Header) members(object []byte, jwk func(strictjson.Value) error) error {
	err := strictjson.Object(object, func(name string, v strictjson.Value) error {
		ok := true
		switch name {
		case "alg": // section 4.1.1
			h.Algorithm, ok = v.Text()
			ok = ok && h.Algorithm != ""
		case "kid": // section 4.1.4
			h.HasKeyID = true
			h.KeyID, ok = v.Text()
			ok = ok && validKeyID(h.KeyID)
		case "typ": // section 4.1.9
			h.Type, ok = v.Text()
		case "cty": // section 4.1.10; JWT is for nested tokens, which are not unwrapped (RFC 7519, section 5.2)
			var cty string
			cty, ok = v.Text()
			ok = ok && !SameType(cty, "JWT")
		case "jwk": // section 4.1.3
			if err := jwk(v); err != nil {
				return fmt.Errorf("jwk: %w", err)
			}
		case "crit", // section 4.1.11: no extension is understood here, and an empty or misshapen list is an error
			"b64",        // RFC 7797, section 7: not in a JWT
			"enc", "zip": // RFC 7516, section 4.1: an encrypted token
			ok = false
		default:
			for _, known := range headerMembers {
				if strings.EqualFold(name, known) {
					return fmt.Errorf("%s is written in another letter case", known)
				}
			}
		}
		if !ok {
			return fmt.Errorf("%s is not one that is accepted", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if h.Algorithm == "" {
		return errors.New("alg is missing")
	}
	return nil
}

func validKeyID(id string) bool {
	return len(id) <= maxKeyID && !strings.ContainsFunc(id, unicode.IsControl)
}

// SameType reports whether the value typ of a header names the media type want. Letter case does not count, and a value
// without a slash is short for one that begins with "application/" (RFC 7515, section 4.1.9).
func SameType(typ, want string) bool {
	typ, want = shortType(typ), shortType(want)
	// The same length keeps apart what folds to an ASCII letter but is none.
	return len(typ) == len(want) && strings.EqualFold(typ, want)
}

func shortType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}
