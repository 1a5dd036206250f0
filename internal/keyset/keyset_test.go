package keyset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

var background = context.Background()

// bubble runs a subtest with a fake clock.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestConfig(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  keyset.Config
		want string
	}{
		"http is refused":                      {keyset.Config{JWKSURL: "http://as.example/jwks"}, "URL: not https"},
		"a URL for each key":                   {keyset.Config{JWKSURL: "https://h/{kid}"}, "JWKSURL: cannot contain {kid} here"},
		"a URN cannot be discovered":           {keyset.Config{Issuer: "urn:x"}, "Issuer: cannot be discovered"},
		"a negative freshness":                 {keyset.Config{JWKSURL: "https://h", RefreshInterval: -1}, "RefreshInterval: "},
		"a freshness of more than a day":       {keyset.Config{JWKSURL: "https://h", RefreshInterval: 25 * time.Hour}, "RefreshInterval: "},
		"a negative cooldown":                  {keyset.Config{JWKSURL: "https://h", MinRefetchInterval: -1}, "MinRefetchInterval: "},
		"keys that are used for more than 24h": {keyset.Config{JWKSURL: "https://h", StaleIfError: 25 * time.Hour}, "StaleIfError: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := keyset.New(test.cfg)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestParse(t *testing.T) {
	good := string(key(t, "ES256", "good").PublicJWK())
	private := string(key(t, "ES256", "private").PrivateJWK())
	const oct = `{"kty":"oct","kid":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`

	for name, set := range map[string]string{
		"JWKS-02 no key":                   `{"keys":[]}`,
		"JWKS-02 no keys":                  `{}`,
		"JWKS-02 keys are null":            `{"keys":null}`,
		"JWKS-02 keys are an object":       `{"keys":{"a":` + good + `}}`,
		"JWKS-02 the name in other case":   `{"Keys":[` + good + `]}`,
		"JWKS-02 HTML":                     `<html>`,
		"JWKS-02 an array":                 `[` + good + `]`,
		"JWKS-02 nothing":                  ``,
		"only keys that cannot be used":    `{"keys":[{"kty":"XYZ"},null,7,"x",[]]}`,
		"JWKS-04 only a private key":       `{"keys":[` + private + `]}`,
		"JWKS-04 only a symmetric key":     `{"keys":[` + oct + `]}`,
		"JWKS-03 only one with kid twice":  `{"keys":[{"kid":"a",` + good[1:] + `]}`,
		"JWT-17 only one for encryption":   `{"keys":[` + string(forEncryption(key(t, "ES256", "good"))) + `]}`,
		"JWT-17 only one for key_ops sign": `{"keys":[{"key_ops":["sign"],` + good[1:] + `]}`,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			keys, _, err := keyset.Parse([]byte(set), keyset.MaxKeys)
			assert.Error(t, err)
			assert.Empty(t, keys)
		})
	}

	for name, other := range map[string]string{
		"JWKS-01 JWT-43 an unknown kty":   `{"kty":"AKP","alg":"ML-DSA-65","kid":"x","pub":"` + strings.Repeat("A", 2603) + `"}`,
		"JWKS-01 an unknown crv":          `{"kty":"OKP","crv":"Ed448","x":"AA"}`,
		"JWKS-01 an unknown alg":          `{"alg":"ES999",` + good[1:],
		"JWKS-03 a key with a name twice": `{"kty":"EC",` + good[1:],
		"a null":                          `null`,
		"a text":                          `"key"`,
		"JWKS-04 a private key":           private,
		"JWKS-04 a symmetric key":         oct,
		"JWT-21 a point off the curve":    `{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`,
	} {
		t.Run(name+" is skipped and the rest is used", func(t *testing.T) {
			keys, _, err := keyset.Parse([]byte(`{"extra":1,"keys":[`+other+`,`+good+`]}`), keyset.MaxKeys)
			require.NoError(t, err)
			require.Len(t, keys, 1)
			assert.Equal(t, "good", keys[0].ID())
		})
	}

	a, b, rsa := key(t, "ES256", "a"), key(t, "ES256", "b"), key(t, "RS256", "rsa")
	for name, set := range map[string]string{
		"an error that is JSON":                 `{"error":"not found"}`,
		"one value that is not PEM":             pems(t, a, b)[:1] + `"c":"x",` + pems(t, a, b)[1:],
		"PEM of nothing known":                  `{"a":"-----BEGIN RUBBISH-----\nAAAA\n-----END RUBBISH-----\n"}`,
		"half a certificate":                    `{"a":"-----BEGIN CERTIFICATE-----\nAAAA"}`,
		"a modulus that has two exponents":      exponents(rsa, "AQAB", "Aw"),
		"one with three keys, two are the same": exponents(rsa, "AQAB", "Aw", "AQAB"),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			keys, _, err := keyset.Parse([]byte(set), keyset.MaxKeys)
			assert.Error(t, err)
			assert.Empty(t, keys)
		})
	}
	for name, test := range map[string]struct{ set, ids string }{
		"an X.509 map":                           {pems(t, a, b, rsa), "a b rsa"},
		"one with a malformed certificate":       {`{"x":"-----BEGIN CERTIFICATE-----",` + pems(t, a)[1:], "a"},
		"a key under two kids":                   {exponents(rsa, "AQAB", "AQAB"), "0 1"},
		"a modulus with two exponents and a key": {strings.Replace(exponents(rsa, "AQAB", "Aw"), "[", "["+good+",", 1), "good"},
	} {
		t.Run(name+" is used", func(t *testing.T) {
			keys, _, err := keyset.Parse([]byte(test.set), keyset.MaxKeys)
			require.NoError(t, err)
			var ids []string
			for _, k := range keys {
				ids = append(ids, k.ID())
			}
			assert.Equal(t, test.ids, strings.Join(ids, " "))
		})
	}
	for name, test := range map[string]struct{ sent, kept, dropped int }{
		"a set of 5,000 keys is used":                  {keyset.MaxKeys, keyset.MaxKeys, 0},
		"the key after the five-thousandth is dropped": {keyset.MaxKeys + 1, keyset.MaxKeys, 1},
		"the thousand after it are dropped as one":     {keyset.MaxKeys + 1000, keyset.MaxKeys, 1},
	} {
		t.Run(name, func(t *testing.T) {
			keys, dropped, err := keyset.Parse(many(test.sent), keyset.MaxKeys)
			require.NoError(t, err)
			require.Len(t, keys, test.kept)
			assert.Equal(t, fmt.Sprint("k", test.kept-1), keys[test.kept-1].ID())
			require.Len(t, dropped, test.dropped)
			if test.dropped > 0 {
				assert.ErrorContains(t, dropped[0].Err, "more than 5000 keys")
			}
		})
	}
	t.Run("entries that are not keys count as keys", func(t *testing.T) {
		_, _, err := keyset.Parse([]byte(`{"keys":[`+strings.Repeat("1,", keyset.MaxKeys)+good+`]}`), keyset.MaxKeys)
		assert.EqualError(t, err, "it has no usable key among 5000")
	})
}

