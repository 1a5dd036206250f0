package jose_test

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

var b64 = base64.RawURLEncoding.EncodeToString

// token puts a header in front of a payload and a signature that look well.
func token(header string) string {
	return b64([]byte(header)) + "." + b64([]byte(`{"sub":"x"}`)) + ".c2lnbmF0dXJl"
}

func TestParseRefusesWhatIsNoToken(t *testing.T) {
	good := token(`{"alg":"RS256"}`)
	parts := strings.Split(good, ".")
	require.NotNil(t, parse(t, good))
	for name, raw := range map[string]string{
		"JWS-01 nothing":                        "",
		"JWS-01 no dot":                         parts[0],
		"JWS-01 one dot":                        parts[0] + "." + parts[1],
		"JWS-01 three dots":                     good + ".",
		"JWS-01 three dots, the first in front": "." + good,
		"JWS-01 JWT-24 JWT-25 four dots, an encrypted token": good + "." + parts[1] + "." + parts[2],
		"JWS-01 five dots":                            good + "...",
		"JWS-01 a header full of dots":                strings.Repeat(".", jose.MaxToken),
		"JWS-02 padding after the header":             parts[0] + "=." + parts[1] + "." + parts[2],
		"JWS-02 padding after the payload":            parts[0] + "." + parts[1] + "=." + parts[2],
		"JWS-02 padding after the signature":          good + "=",
		"JWS-02 a plus":                               parts[0] + "." + parts[1] + ".ab+c",
		"JWS-02 a slash":                              parts[0] + "." + parts[1] + ".ab/c",
		"JWS-02 a space in front":                     " " + good,
		"JWS-02 a space at the end":                   good + " ",
		"JWS-02 a tab within":                         parts[0] + "." + parts[1] + ".ab\tc",
		"JWS-02 a line feed at the end":               good + "\n",
		"JWS-02 a line feed within the header":        parts[0][:4] + "\n" + parts[0][4:] + "." + parts[1] + "." + parts[2],
		"JWS-02 a carriage return within the payload": parts[0] + "." + parts[1][:4] + "\r" + parts[1][4:] + "." + parts[2],
		"JWS-02 a line break within the signature":    parts[0] + "." + parts[1] + "." + parts[2][:4] + "\r\n" + parts[2][4:],
		"JWS-02 a NUL":                                parts[0] + "." + parts[1] + ".ab\x00c",
		"JWS-02 a letter beyond ASCII":                parts[0] + "." + parts[1] + ".abé",
		"JWS-02 one character too many in a part":     parts[0] + "." + parts[1] + ".abcde",
		"JWS-03 bits that stand for nothing, payload": parts[0] + ".e31." + parts[2],
		"JWS-03 bits that stand for nothing, header":  "e31." + parts[1] + "." + parts[2],
		"JWS-03 two characters with four such bits":   parts[0] + "." + parts[1] + ".AB",
		"JWS-25 flattened JSON without dots":          `{"payload":"e30","protected":"e30","signature":"e30"}`,
		"JWS-25 general JSON with two dots within":    `{"payload":"a.b.c","signatures":[]}`,
		"no header":                 "." + parts[1] + "." + parts[2],
		"the header is not encoded": `{"alg":"RS256"}.` + parts[1] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.Parse(raw)
			require.Error(t, err)
			require.ErrorIs(t, err, jose.ErrMalformed)
		})
	}
	for name, raw := range map[string]string{
		"JWS-20 an empty signature":         parts[0] + "." + parts[1] + ".",
		"an empty payload":                  parts[0] + ".." + parts[2],
		"JWS-26 one byte too long":          good + strings.Repeat("A", jose.MaxToken+1-len(good)),
		"JWS-26 one megabyte":               strings.Repeat("A", 1<<20),
		"JWS-26 JWS-19 one megabyte of kid": token(`{"alg":"RS256","kid":"` + strings.Repeat("A", 1<<20) + `"}`),
		"JWS-26 one megabyte of dots":       strings.Repeat(".", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.Parse(raw)
			require.Error(t, err)
			require.NotErrorIs(t, err, jose.ErrMalformed)
		})
	}
}

