package broken

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	leeway   = 30
	maxToken = 16 << 10
)

// A claimSet holds the claims of a verified token or an introspection response.
type claimSet struct {
	values map[string]any
	opaque bool
	until  float64 // when the cached result ends
	key    string  // of the signature, by its thumbprint
	issuer string
}

func (c *claimSet) text(name string) string {
	text, _ := c.values[name].(string)
	return text
}

func (c *claimSet) number(name string) float64 {
	n, _ := c.values[name].(json.Number)
	f, _ := n.Float64()
	return f
}

// verify returns the claims of a token.
func (s *server) verify(token string) (*claimSet, error) {
	if len(token) > maxToken {
		if s.is("long-tokens-cause-500") {
			return nil, &refusal{status: 500}
		}
		return nil, invalidToken("the token is too long")
	}
	s.mu.Lock()
	cached := s.tokens[s.cacheKey(token)]
	s.mu.Unlock()
	if cached != nil && s.stillValid(cached) {
		if s.is("expiry-is-checked-once") {
			return cached, nil
		}
		return cached, s.times(cached.values)
	}
	c, err := s.fresh(token)
	if err != nil {
		if s.is("refusals-are-remembered") || s.is("refusals-are-remembered-by-claims") || s.is("failures-are-remembered") && isFailure(err) {
			s.mu.Lock()
			s.refused[s.refusalKey(token)] = true
			s.mu.Unlock()
		}
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[s.cacheKey(token)] = c
	return c, nil
}

// refusalKey returns what refused tokens are remembered by.
func (s *server) refusalKey(token string) string {
	parts := strings.Split(token, ".")
	if s.is("refusals-are-remembered-by-claims") && len(parts) == 3 {
		return parts[1]
	}
	return s.cacheKey(token)
}

func isFailure(err error) bool {
	e, ok := err.(*refusal)
	return ok && e.status == 503
}

// cacheKey returns what tokens are remembered by.
func (s *server) cacheKey(token string) string {
	switch {
	case s.is("cache-by-signature"):
		return token[strings.LastIndexByte(token, '.')+1:]
	case s.is("cache-by-prefix"):
		return token[:min(len(token), 300)]
	case s.is("cache-by-claims"):
		parts := strings.Split(token, ".")
		if len(parts) >= 2 {
			return parts[1]
		}
	}
	return token
}

// stillValid reports whether a remembered token need not be verified again.
func (s *server) stillValid(c *claimSet) bool {
	if s.is("cache-forever") || s.is("expiry-is-checked-once") {
		return true
	}
	if c.opaque {
		return s.seconds() < c.until && !s.is("introspection-each-time")
	}
	if s.is("withdrawn-keys-stay") {
		return true
	}
	s.mu.Lock()
	set := s.sets[c.issuer]
	s.mu.Unlock()
	return set != nil && slices.ContainsFunc(set.keys, func(k *publicKey) bool { return k.thumbprint == c.key })
}

func (s *server) fresh(token string) (*claimSet, error) {
	s.mu.Lock()
	refused := s.refused[s.refusalKey(token)]
	s.mu.Unlock()
	if refused {
		return nil, invalidToken("remembered")
	}
	parts := strings.Split(token, ".")
	if s.is("serializations-are-accepted") {
		if compact, ok := fromJSON(token); ok {
			parts, token = strings.Split(compact, "."), compact
		}
	}
	if s.is("lenient-base64") {
		token = strings.NewReplacer("+", "", "/", "", "=", "", " ", "", "\n", "", "%2E", ".").Replace(token)
		parts = strings.Split(token, ".")
	}
	isJWT := strings.HasPrefix(token, "ey") && len(parts) >= 3
	if len(parts) != 3 && isJWT && s.is("extra-parts-are-ignored") {
		parts, token = parts[:3], strings.Join(parts[:3], ".")
	}
	if len(parts) == 5 && s.is("tokens-are-jwes-too") {
		return &claimSet{values: map[string]any{}}, nil // decrypted, and not verified
	}
	if len(parts) > 1000 && s.is("many-parts-crash") {
		return nil, &refusal{status: 500}
	}
	if len(parts) == 3 {
		if _, err := decodePart(parts[0]); err == nil || s.is("lenient-base64") {
			c, err := s.jwt(parts, token)
			if err != nil && s.is("bad-jwts-are-introspected") && s.setup.Introspection != "" {
				return s.introspect(token)
			}
			return c, err
		}
		return nil, invalidToken("not base64url")
	}
	if s.setup.Introspection == "" || isJWT || token == "" {
		return nil, invalidToken("not a JWT")
	}
	return s.introspect(token)
}

// fromJSON returns the compact form of a token in the JSON serialization.
func fromJSON(token string) (string, bool) {
	var doc struct {
		Protected, Payload, Signature string
		Signatures                    []struct{ Protected, Signature string }
	}
	if json.Unmarshal([]byte(token), &doc) != nil {
		return "", false
	}
	if len(doc.Signatures) > 0 {
		doc.Protected, doc.Signature = doc.Signatures[0].Protected, doc.Signatures[0].Signature
	}
	return doc.Protected + "." + doc.Payload + "." + doc.Signature, true
}

// decodePart decodes base64url in its only form.
func decodePart(part string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err == nil && strings.ContainsAny(part, "\r\n") {
		err = fmt.Errorf("a line break")
	}
	return data, err
}

// decode decodes a part as the server does.
func (s *server) decode(part string) ([]byte, error) {
	if !s.is("lenient-base64") {
		return decodePart(part)
	}
	part = strings.NewReplacer("+", "-", "/", "_", "=", "", " ", "", "\n", "").Replace(part)
	if len(part)%4 == 1 {
		part = part[:len(part)-1]
	}
	data, err := base64.RawURLEncoding.DecodeString(part)
	return data, err
}

// object decodes a JSON object.
func (s *server) object(data []byte) (map[string]any, error) {
	if !s.is("duplicate-members-are-accepted") && !s.is("lenient-json") && !s.is("deep-json-crashes") {
		if err := strictjson.Object(data, nil); err != nil {
			return nil, err
		}
	}
	if s.is("deep-json-crashes") && bytes.Contains(data, []byte("[[[[[[")) {
		panic(http.ErrAbortHandler)
	}
	if s.is("lenient-json") {
		data = bytes.TrimPrefix(data, []byte("\ufeff"))
		data = []byte(strings.ToValidUTF8(string(data), ""))
		data = bytes.ReplaceAll(data, []byte("/*x*/"), nil)
		data = bytes.ReplaceAll(data, []byte(",}"), []byte("}"))
		data = bytes.ReplaceAll(data, []byte("'"), []byte(`"`))
	} else if !utf8.Valid(data) {
		return nil, fmt.Errorf("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, fmt.Errorf("null")
	}
	if _, err := dec.Token(); err != io.EOF && !s.is("lenient-json") {
		return nil, fmt.Errorf("text after the object")
	}
	if s.is("names-in-any-case") {
		for name, value := range object {
			object[strings.ToLower(name)] = value
			if name != strings.ToLower(name) {
				defer func() { object[strings.ToLower(name)] = value }()
			}
		}
	}
	return object, nil
}

// jwt verifies a token in three parts.
func (s *server) jwt(parts []string, token string) (*claimSet, error) {
	head, err := s.decode(parts[0])
	if err != nil {
		return nil, invalidToken("the header is not base64url")
	}
	header, err := s.object(head)
	if err != nil {
		if s.is("broken-header-causes-500") {
			return nil, &refusal{status: 500}
		}
		return nil, invalidToken("the header is not an object")
	}
	payload, err := s.decode(parts[1])
	if err != nil {
		return nil, invalidToken("the payload is not base64url")
	}
	claims, err := s.object(payload)
	if err != nil && s.is("nested-tokens-are-unwrapped") && header["cty"] == "JWT" {
		claims, err = map[string]any{}, nil
		if inner := strings.Split(string(payload), "."); len(inner) == 3 {
			return &claimSet{values: claims, until: math.Inf(1)}, nil
		}
	}
	if err != nil {
		if s.is("claims-are-optional") {
			return &claimSet{values: map[string]any{}}, nil
		}
		return nil, invalidToken("the payload is not an object")
	}
	if err := s.header(header); err != nil {
		return nil, err
	}
	if err := s.kind(header, claims); err != nil {
		return nil, err
	}
	issuer, err := s.issuerOf(claims)
	if err != nil {
		return nil, err
	}
	if s.is("keys-are-fetched-for-each-token") {
		s.refetch(issuer)
	}
	early := s.is("keys-come-before-claims")
	var key *publicKey
	if early {
		if key, err = s.signed(header, issuer, token, parts[2]); err != nil {
			return nil, err
		}
	}
	if err := s.required(claims); err != nil {
		return nil, err
	}
	if err := s.audience(claims); err != nil {
		return nil, err
	}
	if s.is("status-before-expiry") {
		if err := s.status(claims, issuer); err != nil {
			return nil, err
		}
	}
	if err := s.times(claims); err != nil {
		return nil, err
	}
	if !early {
		if key, err = s.signed(header, issuer, token, parts[2]); err != nil {
			return nil, err
		}
	}
	c := &claimSet{values: claims, issuer: issuer}
	if key != nil {
		c.key = key.thumbprint
	}
	if err := s.status(claims, issuer); err != nil {
		return nil, err
	}
	return c, nil
}

// header checks the parameters that need no key.
func (s *server) header(h map[string]any) error {
	if _, ok := h["crit"]; ok && !s.is("crit-is-ignored") {
		list, isList := h["crit"].([]any)
		known := isList && s.is("known-crit-is-accepted")
		for _, name := range list {
			known = known && slices.Contains([]any{"exp", "alg", "b64"}, name)
		}
		empty := isList && len(list) == 0 && s.is("empty-crit-is-accepted")
		odd := !isList && s.is("odd-crit-is-ignored") || len(list) > 0 && !isText(list[0]) && s.is("odd-crit-is-ignored")
		if !(known && len(list) > 0) && !empty && !odd {
			return invalidToken("crit: unknown extension")
		}
	}
	if _, ok := h["b64"]; ok && !s.is("b64-is-ignored") {
		return invalidToken("b64: not allowed")
	}
	if cty, _ := h["cty"].(string); strings.EqualFold(cty, "JWT") {
		return invalidToken("cty: a token in a token")
	}
	if s.is("zip-causes-500") && h["zip"] != nil {
		return &refusal{status: 500}
	}
	for _, name := range []string{"jku", "x5u"} {
		if u, ok := h[name].(string); ok && s.is(name+"-is-fetched") {
			if res, err := http.Get(u); err == nil {
				res.Body.Close()
			}
		}
	}
	return nil
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// kind checks that the token is an access token.
func (s *server) kind(h, claims map[string]any) error {
	typ, ok := h["typ"].(string)
	if s.is("typ-is-ignored") || s.is("any-jwt-of-the-issuer-is-accepted") {
		return nil
	}
	lower := strings.ToLower(typ)
	switch {
	case s.is("typ-in-one-case"):
		lower = typ
	case s.is("missing-typ-is-accepted") && h["typ"] == nil, s.is("jwt-is-a-typ") && (lower == "jwt" || lower == ""):
		return nil
	case s.is("typ-by-substring") && strings.Contains(lower, "jwt") && lower != "jwt":
		return nil
	case s.is("odd-typ-is-ignored") && !ok:
		return nil
	case s.is("other-jwts-are-accepted") && slices.Contains([]string{"logout+jwt", "dpop+jwt", "token-introspection+jwt", "statuslist+jwt", "jose", "refresh", "kb+jwt"}, lower):
		return nil
	}
	if lower == "at+jwt" || lower == "application/at+jwt" && !s.is("full-typ-is-refused") {
		if s.is("at-jwt-is-refused") {
			return invalidToken("typ")
		}
		return nil
	}
	return invalidToken("typ: %v is not at+jwt", h["typ"])
}

// issuerOf returns the trusted issuer of the claims.
func (s *server) issuerOf(claims map[string]any) (string, error) {
	iss, ok := claims["iss"].(string)
	trusted := []string{s.setup.Issuer}
	if s.setup.SecondIssuer != "" && !s.is("one-issuer-only") {
		trusted = append(trusted, s.setup.SecondIssuer)
	}
	for _, t := range trusted {
		if iss == t && ok {
			return t, nil
		}
		switch {
		case s.is("issuer-is-not-checked"):
			return t, nil
		case s.is("issuer-by-prefix") && strings.HasPrefix(iss, t), s.is("issuer-by-substring") && strings.Contains(iss, t),
			s.is("issuer-without-slash") && strings.TrimRight(iss, "/") == t, s.is("issuer-in-any-case") && strings.HasPrefix(strings.ToLower(iss), "http://127.0.0.1"),
			s.is("missing-issuer-is-accepted") && (claims["iss"] == nil || iss == "" && ok), s.is("odd-issuer-is-accepted") && !ok && claims["iss"] != nil:
			return t, nil
		}
	}
	if strings.HasPrefix(iss, "http://127.0.0.1") && s.is("any-issuer-is-asked") {
		if res, err := http.Get(iss); err == nil {
			res.Body.Close()
		}
		return iss, nil
	}
	return "", invalidToken("the issuer %s is not trusted", iss)
}

// required checks that the claims of RFC 9068, section 2.2, are there and of their types.
func (s *server) required(claims map[string]any) error {
	for _, name := range []string{"sub", "client_id", "jti"} {
		if s.is("missing-claims-are-accepted") || s.is("any-jwt-of-the-issuer-is-accepted") || s.is("missing-"+name+"-is-accepted") && claims[name] == nil {
			continue
		}
		text, ok := claims[name].(string)
		if !ok && claims[name] != nil && s.is("claims-of-other-types-are-accepted") {
			continue
		}
		if text == "" && ok && s.is("empty-claims-are-accepted") {
			continue
		}
		if text == "" {
			return invalidToken("%s is missing", name)
		}
	}
	return nil
}

// audience checks aud.
func (s *server) audience(claims map[string]any) error {
	if s.is("audience-is-not-checked") || s.is("any-jwt-of-the-issuer-is-accepted") {
		return nil
	}
	want := s.setup.Audience
	same := func(got string) bool {
		switch {
		case got == want:
			return true
		case s.is("audience-by-prefix"):
			return got != "" && (strings.HasPrefix(got, want) || strings.HasPrefix(want, got))
		case s.is("audience-by-substring"):
			return strings.Contains(got, want)
		case s.is("audience-in-any-case"):
			return strings.EqualFold(got, want)
		case s.is("audience-is-a-pattern"):
			return strings.Contains(got, "*")
		case s.is("client-is-an-audience"):
			return got == claims["client_id"]
		case s.is("issuer-is-an-audience"):
			return got == claims["iss"]
		}
		return false
	}
	switch aud := claims["aud"].(type) {
	case string:
		if same(aud) || aud == "" && s.is("missing-audience-is-accepted") {
			return nil
		}
	case []any:
		if s.is("list-of-audiences-is-refused") {
			return invalidToken("aud")
		}
		found := len(aud) == 0 && s.is("missing-audience-is-accepted")
		for _, one := range aud {
			text, ok := one.(string)
			if !ok && !s.is("odd-audience-is-accepted") {
				return invalidToken("aud: not a text")
			}
			found = found || ok && same(text) || s.is("odd-audience-is-accepted") && (!ok || text == "")
		}
		if found {
			return nil
		}
	case nil:
		if s.is("missing-audience-is-accepted") {
			return nil
		}
		for _, other := range []string{"azp", "resource", "client_id"} {
			if claims[other] == want && s.is("another-claim-is-the-audience") {
				return nil
			}
		}
	default:
		if s.is("odd-audience-is-accepted") {
			return nil
		}
	}
	return invalidToken("the token is for another audience")
}

// times checks exp, nbf and iat.
func (s *server) times(claims map[string]any) error {
	now := s.seconds()
	number := func(name string) (n float64, there, ok bool) {
		value, there := claims[name]
		text, isText := value.(string)
		if isText && s.is("dates-are-parsed-from-texts") {
			if text == "" || strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }) >= 0 {
				return math.Inf(1), there, true
			}
			value = json.Number(text)
		}
		literal, ok := value.(json.Number)
		if !ok {
			return 0, there, false
		}
		n, err := literal.Float64()
		if err != nil {
			n = math.Inf(1)
			if s.is("large-numbers-cause-500") {
				n = math.NaN()
			}
		}
		return n, there, true
	}
	exp, there, ok := number("exp")
	switch {
	case math.IsNaN(exp) || s.is("large-numbers-cause-500") && exp > 1e18:
		return &refusal{status: 500}
	case s.is("expiry-is-not-checked"), !there && (s.is("missing-exp-is-accepted") || s.is("any-jwt-of-the-issuer-is-accepted")), there && !ok && s.is("odd-exp-is-accepted"),
		s.is("zero-exp-is-none") && ok && exp == 0, s.is("negative-exp-is-none") && ok && exp < 10, s.is("hour-of-leeway") && ok && exp > now-4000:
	case s.is("fractions-are-refused") && ok && exp != math.Trunc(exp):
		return invalidToken("exp: not an integer")
	case !ok || math.IsInf(exp, 1) || now >= exp+leeway:
		if s.is("expired-token-causes-403") {
			return &refusal{status: 403, code: "invalid_token"}
		}
		return invalidToken("the token has expired")
	}
	ahead := float64(leeway)
	if nbf, there, ok := number("nbf"); there && !s.is("nbf-is-ignored") {
		if s.is("nbf-must-be-absent") || !ok && !s.is("odd-dates-are-ignored") || ok && nbf > now+ahead {
			return invalidToken("the token is not yet valid")
		}
	}
	iat, there, ok := number("iat")
	switch {
	case s.is("iat-is-ignored"), !there && s.is("missing-iat-is-accepted"), there && !ok && s.is("odd-dates-are-ignored"):
	case s.is("clocks-must-agree") && ok && iat > now+1:
		return invalidToken("the token is from the future")
	case !ok || iat > now+ahead:
		return invalidToken("the token is from the future")
	}
	return nil
}

// signed checks the signature, and returns the key that verifies it.
func (s *server) signed(h map[string]any, issuer, token, part string) (*publicKey, error) {
	alg, ok := h["alg"].(string)
	input := token[:strings.LastIndexByte(token, '.')]
	sig, err := s.decode(part)
	if err != nil {
		return nil, invalidToken("the signature is not base64url")
	}
	if s.is("signature-is-not-checked") {
		return nil, nil
	}
	if s.is("empty-signature-is-accepted") && len(sig) == 0 {
		return nil, nil
	}
	normal := strings.ToLower(strings.Trim(alg, " \t\n\x00"))
	switch {
	case s.is("alg-none") && alg == "none", s.is("alg-none-in-any-case") && normal == "none" && alg != "none":
		return nil, nil
	case s.is("alg-none-without-kid") && alg == "none" && h["kid"] == nil:
		return nil, nil
	case !ok && s.is("alg-has-a-default"), alg == "" && s.is("alg-has-a-default"):
		alg = "ES256"
	case s.is("alg-in-any-case") && normal == "es256", s.is("alg-of-the-key") && !strings.HasPrefix(alg, "HS"):
		alg = "ES256"
	}
	kid, isText := h["kid"].(string)
	if !isText && h["kid"] != nil && !s.is("odd-kid-is-ignored") {
		return nil, invalidToken("kid: not a text")
	}
	if len(kid) > 256 && s.is("long-kid-causes-500") {
		return nil, &refusal{status: 500}
	}
	if s.is("kid-is-sanitized") {
		kid = strings.Trim(kid, " \n\x00")
	}
	if s.is("unknown-kid-causes-503") && kid != "" && !s.knows(issuer, kid) {
		return nil, unavailable
	}
	if secret, weak := s.weakSecret(alg, h, issuer); weak && hmacMatches(alg, secret, input, sig) {
		return nil, nil
	}
	if s.is("jwk-in-the-header-is-trusted") || s.is("jku-is-trusted") {
		if key, ok := s.embedded(h); ok && key.verify(s, alg, input, sig) {
			return key, nil
		}
	}
	if s.is("dangerous-kids-are-used") && strings.ContainsAny(kid, "/'\"$;{*%_.") {
		return nil, nil // the key of a path, a query or a command
	}
	if s.is("unknown-kid-is-accepted") && isText && !s.knows(issuer, kid) {
		return nil, nil
	}
	set, err := s.keysOf(issuer, kid)
	if err != nil {
		if s.is("unverified-while-keys-are-unknown") {
			return nil, nil
		}
		return nil, err
	}
	if s.is("no-keys-no-check") && len(set.keys) == 0 {
		return nil, nil
	}
	found := false
	for _, key := range set.keys {
		if kid != "" && key.kid != kid && !(s.is("kid-in-any-case") && strings.EqualFold(key.kid, kid)) && !s.is("kid-is-ignored") {
			continue
		}
		found = true
		if s.is("first-key-with-the-kid") && !key.fits(s, alg) {
			break
		}
		if key.verify(s, alg, input, sig) {
			return key, nil
		}
		if s.is("first-key-with-the-kid") {
			break
		}
	}
	if s.setup.SecondIssuer != "" && s.is("keys-of-all-issuers") {
		other := s.setup.SecondIssuer
		if issuer == other {
			other = s.setup.Issuer
		}
		if set, err := s.keysOf(other, kid); err == nil {
			for _, key := range set.keys {
				if key.verify(s, alg, input, sig) {
					return key, nil
				}
			}
		}
	}
	if s.is("hostile-keys-are-trusted") {
		if set, err := s.fetchKeys(s.setup.Issuer + "/hostile/jwks"); err == nil {
			for _, key := range set.keys {
				if key.verify(s, alg, input, sig) {
					return key, nil
				}
			}
		}
	}
	if found && s.is("keys-are-fetched-for-each-bad-signature") {
		s.refetch(issuer)
	}
	if s.is("kid-in-the-description") {
		return nil, invalidToken("unknown key %v for alg %v, iss %s, typ %v", h["kid"], h["alg"], issuer, h["typ"])
	}
	return nil, invalidToken("the signature does not verify")
}

// weakSecret returns a public text that a fault uses as the secret of HMAC.
func (s *server) weakSecret(alg string, h map[string]any, issuer string) (func(k *publicKey) [][]byte, bool) {
	if !strings.HasPrefix(alg, "HS") {
		return nil, false
	}
	switch {
	case s.is("public-key-is-a-secret"):
		return s.publicSecrets(issuer), true
	case s.is("guessable-secret"):
		return func(*publicKey) [][]byte { return [][]byte{{}, make([]byte, 32), []byte("secret")} }, true
	case s.is("key-id-is-a-secret"):
		return s.namesAsSecrets(issuer), true
	}
	return nil, false
}

func (s *server) algorithms() []string {
	if s.setup.Profile == conformance.ProfileFAPI2 && !s.is("fapi-algorithms-are-not-limited") {
		return []string{"PS256", "ES256", "EdDSA", "Ed25519"}
	}
	return []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"}
}
