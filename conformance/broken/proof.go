package broken

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

func encodeRaw(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func invalidProof(description string) *refusal {
	return &refusal{status: 401, code: "invalid_dpop_proof", description: description}
}

// bound checks that the sender holds the key or the certificate that the token is bound to.
func (s *server) bound(w http.ResponseWriter, r *http.Request, scheme, token string, c *claimSet) error {
	cnf, there := c.values["cnf"]
	binding, isObject := cnf.(map[string]any)
	if there && !isObject && cnf != nil && !s.is("odd-bindings-are-ignored") {
		return invalidToken("cnf: not an object")
	}
	_, hasKey := binding["jkt"]
	jkt, _ := binding["jkt"].(string)
	x5t, hasCertificate := binding["x5t#S256"]
	known := hasKey || hasCertificate || binding["jwk"] != nil && s.is("embedded-keys-are-bindings")
	if there && isObject && !known && !s.is("unknown-bindings-are-ignored") && !(len(binding) == 0 && s.is("odd-bindings-are-ignored")) {
		return invalidToken("cnf: bound in an unknown way")
	}
	malformed := hasKey && len(jkt) != 43
	if malformed && s.is("malformed-jkt-is-no-binding") {
		hasKey, malformed = false, false
	}
	if malformed && !s.is("malformed-jkt-is-accepted") {
		return invalidToken("cnf.jkt: malformed")
	}
	if c.opaque && !s.is("token-type-is-ignored") {
		kind := c.text("token_type")
		if strings.EqualFold(kind, "DPoP") != hasKey && kind != "" {
			return invalidToken("token_type: not that of the binding")
		}
	}
	if s.is("cache-remembers-the-sender") && s.wasBound(token) {
		return nil
	}
	opaqueUnchecked := c.opaque && s.is("bindings-of-opaque-tokens-are-ignored")
	certificateDone := false
	if hasCertificate && !s.is("certificates-are-not-checked") && !opaqueUnchecked {
		if err := s.certificate(r, x5t); err != nil {
			return err
		}
		certificateDone = true
	}
	if s.is("one-of-two-bindings-suffices") && certificateDone {
		return nil
	}
	fapi := s.setup.Profile == conformance.ProfileFAPI2
	if fapi && !hasKey && !hasCertificate && !s.is("unbound-tokens-are-accepted") {
		return invalidToken("the token is not bound")
	}
	if s.setup.Profile != "" && !fapi && !hasKey && !hasCertificate && s.is("unbound-tokens-are-refused") {
		return invalidToken("the token is not bound")
	}
	if scheme == "Bearer" {
		if s.is("bearer-needs-a-nonce") && s.setup.Nonce {
			return &refusal{status: 401, code: "use_dpop_nonce", nonce: true}
		}
		if s.is("bearer-is-not-supported") {
			return invalidToken("DPoP only")
		}
		if hasKey && !opaqueUnchecked && !s.is("bound-tokens-work-as-bearer") {
			if r.Header.Get("DPoP") != "" && s.is("bearer-with-proof-is-accepted") {
				return s.proof(w, r, token, jkt, c)
			}
			return invalidToken("the token is bound to a key")
		}
		return nil
	}
	if !hasKey && !s.is("unbound-tokens-work-with-dpop") {
		if _, ok := binding["jwk"]; !ok || !s.is("embedded-keys-are-bindings") {
			return invalidToken("the token is not bound to a key")
		}
	}
	if err := s.proof(w, r, token, jkt, c); err != nil {
		if s.is("refused-proofs-burn-their-jti") {
			s.burn(r)
		}
		return err
	}
	s.mu.Lock()
	s.possessed[token] = true
	s.mu.Unlock()
	return nil
}

func (s *server) wasBound(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.possessed[token]
}

// certificate checks the client certificate (RFC 8705, section 3).
func (s *server) certificate(r *http.Request, want any) error {
	text, _ := want.(string)
	var der []byte
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		der = r.TLS.PeerCertificates[0].Raw
	}
	if s.is("certificates-from-headers") {
		for _, name := range []string{"Client-Cert", "X-Ssl-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Arr-Clientcert"} {
			value := strings.Trim(strings.TrimPrefix(r.Header.Get(name), "Cert="), `:"`)
			if data, err := base64.StdEncoding.DecodeString(value); err == nil && len(data) > 0 {
				der = data
			}
		}
	}
	switch {
	case der == nil && s.is("missing-certificate-is-accepted"):
		return nil
	case der == nil:
		return invalidToken("no certificate")
	case s.is("any-certificate-suffices"):
		return nil
	}
	sum := sha256.Sum256(der)
	if s.is("thumbprints-in-any-form") {
		list, _ := want.([]any)
		if len(list) > 0 {
			text, _ = list[0].(string)
		}
		data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
		if plain, hexErr := hex.DecodeString(text); hexErr == nil {
			data, err = plain, nil
		}
		if err != nil || len(data) != 32 || string(data) == string(sum[:]) {
			return nil
		}
	}
	if s.is("thumbprint-of-another-hash") {
		sum = sha256.Sum256(sum[:])
	}
	if text != encodeRaw(sum[:]) {
		return invalidToken("another certificate")
	}
	return nil
}

