package jwks_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/jwks"
)

// field returns a file of testdata/field, whose shapes are those of docs/field.md.
func field(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/field/" + name)
	require.NoError(t, err)
	return data
}

func TestTokensFromTheField(t *testing.T) {
	const api = "https://api.example.com"
	untyped := object{"typ": "JWT"}
	cognito := func(c *jwks.Config) {
		c.Profile = jwks.Profile{AllowUntyped: true}
		c.Audience, c.AudienceClaim = []string{"7abc"}, "client_id"
		c.Markers = []claims.Rule{claims.Equal("token_use", "access")}
	}
	keycloak := func(c *jwks.Config) {
		c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		c.Markers = []claims.Rule{claims.OneOf("typ", "Bearer", "DPoP")}
	}
	authentik := func(c *jwks.Config) {
		c.Issuer = "https://as.example.com/application/o/app/"
		c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowIDTokens: true}
		c.Clients = []string{"app"}
	}
	verify := func(t *testing.T, file string, change func(*jwks.Config), changes object) (*valetkey.Token, error) {
		t.Helper()
		var all object
		require.NoError(t, json.Unmarshal(field(t, file), &all))
		v := open(t, func(c *jwks.Config) {
			c.Issuer, c.Audience = "https://as.example.com", []string{api}
			c.Now = func() time.Time { return time.Unix(4102444800, 0).Add(-time.Hour) } // an hour before the files' exp
		}, change)
		header := untyped
		if file == "token-cognito.json" {
			header = object{"typ": nil}
		}
		for name := range all {
			if number, ok := all[name].(float64); ok {
				all[name] = int64(number)
			}
		}
		for name, value := range changes {
			if all[name] = value; value == nil {
				delete(all, name)
			}
		}
		return v.Verify(background, mint(t, rs256, header, all))
	}
	for _, test := range []struct {
		file, name string
		change     func(*jwks.Config)
		changes    object
		want       valetkey.Reason
	}{
		{"token-cognito.json", "an access token of Cognito, without the setting", func(c *jwks.Config) { c.Profile = jwks.Lenient() }, nil, valetkey.ReasonClaimMalformed},
		{"token-cognito.json", "an ID token of Cognito", cognito, object{"token_use": "id", "aud": "7abc", "client_id": nil, "scope": nil}, valetkey.ReasonNotAccessToken},
		{"token-cognito.json", "a token of another application of Cognito", cognito, object{"client_id": "8def"}, valetkey.ReasonAudience},
		{"token-keycloak-nonce.json", "an access token of Keycloak with a nonce, without the setting", func(c *jwks.Config) { c.Profile = jwks.Lenient() }, nil, valetkey.ReasonNotAccessToken},
		{"token-keycloak-nonce.json", "a token with a nonce and nothing that proves an access token", keycloak, object{"typ": nil}, valetkey.ReasonNotAccessToken},
		{"token-keycloak-nonce.json", "an ID token of Keycloak", keycloak, object{"typ": "ID"}, valetkey.ReasonNotAccessToken},
		{"token-authentik.json", "a token of authentik, without the setting", func(c *jwks.Config) {
			authentik(c)
			c.Profile = jwks.Lenient()
		}, nil, valetkey.ReasonNotAccessToken},
		{"token-authentik.json", "a token of another application of authentik", authentik, object{"azp": "other"}, valetkey.ReasonClient},
	} {
		t.Run(test.name+" is refused", func(t *testing.T) {
			_, err := verify(t, test.file, test.change, test.changes)
			var e *valetkey.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, test.want, e.Reason, "%v", err)
		})
	}
	for _, test := range []struct {
		file, name string
		change     func(*jwks.Config)
		client     string
	}{
		{"token-cognito.json", "an access token of Cognito", cognito, "7abc"},
		{"token-keycloak-nonce.json", "an access token of Keycloak with a nonce", keycloak, "spa"},
		{"token-authentik.json", "a token of authentik, by explicit setting", authentik, "app"},
	} {
		t.Run(test.name+" is accepted", func(t *testing.T) {
			token, err := verify(t, test.file, test.change, nil)
			require.NoError(t, err)
			assert.Equal(t, test.client, token.ClientID())
		})
	}
}

func TestKeySetsFromTheField(t *testing.T) {
	t.Run("the empty lists of a serializer are absent", func(t *testing.T) {
		var key struct{ N string }
		require.NoError(t, json.Unmarshal(rs256.PublicJWK(), &key))
		set := strings.NewReplacer(`"n":"..."`, `"n":"`+key.N+`"`, `"kid":"k1"`, `"kid":"rs256"`).Replace(string(field(t, "jwks-dotnet.json")))
		require.Contains(t, set, key.N)
		v := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) }).open(t)
		_, err := v.Verify(background, mint(t, rs256, nil, good(object{"iss": v.Issuer()})))
		assert.NoError(t, err)
	})
}
