package engine_test

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzAssertion signs any claims with the key of a client, who authenticates with them, or of a trusted issuer, who grants access with them.
// A JWT that is accepted is for this server, about one client or user, valid now and not for longer than its ID is remembered, as
// encoding/json reads it. It is accepted once. No answer contains a JWT that was refused. EXP is a minute from now, and JTI a new ID.
func FuzzAssertion(f *testing.F) {
	const us = "https://as.example.com"
	h := inProcess(f, trusting)
	for _, who := range []string{`"iss":"signer","sub":"signer"`, `"iss":"` + partner + `","sub":"bob"`, `"iss":"web","sub":"signer"`} {
		for _, seed := range []string{
			`{WHO,"aud":"` + us + `","jti":"JTI","exp":EXP,"iat":1}`, `{WHO,"aud":["x","` + us + `/oauth2/token"],"jti":"JTI","exp":EXP.5,"nbf":null}`,
			`{WHO,"aud":"` + us + `","aud":"x","jti":"JTI","exp":EXP}`, `{WHO,"AUD":"` + us + `","jti":"JTI","exp":EXP}`, `{WHO,"aud":"` + us + `/","jti":"","exp":EXP}`,
			`{WHO,"aud":"` + us + `","jti":"JTI","exp":9e99,"scope":"orders:read"}`, `{WHO,"aud":"` + us + `","jti":"JTI","exp":EXP,"scope":[]}`,
		} {
			f.Add("", strings.ReplaceAll(seed, "WHO", who), true)
			f.Add("Client-authentication+jwt", strings.ReplaceAll(seed, "WHO", who), false)
		}
	}
	f.Fuzz(func(t *testing.T, typ, claims string, grants bool) {
		now := time.Now()
		claims = strings.NewReplacer("EXP", strconv.FormatInt(now.Unix()+60, 10), "JTI", rand.Text()).Replace(claims)
		var header map[string]any
		if typ != "" {
			header = map[string]any{"typ": typ}
		}
		raw, err := clientKey().Sign(header, []byte(claims))
		if err != nil {
			return // no header
		}
		sent := asserted(raw)
		if grants {
			sent = granting(raw, "client_id", "open")
		}
		got := h.do(t, "POST", "/oauth2/token", sent, "")
		require.NotContains(t, got.text, raw)
		if got.status != 200 {
			require.Contains(t, []int{400, 401, 429}, got.status, got.text)
			require.NotEmpty(t, got.body["error"])
			require.NotContains(t, got.body, "access_token")
			return
		}
		var read map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(claims), &read))
		text := func(name string) (s string) {
			_ = json.Unmarshal(read[name], &s) // s stays empty if it is not a string
			return s
		}
		number := func(name string) (n float64) {
			if value := string(read[name]); value != "" && value != "null" {
				require.NoError(t, json.Unmarshal(read[name], &n))
			}
			return n
		}
		var audience []string
		if json.Unmarshal(read["aud"], &audience) != nil {
			audience = []string{text("aud")}
		}
		require.True(t, slices.Contains(audience, us) || slices.Contains(audience, us+"/oauth2/token"), claims)
		seconds, life := float64(now.Unix()), 600.0
		access := part(t, got.tokens(t).access, 1)
		if grants {
			life = 3600
			require.Equal(t, partner, text("iss"))
			require.NotEmpty(t, text("sub"))
			require.Equal(t, "partner:"+text("sub"), access["sub"])
		} else {
			require.Equal(t, "signer", text("iss"))
			require.Equal(t, "signer", text("sub"))
			require.Equal(t, "signer", access["client_id"])
			require.NotEmpty(t, text("jti"))
		}
		require.Greater(t, number("exp"), seconds-32)
		require.LessOrEqual(t, number("exp"), seconds+life+32)
		require.LessOrEqual(t, number("nbf"), seconds+32)
		require.LessOrEqual(t, number("iat"), seconds+32)
		require.Contains(t, []string{"", "jwt", "client-authentication+jwt"}, strings.TrimPrefix(strings.ToLower(typ), "application/"))
		again := h.do(t, "POST", "/oauth2/token", sent, "")
		require.NotEqual(t, 200, again.status, "it was used")
	})
}