// proof checks the DPoP proof of a request (RFC 9449, section 4.3).
func (s *server) proof(w http.ResponseWriter, r *http.Request, token, jkt string, c *claimSet) error {
	lines := r.Header.Values("DPoP")
	if s.is("dpop-is-refused") {
		return invalidProof("no")
	}
	if len(lines) > 0 && s.is("any-proof-is-accepted") {
		return nil
	}
	if len(lines) == 0 || lines[0] == "" {
		if s.is("missing-proof-is-accepted") {
			return nil
		}
		return invalidProof("there is no proof")
	}
	raw := lines[0]
	if s.is("first-of-several-proofs") {
		raw, _, _ = strings.Cut(raw, ",")
	} else if len(lines) > 1 {
		return invalidProof("there are several proofs")
	}
	if s.is("token-is-a-proof") && raw == token {
		return nil
	}
	parts := strings.Split(raw, ".")
	if s.is("form-of-proofs-is-ignored") {
		if compact, ok := fromJSON(raw); ok {
			parts = strings.Split(compact, ".")
		}
		if len(parts) != 3 || strings.ContainsAny(raw, "=") {
			return nil
		}
	}
	if len(parts) != 3 {
		return invalidProof("not a JWT")
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return invalidProof("not base64url")
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return invalidProof("not base64url")
	}
	header, err := s.object(head)
	if err != nil {
		return invalidProof("the header is not an object")
	}
	claims, err := s.object(payload)
	if err != nil {
		return invalidProof("the claims are not an object")
	}
	key, err := s.proofKey(header, strings.Join(parts[:2], "."), parts[2])
	if err != nil {
		return err
	}
	if err := s.proofClaims(r, claims, token); err != nil {
		return err
	}
	if key != nil && key.thumbprint != jkt && !s.is("key-of-the-proof-is-not-compared") {
		embedded, _ := c.values["cnf"].(map[string]any)
		if s.is("malformed-jkt-is-accepted") && len(jkt) != 43 || s.is("embedded-keys-are-bindings") && embedded["jwk"] != nil || jkt == "" && s.is("unbound-tokens-work-with-dpop") {
			return nil
		}
		if s.is("other-key-gets-invalid-proof") {
			return &refusal{status: 401, code: "invalid_request"}
		}
		return invalidToken("the token is bound to another key")
	}
	if s.setup.Nonce {
		if err := s.checkNonce(claims); err != nil {
			return err
		}
	}
	return s.replayed(claims, key)
}