// pems returns an X.509 map: certificates and, of the last key, the public key, as Firebase and IAP publish them.
func pems(t testing.TB, list ...*jose.PrivateKey) string {
	set := map[string]string{}
	for i, k := range list {
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		kind, der := "CERTIFICATE", []byte(nil)
		var err error
		if i < len(list)-1 {
			der, err = x509.CreateCertificate(rand.Reader, template, template, k.Signer().Public(), k.Signer())
		} else {
			kind = "PUBLIC KEY"
			der, err = x509.MarshalPKIXPublicKey(k.Signer().Public())
		}
		require.NoError(t, err)
		set[k.ID()] = string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	data, err := json.Marshal(set)
	require.NoError(t, err)
	return string(data)
}

// exponents returns a set with the modulus of k once with each exponent, under the kids 0, 1 and so on.
func exponents(k *jose.PrivateKey, list ...string) string {
	n := base64.RawURLEncoding.EncodeToString(k.Public().Modulus())
	var set strings.Builder
	for i, e := range list {
		fmt.Fprintf(&set, `,{"kty":"RSA","kid":"%d","n":%q,"e":%q}`, i, n, e)
	}
	return `{"keys":[` + set.String()[1:] + `]}`
}

// many returns a set of n RSA keys, k0, k1 and so on. Finding n primes would take minutes, so the moduli are only odd numbers.
func many(n int) []byte {
	var set strings.Builder
	modulus := make([]byte, 256)
	for i := range n {
		binary.BigEndian.PutUint32(modulus, 1<<31|uint32(i))
		modulus[255] = 1
		fmt.Fprintf(&set, `,{"kty":"RSA","use":"sig","kid":"k%d","e":"AQAB","n":%q}`, i, base64.RawURLEncoding.EncodeToString(modulus))
	}
	return []byte(`{"keys":[` + set.String()[1:] + `]}`)
}

func TestManyKeys(t *testing.T) {
	last := key(t, "RS256", "last")
	among := func(n int) http.HandlerFunc {
		return text(200, strings.Replace(string(many(n)), "[", "["+string(last.PublicJWK())+",", 1))
	}
	bubble(t, "a key among 3,000 is found by its kid", func(t *testing.T) {
		s := (&issuer{answer: among(2999)}).open(t)
		requireKey(t, s, last)
		assert.Equal(t, 3000, s.Status().Keys)
	})
	bubble(t, "without kid, none of 3,000 is tried", func(t *testing.T) {
		s := (&issuer{answer: among(2999)}).open(t)
		_, err := s.Verify(background, signed(t, last, map[string]any{"kid": nil}), keyset.Terms{})
		assert.ErrorIs(t, err, keyset.ErrAmbiguous)
	})
	bubble(t, "a refresh keeps those that stay and ends those that do not", func(t *testing.T) {
		gone := key(t, "RS256", "gone")
		i := &issuer{answer: text(200, strings.Replace(string(many(2998)), "[", "["+string(last.PublicJWK())+","+string(gone.PublicJWK())+",", 1))}
		s := i.open(t)
		stays, ends := requireKey(t, s, last), requireKey(t, s, gone)
		i.serves(among(2999))
		time.Sleep(8*time.Minute + time.Second)
		assert.Same(t, stays, requireKey(t, s, last))
		assert.False(t, ends.Holds())
	})
	for name, test := range map[string]struct {
		limit, bytes int
		want         string
	}{
		"a set of 8 MiB is read":                                 {0, keyset.MaxBody - keyset.MaxBody%keyset.MaxKeys, ""},
		"a set of 8 MiB and a byte is refused":                   {0, keyset.MaxBody + 1, "more than"},
		"where 100 keys are allowed, so are 167,700 bytes":       {100, 167_700, ""},
		"where 100 keys are allowed, 167,701 bytes are too many": {100, 167_701, "more than 167700 bytes"},
	} {
		bubble(t, name, func(t *testing.T) {
			body := `{"keys":[` + string(last.PublicJWK()) + `]}`
			i := &issuer{answer: text(200, body+strings.Repeat(" ", test.bytes-len(body)))}
			err := i.open(t, func(c *keyset.Config) { c.MaxKeys = test.limit }).Ready(background)
			if test.want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, test.want)
			}
		})
	}
	bubble(t, "where 100 keys are allowed, 101 are too many", func(t *testing.T) {
		s := (&issuer{answer: among(100)}).open(t, func(c *keyset.Config) { c.MaxKeys = 100 })
		requireKey(t, s, last)
		assert.Equal(t, 100, s.Status().Keys)
	})
}

func TestSelection(t *testing.T) {
	a, b := key(t, "ES256", "a"), key(t, "ES256", "b")
	rsa := key(t, "RS256", "a")
	five := make([]*jose.Key, 5)
	for i := range five {
		five[i] = key(t, "ES256", fmt.Sprint(i)).Public()
	}
	noKeyID := map[string]any{"kid": nil}

	t.Run("JWS-18 a kid in another letter case is unknown", func(t *testing.T) {
		_, err := keyset.Static(a.Public()).Verify(background, signed(t, a, map[string]any{"kid": "A"}), keyset.Terms{})
		assert.ErrorIs(t, err, keyset.ErrUnknownKey)
	})
	t.Run("the signature of another key is refused", func(t *testing.T) {
		_, err := keyset.Static(a.Public(), b.Public()).Verify(background, signed(t, b, map[string]any{"kid": "a"}), keyset.Terms{})
		assert.ErrorIs(t, err, jose.ErrSignature)
	})
	t.Run("JWS-22 without kid, more than 4 keys are not tried", func(t *testing.T) {
		last := key(t, "ES256", "last")
		_, err := keyset.Static(append(five[:4:4], last.Public())...).Verify(background, signed(t, last, noKeyID), keyset.Terms{})
		assert.ErrorIs(t, err, keyset.ErrAmbiguous)
	})
	t.Run("JWS-22 without kid, 4 keys are tried", func(t *testing.T) {
		last := key(t, "ES256", "last")
		_, err := keyset.Static(append(five[:3:3], last.Public())...).Verify(background, signed(t, last, noKeyID), keyset.Terms{})
		assert.NoError(t, err)
	})
	t.Run("JWS-21 without kid, the only key that fits the algorithm is used", func(t *testing.T) {
		got, err := keyset.Static(append(five, rsa.Public())...).Verify(background, signed(t, rsa, noKeyID), keyset.Terms{})
		require.NoError(t, err)
		assert.Equal(t, rsa.Public().Thumbprint(), got.Thumbprint())
	})
	t.Run("JWS-23 JWKS-05 of keys with one kid, the one that fits the algorithm is used", func(t *testing.T) {
		s := keyset.Static(a.Public(), rsa.Public())
		requireKey(t, s, a)
		requireKey(t, s, rsa)
	})
	t.Run("JWS-23 keys with one kid and one kty are both tried", func(t *testing.T) {
		twin := key(t, "ES256", "a")
		s := keyset.Static(a.Public(), twin.Public())
		requireKey(t, s, a)
		requireKey(t, s, twin)
	})
	t.Run("a closed set answers from nothing", func(t *testing.T) {
		s := keyset.Static(a.Public())
		held := requireKey(t, s, a)
		require.NoError(t, s.Ready(background))
		s.Close()
		assert.False(t, held.Holds())
		_, err := s.Verify(background, signed(t, a, nil), keyset.Terms{})
		requireUnavailable(t, err)
		requireUnavailable(t, s.Ready(background))
	})
}

