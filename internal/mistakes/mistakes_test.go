package mistakes_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
)

func TestAPartsMistakesKeepTheirFieldsWithinTheWhole(t *testing.T) {
	part := mistakes.List{Package: "part"}
	assert.NoError(t, part.Err())
	cause := errors.New("is missing")
	part.Add("Keys[1]", "%w", cause)
	part.Add("JWKSURL, JWKS", "at most one of them")
	part.AddIf(false, "Never", "wrong")
	part.AddIf(true, "", "has no field")

	whole := mistakes.List{Package: "whole"}
	whole.Within("Part", nil)
	whole.Within("Part", part.Err())
	whole.Within("List", &valetkey.ConfigError{Field: "[0]", Err: cause})
	whole.Within("", &valetkey.ConfigError{Field: "Own", Err: cause})
	whole.Within("Other", cause)

	assert.EqualError(t, whole.Err(), `whole: Part.Keys[1]: is missing
whole: Part.JWKSURL, Part.JWKS: at most one of them
whole: Part: has no field
whole: List[0]: is missing
whole: Own: is missing
whole: Other: is missing`)
	var fields []string
	for _, m := range valetkey.ConfigErrors(whole.Err()) {
		fields = append(fields, m.Field)
	}
	assert.Equal(t, []string{"Part.Keys[1]", "Part.JWKSURL, Part.JWKS", "Part", "List[0]", "Own", "Other"}, fields)
	assert.ErrorIs(t, whole.Err(), cause)
}

func TestFieldsAreRenamedWithoutReadingTheProblem(t *testing.T) {
	names := map[string]string{"URL": "url", "Proxies.Trusted": "trusted_proxies", "Groups": "groups"}
	for _, c := range []struct{ field, want string }{
		{"Issuer", ""},
		{"", ""},
		{"URL, Issuer", ""},
		{"URL.Issuer", ""},
		{"URL", "url"},
		{"Proxies.Trusted[12]", "trusted_proxies"},
		{"Proxies.Trusted[0], URL", "trusted_proxies, url"},
		{`Groups["cn=a, ou=\"b], URL"]`, "groups"},
		{`Groups["unfinished`, "groups"},
	} {
		t.Run(c.field, func(t *testing.T) {
			name, known := mistakes.Rename(c.field, names)
			assert.Equal(t, c.want, name)
			assert.Equal(t, c.want != "", known)
		})
	}
	err := mistakes.Renamed(errors.Join(
		&valetkey.ConfigError{Field: "URL", Err: errors.New("Issuer: is another")},
		&valetkey.ConfigError{Field: "Issuer", Err: errors.New("URL: is another")}), names)
	assert.EqualError(t, err, "url: Issuer: is another\nIssuer: URL: is another")
	assert.NoError(t, mistakes.Renamed(nil, names))
}
