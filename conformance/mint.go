package conformance

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A bench is where one case is carried out: its server and issuer, and what the steps so far have left.
type bench struct {
	issuer *issuer
	server serverInfo
	caseID string

	tokens   map[string]string // saved
	token    string            // of the current step
	minted   []string          // all opaque and JWT tokens of the case
	proof    string
	response string // of introspection, for the token that is being made
	nonce    string // from the last DPoP-Nonce
	route    string // of the current request
	method   string
	silent   bool // a request has got no response
}

// serverInfo has the values of placeholders about the server.
type serverInfo struct {
	origin   string // scheme and host
	host     string
	audience string
	routes   map[string]Route
}

var placeholder = regexp.MustCompile(`\{([a-z][a-z0-9_]*)(?::([^{}]*))?([+-][0-9][0-9hms]*)?\}`)

// expand replaces the placeholders in s. Unknown ones remain, since JSON has braces too.
func (b *bench) expand(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		if value, ok := b.value(m[1], m[2], m[3]); ok {
			return value
		}
		return found
	})
}

// value returns what a placeholder stands for. cases/README.md lists all.
func (b *bench) value(name, argument, shift string) (string, bool) {
	switch name {
	case "now":
		d, err := time.ParseDuration(cmpOr(shift, "0s"))
		return strconv.FormatInt(b.issuer.now().Add(d).Unix(), 10), err == nil
	case "issuer", "jwks_uri":
		return b.issuer.urlOf("main", name), true
	case "second_issuer", "hostile_issuer":
		return b.issuer.urlOf(strings.TrimSuffix(name, "_issuer"), "issuer"), true
	case "hostile_jwks_uri", "second_jwks_uri":
		return b.issuer.urlOf(strings.TrimSuffix(name, "_jwks_uri"), "jwks_uri"), true
	case "status_uri":
		return b.issuer.url + "/statuses", true
	case "canary":
		return b.issuer.canary + "/" + b.caseID, true
	case "audience":
		return b.server.audience, true
	case "client_id":
		return defaultClient, true
	case "origin":
		return b.server.origin, true
	case "host":
		return b.server.host, true
	case "path":
		return b.server.routes[cmpOr(argument, b.route, routeAny)].Path, true
	case "scope":
		return b.server.routes[cmpOr(argument, b.route)].Scope, true
	case "first_scope":
		first, _, _ := strings.Cut(b.server.routes[cmpOr(argument, b.route)].Scope, " ")
		return first, true
	case "acr":
		return b.server.routes[routeACR].ACR, true
	case "max_age":
		return strconv.Itoa(b.server.routes[routeMaxAge].MaxAge), true
	case "metadata_path":
		return metadataPath(b.server.audience), true
	case "token":
		return b.token, true
	case "proof":
		return b.proof, true
	case "nonce":
		return b.nonce, true
	case "saved":
		return b.tokens[argument], true
	case "kid", "jwk", "bare_jwk", "jwk_members":
		k, err := findKey("main", argument)
		if err != nil {
			return "", false
		}
		if name == "kid" {
			return k.id, true
		}
		jwk := k.jwk
		if name == "bare_jwk" {
			jwk = k.bare()
		}
		text, err := json.Marshal(jwk)
		if err == nil && name == "jwk_members" {
			text = text[1 : len(text)-1]
		}
		return string(text), err == nil
	case "byte":
		n, err := strconv.ParseUint(argument, 16, 8)
		return string([]byte{byte(n)}), err == nil
	case "repeat":
		n, err := strconv.Atoi(argument)
		return strings.Repeat("a", max(n, 0)), err == nil
	case "case":
		return b.caseID, true
	case "random":
		return strings.ToLower(rand.Text()), true
	case "path_encoded":
		return percentEncoded(b.server.routes[cmpOr(argument, b.route, routeAny)].Path), true
	case "ath":
		return athVariant(b.token, argument)
	case "cert_base64":
		c, err := findCertificate(argument)
		if err != nil {
			return "", false
		}
		return base64.StdEncoding.EncodeToString(c.Certificate[0]), true
	case "signed":
		raw, err := b.signedResponse(argument)
		return raw, err == nil
	case "list":
		raw, err := b.issuer.statusList(argument)
		return raw, err == nil
	case "client_jwk_with":
		k, err := findKey("client", "es256")
		if err != nil {
			return "", false
		}
		jwk := k.bare()
		jwk[argument] = "AQAB"
		text, err := json.Marshal(jwk)
		return string(text), err == nil
	}
	return "", false
}