func TestDropped(t *testing.T) {
	bubble(t, "JWKS-04 private and symmetric keys are dropped with one warning each, however often they come", func(t *testing.T) {
		var log bytes.Buffer
		good, leaked := key(t, "ES256", "good"), key(t, "ES256", "leaked")
		oct := json.RawMessage(`{"kty":"oct","kid":"shared","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`)
		i := &issuer{answer: raw(leaked.PrivateJWK(), oct, good.PublicJWK())}
		s := i.open(t, func(c *keyset.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		requireKey(t, s, good)
		_, err := s.Verify(background, signed(t, leaked, nil), keyset.Terms{})
		require.ErrorIs(t, err, keyset.ErrUnknownKey)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, i.count(), 5)
		assert.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
		assert.Equal(t, 1, strings.Count(log.String(), "kid=leaked"))
		assert.Equal(t, 1, strings.Count(log.String(), "kid=shared"))
		assert.Equal(t, 1, s.Status().Keys)
	})
}

func TestDroppedIsLogged(t *testing.T) {
	// logged returns the lines about dropped keys that 10 fetches of the same answer cause.
	logged := func(t *testing.T, answer http.HandlerFunc) []string {
		var log bytes.Buffer
		i := &issuer{answer: answer}
		s := i.open(t, func(c *keyset.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		require.NoError(t, s.Ready(background))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, i.count(), 5)
		var lines []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "dropped") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	good := string(key(t, "ES256", "good").PublicJWK())
	rsa := key(t, "RS256", "rsa")
	for name, test := range map[string]struct{ jwk, level, kid, reason string }{
		"a point off the curve":        {`{"kid":"k","kty":"EC","crv":"P-256","x":"AA","y":"AA"}`, "WARN", "k", "point is not on the curve"},
		"a short RSA key":              {`{"kid":"k","kty":"RSA","n":"AQAB","e":"AQAB"}`, "WARN", "k", "2048 to 8192 bits"},
		"commas in place of padding":   {`{"kid":"k","kty":"RSA","e":"AQAB","n":"x0gg,,"}`, "WARN", "k", "n is missing or not canonical"},
		"a member twice":               {`{"kid":"k","kty":"EC","kty":"EC"}`, "WARN", "k", "a member twice"},
		"no object":                    {`7`, "WARN", `""`, "an object is expected"},
		"a kid of another type":        {`{"kid":7,"kty":"EC"}`, "WARN", `""`, "kid has another type"},
		"a modulus once more":          {exponents(rsa, "AQAB", "Aw")[len(`{"keys":[`) : len(exponents(rsa, "AQAB", "Aw"))-2], "WARN", "0", "same RSA modulus"},
		"a key for encryption":         {strings.Replace(strings.Replace(good, `"use":"sig"`, `"use":"enc"`, 1), "good", "k", 1), "DEBUG", "k", "use is not sig"},
		"a key of an unknown type":     {`{"kid":"k","kty":"AKP"}`, "DEBUG", "k", "kty or crv is unknown"},
		"an algorithm that is unknown": {`{"kid":"k","kty":"RSA","alg":"RSA-OAEP"}`, "DEBUG", "k", "alg is unknown"},
	} {
		bubble(t, name+" is logged once, with kid and reason", func(t *testing.T) {
			lines := logged(t, text(200, `{"keys":[`+test.jwk+`,`+good+`]}`))
			require.NotEmpty(t, lines)
			assert.Len(t, lines, 1+strings.Count(test.jwk, `"kid":"1"`))
			assert.Contains(t, lines[0], "level="+test.level)
			assert.Contains(t, lines[0], "kid="+test.kid+" ")
			assert.Contains(t, lines[0], test.reason)
			assert.Contains(t, lines[0], "issuer=")
		})
	}
	bubble(t, "a thousand of them are logged as 20 and a number", func(t *testing.T) {
		var set strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&set, `{"kid":"enc%d","kty":"EC","use":"enc"},`, i)
			fmt.Fprintf(&set, `{"kid":"%d","kty":"EC","crv":"P-256"},`, i)
		}
		lines := logged(t, text(200, `{"keys":[`+set.String()+good+`]}`))
		for _, level := range []string{"DEBUG", "WARN"} {
			of := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !strings.Contains(line, "level="+level) })
			require.Len(t, of, 21)
			assert.Contains(t, of[20], "keys=980")
		}
	})
}