func TestParseNamesAnEncryptedToken(t *testing.T) {
	_, err := jose.Parse(token(`{"alg":"RSA-OAEP","enc":"A256CBC-HS512","typ":"at+jwt"}`) + ".Y2lwaGVydGV4dA.dGFn")
	require.ErrorIs(t, err, jose.ErrMalformed)
	require.ErrorContains(t, err, "it has four dots, so it is encrypted or opaque")
	_, err = jose.Parse("a.b.c.d")
	require.NotContains(t, err.Error(), "encrypted")
}

func TestParseRefusesCharactersOutsideBase64url(t *testing.T) {
	good := token(`{"alg":"RS256"}`)
	for c := range 256 {
		if strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", rune(c)) {
			continue
		}
		t.Run(fmt.Sprintf("JWT-38 the byte %#02x", c), func(t *testing.T) {
			for at := range len(good) + 1 {
				_, err := jose.Parse(good[:at] + string([]byte{byte(c)}) + good[at:])
				require.ErrorIs(t, err, jose.ErrMalformed, "before byte %d", at)
			}
		})
	}
}

func TestParseDoesNoWorkOnWhatIsTooLongOrFullOfDots(t *testing.T) {
	for name, raw := range map[string]string{
		"JWS-26 one megabyte":               strings.Repeat("eyJh", 1<<18),
		"JWS-01 a token's length of dots":   strings.Repeat(".", jose.MaxToken),
		"JWS-01 a token and a tail of dots": token(`{"alg":"RS256"}`) + strings.Repeat(".", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			const runs = 100
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range runs {
				_, _ = jose.Parse(raw)
			}
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) / runs
			require.Less(t, allocated, uint64(512), "only the error is allocated")
		})
	}
}

func TestParseTakesTheLongestToken(t *testing.T) {
	head, tail := b64([]byte(`{"alg":"RS256"}`))+".", ".c2lnbmF0dXJl"
	raw := head + strings.Repeat("A", (jose.MaxToken-len(head)-len(tail))/4*4) + tail
	require.Greater(t, len(raw), jose.MaxToken-4)
	require.NotEmpty(t, parse(t, raw).Payload)
}

