package tokenclaims_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// absent stands for a claim that is not there.
const absent = ""

func value(text string) strictjson.Value {
	if text == absent {
		return nil
	}
	return strictjson.Value(text)
}

func TestText(t *testing.T) {
	for _, c := range []struct{ text, required, optional string }{
		{absent, "x is missing", ""},
		{`""`, "x is missing", ""},
		{`1`, "x is not a string", "x is not a string"},
		{`null`, "x is not a string", "x is not a string"},
		{`["a"]`, "x is not a string", "x is not a string"},
		{`"a\n"`, "", ""},
	} {
		for optional, want := range map[bool]string{false: c.required, true: c.optional} {
			var got string
			err := tokenclaims.Text(&got, "x", value(c.text), optional)
			if want != "" {
				assert.EqualError(t, err, want, c.text)
				continue
			}
			require.NoError(t, err, c.text)
			if c.text != absent {
				var plain string
				require.NoError(t, json.Unmarshal([]byte(c.text), &plain))
				assert.Equal(t, plain, got)
			}
		}
	}
}

func TestDate(t *testing.T) {
	for _, c := range []struct {
		text, want string
		date       time.Time
	}{
		{text: absent, want: "exp is missing"},
		{text: `"1"`, want: "exp is not a number"},
		{text: `null`, want: "exp is not a number"},
		{text: `true`, want: "exp is not a number"},
		{text: `1e400`, want: "exp is not a number"},
		{text: `-1e300`, date: time.Unix(0, 0)},
		{text: `0`, date: time.Unix(0, 0)},
		{text: `1300819380`, date: time.Unix(1300819380, 0)},
		{text: `1.5`, date: time.Unix(1, 5e8)},
		{text: `1e300`, date: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
	} {
		var got time.Time
		err := tokenclaims.Date(&got, "exp", value(c.text), false)
		if c.want != "" {
			assert.EqualError(t, err, c.want, c.text)
			continue
		}
		require.NoError(t, err, c.text)
		assert.True(t, c.date.Equal(got), "%s: %v", c.text, got)
		assert.False(t, got.IsZero(), "a date is never taken for none")
		_, err = json.Marshal(got)
		assert.NoError(t, err)
	}
	var none time.Time
	require.NoError(t, tokenclaims.Date(&none, "exp", nil, true))
	require.NoError(t, tokenclaims.Date(&none, "exp", value("0"), true))
	assert.True(t, none.IsZero())
}

func TestScopes(t *testing.T) {
	for _, c := range []struct {
		text   string
		arrays bool
		want   []string // nil: refused
	}{
		{`1`, true, nil},
		{`null`, true, nil},
		{`["a"]`, false, nil},
		{`["a",1]`, true, nil},
		{`""`, false, []string{}},
		{`"b  a b"`, false, []string{"b", "a", "b"}},
		{`"a\tb c\u007f d"`, false, []string{"d"}},
		{`["read admin","a","","b\n"]`, true, []string{"a"}},
	} {
		got, err := tokenclaims.AppendScopes([]string{}, value(c.text), c.arrays)
		if c.want == nil {
			assert.ErrorContains(t, err, "is not a string of scopes", c.text)
			continue
		}
		require.NoError(t, err, c.text)
		assert.Equal(t, c.want, got, c.text)
	}
	got, err := tokenclaims.AppendScopes(nil, nil, false)
	require.NoError(t, err)
	assert.Empty(t, got)
}

func TestBinding(t *testing.T) {
	const print = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" // RFC 9449, section 6.1
	for _, c := range []struct{ text, want string }{
		{`"jkt"`, "cnf is not an object"},
		{`null`, "cnf is not an object"},
		{`{}`, "cnf is empty"},
		{`{"jkt":1}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":""}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":"` + print[:42] + `"}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":"` + print + `A"}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":"` + print[:42] + `J"}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":"` + strings.Repeat("+", 43) + `"}`, "jkt is not a SHA-256 thumbprint"},
		{`{"jkt":"` + print + `","JKT":"` + print + `"}`, "a member in two letter cases"},
		{`{"jkt":"` + print + `","x5t#S256":"short"}`, "x5t#S256 is not a SHA-256 thumbprint"},
	} {
		got, err := tokenclaims.Binding(value(c.text))
		assert.ErrorContains(t, err, c.want, c.text)
		assert.Zero(t, got, c.text)
	}
	for _, c := range []struct {
		text string
		want valetkey.Binding
	}{
		{absent, valetkey.Binding{}},
		{`{"jkt":"` + print + `"}`, valetkey.Binding{JWKThumbprint: print}},
		{`{"x5t#S256":"` + print + `"}`, valetkey.Binding{CertificateThumbprint: print}},
		{`{"kid":"1","jkt":"` + print + `"}`, valetkey.Binding{JWKThumbprint: print, Unknown: valetkey.ListOf("kid")}},
	} {
		got, err := tokenclaims.Binding(value(c.text))
		require.NoError(t, err, c.text)
		assert.Equal(t, c.want, got, c.text)
	}
}

func TestAudience(t *testing.T) {
	for _, text := range []string{absent, `1`, `null`, `{}`, `["a",1]`, `[["a"]]`} {
		_, err := tokenclaims.Audience(value(text), false)
		assert.Error(t, err, text)
		_, err = tokenclaims.Audience(value(text), true)
		assert.Equal(t, text != absent, err != nil, text)
	}
	for text, want := range map[string][]string{`"a"`: {"a"}, `""`: {""}, `["a","b"]`: {"a", "b"}} {
		got, err := tokenclaims.Audience(value(text), false)
		require.NoError(t, err, text)
		assert.Equal(t, valetkey.ListOf(want...), got, text)
	}
}

func TestIsFor(t *testing.T) {
	names := []string{"api", "https://api.example.com"}
	for _, c := range []struct {
		name      string
		aud       []string
		any, sole bool
	}{
		{"none", nil, false, false},
		{"another", []string{"other"}, false, false},
		{"other case", []string{"API"}, false, false},
		{"an origin with two slashes more", []string{"https://api.example.com//"}, false, false},
		{"AUD-05 another letter case", []string{"https://API.example.com"}, false, false},
		{"an origin with a slash, and another", []string{"https://api.example.com/", "other"}, true, false},
		{"an origin with a slash", []string{"https://api.example.com/"}, true, true},
		{"AUD-04 ours and another", []string{"other", "api"}, true, false},
		{"AUD-04 ours", []string{"api"}, true, true},
		{"AUD-04 two of our names", []string{"api", "https://api.example.com"}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.any, tokenclaims.IsFor(valetkey.ListOf(c.aud...), names, false))
			assert.Equal(t, c.sole, tokenclaims.IsFor(valetkey.ListOf(c.aud...), names, true))
		})
	}
}

