package jose_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

// work returns what Parse allocates for raw: less if it need not read the header.
func work(t *testing.T, raw string) float64 {
	t.Helper()
	return testing.AllocsPerRun(20, func() { parse(t, raw) })
}

func TestHeadersOfGoodTokensAreRemembered(t *testing.T) {
	k, payload := keys()["EdDSA"], []byte(`{"sub":"x"}`)
	sign := func(t *testing.T) string { // with a header that no other test has
		raw, err := k.Sign(map[string]any{"kid": rand.Text(), "typ": "at+jwt"}, payload)
		require.NoError(t, err)
		return raw
	}

	t.Run("not before the signature has verified", func(t *testing.T) {
		raw := sign(t)
		forged := raw[:len(raw)-86] + strings.Repeat("A", 86)
		require.ErrorIs(t, k.Public().Verify(parse(t, forged)), jose.ErrSignature)
		require.ErrorIs(t, keys()["ES256"].Public().Verify(parse(t, raw)), jose.ErrUnfit)
		unknown := work(t, raw)
		require.NoError(t, k.Public().Verify(parse(t, raw)))
		require.Less(t, work(t, raw), unknown)
	})

	t.Run("not if they are long", func(t *testing.T) {
		raw, err := k.Sign(map[string]any{"x": rand.Text() + strings.Repeat("x", 1024)}, payload)
		require.NoError(t, err)
		unknown := work(t, raw)
		require.NoError(t, k.Public().Verify(parse(t, raw)))
		require.Equal(t, unknown, work(t, raw))
	})

	t.Run("up to a kilobyte", func(t *testing.T) {
		text := rand.Text()
		text += strings.Repeat("x", 768-len(`{"alg":"EdDSA","x":""}`)-len(text))
		raw, err := k.Sign(map[string]any{"kid": nil, "x": text}, payload)
		require.NoError(t, err)
		require.Equal(t, 1024, strings.IndexByte(raw, '.'))
		unknown := work(t, raw)
		require.NoError(t, k.Public().Verify(parse(t, raw)))
		require.Less(t, work(t, raw), unknown)
	})

	t.Run("as they were sent, whatever the caller has made of them", func(t *testing.T) {
		raw := sign(t)
		c := parse(t, raw)
		nameless := *c
		nameless.Header.KeyID, nameless.Header.HasKeyID, nameless.Header.Type = "", false, "JWT"
		require.NoError(t, k.Public().Verify(&nameless))
		require.Equal(t, c.Header, parse(t, raw).Header)
	})

	t.Run("and every other refusal stays", func(t *testing.T) {
		raw := sign(t)
		require.NoError(t, k.Public().Verify(parse(t, raw)))
		header, rest, _ := strings.Cut(raw, ".")
		_, signature, _ := strings.Cut(rest, ".")
		for name, text := range map[string]string{
			"no payload":            header + ".." + signature,
			"no signature":          header + ".e30.",
			"payload not canonical": header + ".e31." + signature,
			"a line break":          header + ".e30." + signature + "\n",
			"four dots":             header + ".e30." + signature + "..",
			"a header cut short":    header[:len(header)-4] + ".e30." + signature,
			"a header in padding":   header + "=.e30." + signature,
		} {
			_, err := jose.Parse(text)
			require.Error(t, err, name)
		}
		c := parse(t, header+".e30."+signature)
		require.ErrorIs(t, k.Public().Verify(c), jose.ErrSignature)
	})

	t.Run("one buffer holds the parts, which cannot grow into each other", func(t *testing.T) {
		raw := sign(t)
		c := parse(t, raw)
		require.Equal(t, string(payload), string(c.Payload))
		_ = append(c.Payload, strings.Repeat("x", 64)...)
		require.NoError(t, k.Public().Verify(c))
	})
}