func TestParseRefusesTheHeader(t *testing.T) {
	for name, header := range map[string]string{
		"JWS-04 not UTF-8":                        "{\"alg\":\"RS256\",\"x\":\"\xff\"}",
		"JWS-05 an array":                         `["RS256"]`,
		"JWS-05 a string":                         `"RS256"`,
		"JWS-05 a number":                         `1`,
		"JWS-05 null":                             `null`,
		"JWS-05 trailing data":                    `{"alg":"RS256"}{}`,
		"JWS-05 not JSON":                         `{alg:RS256}`,
		"JWS-06 alg twice":                        `{"alg":"RS256","alg":"RS256"}`,
		"JWS-06 alg twice, once in an escape":     `{"alg":"none","\u0061lg":"RS256"}`,
		"JWS-06 an unknown member twice":          `{"alg":"RS256","x":1,"x":1}`,
		"JWS-06 a member twice, two levels deep":  `{"alg":"RS256","jwk":{"kty":"RSA","kty":"EC"}}`,
		"JWS-07 no alg":                           `{"typ":"at+jwt"}`,
		"JWS-07 alg null":                         `{"alg":null}`,
		"JWS-07 alg a number":                     `{"alg":256}`,
		"JWS-07 alg an array":                     `{"alg":["RS256"]}`,
		"JWS-07 alg empty":                        `{"alg":""}`,
		"JWS-07 alg in another letter case only":  `{"Alg":"RS256"}`,
		"alg and ALG":                             `{"alg":"RS256","ALG":"none"}`,
		"KID":                                     `{"alg":"RS256","KID":"a"}`,
		"kid with the Kelvin sign":                "{\"alg\":\"RS256\",\"\u212aid\":\"a\"}",
		"Typ":                                     `{"alg":"RS256","Typ":"JWT"}`,
		"Crit":                                    `{"alg":"RS256","Crit":["x"],"x":1}`,
		"B64":                                     `{"alg":"RS256","B64":true}`,
		"JWS-09 crit with an unknown extension":   `{"alg":"RS256","crit":["x"],"x":1}`,
		"JWS-10 crit empty":                       `{"alg":"RS256","crit":[]}`,
		"JWS-11 crit a string":                    `{"alg":"RS256","crit":"x","x":1}`,
		"JWS-11 crit with a number":               `{"alg":"RS256","crit":[1]}`,
		"JWS-11 crit null":                        `{"alg":"RS256","crit":null}`,
		"JWS-12 crit with a name twice":           `{"alg":"RS256","crit":["x","x"],"x":1}`,
		"JWS-12 crit with alg":                    `{"alg":"RS256","crit":["alg"]}`,
		"JWS-12 crit with a name that is missing": `{"alg":"RS256","crit":["x"]}`,
		"JWS-09 crit with exp":                    `{"alg":"RS256","crit":["exp"],"exp":1}`,
		"JWS-13 b64 false with crit":              `{"alg":"RS256","b64":false,"crit":["b64"]}`,
		"JWS-13 b64 true with crit":               `{"alg":"RS256","b64":true,"crit":["b64"]}`,
		"JWS-13 b64 false":                        `{"alg":"RS256","b64":false}`,
		"JWS-13 b64 true":                         `{"alg":"RS256","b64":true}`,
		"JWS-17 kid a number":                     `{"alg":"RS256","kid":1}`,
		"JWS-17 kid an object":                    `{"alg":"RS256","kid":{}}`,
		"JWS-19 kid too long":                     `{"alg":"RS256","kid":"` + strings.Repeat("A", 257) + `"}`,
		"JWS-19 kid with a NUL":                   `{"alg":"RS256","kid":"a\u0000"}`,
		"JWS-19 kid with a line break":            `{"alg":"RS256","kid":"a\r\nSet-Cookie: b"}`,
		"JWS-19 kid with an escape sequence":      `{"alg":"RS256","kid":"\u001b[2J"}`,
		"JWS-19 kid with a C1 control":            `{"alg":"RS256","kid":"\u0085"}`,
		"JWS-27 nested 10,000 deep":               `{"alg":"RS256","x":` + strings.Repeat("[", 10_000),
		"typ a number":                            `{"alg":"RS256","typ":1}`,
		"JWT-37 a nested token":                   `{"alg":"RS256","cty":"JWT"}`,
		"JWT-37 a nested token, small letters":    `{"alg":"RS256","cty":"application/jwt"}`,
		"cty a number":                            `{"alg":"RS256","cty":1}`,
		"JWT-25 encryption":                       `{"alg":"RSA-OAEP","enc":"A256GCM"}`,
		"JWT-25 direct encryption":                `{"alg":"dir","enc":"A256GCM"}`,
		"JWT-26 compression":                      `{"alg":"RS256","zip":"DEF"}`,
		"JWT-27 a password with many rounds":      `{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2s":"AAAAAAAAAAA","p2c":1000000000}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.Parse(token(header))
			require.Error(t, err)
			require.Less(t, len(err.Error()), 120, "an error quotes nothing")
		})
	}
}

func TestParseReadsTheHeader(t *testing.T) {
	long := strings.Repeat("A", 256)
	for name, c := range map[string]struct {
		header string
		want   jose.Header
	}{
		"alg alone":                                 {`{"alg":"RS256"}`, jose.Header{Algorithm: "RS256"}},
		"kid and typ":                               {`{"typ":"at+jwt","alg":"ES256","kid":"a"}`, jose.Header{Algorithm: "ES256", Type: "at+jwt", KeyID: "a", HasKeyID: true}},
		"a kid keeps its letter case":               {`{"alg":"ES256","kid":"aB"}`, jose.Header{Algorithm: "ES256", KeyID: "aB", HasKeyID: true}},
		"an empty kid is none":                      {`{"alg":"ES256","kid":""}`, jose.Header{Algorithm: "ES256"}},
		"members that are null are absent":          {`{"alg":"ES256","kid":null,"typ":null,"cty":null,"jwk":null}`, jose.Header{Algorithm: "ES256"}},
		"the longest kid":                           {`{"alg":"ES256","kid":"` + long + `"}`, jose.Header{Algorithm: "ES256", KeyID: long, HasKeyID: true}},
		"a kid with quotes and a path":              {`{"alg":"ES256","kid":"../../'\" OR 1=1"}`, jose.Header{Algorithm: "ES256", KeyID: `../../'" OR 1=1`, HasKeyID: true}},
		"an unknown algorithm is for the caller":    {`{"alg":"none"}`, jose.Header{Algorithm: "none"}},
		"a cty that is not JWT":                     {`{"alg":"ES256","cty":"json"}`, jose.Header{Algorithm: "ES256"}},
		"JWS-14 jku is not looked at":               {`{"alg":"ES256","jku":"https://evil.example/keys"}`, jose.Header{Algorithm: "ES256"}},
		"JWS-14 not even at its type":               {`{"alg":"ES256","jku":1}`, jose.Header{Algorithm: "ES256"}},
		"JWS-15 jwk is not looked at":               {`{"alg":"ES256","jwk":{"kty":"oct","k":"AA"}}`, jose.Header{Algorithm: "ES256"}},
		"JWS-16 x5u, x5c and x5t are not looked at": {`{"alg":"ES256","x5u":"http://[::1]/","x5c":[1],"x5t":null,"x5t#S256":{}}`, jose.Header{Algorithm: "ES256"}},
		"unknown members are passed over":           {`{"alg":"ES256","nonce":"a","x":{"alg":"none"}}`, jose.Header{Algorithm: "ES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := parse(t, token(c.header))
			require.Equal(t, c.want, got.Header)
			require.Equal(t, `{"sub":"x"}`, string(got.Payload))
		})
	}
}

