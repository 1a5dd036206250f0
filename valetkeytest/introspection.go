package valetkeytest

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/jose"
)

// Opaque returns an opaque access token, which only the introspection endpoint can interpret. It takes the options of
// [Issuer.Token]; those for the header, the key and the signature have no effect.
func (iss *Issuer) Opaque(opts ...Option) string {
	iss.t.Helper()
	claims, err := iss.draft(opts).encode()
	if err != nil {
		iss.t.Errorf("valetkeytest: minting an opaque token: %v", err)
	}
	raw := rand.Text()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.opaque[raw] = claims
	return raw
}

// Revoke makes the introspection endpoint report the token, opaque or JWT, as inactive from now on.
func (iss *Issuer) Revoke(token string) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.revoked[token] = true
}

// introspect implements RFC 7662, section 2. A token is active if this issuer issued it, has not revoked it, and it is valid
// at [Issuer.Now]. The caller must check the issuer and the audience.
func (iss *Issuer) introspect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !iss.knows(r) {
		// RFC 7662, section 2.3; RFC 6749, section 5.2.
		w.Header().Set("WWW-Authenticate", `Basic realm="introspection"`)
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	token := r.PostFormValue("token")
	if token == "" {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
		return
	}
	claims := iss.active(token)
	if claims == nil {
		answer(w, http.StatusOK, map[string]any{"active": false}) // and nothing else: RFC 7662, section 2.2
		return
	}
	claims["active"] = json.RawMessage("true")
	if _, ok := claims["token_type"]; !ok {
		claims["token_type"] = tokenType(claims["cnf"])
	}
	answer(w, http.StatusOK, claims)
}

// tokenType returns DPoP for a token that is bound to a DPoP key (RFC 9449, section 6.2), and Bearer otherwise.
func tokenType(cnf json.RawMessage) json.RawMessage {
	var binding map[string]json.RawMessage
	if json.Unmarshal(cnf, &binding) == nil && binding["jkt"] != nil {
		return json.RawMessage(`"DPoP"`)
	}
	return json.RawMessage(`"Bearer"`)
}

// answer sends a JSON object of values that are known to encode.
func answer[V any](w http.ResponseWriter, status int, v map[string]V) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(mustJSON(v))
}

// knows reports whether the request has the right credentials, which are form-encoded first (RFC 6749, section 2.3.1).
func (iss *Issuer) knows(r *http.Request) bool {
	if iss.settings.id == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	id, err1 := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(password)
	return err1 == nil && err2 == nil && same(id, iss.settings.id) && same(secret, iss.settings.secret)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// active returns the claims of the token, or nil if it is not active.
func (iss *Issuer) active(token string) map[string]json.RawMessage {
	var claims map[string]json.RawMessage
	if json.Unmarshal(iss.claimsOf(token), &claims) != nil {
		return nil
	}
	now := float64(iss.Now().Unix())
	if exp, ok := number(claims["exp"]); ok && exp <= now {
		return nil
	}
	if nbf, ok := number(claims["nbf"]); ok && nbf > now {
		return nil
	}
	return claims
}

func number(v json.RawMessage) (n float64, ok bool) {
	return n, json.Unmarshal(v, &n) == nil
}

// claimsOf returns the claims of the token, or nil if it is revoked or from another issuer.
func (iss *Issuer) claimsOf(token string) []byte {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if iss.revoked[token] {
		return nil
	}
	if claims, ok := iss.opaque[token]; ok {
		return claims
	}
	jwt, err := jose.ParseWith(token, jose.Options{Limit: authheader.MaxTokenLimit})
	if err != nil {
		return nil
	}
	for _, k := range iss.keys.all {
		if k.Public().Verify(jwt) == nil {
			return jwt.Payload
		}
	}
	return nil
}