func TestKeysWithoutID(t *testing.T) {
	a, named := key(t, "ES256", "a"), key(t, "ES256", "named")
	allow := keyset.Terms{AllowKeyWithoutID: true}
	without := func(k *jose.PrivateKey, members string) *jose.Key {
		parsed, err := jose.ParseKey(bytes.Replace(k.PublicJWK(), []byte(`"kid":"`+k.ID()+`"`), []byte(`"kid":""`+members), 1))
		require.NoError(t, err)
		return parsed
	}
	for name, test := range map[string]struct {
		set   *keyset.Set
		terms keyset.Terms
		token *jose.Compact
		want  error
	}{
		"it is not allowed":            {keyset.Static(without(a, "")), keyset.Terms{}, signed(t, a, nil), keyset.ErrUnknownKey},
		"there are two":                {keyset.Static(without(a, ""), without(named, "")), allow, signed(t, a, nil), keyset.ErrUnknownKey},
		"it fits another algorithm":    {keyset.Static(without(key(t, "ES384", "x"), "")), allow, signed(t, a, nil), keyset.ErrUnknownKey},
		"another key has the kid":      {keyset.Static(without(a, ""), named.Public()), allow, signed(t, a, map[string]any{"kid": "named"}), jose.ErrSignature},
		"all keys have a kid":          {keyset.Static(named.Public()), allow, signed(t, a, nil), keyset.ErrUnknownKey},
		"it did not sign the token":    {keyset.Static(without(named, "")), allow, signed(t, a, nil), jose.ErrSignature},
		"its x5t is another":           {keyset.Static(without(a, `,"x5t":"b"`)), keyset.Terms{}, signed(t, a, nil), keyset.ErrUnknownKey},
		"it is the only one":           {keyset.Static(without(a, "")), allow, signed(t, a, nil), nil},
		"others have a kid":            {keyset.Static(named.Public(), without(a, "")), allow, signed(t, a, nil), nil},
		"others fit another algorithm": {keyset.Static(without(key(t, "ES384", "x"), ""), without(a, "")), allow, signed(t, a, nil), nil},
		"the token has its x5t as kid": {keyset.Static(without(a, `,"x5t":"b"`)), keyset.Terms{}, signed(t, a, map[string]any{"kid": "b"}), nil},
		"it has another x5t":           {keyset.Static(without(a, `,"x5t":"b"`)), allow, signed(t, a, nil), nil},
	} {
		t.Run("a key without kid: "+name, func(t *testing.T) {
			_, err := test.set.Verify(background, test.token, test.terms)
			if test.want == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, test.want)
			}
		})
	}
}

func TestIssuerOfAKey(t *testing.T) {
	const tenant, host = "72f988bf-86f1-41af-91ab-2d7cd011db47", "https://login.microsoftonline.com/"
	k := key(t, "ES256", "a")
	for name, test := range map[string]struct {
		key, token string
		used       bool
	}{
		"another issuer":                    {host + tenant + "/v2.0", host + "9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", false},
		"the same in capitals":              {host + tenant + "/v2.0", strings.ToUpper(host + tenant + "/v2.0"), false},
		"a slash more":                      {host + tenant + "/v2.0", host + tenant + "/v2.0/", false},
		"a tenant that is a name":           {host + "{tenantid}/v2.0", host + "contoso.onmicrosoft.com/v2.0", false},
		"a tenant of the right length":      {host + "{tenantid}/v2.0", host + strings.Repeat("a", 36) + "/v2.0", false},
		"a tenant with a path":              {host + "{tenantid}/v2.0", host + tenant[:35] + "//v2.0", false},
		"the template itself":               {host + "{tenantid}", host + "{tenantid}/v2.0", false},
		"another version":                   {host + "{tenantid}/v2.0", "https://sts.windows.net/" + tenant + "/", false},
		"another template":                  {host + "{tid}/v2.0", host + tenant + "/v2.0", false},
		"no tenant":                         {host + "{tenantid}/v2.0", host + "/v2.0", false},
		"the same issuer":                   {host + tenant + "/v2.0", host + tenant + "/v2.0", true},
		"a tenant of the template":          {host + "{tenantid}/v2.0", host + tenant + "/v2.0", true},
		"a tenant in capitals":              {host + "{tenantid}/v2.0", host + strings.ToUpper(tenant) + "/v2.0", true},
		"no issuer in the key, as of AD FS": {"", host + tenant + "/v2.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := jose.ParseKey([]byte(fmt.Sprintf(`{"issuer":%q,`, test.key) + string(k.PublicJWK())[1:]))
			require.NoError(t, err)
			for _, header := range []map[string]any{nil, {"kid": nil}} {
				_, err = keyset.Static(parsed).Verify(background, signed(t, k, header), keyset.Terms{Issuer: test.token})
				if test.used {
					assert.NoError(t, err)
				} else {
					assert.ErrorIs(t, err, keyset.ErrUnknownKey)
					assert.ErrorContains(t, err, strconv.Quote(test.key), "the reason is in the log")
				}
			}
		})
	}
	bubble(t, "a key whose issuer changes is another key", func(t *testing.T) {
		with := func(issuer string) http.HandlerFunc {
			return raw(json.RawMessage(fmt.Sprintf(`{"issuer":%q,`, issuer) + string(k.PublicJWK())[1:]))
		}
		i := &issuer{answer: with("https://a.example")}
		s := i.open(t)
		held := requireKey(t, s, k)
		i.serves(with("https://b.example"))
		time.Sleep(8*time.Minute + time.Second)
		assert.False(t, held.Holds())
	})
}