func TestOneSignatureHasOneSpelling(t *testing.T) {
	// The last character of 64 bytes has four bits that stand for nothing: 16 spellings, one of which is canonical.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(rfc7515A3) - 1
	good := strings.IndexByte(alphabet, rfc7515A3[last])
	for i := range 16 {
		t.Run(fmt.Sprintf("JWS-03 spelling %d", i), func(t *testing.T) {
			_, err := jose.Parse(rfc7515A3[:last] + string(alphabet[good&^15+i]))
			if good&15 == i {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, jose.ErrMalformed)
		})
	}
}

func TestErrorsHoldNothingOfTheToken(t *testing.T) {
	for _, raw := range []string{
		"c2VjcmV0", "c2VjcmV0.c2VjcmV0.c2VjcmV0", "c2VjcmV0.c2VjcmV0.c2VjcmV0+",
		token(`{"secret":"secret"}`), token(`{"alg":"RS256","kid":["secret"]}`), token(`{"alg":"RS256","crit":["secret"]}`),
		token(`{"alg":"RS256","secret":1,"secret":1}`), token(`{"alg":"RS256","secret`), token(`{"secret":secret}`),
	} {
		_, err := jose.Parse(raw)
		require.Error(t, err)
		for e := err; e != nil; e = errors.Unwrap(e) {
			require.NotContains(t, e.Error(), "secret")
			require.NotContains(t, e.Error(), "c2Vj")
		}
	}
}