// percentEncoded encodes every letter of a path.
func percentEncoded(path string) string {
	var out strings.Builder
	for _, c := range []byte(path) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			fmt.Fprintf(&out, "%%%02x", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// athVariant returns the hash of a token in another form than that of RFC 9449, section 4.2.
func athVariant(token, form string) (string, bool) {
	sum := sha256.Sum256([]byte(token))
	switch form {
	case "hex":
		return fmt.Sprintf("%x", sum), true
	case "padded":
		return base64.URLEncoding.EncodeToString(sum[:]), true
	case "upper":
		return strings.ToUpper(encode(sum[:])), true
	case "short":
		return encode(sum[:16]), true
	}
	return "", false
}

// cmpOr returns the first string that is not empty.
func cmpOr(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

const (
	defaultSubject  = "alice"
	defaultClient   = "orders-app"
	defaultLifetime = 5 * time.Minute
)

// mint returns the token of a recipe. isProof makes a DPoP proof for the current request.
func (b *bench) mint(t *Token, isProof bool) (string, error) {
	if t.Use != "" {
		raw, ok := b.tokens[t.Use]
		if !ok {
			return "", fmt.Errorf("no token is saved as %q", t.Use)
		}
		return b.edit(raw, t.Edit)
	}
	var raw string
	var err error
	switch t.Kind {
	case "", "jwt":
		raw, err = b.jwt(t, isProof)
	case "opaque":
		raw, err = b.opaque(t)
	case "jwe":
		raw, err = b.jwe(t)
	case "text":
		raw = b.expand(t.Text)
	default:
		err = fmt.Errorf("unknown kind of token %q", t.Kind)
	}
	if err == nil {
		raw, err = b.edit(raw, t.Edit)
	}
	if err != nil {
		return "", err
	}
	if t.Save != "" {
		b.tokens[t.Save] = raw
	}
	if !isProof {
		b.minted = append(b.minted, raw)
	}
	return raw, nil
}

func (b *bench) edit(raw string, changes []string) (string, error) {
	for _, change := range changes {
		var err error
		if raw, err = edited(raw, b.expand(change)); err != nil {
			return "", err
		}
	}
	return raw, nil
}

func (b *bench) jwt(t *Token, isProof bool) (string, error) {
	owner, now := cmpOr(t.Issuer, "main"), b.issuer.now().Unix()
	header := map[string]any{"typ": "at+jwt"}
	claims := b.claims(owner, now)
	if isProof {
		owner = "client"
		header = map[string]any{"typ": "dpop+jwt"}
		ath := sha256.Sum256([]byte(b.token))
		claims = map[string]any{"jti": rand.Text(), "htm": b.method, "iat": now, "ath": encode(ath[:]),
			"htu": b.server.origin + b.server.routes[b.route].Path}
	}
	k, err := findKey(owner, cmpOr(t.Key, "es256"))
	if err != nil {
		return "", err
	}
	alg := cmpOr(t.Alg, k.alg)
	header["alg"] = alg
	if t.Sign == "none" {
		header["alg"] = "none"
	}
	if isProof {
		header["jwk"] = k.bare()
	} else {
		header["kid"] = k.id
	}
	maps.Copy(header, t.Header)
	maps.Copy(claims, t.Claims)

	head, err := b.object(header, t.HeaderText, t.HeaderHead, t.HeaderTail)
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	payload, err := b.object(claims, t.PayloadText, t.PayloadHead, t.PayloadTail)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	input := encode([]byte(head)) + "." + encode([]byte(payload))
	sig, err := signature(k, alg, t.Sign, input)
	if err != nil {
		return "", err
	}
	if t.Forged != nil {
		maps.Copy(claims, t.Forged)
		if payload, err = b.object(claims, "", "", ""); err != nil {
			return "", fmt.Errorf("forged: %w", err)
		}
		input = encode([]byte(head)) + "." + encode([]byte(payload))
	}
	return input + "." + encode(sig), nil
}

// claims returns those of RFC 9068, section 2.2.
func (b *bench) claims(owner string, now int64) map[string]any {
	return map[string]any{
		"iss": b.issuer.urlOf(owner, "issuer"), "sub": defaultSubject, "aud": b.server.audience, "client_id": defaultClient,
		"iat": now, "exp": now + int64(defaultLifetime/time.Second), "jti": rand.Text(),
	}
}

// object returns a JSON object with these members, or the text in place of it.
func (b *bench) object(members map[string]any, text, first, last string) (string, error) {
	if text != "" {
		return b.expand(text), nil
	}
	object, err := b.json(members)
	if err != nil {
		return "", err
	}
	return "{" + b.expand(first) + object[1:len(object)-1] + b.expand(last) + "}", nil
}

// json encodes a value of a recipe.
func (b *bench) json(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return quote(b.expand(v))
	case []any:
		var list []string
		for _, e := range v {
			text, err := b.json(e)
			if err != nil {
				return "", err
			}
			list = append(list, text)
		}
		return "[" + strings.Join(list, ",") + "]", nil
	case map[string]any:
		if text, special, err := b.special(v); special {
			return text, err
		}
		var list []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if member, ok := v[name].(map[string]any); ok && member["$absent"] == true {
				continue
			}
			text, err := b.json(v[name])
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			quoted, err := quote(name)
			if err != nil {
				return "", err
			}
			list = append(list, quoted+":"+text)
		}
		return "{" + strings.Join(list, ",") + "}", nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

func quote(s string) (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}

// special encodes an object whose only member begins with "$".
func (b *bench) special(v map[string]any) (text string, special bool, err error) {
	if len(v) != 1 {
		return "", false, nil
	}
	for name, argument := range v {
		s, _ := argument.(string)
		switch name {
		case "$time":
			d, err := time.ParseDuration(s)
			return strconv.FormatInt(b.issuer.now().Add(d).Unix(), 10), true, err
		case "$raw":
			return b.expand(s), true, nil
		case "$repeat":
			of, _ := argument.(map[string]any)
			piece, _ := of["text"].(string)
			times, _ := of["times"].(float64)
			text, err = quote(strings.Repeat(piece, int(times)))
			return text, true, err
		case "$nested":
			depth, _ := argument.(float64)
			return strings.Repeat("[", int(depth)) + strings.Repeat("]", int(depth)), true, nil
		case "$jwk", "$bare_jwk", "$jkt":
			k, err := findKey("client", s)
			if err != nil {
				return "", true, err
			}
			switch name {
			case "$jkt":
				text, err = quote(k.thumbprint())
			case "$jwk":
				text, err = b.json(k.jwk)
			default:
				text, err = b.json(k.bare())
			}
			return text, true, err
		case "$x5t", "$x5t_padded", "$x5t_hex":
			c, err := findCertificate(s)
			if err != nil {
				return "", true, err
			}
			sum := certificateThumbprint(c)
			switch name {
			case "$x5t_padded":
				text, err = quote(base64.URLEncoding.EncodeToString(sum[:]))
			case "$x5t_hex":
				text, err = quote(fmt.Sprintf("%x", sum))
			default:
				text, err = quote(encode(sum[:]))
			}
			return text, true, err
		}
	}
	return "", false, nil
}

// opaque makes a token without meaning, which the introspection endpoint knows.
func (b *bench) opaque(t *Token) (string, error) {
	raw := cmpOr(b.expand(t.Text), "opaque-"+rand.Text())
	claims := b.claims(cmpOr(t.Issuer, "main"), b.issuer.now().Unix())
	claims["active"], claims["token_type"] = true, "Bearer"
	maps.Copy(claims, t.Claims)
	body, err := b.object(claims, t.PayloadText, t.PayloadHead, t.PayloadTail)
	if err != nil {
		return "", err
	}
	b.response = body
	answer := Answer{Status: 200, Header: []string{"Content-Type: application/json"}, Body: body}
	if a := t.Answer; a != nil {
		if a.Status != 0 {
			answer.Status = a.Status
		}
		if a.Header != nil {
			answer.Header = nil
			for _, line := range a.Header {
				answer.Header = append(answer.Header, b.expand(line))
			}
		}
		if a.Body != "" {
			answer.Body = b.expand(a.Body)
		}
		answer.Delay = a.Delay
	}
	b.issuer.know(raw, answer)
	return raw, nil
}

// jwe makes the form of an encrypted token, without anything that could be decrypted (RFC 7516, section 7.1).
func (b *bench) jwe(t *Token) (string, error) {
	header := map[string]any{"alg": "RSA-OAEP", "enc": "A256GCM", "typ": "at+jwt", "cty": "JWT"}
	maps.Copy(header, t.Header)
	head, err := b.object(header, t.HeaderText, t.HeaderHead, t.HeaderTail)
	if err != nil {
		return "", err
	}
	noise := make([]byte, 256)
	rand.Read(noise)
	return strings.Join([]string{encode([]byte(head)), encode(noise), encode(noise[:12]), encode(noise[12:200]), encode(noise[200:216])}, "."), nil
}

// publishedSet returns the key set for the list.
func (b *bench) publishedSet(list []PublishedKey) (string, error) {
	var keys []string
	for _, p := range list {
		if p.Text != "" {
			keys = append(keys, b.expand(p.Text))
			continue
		}
		k, err := findKey("main", p.Key)
		if err != nil {
			return "", err
		}
		jwk := maps.Clone(k.jwk)
		maps.Copy(jwk, p.Set)
		text, err := b.json(jwk)
		if err != nil {
			return "", err
		}
		keys = append(keys, text)
	}
	return `{"keys":[` + strings.Join(keys, ",") + `]}`, nil
}
