package jose_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

func TestHeaderMember(t *testing.T) {
	k := keys()["EdDSA"]
	parse := func(t *testing.T, header string) *jose.Compact {
		c, err := jose.ParseWith(padded(t, k, header, `{"a":12}`), jose.Options{AllowPadding: true})
		require.NoError(t, err)
		require.NoError(t, k.Public().Verify(c)) // the header is remembered from now on
		return c
	}
	for name, header := range map[string]string{
		"a header": `{"alg":"EdDSA","signer":"lb","x":1}`, "a padded header": `{"alg":"EdDSA","signer":"lb","x":10}`,
	} {
		t.Run(name+", before and after it is remembered", func(t *testing.T) {
			for range 2 {
				c := parse(t, header)
				signer, err := c.HeaderMember("signer")
				require.NoError(t, err)
				assert.Equal(t, `"lb"`, string(signer))
				none, err := c.HeaderMember("client")
				require.NoError(t, err)
				assert.Nil(t, none)
			}
		})
	}
	for _, empty := range []string{`""`, `null`} {
		t.Run("an empty member is missing: "+empty, func(t *testing.T) {
			signer, err := parse(t, `{"alg":"EdDSA","signer":`+empty+`}`).HeaderMember("signer")
			require.NoError(t, err)
			assert.Nil(t, signer)
		})
	}
	t.Run("a member in two letter cases is refused", func(t *testing.T) {
		_, err := parse(t, `{"alg":"EdDSA","signer":"lb","Signer":"other"}`).HeaderMember("signer")
		assert.Error(t, err)
	})
}