func TestSameType(t *testing.T) {
	for _, c := range []struct {
		name, typ, want string
		same            bool
	}{
		{"another type", "JWT", "at+jwt", false},
		{"a proof in place of a token", "dpop+jwt", "at+jwt", false},
		{"no type", "", "at+jwt", false},
		{"a type of the same length", "id+jwt", "at+jwt", false},
		{"JWS-24 another tree of the same length", "applicatiox/at+jwt", "at+jwt", false},
		{"JWS-24 a type with two slashes", "application/a/b", "a/b", false},
		{"a longer type", "at+jwt2", "at+jwt", false},
		{"JWS-24 another tree", "text/at+jwt", "at+jwt", false},
		{"JWS-24 the prefix twice", "application/application/at+jwt", "at+jwt", false},
		{"JWS-24 the prefix alone", "application/", "", false},
		{"JWS-24 a space", "at+jwt ", "at+jwt", false},
		{"JWS-24 a parameter", "at+jwt; a=b", "at+jwt", false},
		{"the Kelvin sign", "to\u212aen", "token", false},
		{"JWS-24 the same", "at+jwt", "at+jwt", true},
		{"JWS-24 with the prefix", "application/at+jwt", "at+jwt", true},
		{"JWS-24 in capitals", "AT+JWT", "at+jwt", true},
		{"JWS-24 both", "at+jwt", "application/AT+JWT", true},
		{"JWS-24 the prefix in capitals", "APPLICATION/at+jwt", "at+jwt", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.same, jose.SameType(c.typ, c.want))
		})
	}
}

// What is accepted has one spelling: its parts encoded again are the same text.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{rfc7515A1, rfc7515A2, rfc7515A3, rfc7515A4, rfc7515A5, rfc7520s44, rfc7797s42Attached, token(`{"alg":"x","kid":"y"}`), "a.b.c", ".."} {
		f.Add(seed)
	}
	for _, k := range keys() { // one header in two is remembered
		raw, err := k.Sign(nil, []byte("{}"))
		if err != nil || k.Public().Verify(parse(f, raw)) != nil {
			f.Fatal("refused")
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := jose.Parse(raw)
		if err != nil {
			return
		}
		header, signature := parts(t, raw)
		if again := b64(header) + "." + b64(c.Payload) + "." + b64(signature); again != raw {
			t.Fatalf("%q is accepted and comes out as %q", raw, again)
		}
		var h map[string]any
		if err := json.Unmarshal(header, &h); err != nil || h["alg"] != c.Header.Algorithm {
			t.Fatalf("encoding/json reads the header %q as %v (%v)", header, h, err)
		}
		if kid, has := h["kid"]; has != c.Header.HasKeyID || has && kid != c.Header.KeyID {
			t.Fatalf("encoding/json reads the kid of %q as %v", header, kid)
		}
	})
}

func parts(t *testing.T, raw string) (header, signature []byte) {
	t.Helper()
	text := strings.Split(raw, ".")
	header, err := base64.RawURLEncoding.DecodeString(text[0])
	require.NoError(t, err)
	signature, err = base64.RawURLEncoding.DecodeString(text[2])
	require.NoError(t, err)
	return header, signature
}

