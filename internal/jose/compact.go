// Package jose parses signed tokens and keys, and verifies and makes signatures.
//
// It is the only package that imports jwx, of which it uses the signature algorithms and the JWK of a checked key. Input
// first passes the strict parsers of this package: [Parse] for tokens, [ParseProof] for proofs of possession, [ParseKey] for
// keys.
//
// The package does not support encrypted tokens (RFC 7516), the JSON serialization, detached and unencoded payloads (RFC
// 7797), nested tokens, critical extensions, or keys in a token or referenced by one. Only a proof carries its key.
package jose

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unsafe"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// MaxToken is the maximum length of a token, in bytes.
const MaxToken = valetkey.MaxTokenBytes

// maxKeyID is the maximum length of a key ID, in bytes.
const maxKeyID = 256

// ErrMalformed is wrapped by the refusal of a text that is not a signed token in compact form but may be an opaque token: it
// does not have three base64url parts, or the first one does not begin like a JSON object.
var ErrMalformed = errors.New("not a signed JWT in the compact form")

// ErrPadded is wrapped by the refusal of a token whose parts are padded, which [Options].AllowPadding accepts. It wraps
// [ErrMalformed].
var ErrPadded = fmt.Errorf("%w: a part is padded with '='", ErrMalformed)

// Header holds the parameters of a token's JOSE header that are used. Do not trust them before the signature is verified, and
// never put a key ID in a path, a query or a metric label without restricting its characters.
type Header struct {
	Algorithm string // alg
	KeyID     string // kid: at most 256 bytes without control characters; "" if there is none
	Type      string // typ, "" if there is none; see [SameType]
	HasKeyID  bool
	Key       *Key // jwk: never nil for a proof, always nil for a token; see [ParseProof]
}

// Compact is a token in its three parts. It must not be modified.
type Compact struct {
	Header    Header
	Payload   []byte // not empty; its reader must check that it is the JSON object of a JWT
	Padded    bool   // a part has padding
	signed    uint32 // the length of header "." payload in raw, the signed text
	raw       string // as sent
	signature []byte // not empty
	fresh     *seen  // the header as sent, unless it was cached
}

// Length returns the length of the whole token, in bytes.
func (c *Compact) Length() int { return len(c.raw) }

// input returns the signed text. It is the memory of a string, so it must not be written.
func (c *Compact) input() []byte { return bytesOf(c.raw[:c.signed]) }

// Parse parses a token in the compact form of RFC 7515, section 7.1. It verifies nothing and does not decode the payload. An
// error never contains text of the token.
//
// A token has only one accepted encoding: base64url must be canonical. However, anyone can turn an ECDSA signature (r, s)
// into the equally valid (r, n-s), which RFC 7515 does not forbid. The text of a token therefore does not identify it: deny
// lists must use jti.
func Parse(raw string) (*Compact, error) { return ParseWith(raw, Options{}) }

// Options are exceptions from the form of a token. The zero value has none.
type Options struct {
	// Limit is the maximum length of the token, in bytes. Zero: [MaxToken].
	Limit int

	// AllowPadding accepts parts that are padded to a multiple of four characters, in addition to the canonical ones. RFC 7515,
	// section 2, has no padding; some issuers sign their tokens with it.
	AllowPadding bool
}

// ParseWith does the same as [Parse] with exceptions.
func ParseWith(raw string, o Options) (*Compact, error) {
	return parse(raw, o, seenHeaders[:], (*Header).read)
}

// ParseProof does the same as [Parse] for a proof of possession, whose header contains the public key that verifies it (RFC
// 9449, section 4.2): Header.Key. The caller must check whose key it is, by its thumbprint.
func ParseProof(raw string) (*Compact, error) {
	return parse(raw, Options{}, seenProofs[:], (*Header).readProof)
}