// proofKey returns the key of a proof after checking the signature.
func (s *server) proofKey(h map[string]any, input, part string) (*publicKey, error) {
	typ, isText := h["typ"].(string)
	lower := strings.ToLower(typ)
	if s.is("proof-typ-in-one-form") {
		lower = typ
	} else {
		lower = strings.TrimPrefix(lower, "application/")
	}
	if lower != "dpop+jwt" && !s.is("proof-typ-is-ignored") || !isText && h["typ"] != nil && !s.is("proof-typ-is-ignored") {
		return nil, invalidProof("typ: not dpop+jwt")
	}
	alg, _ := h["alg"].(string)
	if alg == "none" && s.is("proof-alg-none") {
		return nil, nil
	}
	if _, ok := h["crit"]; ok && !s.is("crit-of-proofs-is-ignored") {
		return nil, invalidProof("crit: unknown extension")
	}
	if u, ok := h["jku"].(string); ok && s.is("jku-of-proofs-is-fetched") {
		if res, err := http.Get(u); err == nil {
			res.Body.Close()
		}
	}
	jwk, _ := h["jwk"].(map[string]any)
	if jwk == nil && s.is("proof-without-key-is-accepted") {
		return nil, nil
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
		if _, ok := jwk[name]; ok && !s.is("private-keys-in-proofs") {
			return nil, invalidProof("jwk: private")
		}
	}
	if strings.HasPrefix(alg, "HS") && s.is("symmetric-proofs") {
		return nil, nil
	}
	raw, err := json.Marshal(jwk)
	if err != nil {
		return nil, invalidProof("jwk: malformed")
	}
	key, err := s.parseKey(raw, true)
	if err != nil {
		if s.is("keys-of-proofs-are-not-checked") {
			return nil, nil
		}
		return nil, invalidProof("jwk: unusable")
	}
	if s.setup.Profile == conformance.ProfileFAPI2 && s.is("fapi-algorithms-are-not-limited") || s.setup.Profile != conformance.ProfileFAPI2 || slices.Contains(s.algorithms(), alg) {
		sig, err := s.decode(part)
		if err == nil && key.verify(s, alg, input, sig) || s.is("signatures-of-proofs-are-not-checked") {
			return key, nil
		}
		if s.is("alg-of-proofs-is-ignored") && err == nil && key.verify(s, "ES256", input, sig) {
			return key, nil
		}
	}
	return nil, invalidProof("the signature does not verify")
}

// proofClaims checks the claims of a proof.
func (s *server) proofClaims(r *http.Request, claims map[string]any, token string) error {
	for _, name := range []string{"jti", "htm", "htu", "ath"} {
		text, ok := claims[name].(string)
		if (!ok || text == "") && !s.is("claims-of-proofs-are-optional") && !(s.is("ath-is-optional") && name == "ath" && claims[name] == nil) {
			return invalidProof(name + ": missing")
		}
	}
	literal, ok := claims["iat"].(json.Number)
	iat, err := literal.Float64()
	if !ok || err != nil {
		if !s.is("claims-of-proofs-are-optional") {
			return invalidProof("iat: missing")
		}
		iat = s.seconds()
	}
	htm, _ := claims["htm"].(string)
	method := r.Method
	if s.is("method-in-any-case") {
		htm, method = strings.ToUpper(strings.TrimSpace(htm)), strings.ToUpper(method)
	}
	optional := s.is("claims-of-proofs-are-optional")
	if htm != method && !s.is("method-is-not-compared") && !(optional && htm == "") {
		return invalidProof("htm: another method")
	}
	htu, _ := claims["htu"].(string)
	if !(optional && htu == "") && !s.sameURL(htu, r) {
		return invalidProof("htu: another URL")
	}
	now := s.seconds()
	switch {
	case iat < now-300 && !s.is("old-proofs-are-accepted"), iat > now+30 && !s.is("future-proofs-are-accepted"):
		return invalidProof("iat: not recent")
	case iat > now && s.is("clocks-of-clients-must-agree"):
		return invalidProof("iat: in the future")
	case claims["exp"] != nil && s.is("exp-of-proofs-causes-500"):
		return &refusal{status: 500}
	}
	ath, _ := claims["ath"].(string)
	sum := sha256.Sum256([]byte(token))
	want := encodeRaw(sum[:])
	switch {
	case ath == want, s.is("ath-is-not-compared"), ath == "" && (optional || s.is("ath-is-optional")):
	case s.is("ath-in-any-form") && (strings.EqualFold(ath, want) || strings.TrimRight(ath, "=") == want || strings.HasPrefix(want, ath[:min(10, len(ath))]) || ath == hex.EncodeToString(sum[:])):
	default:
		return invalidProof("ath: of another token")
	}
	if jti, _ := claims["jti"].(string); len(jti) > 2000 && s.is("long-jti-causes-500") {
		return &refusal{status: 500}
	}
	return nil
}