func TestSameResource(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"a path with a slash", "https://h/a", "https://h/a/", false},
		{"a path that ends with two slashes", "https://h/", "https://h//", false},
		{"a query", "https://h?a", "https://h?a/", false},
		{"an empty query", "https://h?", "https://h?/", false},
		{"a fragment", "https://h#a", "https://h#a/", false},
		{"a user", "https://u@h", "https://u@h/", false},
		{"a scheme alone", "https:/", "https://", false},
		{"no host", "https://", "https:///", false},
		{"another scheme", "ftp://h", "ftp://h/", false},
		{"a URN", "urn:api", "urn:api/", false},
		{"a word", "api", "api/", false},
		{"an empty name", "", "/", false},
		{"another character than a slash", "https://h", "https://hh", false},
		{"another port", "https://h:1", "https://h:2/", false},
		{"the default port", "https://h", "https://h:443", false},
		{"another letter case", "https://h/", "https://H", false},
		{"http and https", "http://h", "https://h/", false},
		{"equal paths", "https://h/a/", "https://h/a/", true},
		{"an origin", "https://h", "https://h/", true},
		{"an origin with a port", "https://h:8443", "https://h:8443/", true},
		{"an origin of http", "http://h", "http://h/", true},
		{"an IPv6 address", "https://[::1]", "https://[::1]/", true},
		{"an origin that ends with a slash twice", "https://h/", "https://h/", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.same, tokenclaims.SameResource(c.a, c.b))
			assert.Equal(t, c.same, tokenclaims.SameResource(c.b, c.a))
		})
	}
	a, b := "https://api.example.com", "https://api.example.com/"
	assert.Zero(t, testing.AllocsPerRun(10, func() { tokenclaims.SameResource(a, b) }))
}

func TestCheckAudience(t *testing.T) {
	for _, c := range []struct {
		name  string
		names []string
		want  []string
	}{
		{"AUD-01 none", nil, []string{"required; an empty list does not mean any"}},
		{"an empty one", []string{"api", ""}, []string{"[1]: is empty"}},
		{"AUD-03 URIs with a fragment", []string{"https://api.example.com/#", "api", "urn:api#v1"}, []string{
			"[0]: has a fragment, which no aud has (RFC 8707, section 2)",
			"[2]: has a fragment, which no aud has (RFC 8707, section 2)",
		}},
		{"AUD-03 any string", []string{"api", "api#1", "https://api.example.com/a?b", "%zz#", "urn:api"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, m := range valetkey.ConfigErrors(tokenclaims.CheckAudience(c.names)) {
				got = append(got, m.Error())
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestKindOf(t *testing.T) {
	for value, want := range map[string]tokenclaims.Kind{
		"": "", "JWT": "", "user": "", "Bearer": tokenclaims.AccessToken, "access-token": tokenclaims.AccessToken, "DS": tokenclaims.AccessToken,
		"ID": tokenclaims.IDToken, "id_token": tokenclaims.IDToken, "Refresh": tokenclaims.RefreshToken, "refresh-token": tokenclaims.RefreshToken,
		"DSR": tokenclaims.RefreshToken, "Offline": tokenclaims.RefreshToken, "Logout": tokenclaims.LogoutToken,
	} {
		assert.Equal(t, want, tokenclaims.KindOf(value), "%q", value)
	}
}