func TestParseGiven(t *testing.T) {
	good := string(key(t, "ES256", "good").PublicJWK())
	for name, set := range map[string]string{
		"a private key":  `{"keys":[` + good + `,` + string(key(t, "ES256", "p").PrivateJWK()) + `]}`,
		"a shared key":   `{"keys":[` + good + `,{"kty":"oct","kid":"p"}]}`,
		"a key too many": string(many(keyset.MaxKeys + 1)),
		"no key":         `{"keys":[]}`,
	} {
		t.Run(name+" is a mistake", func(t *testing.T) {
			_, err := keyset.ParseGiven([]byte(set), slog.New(slog.DiscardHandler))
			assert.NotEmpty(t, valetkey.ConfigErrors(err))
		})
	}
	t.Run("a broken key and one for encryption are logged", func(t *testing.T) {
		var log bytes.Buffer
		keys, err := keyset.ParseGiven([]byte(`{"keys":[`+good+`,{"kid":"x","kty":"RSA"},{"kid":"y","kty":"EC","use":"enc"}]}`),
			slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		require.NoError(t, err)
		assert.Len(t, keys, 1)
		assert.Contains(t, log.String(), "level=WARN msg=\"key set: a key is dropped\" kid=x ")
		assert.Contains(t, log.String(), "level=DEBUG msg=\"key set: a key is dropped\" kid=y ")
	})
}

func TestInitial(t *testing.T) {
	a, b := key(t, "ES256", "a"), key(t, "ES256", "b")
	open := func(t *testing.T, i *issuer) *keyset.Set {
		return i.open(t, func(c *keyset.Config) { c.Initial = []*jose.Key{a.Public()} })
	}
	bubble(t, "the keys at the start are used at once, while the first fetch is under way", func(t *testing.T) {
		i := &issuer{answer: keys(a), delay: time.Second}
		s := open(t, i)
		assert.Equal(t, valetkey.Ready, s.Health().State)
		time.Sleep(24 * time.Hour)
		assert.Zero(t, i.count(), "New starts nothing")
		var held *keyset.Key
		assert.Zero(t, took(func() { held = requireKey(t, s, a); requireKey(t, s, a) }))
		assert.Zero(t, took(func() { assert.NoError(t, s.Ready(background)) }))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 1, i.count())
		assert.Same(t, held, requireKey(t, s, a))
		assert.True(t, s.Status().Fresh)
		time.Sleep(9 * time.Minute)
		assert.Equal(t, 2, i.count(), "then it is refreshed as usual")
	})
	bubble(t, "Ready starts the first fetch too", func(t *testing.T) {
		i := &issuer{answer: keys(a)}
		require.NoError(t, open(t, i).Ready(background))
		synctest.Wait()
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "a token with a key that is not among them waits for the first fetch", func(t *testing.T) {
		i := &issuer{answer: keys(b), delay: time.Second}
		s := open(t, i)
		assert.Equal(t, time.Second, took(func() { requireKey(t, s, b) }))
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "a key that the issuer no longer has ends with the first fetch", func(t *testing.T) {
		i := &issuer{answer: keys(b), delay: time.Second}
		s := open(t, i)
		held := requireKey(t, s, a)
		time.Sleep(2 * time.Second)
		assert.False(t, held.Holds())
		_, err := s.Verify(background, signed(t, a, nil), keyset.Terms{})
		assert.ErrorIs(t, err, keyset.ErrUnknownKey)
	})
	bubble(t, "while the issuer does not answer, they are used for RefreshInterval and StaleIfError", func(t *testing.T) {
		i := &issuer{}
		s := open(t, i)
		held := requireKey(t, s, a)
		synctest.Wait()
		assert.Equal(t, valetkey.Degraded, s.Health().State)
		time.Sleep(70*time.Minute - time.Second)
		requireKey(t, s, a)
		time.Sleep(2 * time.Second)
		assert.False(t, held.Holds())
		requireUnavailable(t, s.Ready(background))
		i.serves(keys(b))
		time.Sleep(time.Minute + time.Second)
		requireKey(t, s, b)
	})
	bubble(t, "an issuer that withdraws all keys ends them", func(t *testing.T) {
		i := &issuer{answer: raw(forEncryption(a)), delay: time.Second}
		s := open(t, i)
		held := requireKey(t, s, a)
		time.Sleep(2 * time.Second)
		assert.False(t, held.Holds())
		requireUnavailable(t, s.Ready(background))
	})
	bubble(t, "Close before the first use leaves nothing behind", func(t *testing.T) {
		i := &issuer{answer: keys(a)}
		s := open(t, i)
		s.Close()
		requireUnavailable(t, s.Ready(background))
		_, err := s.Verify(background, signed(t, a, nil), keyset.Terms{})
		requireUnavailable(t, err)
		assert.Zero(t, i.count())
	})
}

func TestColdStart(t *testing.T) {
	bubble(t, "JWKS-10 while the issuer is down, there is a set, not ready, with the reason, and it recovers", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{}
		s := i.open(t)
		assert.Zero(t, i.count(), "New does no I/O")
		err := s.Ready(background)
		requireUnavailable(t, err)
		assert.ErrorContains(t, err, "connection refused")
		_, err = s.Verify(background, signed(t, k, nil), keyset.Terms{})
		requireUnavailable(t, err)
		assert.ErrorContains(t, s.Status().LastError, "connection refused")
		assert.Zero(t, s.Status().Keys)

		i.serves(keys(k))
		time.Sleep(time.Second)
		assert.Equal(t, 1, s.Status().Keys, "by itself")
		assert.NoError(t, s.Ready(background))
		requireKey(t, s, k)
	})
	bubble(t, "JWKS-15 while it stays down, requests and probes cause no fetch and do not wait", func(t *testing.T) {
		i := &issuer{}
		s := i.open(t)
		c := signed(t, key(t, "ES256", "a"), nil)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			require.Zero(t, took(func() {
				_, err := s.Verify(background, c, keyset.Terms{})
				requireUnavailable(t, err)
				requireUnavailable(t, s.Ready(background))
			}))
			time.Sleep(100 * time.Millisecond)
		}
		// At 0, then after 1, 2, 4, 8, 16, 32 and each 60 s, all up to a tenth less: from 15 to 17 in 10 minutes.
		assert.InDelta(t, 16, i.count(), 1)
	})
}

func TestFirstFetch(t *testing.T) {
	bubble(t, "requests share it and wait for it", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k), delay: time.Second}
		s := i.open(t)
		var requests sync.WaitGroup
		for range 100 {
			requests.Go(func() { requireKey(t, s, k) })
		}
		assert.Equal(t, time.Second, took(requests.Wait))
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "requests wait for it 2 s at most", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k), delay: 4 * time.Second}
		s := i.open(t)
		assert.Equal(t, 2*time.Second, took(func() {
			_, err := s.Verify(background, signed(t, k, nil), keyset.Terms{})
			requireUnavailable(t, err)
		}))
		time.Sleep(3 * time.Second)
		requireKey(t, s, k) // the fetch went on
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "no more than 1024 requests wait", func(t *testing.T) {
		k := key(t, "ES256", "a")
		s := (&issuer{answer: keys(k), delay: time.Second}).open(t)
		c := signed(t, k, nil)
		var requests sync.WaitGroup
		for range 1024 {
			requests.Go(func() { _, err := s.Verify(background, c, keyset.Terms{}); assert.NoError(t, err) })
		}
		synctest.Wait()
		assert.Zero(t, took(func() {
			_, err := s.Verify(background, c, keyset.Terms{})
			requireUnavailable(t, err)
		}))
		requests.Wait()
	})
	bubble(t, "JWKS-26 a caller that leaves does not end it for the others", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k), delay: time.Second}
		s := i.open(t)
		ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
		defer cancel()
		var requests sync.WaitGroup
		requests.Go(func() {
			assert.Equal(t, 100*time.Millisecond, took(func() {
				_, err := s.Verify(ctx, signed(t, k, nil), keyset.Terms{})
				requireUnavailable(t, err)
			}))
		})
		requests.Go(func() { assert.ErrorIs(t, s.Ready(ctx), context.DeadlineExceeded) })
		requests.Go(func() { time.Sleep(time.Millisecond); requireKey(t, s, k) })
		requests.Wait()
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "a hanging issuer is cut off after 5 s", func(t *testing.T) {
		s := (&issuer{delay: time.Hour}).open(t)
		assert.Equal(t, 5*time.Second, took(func() { requireUnavailable(t, s.Ready(background)) }))
		assert.ErrorIs(t, s.Status().LastError, context.DeadlineExceeded)
	})
}