func TestParseProof(t *testing.T) {
	k := keys()["ES256"]
	sign := func(t *testing.T, header map[string]any) string {
		raw, err := k.Sign(header, []byte(`{"jti":"x"}`))
		require.NoError(t, err)
		return raw
	}
	public := string(k.PublicJWK())
	for name, header := range map[string]map[string]any{
		"no jwk":                             {},
		"a jwk that is null":                 {"jwk": json.RawMessage("null")},
		"a jwk as a string":                  {"jwk": public},
		"a jwk in other letter case":         {"JWK": k.PublicJWK()},
		"a jwk twice, in other letter case":  {"jwk": k.PublicJWK(), "JWK": k.PublicJWK()},
		"DPOP-07 a private jwk":              {"jwk": k.PrivateJWK()},
		"DPOP-07 a secret jwk":               {"jwk": json.RawMessage(`{"kty":"oct","k":"AAAA"}`)},
		"DPOP-08 a point off the curve":      {"jwk": json.RawMessage(jwk(t, public, map[string]any{"y": b64(make([]byte, 32))}))},
		"DPOP-08 an RSA key of 1024 bits":    {"jwk": json.RawMessage(`{"kty":"RSA","e":"AQAB","n":"` + modulus(1024, 1) + `"}`)},
		"DPOP-08 an RSA key of 16384 bits":   {"jwk": json.RawMessage(`{"kty":"RSA","e":"AQAB","n":"` + modulus(16384, 1) + `"}`)},
		"DPOP-08 an RSA key, even":           {"jwk": json.RawMessage(`{"kty":"RSA","e":"AQAB","n":"` + modulus(2048, 0) + `"}`)},
		"DPOP-10 an unknown extension":       {"jwk": k.PublicJWK(), "crit": []string{"exp"}},
		"DPOP-10 an empty list of extension": {"jwk": k.PublicJWK(), "crit": []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseProof(sign(t, header))
			require.Error(t, err)
		})
	}
	t.Run("DPOP-07 the refusal of a key has the key's reason", func(t *testing.T) {
		_, err := jose.ParseProof(sign(t, map[string]any{"jwk": json.RawMessage(`{"kty":"oct","k":"AAAA"}`)}))
		require.ErrorIs(t, err, jose.ErrSymmetric)
		require.ErrorContains(t, err, "jwk: ")
	})
	t.Run("DPOP-09 a certificate within the key is neither used nor compared", func(t *testing.T) {
		x5c := []string{base64.StdEncoding.EncodeToString(certificate(t, keys()["RS256"]))}
		_, err := jose.ParseProof(sign(t, map[string]any{"jwk": json.RawMessage(jwk(t, `{"kty":"RSA"}`, map[string]any{"x5c": x5c}))}))
		require.ErrorIs(t, err, jose.ErrUnsupported)
		c, err := jose.ParseProof(sign(t, map[string]any{"jwk": json.RawMessage(jwk(t, public, map[string]any{"x5c": x5c}))}))
		require.NoError(t, err)
		require.Equal(t, k.Public().Thumbprint(), c.Header.Key.Thumbprint())
	})
	t.Run("DPOP-06 DPOP-09 the key in the header counts, and no other", func(t *testing.T) {
		raw := sign(t, map[string]any{"jwk": k.PublicJWK(), "kid": keys()["RS256"].ID(), "jku": "https://x", "x5c": []string{"AA=="}})
		for range 2 { // the second time its header is remembered
			c, err := jose.ParseProof(raw)
			require.NoError(t, err)
			require.Equal(t, k.Public().Thumbprint(), c.Header.Key.Thumbprint())
			require.NoError(t, c.Header.Key.Verify(c))
		}
	})
	t.Run("the key in the header of a token is ignored, even if that of a proof is cached", func(t *testing.T) {
		raw := sign(t, map[string]any{"jwk": k.PublicJWK(), "x": rand.Text()})
		for range 2 {
			require.Nil(t, parse(t, raw).Header.Key)
			proof, err := jose.ParseProof(raw)
			require.NoError(t, err)
			require.NoError(t, proof.Header.Key.Verify(proof))
			require.NoError(t, k.Public().Verify(parse(t, raw)))
		}
		proof, err := jose.ParseProof(raw)
		require.NoError(t, err, "nor does a token's remembered header hide that of a proof")
		require.NotNil(t, proof.Header.Key)
	})
}

// padded returns a token of k whose parts have padding where their length needs it, and are signed so.
func padded(t testing.TB, k *jose.PrivateKey, header, payload string) string {
	t.Helper()
	input := base64.URLEncoding.EncodeToString([]byte(header)) + "." + base64.URLEncoding.EncodeToString([]byte(payload))
	signature, err := k.Signer().Sign(rand.Reader, []byte(input), crypto.Hash(0)) // of Ed25519
	require.NoError(t, err)
	return input + "." + base64.URLEncoding.EncodeToString(signature)
}

