package keyset_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// A set of a stranger never yields a key that is not an entry of it, as encoding/json reads it, nor a key that can sign.
func FuzzParse(f *testing.F) {
	const limit = 3
	var jwks []string
	for _, alg := range []string{"ES256", "EdDSA"} {
		key, err := jose.GenerateKey(alg, "k-"+alg)
		require.NoError(f, err)
		jwks = append(jwks, string(key.PublicJWK()))
	}
	symmetric := `{"kty":"oct","kid":"s","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	for _, seed := range []string{
		fmt.Sprintf(`{"keys":[%s,%s]}`, jwks[0], jwks[1]), fmt.Sprintf(`{"keys":[%s,%s]}`, symmetric, jwks[0]),
		fmt.Sprintf(`{"keys":[%[1]s,%[1]s,%[1]s,%[1]s]}`, jwks[0]), fmt.Sprintf(`{"keys":[%s],"keys":[]}`, jwks[0]),
		fmt.Sprintf(`{"Keys":[%s]}`, jwks[0]), `{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}`, `{"keys":[]}`, `{"keys":{}}`, `{}`, `[]`,
		`{"keys":[1,null,"x"]}`, `{"a":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, dropped, err := keyset.Parse(data, limit)
		assert.Equal(t, err == nil, len(keys) > 0, "keys, or an error")
		assert.LessOrEqual(t, len(keys), limit)
		assert.LessOrEqual(t, len(keys)+len(dropped), limit+1)
		if err != nil && !errors.Is(err, keyset.ErrWithdrawn) {
			return
		}
		var set map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(data, &set), "it is an object")
		var entries []json.RawMessage
		if len(set["keys"]) > 0 {
			require.NoError(t, json.Unmarshal(set["keys"], &entries))
			assert.NotEmpty(t, entries, "an empty set withdraws nothing")
		}
		own := map[string]bool{}
		for _, entry := range entries {
			if key, err := jose.ParseKey(entry); err == nil {
				own[key.ID()+" "+key.Thumbprint()] = true
			}
		}
		for id, text := range set {
			var pem string
			if json.Unmarshal(text, &pem) == nil {
				if key, err := jose.ParsePEM(id, []byte(pem)); err == nil {
					own[key.ID()+" "+key.Thumbprint()] = true
				}
			}
		}
		moduli := map[string]string{}
		for _, key := range keys {
			assert.True(t, own[key.ID()+" "+key.Thumbprint()], "%q is not an entry", key.ID())
			for _, alg := range key.Algorithms() {
				assert.NotContains(t, []string{"HS256", "HS384", "HS512", "none"}, alg)
			}
			if modulus := string(key.Modulus()); modulus != "" {
				if first, has := moduli[modulus]; has {
					assert.Equal(t, first, key.Thumbprint(), "one modulus with two exponents")
				}
				moduli[modulus] = key.Thumbprint()
			}
		}
	})
}