func TestFresh(t *testing.T) {
	bubble(t, "JWKS-11 10,000 concurrent requests cause no fetch and do not wait", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k)}
		s := i.open(t)
		requireKey(t, s, k)
		c := signed(t, k, nil)
		i.slow(time.Second)
		var requests sync.WaitGroup
		for range 10_000 {
			requests.Go(func() { _, err := s.Verify(background, c, keyset.Terms{}); assert.NoError(t, err) })
		}
		assert.Zero(t, took(requests.Wait))
		assert.Equal(t, 1, i.count())
	})
	bubble(t, "it is refreshed ahead of its age, and a key that stays is the same key", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k)}
		s := i.open(t)
		before := requireKey(t, s, k)
		time.Sleep(5*time.Minute - time.Second)
		assert.Equal(t, 1, i.count())
		time.Sleep(3*time.Minute + 2*time.Second)
		assert.Equal(t, 2, i.count())
		assert.True(t, s.Status().Fresh)
		assert.Same(t, before, requireKey(t, s, k))
	})
}

func TestOutage(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"the connection refused": nil,
		"500":                    text(500, "boom"),
		"JWKS-02 an empty set":   text(200, `{"keys":[]}`),
		"JWKS-02 no keys member": text(200, `{}`),
		"JWKS-02 HTML with 200":  text(200, `<html></html>`),
		"only malformed keys":    text(200, `{"keys":[null,7,"x",[],{},{"kid":"a"},{"kty":7},{"kty":"XYZ","kty":"XYZ"}]}`),
	} {
		// Key k is known, and the issuer has been answering so for 11 minutes: the keys are past their age.
		play := func(what string, f func(t *testing.T, i *issuer, s *keyset.Set, k *jose.PrivateKey)) {
			bubble(t, name+": "+what, func(t *testing.T) {
				k := key(t, "ES256", "a")
				i := &issuer{answer: keys(k)}
				s := i.open(t)
				requireKey(t, s, k)
				i.serves(answer)
				time.Sleep(11 * time.Minute)
				f(t, i, s, k)
			})
		}
		play("JWKS-12 JWKS-13 requests use the old set and do not fetch or wait", func(t *testing.T, i *issuer, s *keyset.Set, k *jose.PrivateKey) {
			before := i.count()
			var requests sync.WaitGroup
			for range 1000 {
				requests.Go(func() { requireKey(t, s, k) })
			}
			assert.Zero(t, took(requests.Wait))
			assert.Equal(t, before, i.count())
			assert.False(t, s.Status().Fresh)
			assert.Error(t, s.Status().LastError)
			assert.NoError(t, s.Ready(background))
		})
		play("a forged token is refused at once and gets no 503", func(t *testing.T, i *issuer, s *keyset.Set, _ *jose.PrivateKey) {
			before := i.count()
			assert.Zero(t, took(func() {
				_, err := s.Verify(background, signed(t, key(t, "ES256", "forged"), nil), keyset.Terms{})
				assert.ErrorIs(t, err, keyset.ErrUnknownKey)
			}))
			assert.Equal(t, before, i.count())
		})
		play("JWKS-14 beyond the stale limit there is 503, and then the keys come back by themselves", func(t *testing.T, i *issuer, s *keyset.Set, k *jose.PrivateKey) {
			time.Sleep(59*time.Minute - time.Second)
			held := requireKey(t, s, k)
			time.Sleep(2 * time.Second)
			assert.False(t, held.Holds())
			_, err := s.Verify(background, signed(t, k, nil), keyset.Terms{})
			requireUnavailable(t, err)
			assert.Error(t, s.Ready(background))
			i.serves(keys(k))
			time.Sleep(time.Minute + time.Second)
			requireKey(t, s, k)
		})
	}

	bubble(t, "without a stale limit keys end with their age", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k)}
		s := i.open(t, func(c *keyset.Config) { c.StaleIfError = -1 })
		requireKey(t, s, k)
		i.serves(nil)
		time.Sleep(10*time.Minute - time.Second)
		requireKey(t, s, k)
		time.Sleep(2 * time.Second)
		requireUnavailable(t, s.Ready(background))
	})

	for name, test := range map[string]struct {
		header      string
		least, most time.Duration
	}{
		"Retry-After is honoured":                        {"120", 119 * time.Second, 121 * time.Second},
		"Retry-After as a date is honoured":              {"Sat, 01 Jan 2000 00:03:00 GMT", 179 * time.Second, 181 * time.Second},
		"a Retry-After of a day is taken for 5 minutes":  {"86400", 299 * time.Second, 301 * time.Second},
		"a Retry-After of nothing does not beat backoff": {"0", 900 * time.Millisecond, time.Second},
	} {
		bubble(t, name, func(t *testing.T) {
			i := &issuer{answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", test.header)
				w.WriteHeader(503)
			}}
			s := i.open(t)
			require.Error(t, s.Ready(background))
			time.Sleep(test.least - time.Millisecond)
			assert.Equal(t, 1, i.count())
			time.Sleep(test.most - test.least + 2*time.Millisecond)
			assert.Equal(t, 2, i.count())
		})
	}
}

// A well-formed set with keys is the issuer's word on all of them, also when none is left for us.
func TestKeysOutsideAWellFormedSetEnd(t *testing.T) {
	for name, set := range map[string]func(a, x *jose.PrivateKey) json.RawMessage{
		"now for encryption": func(a, _ *jose.PrivateKey) json.RawMessage {
			return forEncryption(a)
		},
		"now of an unknown type": func(*jose.PrivateKey, *jose.PrivateKey) json.RawMessage {
			return json.RawMessage(`{"kty":"AKP","alg":"ML-DSA-65","kid":"a","pub":"AA"}`)
		},
		"now private, and so known to everyone": func(a, _ *jose.PrivateKey) json.RawMessage { return a.PrivateJWK() },
		"now a shared secret": func(*jose.PrivateKey, *jose.PrivateKey) json.RawMessage {
			return json.RawMessage(`{"kty":"oct","kid":"a","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`)
		},
		"another key":                func(_, x *jose.PrivateKey) json.RawMessage { return x.PublicJWK() },
		"another key for encryption": func(_, x *jose.PrivateKey) json.RawMessage { return forEncryption(x) },
	} {
		bubble(t, "JWKS-22 "+name, func(t *testing.T) {
			a, x := key(t, "ES256", "a"), key(t, "ES256", "x")
			i := &issuer{answer: keys(a)}
			s := i.open(t)
			held := requireKey(t, s, a)
			i.serves(raw(set(a, x), json.RawMessage("null")))
			time.Sleep(8*time.Minute + time.Second) // the refresh is after 8 min at most
			assert.False(t, held.Holds())
			_, err := s.Verify(background, signed(t, a, nil), keyset.Terms{})
			require.Error(t, err)
			if name != "another key" {
				requireUnavailable(t, err)
				assert.ErrorContains(t, err, "no usable key")
				assert.Equal(t, valetkey.Down, s.Health().State)
				requireUnavailable(t, s.Ready(background))
			}

			// An outage after that does not bring the key back, and the issuer does.
			i.serves(text(200, `{"keys":[]}`))
			time.Sleep(10 * time.Minute)
			_, err = s.Verify(background, signed(t, a, nil), keyset.Terms{})
			require.Error(t, err)
			i.serves(keys(a))
			time.Sleep(10 * time.Minute)
			requireKey(t, s, a)
			assert.False(t, held.Holds(), "what was withdrawn once stays so")
			assert.Equal(t, valetkey.Ready, s.Health().State)
		})
	}
}

