package apikey_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
)

// FuzzFile: a key of a file is accepted only if exactly one entry of the array has its digest, by names in lower case that are present
// once, and states neither a time in the past nor an unreadable one. The token has the values of that entry. No error contains a key.
func FuzzFile(f *testing.F) {
	const key = "orders_k3y"
	digest := apikeyText(f, apikey.DigestOf(key))
	for _, seed := range []string{
		`[{"digest":"D","subject":"s","client_id":"c","id":"i","scopes":"b a","claims":{"Tenant":{"a":1},"tenant":"acme"},"expires":"2027-01-01T00:00:00Z"}]`,
		`[{"digest":"D","subject":"s","expires":"2020-01-01T00:00:00+01:00"}]`, `[{"digest":"D","subject":"s","expires":null}]`,
		`[{"digest":"D","Digest":"D","subject":"s"}]`, `[{"digest":"D","subject":"s"},{"digest":"D","subject":"t"}]`, `[]`, `null`, `[null]`, `{}`,
		`[{"digest":"D","subject":"s","expires":"0001-01-01T00:00:00Z"}]`, ` [ {"digest":"D","subject":"","claims":[]} ] `,
	} {
		f.Add([]byte(strings.ReplaceAll(seed, "D", digest)))
	}
	now := time.Unix(1_780_000_000, 0)
	path := filepath.Join(f.TempDir(), "keys.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		v, err := apikey.New(apikey.Config{Issuer: issuer, File: path, Now: func() time.Time { return now }})
		if err != nil {
			require.NotContains(t, err.Error(), key)
			return
		}
		token, err := verify(v, key)
		var entries []map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal(text, &entries))
		var found []map[string]json.RawMessage
		for _, entry := range entries {
			for name := range entry {
				require.Contains(t, []string{"digest", "subject", "client_id", "id", "scopes", "claims", "expires"}, name)
			}
			if strings.EqualFold(stringOf(entry["digest"]), digest) {
				found = append(found, entry)
			}
		}
		if err != nil {
			require.NotContains(t, err.Error(), key)
			require.LessOrEqual(t, len(found), 1)
			return
		}
		require.Len(t, found, 1)
		require.NotEmpty(t, token.Subject())
		require.Equal(t, stringOf(found[0]["subject"]), token.Subject())
		require.Equal(t, stringOf(found[0]["client_id"]), token.ClientID())
		require.Equal(t, stringOf(found[0]["id"]), token.ID())
		require.Equal(t, valetkey.NewScopes(strings.Fields(stringOf(found[0]["scopes"]))...).String(), token.Scopes().String())
		if expires := found[0]["expires"]; expires != nil && string(expires) != "null" {
			at, err := time.Parse(time.RFC3339, stringOf(expires))
			require.NoError(t, err)
			require.True(t, now.Before(at))
			require.True(t, at.Equal(token.Expiry()))
		}
	})
}

func stringOf(text json.RawMessage) (s string) {
	_ = json.Unmarshal(text, &s) // s stays empty if it is not a string
	return s
}