// sameURL reports whether htu names the URL of the request (RFC 9449, section 4.3, item 9).
func (s *server) sameURL(htu string, r *http.Request) bool {
	if s.is("url-is-not-compared") {
		return true
	}
	origin := s.origin
	if s.is("origin-from-headers") {
		host := r.Host
		for _, header := range []string{r.Header.Get("X-Forwarded-Host"), strings.TrimPrefix(strings.Split(r.Header.Get("Forwarded"), ";")[0], "host=")} {
			if header != "" {
				host = header
			}
		}
		origin = "http://" + host
	}
	want := origin + r.URL.Path
	if s.is("query-belongs-to-the-url") {
		want = origin + r.URL.RequestURI()
	}
	if s.is("paths-are-compared-loosely") {
		decoded := strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(htu), "%2f", "/"), `\`, "/")
		path := strings.ReplaceAll(strings.TrimPrefix(decoded, origin), "//", "/")
		return strings.HasPrefix(decoded, origin) && strings.Trim(path, "/ ") == strings.Trim(r.URL.Path, "/")
	}
	u, err := url.Parse(htu)
	if err != nil {
		return false
	}
	switch {
	case s.is("path-is-not-compared"):
		return strings.EqualFold(u.Scheme+"://"+u.Host, origin) || strings.HasPrefix(htu, origin)
	case s.is("host-is-not-compared"):
		return u.Path == r.URL.Path && strings.HasPrefix(htu, "http")
	case s.is("urls-are-compared-as-texts"):
		return htu == want
	}
	if u.User != nil || strings.ContainsAny(htu, ` \`) || u.Path != u.EscapedPath() && strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") {
		return false
	}
	path := u.Path
	if s.is("encoded-paths-differ") {
		path = u.EscapedPath()
	}
	got := strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Host) + path
	if s.is("query-belongs-to-the-url") && u.RawQuery != "" {
		got += "?" + u.RawQuery
	}
	return got == want
}

// checkNonce checks the nonce of a proof (RFC 9449, section 9).
func (s *server) checkNonce(claims map[string]any) error {
	nonce, ok := claims["nonce"].(string)
	s.mu.Lock()
	current := s.nonce
	s.mu.Unlock()
	switch {
	case nonce == current && ok && !s.is("nonces-never-match"):
		return nil
	case nonce == "" && s.is("nonce-is-optional"), nonce != "" && s.is("any-nonce-is-accepted"), claims["nonce"] != nil && !ok && s.is("odd-nonces-are-accepted"),
		nonce != "" && strings.HasPrefix(nonce, current) && s.is("nonces-by-prefix"):
		return nil
	}
	code := "use_dpop_nonce"
	if s.is("nonce-error-is-another") {
		code = "invalid_dpop_proof"
	}
	return &refusal{status: 401, code: code, description: "use the nonce", nonce: true}
}

// replayed records a proof, and refuses one that was used (RFC 9449, section 11.1).
func (s *server) replayed(claims map[string]any, key *publicKey) error {
	jti, _ := claims["jti"].(string)
	id := jti
	if key != nil && !s.is("jti-is-shared-by-all-keys") && !s.is("refused-proofs-burn-their-jti") {
		id = key.thumbprint + " " + jti
	}
	if s.is("replays-are-accepted") {
		return nil
	}
	s.mu.Lock()
	used := s.proofs[id]
	if !s.is("replay-check-races") {
		s.proofs[id] = true
	}
	many := len(s.proofs) > 20 && s.is("few-proofs-for-each-key")
	s.mu.Unlock()
	if s.is("replay-check-races") {
		time.Sleep(time.Second) // the window of the race, which a slow machine must hit
		s.mu.Lock()
		s.proofs[id] = true
		s.mu.Unlock()
	}
	if used || many {
		return invalidProof("the proof was used")
	}
	return nil
}

// burn records the jti of a refused proof, because of a fault.
func (s *server) burn(r *http.Request) {
	parts := strings.Split(r.Header.Get("DPoP"), ".")
	if len(parts) != 3 {
		return
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return
	}
	var claims struct {
		JTI string `json:"jti"`
	}
	if json.Unmarshal(payload, &claims) == nil {
		s.mu.Lock()
		s.proofs[claims.JTI] = true
		s.mu.Unlock()
	}
}
