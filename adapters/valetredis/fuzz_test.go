package valetredis_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
)

// FuzzRecord: any text of an entry becomes one revocation of the issuer that encoding/json reads, or an error. A text that is not fully
// understood revokes all tokens of the issuer up to its time, never fewer. What is published is read again as it was. A value that was changed,
// or moved to another name, does not open.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{"v":1,"Issuer":"https://as.example.com","ID":"1","Until":"2026-01-01T00:00:00Z"}`, `{"v":2,"Issuer":"https://as.example.com","Tenant":"x"}`, `{"v":1,"Issuer":"a","Subject":"s","SessionID":"t"}`,
		`{"v":1,"Issuer":"a","issuer":"","All":true}`, `{"v":1,"Issuer":"a","Before":"x"}`, `{"v":1e400,"Issuer":"a"}`, `{"Issuer":"a","ClientID":"c","Unknown":{}}`, `null`, `{}`, `[`,
	} {
		f.Add([]byte(text), uint16(3))
	}
	key := bytes.Repeat([]byte{7}, 32)
	ring, err := valetredis.NewKeyring(key)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte, at uint16) {
		const keep = time.Hour
		until := time.Unix(1_800_000_000, 0)
		revoked, unknown, err := valetredis.Understand(text, keep, until)
		if err != nil {
			require.Equal(t, valetkey.Revocation{}, revoked)
		} else {
			var plain struct{ Issuer string }
			require.NoError(t, json.Unmarshal(text, &plain))
			require.NotEmpty(t, revoked.Issuer)
			require.Equal(t, plain.Issuer, revoked.Issuer)
			selected := 0
			for _, is := range []bool{revoked.ID != "", revoked.Subject != "", revoked.ClientID != "", revoked.SessionID != "", revoked.All} {
				if is {
					selected++
				}
			}
			require.Equal(t, 1, selected)
			if unknown != nil {
				require.True(t, revoked.All)
				require.Equal(t, until, revoked.Until)
				require.False(t, revoked.At.After(until.Add(-keep)))
			} else {
				again, err := valetredis.Encode(revoked)
				require.NoError(t, err)
				same, unknown, err := valetredis.Understand(again, keep, until)
				require.NoError(t, err)
				require.NoError(t, unknown)
				require.Equal(t, revoked, same)
			}
		}
		if utf8.Valid(text) && len(text) > 0 {
			sent := valetkey.Revocation{Issuer: "https://as.example.com", Subject: string(text), At: until}
			encoded, err := valetredis.Encode(sent)
			require.NoError(t, err)
			got, unknown, err := valetredis.Understand(encoded, keep, until)
			require.NoError(t, err)
			require.NoError(t, unknown)
			require.True(t, got.At.Equal(until))
			got.At = sent.At
			require.Equal(t, sent, got)
		}

		sealed, err := ring.Seal("name", text)
		require.NoError(t, err)
		opened, err := ring.Open("name", sealed)
		require.NoError(t, err)
		require.Equal(t, string(text), string(opened))
		_, err = ring.Open("name2", sealed)
		require.Error(t, err)
		sealed[int(at)%len(sealed)] ^= byte(at>>8) | 1
		_, err = ring.Open("name", sealed)
		require.Error(t, err)
	})
}