func TestRotation(t *testing.T) {
	type scene struct {
		i       *issuer
		s       *keyset.Set
		a, b, c *jose.PrivateKey
	}
	// Key a is known, and no fetch was begun within the cooldown.
	play := func(name string, f func(t *testing.T, x scene)) {
		bubble(t, name, func(t *testing.T) {
			x := scene{a: key(t, "ES256", "a"), b: key(t, "ES256", "b"), c: key(t, "ES256", "c")}
			x.i = &issuer{answer: keys(x.a), delay: 100 * time.Millisecond}
			x.s = x.i.open(t)
			requireKey(t, x.s, x.a)
			time.Sleep(2 * time.Minute)
			f(t, x)
		})
	}
	unknown := func(t *testing.T, x scene, k *jose.PrivateKey) time.Duration {
		return took(func() {
			_, err := x.s.Verify(background, signed(t, k, nil), keyset.Terms{})
			require.ErrorIs(t, err, keyset.ErrUnknownKey)
		})
	}

	play("JWKS-16 an unknown kid after the cooldown causes one fetch and is verified", func(t *testing.T, x scene) {
		x.i.serves(keys(x.a, x.b))
		var requests sync.WaitGroup
		for range 50 {
			requests.Go(func() { requireKey(t, x.s, x.b) })
		}
		assert.Equal(t, 100*time.Millisecond, took(requests.Wait))
		assert.Equal(t, 2, x.i.count())
		requireKey(t, x.s, x.a)
	})
	play("JWKS-16 the wait for it is 2 s at most, then the token is refused, not 503", func(t *testing.T, x scene) {
		x.i.serves(keys(x.a, x.b))
		x.i.slow(3 * time.Second)
		assert.Equal(t, 2*time.Second, unknown(t, x, x.b))
		time.Sleep(time.Second)
		requireKey(t, x.s, x.b)
		assert.Equal(t, 2, x.i.count())
	})
	play("JWKS-26 a caller that leaves is refused from what is held, and the fetch goes on", func(t *testing.T, x scene) {
		x.i.serves(keys(x.a, x.b))
		ctx, cancel := context.WithTimeout(background, time.Millisecond)
		defer cancel()
		_, err := x.s.Verify(ctx, signed(t, x.b, nil), keyset.Terms{})
		require.ErrorIs(t, err, keyset.ErrUnknownKey)
		requireKey(t, x.s, x.b)
		assert.Equal(t, 2, x.i.count())
	})
	play("JWKS-17 an unknown kid within the cooldown, its spare used, is refused at once", func(t *testing.T, x scene) {
		assert.Equal(t, 100*time.Millisecond, unknown(t, x, x.b))
		assert.Equal(t, 100*time.Millisecond, unknown(t, x, x.b))
		for range 100 {
			assert.Zero(t, unknown(t, x, x.b))
		}
		assert.Equal(t, 3, x.i.count())
		time.Sleep(30 * time.Second)
		assert.Equal(t, 100*time.Millisecond, unknown(t, x, x.b))
		assert.Zero(t, unknown(t, x, x.b), "the spare one is not renewed each time")
	})
	play("JWKS-20 a second rotation within the cooldown is served by the spare fetch", func(t *testing.T, x scene) {
		x.i.serves(keys(x.b))
		requireKey(t, x.s, x.b)
		time.Sleep(time.Second)
		x.i.serves(keys(x.c))
		requireKey(t, x.s, x.c)
		assert.Equal(t, 3, x.i.count())
	})
	play("JWKS-15 a failed fetch counts against the cooldown too, and the timer retries", func(t *testing.T, x scene) {
		x.i.serves(text(500, ""))
		unknown(t, x, x.b)
		assert.Zero(t, unknown(t, x, x.b))
		assert.Equal(t, 2, x.i.count())
		x.i.serves(keys(x.a, x.b))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 3, x.i.count())
		requireKey(t, x.s, x.b)
	})
	play("JWKS-21 a bad signature under a known kid causes rate-limited fetches only", func(t *testing.T, x scene) {
		forged := signed(t, key(t, "ES256", "a"), nil)
		for range 100 {
			_, err := x.s.Verify(background, forged, keyset.Terms{})
			require.ErrorIs(t, err, jose.ErrSignature)
		}
		assert.Equal(t, 3, x.i.count())
	})
	play("JWKS-21 a key replaced under its kid is found, and the old one withdrawn", func(t *testing.T, x scene) {
		old := requireKey(t, x.s, x.a)
		replaced := key(t, "ES256", "a")
		x.i.serves(keys(replaced))
		requireKey(t, x.s, replaced)
		assert.False(t, old.Holds())
		_, err := x.s.Verify(background, signed(t, x.a, nil), keyset.Terms{})
		assert.ErrorIs(t, err, jose.ErrSignature)
	})
	play("JWKS-22 a key removed is withdrawn with the next refresh, and what it signed is refused", func(t *testing.T, x scene) {
		x.i.serves(keys(x.a, x.b))
		kept, removed := requireKey(t, x.s, x.b), requireKey(t, x.s, x.a)
		x.i.serves(keys(x.b))
		assert.True(t, removed.Holds())
		time.Sleep(10 * time.Minute)
		assert.False(t, removed.Holds())
		assert.True(t, kept.Holds())
		assert.Same(t, kept, requireKey(t, x.s, x.b))
		unknown(t, x, x.a)
	})
	play("a key whose alg is changed is another key", func(t *testing.T, x scene) {
		rsa := key(t, "RS256", "r")
		jwk := strings.Replace(string(rsa.PublicJWK()), `"alg":"RS256",`, ``, 1)
		require.NotContains(t, jwk, "alg")
		x.i.serves(raw(json.RawMessage(jwk)))
		free := requireKey(t, x.s, rsa)
		x.i.serves(raw(json.RawMessage(`{"alg":"PS256",` + jwk[1:])))
		time.Sleep(10 * time.Minute)
		assert.False(t, free.Holds())
		unknown(t, x, rsa)
	})
	play("JWKS-25 Close returns waiters, ends the fetch and leaves no timer", func(t *testing.T, x scene) {
		x.i.slow(time.Minute)
		held := requireKey(t, x.s, x.a)
		var request sync.WaitGroup
		request.Go(func() {
			_, err := x.s.Verify(background, signed(t, x.b, nil), keyset.Terms{})
			requireUnavailable(t, err)
		})
		synctest.Wait()
		assert.Zero(t, took(func() { x.s.Close(); request.Wait() }))
		assert.False(t, held.Holds())
		_, err := x.s.Verify(background, signed(t, x.a, nil), keyset.Terms{})
		requireUnavailable(t, err)
		requireUnavailable(t, x.s.Ready(background))
		before := x.i.count()
		time.Sleep(24 * time.Hour)
		assert.Equal(t, before, x.i.count())
		x.s.Close()
	})
}