func parse(raw string, o Options, seenBefore memory, read func(*Header, []byte) error) (*Compact, error) {
	if limit := cmp.Or(o.Limit, MaxToken); len(raw) > limit { // before any work
		return nil, fmt.Errorf("the token has more than %d bytes", limit)
	}
	// RFC 7515, section 7.1: two dots; four are an encrypted token (RFC 7516, section 9).
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, two := strings.Cut(rest, ".")
	if !two || strings.Contains(signature, ".") {
		if strings.Count(raw, ".") == 4 {
			return nil, fmt.Errorf("%w: it has four dots, so it is encrypted or opaque", ErrMalformed)
		}
		return nil, fmt.Errorf("%w: it has not exactly two dots", ErrMalformed)
	}
	// encoding/base64 skips line breaks, RFC 7515, section 2 allows none.
	if strings.IndexByte(raw, '\n') >= 0 || strings.IndexByte(raw, '\r') >= 0 {
		return nil, fmt.Errorf("%w: it has a line break", ErrMalformed)
	}
	padded := strings.IndexByte(raw, '=') >= 0
	if padded && !o.AllowPadding { // here, since a header in the memory is not decoded
		return nil, ErrPadded
	}
	// RFC 7515, section 5.2, steps 2, 6 and 7.
	var (
		c         = &Compact{raw: raw, signed: uint32(len(header) + 1 + len(payload)), Padded: padded}
		canonical = true
	)
	decode := func(part string) []byte { // each part by itself: the payload becomes the claims of the token, which outlive the rest
		if bare := strings.TrimRight(part, "="); len(part)%4 == 0 && len(part)-len(bare) < 3 {
			part = bare
		}
		decoded, err := base64url.AppendDecode(nil, bytesOf(part))
		canonical = canonical && err == nil
		return decoded
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

// bytesOf returns the memory of s. It must not be written.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// base64url is canonical: without padding and with zero spare bits, so that there is only one encoding of each value (RFC
// 7515, section 2; RFC 4648, section 3.5).
var base64url = base64.RawURLEncoding.Strict()

// The members of a header that change the meaning of a token. A name that differs from one of them only in letter case is
// refused too: a reader that ignores letter case would see a different header (RFC 7515, section 4: names are
// case-sensitive).
var headerMembers = []string{"alg", "kid", "typ", "cty", "crit", "b64", "enc", "zip"}

// read decodes the JOSE header of a token. It ignores members that name or contain a key (jku, jwk, x5u, x5c, x5t): keys come
// only from the issuer's key set (RFC 8725, section 3.10).
func (h *Header) read(object []byte) error {
	return h.members(object, func(strictjson.Value) error { return nil })
}

// readProof decodes the JOSE header of a proof. It uses jwk and ignores all other members that name or contain a key (RFC
// 9449, section 4.3, checks 6 and 7).
func (h *Header) readProof(object []byte) error {
	err := h.members(object, func(v strictjson.Value) (err error) {
		h.Key, err = parseProofKey(v)
		return err
	})
	if err == nil && h.Key == nil {
		err = errors.New("jwk is missing")
	}
	return err
}

// members decodes the JOSE header. RFC 7515, section 5.2, steps 3 to 5.
func (h *Header) members(object []byte, jwk func(strictjson.Value) error) error {
	err := strictjson.Entries(object, func(name string, v strictjson.Value) error {
		ok := true
		text := func() (string, bool) {
			if v.IsNull() { // as if it were not there
				return "", true
			}
			return v.Text()
		}
		switch name {
		case "alg": // section 4.1.1
			h.Algorithm, ok = text()
		case "kid": // section 4.1.4
			h.KeyID, ok = text()
			h.HasKeyID = h.KeyID != "" // as if it were not there
			ok = ok && validKeyID(h.KeyID)
		case "typ": // section 4.1.9
			h.Type, ok = text()
		case "cty": // section 4.1.10; JWT is for nested tokens, which are not unwrapped (RFC 7519, section 5.2)
			var cty string
			cty, ok = text()
			ok = ok && !SameType(cty, "JWT")
		case "jwk": // section 4.1.3
			if v.IsNull() {
				return nil
			}
			if err := jwk(v); err != nil {
				return fmt.Errorf("jwk: %w", err)
			}
		case "crit", // section 4.1.11: no extension is supported, and an empty or malformed list is an error, as null is
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
	}, "jwk") // the others must not occur in another letter case at all
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

// SameType reports whether typ, a value in a header, names the media type want. Letter case is ignored, and a value without a
// slash is short for one that begins with "application/" (RFC 7515, section 4.1.9).
func SameType(typ, want string) bool {
	typ, want = shortType(typ), shortType(want)
	// Comparing the lengths excludes non-ASCII characters that fold to an ASCII letter.
	return len(typ) == len(want) && strings.EqualFold(typ, want)
}

func shortType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}
