package middleware_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

func TestIdentityHeaders(t *testing.T) {
	for name, subject := range map[string]string{
		"a line break":            "alice\r\nX-Valetkey-Scope: admin",
		"a line feed":             "al\nice",
		"a NUL":                   "alice\x00",
		"a delete character":      "al\x7fice",
		"a space at the end":      "alice ",
		"a space at the start":    " alice",
		"a wide space at the end": "alice\u2003",
	} {
		t.Run(name, func(t *testing.T) {
			for _, fields := range []valetkey.TokenFields{{Subject: subject}, {ClientID: subject}} {
				h, err := middleware.IdentityHeaders(valetkey.NewToken(fields))
				var refusal *valetkey.Error
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, valetkey.InvalidToken, refusal.Code)
				assert.Equal(t, valetkey.ReasonIdentity, refusal.Reason)
				assert.Nil(t, h)
			}
		})
	}
	for _, c := range []struct{ name, subject, want string }{
		{"plain names are sent as they are", "auth0|5f7c8ec7 c33c6c004bbafe82@clients", "auth0|5f7c8ec7 c33c6c004bbafe82@clients"},
		{"letters beyond ASCII", "Zoë Müller", "Zo%C3%AB M%C3%BCller"},
		{"a percent sign", "50%", "50%25"},
		{"what looks encoded", "Zo%C3%AB", "Zo%25C3%25AB"},
		{"bytes that are not UTF-8", "a\xffb", "a%FFb"},
		{"a line separator of Unicode", "a\u2028b", "a%E2%80%A8b"},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := middleware.IdentityHeaders(valetkey.NewToken(valetkey.TokenFields{Subject: c.subject}))
			require.NoError(t, err)
			assert.Equal(t, http.Header{"X-Valetkey-Subject": {c.want}, "X-Valetkey-Client": {""}, "X-Valetkey-Scope": {""}}, h)
		})
	}
	t.Run("all three", func(t *testing.T) {
		h, err := middleware.IdentityHeaders(valetkey.NewToken(valetkey.TokenFields{Subject: "a", ClientID: "b", Scopes: valetkey.NewScopes("c", "d")}))
		require.NoError(t, err)
		assert.Equal(t, http.Header{"X-Valetkey-Subject": {"a"}, "X-Valetkey-Client": {"b"}, "X-Valetkey-Scope": {"c d"}}, h)
		h.Add("X-Valetkey-Subject", "x")
		assert.Equal(t, []string{"b"}, h["X-Valetkey-Client"], "the values share no memory")
	})
	t.Run("no token", func(t *testing.T) {
		h, err := middleware.IdentityHeaders(nil)
		require.NoError(t, err)
		assert.Equal(t, http.Header{"X-Valetkey-Subject": {""}, "X-Valetkey-Client": {""}, "X-Valetkey-Scope": {""}}, h)
	})
}

func FuzzIdentityHeaders(f *testing.F) {
	for _, s := range []string{"alice", "50%", "Zoë", "a\xff", "%C3%AB", "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		h, err := middleware.IdentityHeaders(valetkey.NewToken(valetkey.TokenFields{Subject: subject}))
		if err != nil {
			return
		}
		for _, c := range []byte(h.Get("X-Valetkey-Subject")) {
			if c < ' ' || c >= 0x7f {
				t.Fatalf("%q is sent as %q", subject, h)
			}
		}
		if got, err := url.PathUnescape(h.Get("X-Valetkey-Subject")); err != nil || got != subject {
			t.Fatalf("%q comes back as %q, %v", subject, got, err)
		}
	})
}

func TestIsIdentityHeader(t *testing.T) {
	for _, name := range []string{"X-Valetkey-Subject", "x-valetkey-scope", "X_VALETKEY_SCOPE", "X-VALETKEY.Scope", "x_Valetkey-Client", "X-Valetkey", "X-Valetkey-Next", "X-ValetkeyScope", "X~Valetkey-Scope", "X{Valetkey-Scope", "X.Valetkey-Scope", "X/Valetkey-Scope", "X:Valetkey-Scope", "X@Valetkey-Scope", "X[Valetkey-Scope", "X`Valetkey-Scope"} {
		assert.True(t, middleware.IsIdentityHeader(name), name)
	}
	for _, name := range []string{"", "X-Valet", "X-Valetke", "Valetkey-Subject", "XX-Valetkey-Subject", "X-Valet-Key-Subject", "X1Valetkey-Subject", "XaValetkey-Subject", "XzValetkey-Subject", "XAValetkey-Subject", "XZValetkey-Subject", "X9Valetkey-Subject", "X0Valetkey-Subject", "X-Val.tkey-Subject", "--Valetkey-Subject"} {
		assert.False(t, middleware.IsIdentityHeader(name), name)
	}
}