func TestFreshness(t *testing.T) {
	for name, test := range map[string]struct {
		cacheControl, age string
		fresh             time.Duration
		want              time.Duration // within which it is fetched again, after 1/2 to 4/5 of it
	}{
		"JWKS-23 max-age is honoured":               {"public, max-age=3600", "", 0, time.Hour},
		"JWKS-23 what was spent on the way counts":  {"max-age=3600", "1800", 0, 30 * time.Minute},
		"JWKS-23 a short max-age is taken for 1min": {"max-age=1", "", 0, time.Minute},
		"JWKS-23 a long one is taken for 24 h":      {"max-age=99999999999999999999", "", 0, 24 * time.Hour},
		"JWKS-23 no-store is taken for 1 min":       {"no-cache, no-store, max-age=0", "", 0, time.Minute},
		"without a word it is 10 min":               {"", "", 0, 10 * time.Minute},
		"a malformed word is none":                  {"max-age=soon", "", 0, 10 * time.Minute},
		"without a word it is what is configured":   {"", "", 5 * time.Second, 5 * time.Second},
	} {
		bubble(t, name, func(t *testing.T) {
			k := key(t, "ES256", "a")
			i := &issuer{answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", test.cacheControl)
				w.Header().Set("Age", test.age)
				keys(k)(w, r)
			}}
			s := i.open(t, func(c *keyset.Config) { c.RefreshInterval = test.fresh })
			requireKey(t, s, k)
			time.Sleep(test.want/2 - time.Millisecond)
			assert.Equal(t, 1, i.count())
			for range 1000 {
				requireKey(t, s, k)
			}
			time.Sleep(test.want*3/10 + 2*time.Millisecond)
			assert.Equal(t, 2, i.count())
		})
	}

	bubble(t, "JWKS-23 an ETag is sent, and 304 renews the keys for as long as before", func(t *testing.T) {
		k := key(t, "ES256", "a")
		conditional := 0
		i := &issuer{answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			if r.Header.Get("If-None-Match") == `"1"` {
				conditional++
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Cache-Control", "max-age=3600")
			keys(k)(w, r)
		}}
		s := i.open(t)
		held := requireKey(t, s, k)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		assert.Same(t, held, requireKey(t, s, k))
		assert.Equal(t, conditional, i.count()-1)
		assert.InDelta(t, 24/0.65, conditional, 4)
		assert.True(t, s.Status().Fresh)
	})

	bubble(t, "an unexpected 304 is a failure", func(t *testing.T) {
		assert.ErrorContains(t, (&issuer{answer: text(304, "")}).open(t).Ready(background), "304")
	})
}

func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, moved := key(t, "ES256", "a"), key(t, "ES256", "b")
		var mu sync.Mutex
		asked := map[string]int{}
		site := map[string]http.HandlerFunc{
			"/.well-known/oauth-authorization-server": text(200, `{"issuer":"https://as.example","jwks_uri":"https://as.example/1"}`),
			"/1": keys(k),
		}
		i := &issuer{answer: func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.URL.Path]++
			if h := site[r.URL.Path]; h != nil {
				h(w, r)
				return
			}
			w.WriteHeader(404)
		}}
		s := i.open(t, func(c *keyset.Config) { c.JWKSURL, c.Issuer = "", "https://as.example" })
		requireKey(t, s, k)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, 1, asked["/.well-known/oauth-authorization-server"], "the URL is remembered")
		assert.Equal(t, "https://as.example/1", s.Status().URL)

		mu.Lock()
		delete(site, "/1")
		site["/2"] = keys(moved)
		site["/.well-known/oauth-authorization-server"] = text(200, `{"issuer":"https://as.example","jwks_uri":"https://as.example/2"}`)
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		requireKey(t, s, moved)
		synctest.Wait()
		assert.Equal(t, "https://as.example/2", s.Status().URL)
		assert.Equal(t, 2, asked["/.well-known/oauth-authorization-server"], "it is looked up again after repeated failures")
	})
}

// The wall clock cannot be set in a test, but every age is taken from times that carry a monotonic reading, which it does
// not touch.
func TestMonotonic(t *testing.T) {
	t.Run("JWKS-24 ages are of the monotonic clock", func(t *testing.T) {
		k := key(t, "ES256", "a")
		s := (&issuer{answer: keys(k)}).open(t)
		requireKey(t, s, k)
		assert.Contains(t, s.Status().LastFetch.String(), " m=+")
	})
}

// TestUnusedMembersOfAKeySet parses key sets whose members other than keys are the most part.
func TestUnusedMembersOfAKeySet(t *testing.T) {
	jwk := string(key(t, "ES256", "a").PublicJWK())
	many := strings.Repeat(`"-----BEGIN ":"-----BEGIN ",`, 10)
	for name, test := range map[string]struct{ set, want string }{
		"text after the object":           {`{"keys":[` + jwk + `]} {}`, "it is not a JSON object"},
		"an object without an end":        {`{"keys":[` + jwk + `]`, "it is not a JSON object"},
		"an array":                        {`[` + jwk + `]`, "it is not a JSON object"},
		"a key in PEM":                    {"\n-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", "it is PEM and not JSON: write {\"ID OF THE KEY\": \"-----BEGIN PUBLIC KEY-----\\n...\"} with the key as a JSON string, or a JWK Set"},
		"keys in another letter case":     {`{"Keys":[` + jwk + `]}`, `it has no array "keys"`},
		"a member that is not PEM, last":  {`{` + many + `"a":1}`, `it has no array "keys"`},
		"a member that is not PEM, first": {`{"a":1,` + many + `"b":"-----BEGIN "}`, `it has no array "keys"`},
		"PEM beyond the limit":            {`{` + many + `"b":"-----BEGIN "}`, "it has no usable key among 3"},
		"PEM beside keys":                 {`{` + many + `"keys":[` + jwk + `],` + many + `"a":{}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			keys, _, err := keyset.Parse([]byte(test.set), 3)
			if test.want != "" {
				assert.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.Len(t, keys, 1)
		})
	}
}