func TestPaddedTokens(t *testing.T) {
	k := keys()["EdDSA"]
	allow := jose.Options{AllowPadding: true}
	for header, payload := range map[string]string{
		`{"alg":"EdDSA"}`:   `{"a":1}`,  // the payload and the signature have padding
		`{"alg":"EdDSA" }`:  `{"a":12}`, // all three have
		`{"alg":"EdDSA"  }`: `{"a":123}`,
	} {
		raw := padded(t, k, header, payload)
		t.Run("one is refused unless it is allowed, even if its header is remembered: "+header, func(t *testing.T) {
			for range 2 {
				_, err := jose.Parse(raw)
				require.ErrorIs(t, err, jose.ErrPadded)
				require.ErrorIs(t, err, jose.ErrMalformed)
				_, err = jose.ParseProof(raw)
				require.ErrorIs(t, err, jose.ErrPadded)

				c, err := jose.ParseWith(raw, allow)
				require.NoError(t, err)
				require.True(t, c.Padded)
				require.Equal(t, len(raw), c.Length())
				require.Equal(t, payload, string(c.Payload))
				require.NoError(t, k.Public().Verify(c)) // the header is remembered
			}
			bare := strings.ReplaceAll(raw, "=", "")
			c, err := jose.ParseWith(bare, allow)
			require.NoError(t, err)
			if strings.Contains(raw[:strings.LastIndex(raw, ".")], "=") {
				require.Error(t, k.Public().Verify(c), "the padding is part of what is signed")
			}
			head, rest, _ := strings.Cut(raw, ".")
			_, err = jose.Parse(head + "." + strings.ReplaceAll(rest, "=", ""))
			if strings.Contains(head, "=") {
				require.ErrorIs(t, err, jose.ErrPadded, "a remembered header")
			}
		})
	}
	good := padded(t, k, `{"alg":"EdDSA" }`, `{"a":12}`)
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for name, raw := range map[string]string{
		"padding that is too long":   head + "=." + rest,
		"a whole group of padding":   head + "====." + rest,
		"padding that is too short":  strings.TrimRight(head, "=") + "." + payload[:len(payload)-2] + "=" + "." + signature,
		"padding where none belongs": head + "." + payload + "." + strings.TrimRight(signature, "=") + "AA=",
		"padding within a part":      head[:4] + "=" + head[5:] + "." + rest,
		"padding at the start":       "=" + good,
		"spare bits beside padding":  "e30=" + "." + "e31=" + "." + signature,
		"the standard alphabet":      strings.Replace(good, good[:4], "e3+/", 1),
		"padding alone":              "=.=.=",
		"a part of padding alone":    head + "." + "====" + "." + signature,
		"a dot more":                 good + ".",
	} {
		t.Run(name+" is refused even where padding is allowed", func(t *testing.T) {
			_, err := jose.ParseWith(raw, allow)
			require.Error(t, err)
		})
	}
	t.Run("a canonical token is accepted where padding is allowed", func(t *testing.T) {
		raw, err := k.Sign(nil, []byte(`{"a":1}`))
		require.NoError(t, err)
		c, err := jose.ParseWith(raw, allow)
		require.NoError(t, err)
		require.False(t, c.Padded)
		require.NoError(t, k.Public().Verify(c))
	})
	t.Run("the limit is that of the options", func(t *testing.T) {
		for _, limit := range []int{len(good) - 1, len(good)} {
			_, err := jose.ParseWith(good, jose.Options{Limit: limit, AllowPadding: true})
			if limit == len(good) {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, fmt.Sprintf("more than %d bytes", limit))
			}
		}
	})
}

func TestPaddingAtTheBeginningIsPadding(t *testing.T) {
	_, err := jose.Parse("=.e30.AA")
	require.ErrorIs(t, err, jose.ErrPadded)
}
