package valetkeytest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// ask sends token to the introspection endpoint with these credentials, form-encoded; no id sends none.
func ask(t *testing.T, iss *valetkeytest.Issuer, id, secret, token string) (int, map[string]any) {
	t.Helper()
	form := url.Values{}
	if token != "" {
		form.Set("token", token)
	}
	req, err := http.NewRequest("POST", iss.Introspection.URL, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
	res, err := iss.Client().Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	var answer map[string]any
	require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
	assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	return res.StatusCode, answer
}

func TestIntrospectionAsksForCredentials(t *testing.T) {
	const secret = "a secret:with+odd%characters"
	tests := []struct {
		name       string
		set        []valetkeytest.Setting
		id, secret string
		want       int
	}{
		{"no credentials are refused", nil, "", "", 401},
		{"another secret is refused", nil, valetkeytest.IntrospectionID, "x", 401},
		{"another id is refused", nil, "x", valetkeytest.IntrospectionSecret, 401},
		{"the default is replaced", []valetkeytest.Setting{valetkeytest.IntrospectionClient("me", secret)}, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret, 401},
		{"the default", nil, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret, 200},
		{"a secret that needs encoding", []valetkeytest.Setting{valetkeytest.IntrospectionClient("me", secret)}, "me", secret, 200},
		{"open to every caller", []valetkeytest.Setting{valetkeytest.OpenIntrospection()}, "", "", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, tt.set...)
			status, answer := ask(t, iss, tt.id, tt.secret, iss.Opaque())
			assert.Equal(t, tt.want, status)
			assert.Equal(t, tt.want == 200, answer["active"] == true)
		})
	}
	t.Run("no token is a mistake", func(t *testing.T) {
		status, answer := ask(t, valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection()), "", "", "")
		assert.Equal(t, 400, status)
		assert.Equal(t, "invalid_request", answer["error"])
	})
	t.Run("GET is refused", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		res, err := iss.Client().Get(iss.Introspection.URL)
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, http.StatusMethodNotAllowed, res.StatusCode)
	})
}

func TestIntrospectionTellsActiveFromInactive(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection())
	revoked, revokedJWT := iss.Opaque(), iss.Token()
	iss.Revoke(revoked)
	iss.Revoke(revokedJWT)
	rotated := iss.Token()
	iss.Withdraw(iss.KeyID())
	iss.Rotate()

	tests := []struct {
		name, token string
		active      bool
	}{
		{"an unknown token", "nobody's", false},
		{"a JWT of another issuer", valetkeytest.NewIssuer(t).Token(), false},
		{"a revoked opaque token", revoked, false},
		{"a revoked JWT", revokedJWT, false},
		{"an expired opaque token", iss.Opaque(valetkeytest.Expired()), false},
		{"an expired JWT", iss.Token(valetkeytest.Expired()), false},
		{"an opaque token not yet valid", iss.Opaque(valetkeytest.NotYetValid()), false},
		{"a JWT that is unsigned", iss.Token(valetkeytest.Unsigned()), false},
		{"a JWT with a tampered signature", iss.Token(valetkeytest.TamperedSignature()), false},
		{"a JWT with a tampered payload", iss.Token(valetkeytest.TamperedPayload()), false},
		{"a JWT of an unknown key", iss.Token(valetkeytest.UnknownKey()), false},
		{"claims that are not an object", iss.Opaque(valetkeytest.Payload("null")), false},
		{"an opaque token", iss.Opaque(), true},
		{"an opaque token without end", iss.Opaque(valetkeytest.Claim("exp", nil)), true},
		{"a JWT", iss.Token(), true},
		{"a JWT without a kid", iss.Token(valetkeytest.Lenient()), true},
		{"a JWT of a withdrawn key", rotated, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := ask(t, iss, "", "", tt.token)
			assert.Equal(t, 200, status)
			assert.Equal(t, tt.active, answer["active"])
			if !tt.active {
				assert.Len(t, answer, 1)
			}
		})
	}
}

func TestIntrospectionTellsTheClaims(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection())
	opts := []valetkeytest.Option{valetkeytest.Scopes("a", "b"), valetkeytest.Subject("bob"), valetkeytest.WrongAudience()}
	for kind, token := range map[string]string{"opaque": iss.Opaque(opts...), "JWT": iss.Token(opts...)} {
		t.Run(kind, func(t *testing.T) {
			_, answer := ask(t, iss, "", "", token)
			assert.Equal(t, "a b", answer["scope"])
			assert.Equal(t, "bob", answer["sub"])
			assert.Equal(t, iss.URL, answer["iss"])
			assert.Equal(t, "Bearer", answer["token_type"])
			assert.Equal(t, "https://wrong-audience.example.com", answer["aud"])
		})
	}
	_, answer := ask(t, iss, "", "", iss.Opaque(valetkeytest.Claim("token_type", "DPoP")))
	assert.Equal(t, "DPoP", answer["token_type"])
}

func TestIntrospectionGoesByTheIssuersClock(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection())
	token := iss.Opaque()
	iss.Advance(valetkeytest.DefaultLifetime + time.Second)
	_, answer := ask(t, iss, "", "", token)
	assert.Equal(t, false, answer["active"])
}
