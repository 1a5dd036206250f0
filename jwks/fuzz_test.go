package jwks_test

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/jwks"
)

// holds checks what must be true of every accepted token, as encoding/json reads it.
func holds(t *testing.T, v *jwks.Verifier, raw string) {
	token, err := v.Verify(background, raw)
	if err != nil {
		if token != nil {
			t.Fatal("a token and an error")
		}
		if len(raw) > 100 && strings.Contains(err.Error(), raw[len(raw)-40:]) {
			t.Fatal("the error quotes the token")
		}
		return
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Iss string
		Aud any
		Exp float64
		Sub any
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	audience, _ := claims.Aud.([]any)
	if claims.Iss != issuer || claims.Aud != api && !slices.Contains(audience, any(api)) {
		t.Fatalf("accepted: %s", payload)
	}
	if claims.Exp <= float64(now.Add(-30*time.Second).Unix()) || !now.Before(token.Freshness().Until) {
		t.Fatalf("accepted though expired: %s", payload)
	}
	if sub, isText := claims.Sub.(string); isText && sub != token.Subject() || !isText && token.Subject() != "" || token.Raw() != string(payload) {
		t.Fatalf("read otherwise: %s", payload)
	}
	for i, s := range token.Scopes().Slice() {
		if s == "" || strings.Contains(s, " ") || i > 0 && token.Scopes().Slice()[i-1] >= s {
			t.Fatalf("scopes %q of %s", token.Scopes(), payload)
		}
	}
}

// Any claims, signed by the right key.
func FuzzClaims(f *testing.F) {
	for _, changes := range []object{
		nil, {"aud": []string{api, "x"}}, {"exp": 1e300}, {"exp": -1}, {"scope": []string{"a", ""}}, {"scp": "a  b"}, {"Exp": 1},
		{"cnf": object{"jkt": strings.Repeat("A", 43)}}, {"realm_access": object{"roles": []string{"r"}}}, {"iss": nil}, {"nbf": 1.5},
	} {
		data, _ := json.Marshal(good(changes))
		f.Add(data)
	}
	f.Add([]byte(`{"iss":"https://as.example","aud":"https://api.example","exp":99999999999,"\u0065xp":1}`))
	v := open(f, lenient, func(c *jwks.Config) { c.Scopes = []string{"scope", "scp", "realm_access.roles"} })
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 10_000 {
			return
		}
		raw, err := es256.Sign(nil, payload)
		if err != nil {
			return
		}
		holds(t, v, raw)
	})
}

// Any text.
func FuzzVerify(f *testing.F) {
	f.Add(mint(f, es256, nil, good(nil)))
	f.Add(mint(f, rs256, object{"kid": nil, "typ": nil}, good(nil)))
	f.Add("a.b.c")
	v := open(f, lenient)
	f.Fuzz(func(t *testing.T, raw string) { holds(t, v, raw) })
}
