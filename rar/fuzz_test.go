package rar_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/rar"
)

// Details that are accepted mean the same to a handler that decodes them with encoding/json.
func FuzzOf(f *testing.F) {
	for _, seed := range []string{
		`[]`, `null`, `{}`, `[{"type":"payment"}]`, `[{"type":"payment","Type":"other"}]`, `[{"type":"payment","type":"other"}]`, `[{"type":""}]`, `[1]`,
		`[{"type":"a","actions":["read"],"locations":["https://a.example"],"datatypes":["x"],"privileges":["p"],"identifier":"i","amount":{"n":1e400}}]`,
		`[{"type":"\u0061","actions":[]},{"type":"b","actions":"read"}]`, `[{"type":"a","\u212Aind":1,"kind":2}]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, claim string) {
		raw := `{"iss":"i","authorization_details":` + claim + `}`
		details, err := rar.Of(valetkey.NewToken(valetkey.TokenFields{Raw: raw}))
		if err != nil {
			assert.Empty(t, details, "all or none")
			return
		}
		var claims map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(raw), &claims))
		var all []map[string]any
		numbers := json.NewDecoder(bytes.NewReader(claims["authorization_details"]))
		numbers.UseNumber() // of any size
		require.NoError(t, numbers.Decode(&all))
		require.Len(t, details, len(all))
		for i, d := range details {
			text := func(name string) string { s, _ := all[i][name].(string); return s }
			assert.NotEmpty(t, d.Type)
			assert.Equal(t, text("type"), d.Type)
			assert.Equal(t, text("identifier"), d.Identifier)
			for name, got := range map[string]valetkey.List[string]{
				"locations": d.Locations, "actions": d.Actions, "datatypes": d.DataTypes, "privileges": d.Privileges,
			} {
				want, _ := all[i][name].([]any)
				require.Equal(t, len(want), got.Len(), name)
				for j, element := range want {
					assert.Equal(t, element, got.At(j), name)
				}
			}
			assert.True(t, json.Valid([]byte(d.Raw)))
		}
	})
}
