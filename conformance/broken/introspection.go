package broken

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// opaqueLifetime is the number of seconds for which a response is relied on.
const opaqueLifetime = 30

// introspect asks the issuer for a token (RFC 7662), once for all that wait for the response.
func (s *server) introspect(token string) (*claimSet, error) {
	s.mu.Lock()
	answered, running := s.asked[token]
	if !running {
		answered = make(chan struct{})
		s.asked[token] = answered
	}
	s.mu.Unlock()
	if running && !s.is("single-flight-is-missing") {
		<-answered
		s.mu.Lock()
		c := s.tokens[s.cacheKey(token)]
		s.mu.Unlock()
		if c != nil && s.stillValid(c) {
			return c, nil
		}
	}
	c, err := s.ask(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.tokens[s.cacheKey(token)] = c
	}
	if !running {
		delete(s.asked, token)
		close(answered)
	}
	return c, err
}

func (s *server) ask(token string) (*claimSet, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	body := form.Encode()
	if s.is("token-is-not-encoded") {
		body = "token=" + token
	}
	method := http.MethodPost
	endpoint := s.setup.Introspection
	if s.is("introspection-by-get") {
		method, endpoint = http.MethodPut, endpoint+"?"+body
	}
	request, err := http.NewRequest(method, endpoint, strings.NewReader(body))
	if err != nil {
		return nil, unavailable
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if s.setup.Signed && !s.is("signed-responses-are-not-requested") {
		request.Header.Set("Accept", "application/token-introspection+jwt")
	}
	if s.is("introspection-accepts-html") {
		request.Header.Set("Accept", "text/html")
	}
	id, secret := url.QueryEscape(s.setup.ClientID), url.QueryEscape(s.setup.ClientSecret)
	if s.is("credentials-are-not-encoded") {
		id, secret = s.setup.ClientID, s.setup.ClientSecret
	}
	if !s.is("introspection-without-credentials") {
		request.SetBasicAuth(id, secret)
	}
	c := client
	if s.is("redirects-are-followed") {
		c = &http.Client{Timeout: 5 * time.Second}
	}
	res, err := c.Do(request)
	if err != nil {
		return nil, unavailable
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		if s.is("failures-are-refusals") {
			return nil, invalidToken("status %d", res.StatusCode)
		}
		return nil, &refusal{status: 503, retryAfter: res.Header.Get("Retry-After")}
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, unavailable
	}
	if s.setup.Signed {
		kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
		switch {
		case kind == "application/token-introspection+jwt":
			if text, err = s.signedResponse(string(text)); err != nil {
				return nil, unavailable
			}
		case !s.is("unsigned-responses-are-accepted"):
			return nil, unavailable
		}
	}
	return s.response(text)
}

// response reads an introspection response.
func (s *server) response(text []byte) (*claimSet, error) {
	claims, err := s.object(text)
	if err != nil {
		if s.is("unreadable-responses-are-active") {
			return &claimSet{values: map[string]any{}, opaque: true}, nil
		}
		return nil, unavailable
	}
	active, isBool := claims["active"].(bool)
	if !isBool && s.is("active-of-any-kind") && claims["active"] != nil && claims["active"] != "false" || claims["active"] == nil && s.is("active-is-optional") ||
		claims["Active"] == true && s.is("names-of-members-in-any-case") {
		active, isBool = true, true
	}
	switch {
	case !isBool:
		return nil, unavailable
	case !active && s.is("inactive-tokens-with-claims-are-accepted") && claims["sub"] != nil, !active && s.is("inactive-is-ignored"):
	case !active && s.is("inactive-gets-403"):
		return nil, &refusal{status: 403, code: "insufficient_scope"}
	case !active:
		return nil, invalidToken("the token is not active")
	case s.is("active-tokens-are-refused"):
		return nil, invalidToken("no")
	}
	if s.is("unknown-members-of-responses-are-refused") && len(claims) > 9 {
		return nil, unavailable
	}
	if s.is("bad-dates-of-responses-are-ignored") {
		if _, ok := claims["exp"].(json.Number); !ok {
			claims["exp"] = json.Number("9999999999")
		}
	}
	if claims["exp"] == nil {
		claims["exp"] = json.Number("9999999999")
	}
	if claims["iat"] == nil {
		claims["iat"] = json.Number("0")
	}
	if iss, ok := claims["iss"]; ok && iss != s.setup.Issuer && !s.is("issuer-of-responses-is-ignored") {
		return nil, invalidToken("the issuer differs")
	}
	if !s.is("audience-of-responses-is-ignored") {
		if err := s.audience(claims); err != nil && !(claims["aud"] == nil && s.is("missing-audience-of-responses-is-accepted")) {
			return nil, err
		}
	}
	if !s.is("dates-of-responses-are-ignored") {
		if err := s.times(claims); err != nil {
			return nil, err
		}
	}
	c := &claimSet{values: claims, opaque: true, until: s.seconds() + opaqueLifetime}
	if s.is("responses-are-kept-for-an-hour") {
		c.until = s.seconds() + 3600
	}
	return c, nil
}

// signedResponse returns the token_introspection of a signed response (RFC 9701, section 5).
func (s *server) signedResponse(raw string) ([]byte, error) {
	parts := strings.Split(strings.TrimSpace(raw), ".")
	if len(parts) != 3 {
		if s.is("encrypted-responses-are-active") {
			return []byte(`{"active":true,"token_type":"Bearer","aud":"` + s.setup.Audience + `"}`), nil
		}
		return nil, unavailable
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return nil, err
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return nil, err
	}
	var header struct{ Typ, Alg, Kid string }
	var claims map[string]json.RawMessage
	if json.Unmarshal(head, &header) != nil || json.Unmarshal(payload, &claims) != nil {
		return nil, unavailable
	}
	text := func(name string) (v string) {
		json.Unmarshal(claims[name], &v)
		return v
	}
	now := s.seconds()
	var iat float64
	dated := json.Unmarshal(claims["iat"], &iat) == nil && claims["iat"] != nil
	switch {
	case header.Typ != "token-introspection+jwt" && !s.is("typ-of-signed-responses-is-ignored"),
		text("iss") != s.setup.Issuer && !s.is("issuer-of-signed-responses-is-ignored"),
		text("aud") != s.setup.ClientID && !s.is("audience-of-signed-responses-is-ignored"),
		!dated && !s.is("iat-of-signed-responses-is-ignored"),
		dated && (iat < now-120 || iat > now+120) && !s.is("iat-of-signed-responses-is-ignored"):
		return nil, unavailable
	}
	if !s.is("signatures-of-responses-are-not-checked") {
		if header.Alg != "ES256" {
			return nil, unavailable
		}
		set, err := s.keysOf(s.setup.Issuer, header.Kid)
		if err != nil {
			return nil, err
		}
		sig, err := decodePart(parts[2])
		if err != nil {
			return nil, err
		}
		good := false
		for _, key := range set.keys {
			good = good || key.kid == header.Kid && key.verify(s, "ES256", parts[0]+"."+parts[1], sig)
		}
		if !good {
			return nil, unavailable
		}
	}
	inner := claims["token_introspection"]
	if s.is("signed-claims-at-the-top-level") {
		claims["active"] = json.RawMessage("true")
		claims["aud"] = json.RawMessage(`"` + s.setup.Audience + `"`)
		return json.Marshal(claims)
	}
	if len(inner) == 0 && s.is("signed-responses-without-claim-are-active") {
		return []byte(`{"active":true,"token_type":"Bearer","aud":"` + s.setup.Audience + `"}`), nil
	}
	var quoted string
	if json.Unmarshal(inner, &quoted) == nil && s.is("signed-claims-in-a-text") {
		inner = json.RawMessage(quoted)
	}
	return inner, nil
}
