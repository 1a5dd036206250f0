package dpop_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The example of RFC 9449: the token and the proof of section 7.1, the proof of section 5, the thumbprint of section 6.1.
const (
	rfcToken      = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	rfcThumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	rfcHeader     = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQy" +
		"VVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
	rfcProof = rfcHeader + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0" +
		"ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9" +
		".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
	rfcTokenProof = rfcHeader + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu" +
		"IiwiaWF0IjoxNTYyMjYyNjE2fQ" +
		".2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	rfcTime = 1562262618
)

func TestRFCExamples(t *testing.T) {
	at := func(now int64) *dpop.Verifier {
		return newVerifier(t, dpop.Config{Now: func() time.Time { return time.Unix(now, 0) }})
	}
	resource := dpop.Request{
		Proofs: []string{rfcProof}, Method: "GET", URL: "https://resource.example.org/protectedresource",
		Token: rfcToken, Thumbprint: rfcThumbprint,
	}
	_, err := at(rfcTime+3600).Verify(t.Context(), resource)
	requireRefusal(t, err, valetkey.InvalidProof, "too old")

	got, err := at(rfcTime).Verify(t.Context(), resource)
	require.NoError(t, err, "section 7.1")
	require.Equal(t, rfcThumbprint, got.Thumbprint())

	got, err = at(rfcTime).Verify(t.Context(), dpop.Request{
		Proofs: []string{rfcTokenProof}, Method: "POST", URL: "https://server.example.com/token",
	})
	require.NoError(t, err, "section 5")
	require.Equal(t, rfcThumbprint, got.Thumbprint())
}

func newVerifier(t testing.TB, cfg dpop.Config) *dpop.Verifier {
	t.Helper()
	v, err := dpop.New(cfg)
	require.NoError(t, err)
	return v
}

func requireRefusal(t testing.TB, err error, code valetkey.Code, description string) {
	t.Helper()
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, code, refusal.Code, err)
	require.Contains(t, refusal.Reason.Description(), description)
	require.Equal(t, http.StatusUnauthorized, refusal.Status())
}

const (
	method = "GET"
	target = "https://api.example.com/orders/1"
	token  = "an.access-token"
)

// request returns a good request of the client.
func request(client *valetkeytest.ProofKey, opts ...valetkeytest.Option) dpop.Request {
	return dpop.Request{
		Proofs: []string{client.Proof(method, target, token, opts...)}, Method: method, URL: target,
		Token: token, Thumbprint: client.Thumbprint(),
	}
}

func TestRefusals(t *testing.T) {
	var (
		iss      = valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		client   = iss.ProofKey("ES256")
		replays  = new(counted)
		v        = newVerifier(t, dpop.Config{ReplayStore: replays, Now: iss.Now})
		claim    = valetkeytest.Claim
		header   = valetkeytest.Header
		good     = request(client)
		proof    = good.Proofs[0]
		parts    = strings.Split(proof, ".")
		jwk      = jwkOf(t, proof)
		other    = jwkOf(t, iss.ProofKey("ES256").Proof(method, target, token))
		rsa      = jwkOf(t, iss.ProofKey("PS256").Proof(method, target, token))
		now      = iss.Now()
		tokenSum = sha256.Sum256([]byte(token))
	)
	with := func(jwk map[string]any, name string, value any) map[string]any {
		changed := map[string]any{name: value}
		for k, v := range jwk {
			if k != name {
				changed[k] = v
			}
		}
		return changed
	}
	type option = valetkeytest.Option
	for _, c := range []struct {
		name        string
		opts        []option
		description string
	}{
		{"DPOP-02 an encrypted token's header", []option{header("enc", "A128GCM")}, "malformed"},
		{"DPOP-03 no jti", []option{claim("jti", nil)}, "lacks a claim"},
		{"DPOP-03 an empty jti", []option{claim("jti", "")}, "lacks a claim"},
		{"DPOP-03 a jti that is a number", []option{claim("jti", 1)}, "lacks a claim"},
		{"DPOP-03 no htm", []option{claim("htm", nil)}, "lacks a claim"},
		{"DPOP-03 an htm that is an array", []option{claim("htm", []string{method})}, "lacks a claim"},
		{"DPOP-03 no htu", []option{claim("htu", nil)}, "lacks a claim"},
		{"DPOP-03 an htu that is null", []option{claim("htu", json.RawMessage("null"))}, "lacks a claim"},
		{"DPOP-03 no iat", []option{claim("iat", nil)}, "lacks a claim"},
		{"DPOP-03 an iat that is a string", []option{claim("iat", now.Format(time.RFC3339))}, "lacks a claim"},
		{"DPOP-03 DPOP-30 no ath", []option{claim("ath", nil)}, "another access token"},
		{"DPOP-03 an ath that is an object", []option{claim("ath", map[string]any{})}, "lacks a claim"},
		{"DPOP-03 a nonce that is a number, though none is asked for", []option{claim("nonce", 1)}, "lacks a claim"},
		{"DPOP-03 a payload that is not an object", []option{valetkeytest.Payload(`["jti"]`)}, "lacks a claim"},
		{"DPOP-03 a claim twice", []option{valetkeytest.Payload(`{"jti":"a","jti":"b"}`)}, "lacks a claim"},
		{"DPOP-03 a claim twice, after all that are needed", []option{valetkeytest.Payload(fmt.Sprintf(`{"jti":"a","htm":%q,"htu":%q,"iat":%d,"ath":%q,"x":1,"x":2}`,
			method, target, now.Unix(), base64.RawURLEncoding.EncodeToString(tokenSum[:])))}, "lacks a claim"},
		{"DPOP-04 no typ", []option{valetkeytest.Type("")}, "another type"},
		{"DPOP-04 typ JWT", []option{valetkeytest.Type("JWT")}, "another type"},
		{"DPOP-04 typ at+jwt", []option{valetkeytest.Type("at+jwt")}, "another type"},
		{"DPOP-05 alg none", []option{valetkeytest.Unsigned()}, "malformed"},
		{"DPOP-05 alg none with a signature", []option{header("alg", "none")}, "algorithm that is not accepted"},
		{"DPOP-05 alg HS256, the secret is the public key", []option{valetkeytest.Secret(mustJSON(t, jwk))}, "algorithm that is not accepted"},
		{"DPOP-05 alg not in the list", []option{header("alg", "RS256"), header("jwk", rsa)}, "algorithm that is not accepted"},
		{"DPOP-05 alg in another letter case", []option{header("alg", "es256")}, "algorithm that is not accepted"},
		{"DPOP-06 a signature with a bit flipped", []option{valetkeytest.TamperedSignature()}, "not signed with its key"},
		{"DPOP-06 a claim changed after it was signed", []option{valetkeytest.TamperedPayload()}, "not signed with its key"},
		{"DPOP-06 signed with another key", []option{valetkeytest.UnknownKey()}, "not signed with its key"},
		{"DPOP-07 a jwk with d", []option{header("jwk", with(jwk, "d", jwk["x"]))}, "malformed"},
		{"DPOP-07 a jwk with p", []option{header("jwk", with(jwk, "p", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with q", []option{header("jwk", with(jwk, "q", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with dp", []option{header("jwk", with(jwk, "dp", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with dq", []option{header("jwk", with(jwk, "dq", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with qi", []option{header("jwk", with(jwk, "qi", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with oth", []option{header("jwk", with(jwk, "oth", []any{map[string]any{"r": "AQ", "d": "AQ", "t": "AQ"}}))}, "malformed"},
		{"DPOP-07 a jwk with k", []option{header("jwk", with(jwk, "k", "AQ"))}, "malformed"},
		{"DPOP-07 a jwk with d that is null", []option{header("jwk", with(jwk, "d", nil))}, "malformed"},
		{"DPOP-07 a jwk that is a secret", []option{header("jwk", map[string]any{"kty": "oct", "k": "AQ"})}, "malformed"},
		{"DPOP-08 no jwk", []option{header("jwk", nil)}, "malformed"},
		{"DPOP-08 a jwk that is a string", []option{header("jwk", "key")}, "malformed"},
		{"DPOP-08 kty does not fit alg", []option{header("alg", "PS256")}, "not signed with its key"},
		{"DPOP-08 the curve does not fit alg", []option{header("alg", "ES384")}, "not signed with its key"},
		{"DPOP-08 another curve in the jwk", []option{header("jwk", with(jwk, "crv", "P-384"))}, "malformed"},
		{"DPOP-08 an unsupported curve", []option{header("jwk", with(jwk, "crv", "secp256k1"))}, "malformed"},
		{"DPOP-08 a point off the curve", []option{header("jwk", with(jwk, "y", jwk["x"]))}, "malformed"},
		{"DPOP-08 an RSA key of 1024 bits", []option{header("alg", "PS256"), header("jwk", with(rsa, "n", strings.Repeat("_", 170)+"8"))}, "malformed"},
		{"DPOP-08 an RSA key of 8200 bits", []option{header("alg", "PS256"), header("jwk", with(rsa, "n", strings.Repeat("_", 1366)+"8"))}, "malformed"},
		{"DPOP-08 a jwk for another algorithm", []option{header("jwk", with(jwk, "alg", "ES384"))}, "malformed"},
		{"DPOP-08 a jwk for encryption", []option{header("jwk", with(jwk, "use", "enc"))}, "malformed"},
		{"DPOP-10 an unknown crit", []option{header("crit", []string{"x"}), header("x", 1)}, "malformed"},
		{"DPOP-11 htm in another letter case", []option{claim("htm", "get")}, "another method"},
		{"DPOP-11 htm of another method", []option{claim("htm", "POST")}, "another method"},
		{"DPOP-12 htu with another scheme", []option{claim("htu", "http://api.example.com/orders/1")}, "another URL"},
		{"DPOP-12 htu with another host", []option{claim("htu", "https://api.example.org/orders/1")}, "another URL"},
		{"DPOP-12 htu with another port", []option{claim("htu", "https://api.example.com:8443/orders/1")}, "another URL"},
		{"DPOP-12 htu with another path", []option{claim("htu", "https://api.example.com/orders/2")}, "another URL"},
		{"DPOP-12 htu that is relative", []option{claim("htu", "/orders/1")}, "another URL"},
		{"DPOP-27 iat too old", []option{claim("iat", now.Add(-61*time.Second).Unix())}, "too old"},
		{"DPOP-27 iat before 1970", []option{claim("iat", -1e300)}, "too old"},
		{"DPOP-28 iat beyond the skew", []option{claim("iat", now.Add(time.Hour).Unix())}, "from the future"},
		{"DPOP-28 iat at the end of time", []option{claim("iat", 1e300)}, "from the future"},
		{"DPOP-30 ath of another token", []option{claim("ath", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo")}, "another access token"},
		{"DPOP-30 ath in standard base64", []option{claim("ath", base64.RawStdEncoding.EncodeToString(tokenSum[:]))}, "another access token"},
		{"DPOP-30 ath with padding", []option{claim("ath", base64.URLEncoding.EncodeToString(tokenSum[:]))}, "another access token"},
		{"DPOP-41 a jti of 1 MB", []option{claim("jti", strings.Repeat("x", 1<<20))}, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), request(client, c.opts...))
			requireRefusal(t, err, valetkey.InvalidProof, c.description)
			if name, _, _ := strings.Cut(c.name, " "); name == "DPOP-07" {
				require.ErrorContains(t, err, "jwk: ", "and not for another reason")
			}
		})
	}
	for _, c := range []struct {
		name        string
		change      func(*dpop.Request)
		description string
	}{
		{"no proof", func(r *dpop.Request) { r.Proofs = nil }, "exactly one"},
		{"an empty proof", func(r *dpop.Request) { r.Proofs = []string{""} }, "malformed"},
		{"DPOP-01 two proofs", func(r *dpop.Request) { r.Proofs = []string{proof, proof} }, "exactly one"},
		{"DPOP-01 two proofs in one line", func(r *dpop.Request) { r.Proofs = []string{proof + ", " + proof} }, "malformed"},
		{"DPOP-01 two proofs in one line without a space", func(r *dpop.Request) { r.Proofs = []string{proof + "," + proof} }, "malformed"},
		{"DPOP-02 JSON serialisation", func(r *dpop.Request) {
			r.Proofs = []string{`{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`}
		}, "malformed"},
		{"DPOP-02 an encrypted token", func(r *dpop.Request) { r.Proofs = []string{proof + ".e30.e30"} }, "malformed"},
		{"DPOP-02 a dot missing", func(r *dpop.Request) { r.Proofs = []string{parts[0] + "." + parts[1]} }, "malformed"},
		{"DPOP-02 the signature missing", func(r *dpop.Request) { r.Proofs = []string{parts[0] + "." + parts[1] + "."} }, "malformed"},
		{"DPOP-02 padding", func(r *dpop.Request) { r.Proofs = []string{proof + "=="} }, "malformed"},
		{"DPOP-11 a request in lower case", func(r *dpop.Request) { r.Method = "get" }, "another method"},
		{"DPOP-12 a request whose URL is none", func(r *dpop.Request) { r.URL = "https://" }, "another URL"},
		{"DPOP-30 a request with another token", func(r *dpop.Request) { r.Token += "x" }, "another access token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.change(&r)
			_, err := v.Verify(t.Context(), r)
			requireRefusal(t, err, valetkey.InvalidProof, c.description)
		})
	}
	t.Run("DPOP-31 a token that is bound to another key", func(t *testing.T) {
		r := request(client)
		r.Thumbprint = rfcThumbprint
		_, err := v.Verify(t.Context(), r)
		requireRefusal(t, err, valetkey.InvalidToken, "bound to another key")
	})
	t.Run("DPOP-31 DPOP-06 a stolen token and proof, with the victim's key in place of the thief's", func(t *testing.T) {
		_, err := v.Verify(t.Context(), request(client, header("jwk", other)))
		requireRefusal(t, err, valetkey.InvalidToken, "bound to another key")
	})
	t.Run("DPOP-40 DPOP-37 none of them has used anything up", func(t *testing.T) {
		require.Zero(t, replays.calls.Load())
		_, err := v.Verify(t.Context(), good)
		require.NoError(t, err)
		require.EqualValues(t, 1, replays.calls.Load())
	})
	t.Run("a refusal quotes neither the proof nor the token", func(t *testing.T) {
		r := request(client, claim("jti", "the-jti"), claim("ath", nil))
		_, err := v.Verify(t.Context(), r)
		for _, secret := range []string{token, "the-jti", strings.Split(r.Proofs[0], ".")[1]} {
			require.NotContains(t, err.Error(), secret)
		}
	})
}

func TestAccepted(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client, now := iss.ProofKey("ES256"), iss.Now()
	v := newVerifier(t, dpop.Config{Now: iss.Now})
	claim, header := valetkeytest.Claim, valetkeytest.Header
	type option = valetkeytest.Option
	for _, c := range []struct {
		name string
		opts []option
	}{
		{"as most clients make it", nil},
		{"DPOP-04 typ with application/", []option{valetkeytest.Type("application/dpop+jwt")}},
		{"DPOP-04 typ in another letter case", []option{valetkeytest.Type("DPoP+JWT")}},
		{"DPOP-09 kid, jku, x5u and x5c are ignored", []option{
			header("kid", "other"), header("jku", iss.KeySet.URL), header("x5u", iss.KeySet.URL), header("x5c", []string{"AQ=="})}},
		{"DPOP-13 htu with a query", []option{claim("htu", target+"?a=b")}},
		{"DPOP-13 htu with a fragment", []option{claim("htu", target+"#a")}},
		{"DPOP-14 htu with capitals and the default port", []option{claim("htu", "HTTPS://API.Example.com:443/orders/1")}},
		{"DPOP-27 iat half as old as it may be", []option{claim("iat", now.Add(-30*time.Second).Unix())}},
		{"DPOP-28 iat slightly in the future", []option{claim("iat", now.Add(9*time.Second).Unix())}},
		{"iat with a fraction", []option{claim("iat", float64(now.UnixMilli())/1000)}},
		{"DPOP-41 a long jti", []option{claim("jti", strings.Repeat("x", 5000))}},
		{"claims of other names, and an exp that means nothing", []option{claim("exp", 1), claim("x", []any{1, "a"})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), request(client, c.opts...))
			require.NoError(t, err)
			require.Equal(t, client.Thumbprint(), got.Thumbprint())
		})
	}
	t.Run("DPOP-09 nothing was fetched", func(t *testing.T) { require.Zero(t, iss.KeySet.Hits()) })
	t.Run("DPOP-13 a request with a query", func(t *testing.T) {
		r := request(client)
		r.URL += "?page=2"
		_, err := v.Verify(t.Context(), r)
		require.NoError(t, err)
	})
	t.Run("at a token endpoint, without a token and of any key", func(t *testing.T) {
		_, err := v.Verify(t.Context(), dpop.Request{Proofs: []string{client.Proof("POST", target, "")}, Method: "POST", URL: target})
		require.NoError(t, err)
	})
	t.Run("DPOP-05 every algorithm of the list, and the challenge can name them", func(t *testing.T) {
		require.Equal(t, []string{"ES256", "ES384", "PS256", "EdDSA", "Ed25519"}, v.Algorithms())
		v.Algorithms()[0] = "none"
		for _, alg := range v.Algorithms() {
			client := iss.ProofKey(alg)
			for range 2 { // the second time the header is remembered
				got, err := v.Verify(t.Context(), request(client))
				require.NoError(t, err, alg)
				require.Equal(t, client.Thumbprint(), got.Thumbprint())
			}
		}
	})
	t.Run("DPOP-05 another list", func(t *testing.T) {
		only := newVerifier(t, dpop.Config{Algorithms: []string{"RS256"}, Now: iss.Now})
		_, err := only.Verify(t.Context(), request(iss.ProofKey("RS256")))
		require.NoError(t, err)
		_, err = only.Verify(t.Context(), request(client))
		requireRefusal(t, err, valetkey.InvalidProof, "algorithm")
	})
	t.Run("DPOP-27 DPOP-28 another window and another skew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			client, exact := iss.ProofKey("ES256"), newVerifier(t, dpop.Config{Window: 5 * time.Second, Leeway: -1, Now: iss.Now})
			aged := func(age time.Duration) error {
				_, err := exact.Verify(t.Context(), request(client, claim("iat", iss.Now().Add(-age).Unix())))
				return err
			}
			requireRefusal(t, aged(6*time.Second), valetkey.InvalidProof, "too old")
			requireRefusal(t, aged(-time.Second), valetkey.InvalidProof, "future")
			require.NoError(t, aged(5*time.Second))
			require.NoError(t, aged(0))
		})
	})
}

func TestTheWindowIsExact(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client, now := iss.ProofKey("ES256"), time.Unix(1_800_000_000, 0)
	at := func(skew time.Duration) error {
		v := newVerifier(t, dpop.Config{Now: func() time.Time { return now.Add(skew) }})
		_, err := v.Verify(t.Context(), request(client, valetkeytest.Claim("iat", now.Unix())))
		return err
	}
	t.Run("DPOP-27 a proof is accepted for a minute", func(t *testing.T) {
		require.NoError(t, at(time.Minute))
		requireRefusal(t, at(time.Minute+time.Nanosecond), valetkey.InvalidProof, "too old")
	})
	t.Run("DPOP-28 and may be ten seconds ahead", func(t *testing.T) {
		require.NoError(t, at(-10*time.Second))
		requireRefusal(t, at(-10*time.Second-time.Nanosecond), valetkey.InvalidProof, "future")
	})
}

// DPOP-57 is a limit that the package documents: who changes the body, a header or the query goes unnoticed.
func TestWhatAProofDoesNotCover(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client, v := iss.ProofKey("ES256"), newVerifier(t, dpop.Config{Now: iss.Now})
	t.Run("DPOP-57 a query that was changed on the way", func(t *testing.T) {
		r := request(client)
		r.URL += "?amount=1000000"
		_, err := v.Verify(t.Context(), r)
		require.NoError(t, err)
	})
}

func TestReplayedProofs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client, other := iss.ProofKey("ES256"), iss.ProofKey("EdDSA")
	v := newVerifier(t, dpop.Config{Now: iss.Now})
	jti := valetkeytest.Claim("jti", "one")
	verify := func(r dpop.Request) error {
		_, err := v.Verify(t.Context(), r)
		return err
	}
	first := request(client, jti)
	require.NoError(t, verify(first))

	t.Run("DPOP-37 the same proof again", func(t *testing.T) {
		requireRefusal(t, verify(first), valetkey.InvalidProof, "used before")
	})
	t.Run("DPOP-37 another proof with the same jti, key and URL", func(t *testing.T) {
		again := request(client, jti, valetkeytest.Claim("iat", iss.Now().Unix()-1))
		requireRefusal(t, verify(again), valetkey.InvalidProof, "used before")
	})
	t.Run("DPOP-37 the same URL in another spelling", func(t *testing.T) {
		again := request(client, jti, valetkeytest.Claim("htu", "HTTPS://api.example.com:443/%6frders/1?x"))
		requireRefusal(t, verify(again), valetkey.InvalidProof, "used before")
	})
	t.Run("DPOP-37 to another access token", func(t *testing.T) { // RFC 9449, section 11.1: the jti is to be unique
		again := first
		again.Token = "another"
		again.Proofs = []string{client.Proof(method, target, again.Token, jti)}
		requireRefusal(t, verify(again), valetkey.InvalidProof, "used before")
	})
	t.Run("DPOP-38 the same jti from another key", func(t *testing.T) {
		require.NoError(t, verify(request(other, jti)))
	})
	t.Run("DPOP-38 the same jti for another URL", func(t *testing.T) {
		r := first
		r.URL += "0"
		r.Proofs = []string{client.Proof(method, r.URL, token, jti)}
		require.NoError(t, verify(r))
	})
	t.Run("DPOP-38 the same jti for another method", func(t *testing.T) {
		r := first
		r.Method, r.Proofs = "PUT", []string{client.Proof("PUT", target, token, jti)}
		require.NoError(t, verify(r))
	})
	t.Run("DPOP-38 no part runs into the next", func(t *testing.T) {
		for _, id := range []string{"1x", "x"} {
			url := "https://api.example.com/" + strings.TrimSuffix("1x", id)
			r := dpop.Request{Proofs: []string{client.Proof(method, url, token, valetkeytest.Claim("jti", id))}, Method: method, URL: url, Token: token}
			require.NoError(t, verify(r))
		}
	})
	t.Run("DPOP-40 forgeries with the victim's jti use nothing up", func(t *testing.T) {
		id := valetkeytest.Claim("jti", "victim")
		require.Error(t, verify(request(client, id, valetkeytest.TamperedSignature())))
		require.Error(t, verify(request(client, id, valetkeytest.UnknownKey())))
		require.Error(t, verify(request(client, id, valetkeytest.Claim("ath", "x"))))
		require.NoError(t, verify(request(client, id)))
	})
	t.Run("DPOP-44 one key sends 2,000 requests within the window", func(t *testing.T) {
		fast := iss.ProofKey("ES256")
		for range 2000 {
			require.NoError(t, verify(request(fast)))
		}
	})
	t.Run("DPOP-37 with no memory at all, which has its name", func(t *testing.T) {
		v := newVerifier(t, dpop.Config{ReplayStore: dpop.InsecureAllowReplays{}, Now: iss.Now})
		for range 2 {
			_, err := v.Verify(t.Context(), first)
			require.NoError(t, err)
		}
	})
}

func TestCheckUsesNothingUp(t *testing.T) {
	v := newVerifier(t, dpop.Config{Now: func() time.Time { return time.Unix(rfcTime, 0) }})
	r := dpop.Request{Proofs: []string{rfcTokenProof}, Method: "POST", URL: "https://server.example.com/token"}
	require.Error(t, dpop.Proof{}.Use(t.Context()), "the zero value")
	other := r
	other.Method = "GET"
	_, err := v.Check(other)
	requireRefusal(t, err, valetkey.InvalidProof, "another method")

	first, err := v.Check(r)
	require.NoError(t, err)
	require.Equal(t, rfcThumbprint, first.Thumbprint())
	second, err := v.Check(r)
	require.NoError(t, err, "checked as often as one likes")
	require.NoError(t, first.Use(t.Context()))
	requireRefusal(t, second.Use(t.Context()), valetkey.InvalidProof, "used before")
	requireRefusal(t, first.Use(t.Context()), valetkey.InvalidProof, "used before")
	_, err = v.Verify(t.Context(), r)
	requireRefusal(t, err, valetkey.InvalidProof, "used before")
}

func TestConcurrentReplays(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client, v := iss.ProofKey("ES256"), newVerifier(t, dpop.Config{Now: iss.Now})
	t.Run("DPOP-39 10,000 at once: exactly one passes", func(t *testing.T) {
		var (
			r                 = request(client)
			accepted, refused atomic.Int64
			wg                sync.WaitGroup
		)
		for range 10_000 {
			wg.Go(func() {
				_, err := v.Verify(context.Background(), r)
				var refusal *valetkey.Error
				switch {
				case err == nil:
					accepted.Add(1)
				case errors.As(err, &refusal) && refusal.Code == valetkey.InvalidProof:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		assert.EqualValues(t, 1, accepted.Load())
		assert.EqualValues(t, 9_999, refused.Load())
	})
}

func TestMemoryOutOfReach(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client := iss.ProofKey("ES256")
	outage := errors.New("out of reach")
	t.Run("DPOP-42 a memory that cannot be asked is a failure, not a yes and not the client's fault", func(t *testing.T) {
		v := newVerifier(t, dpop.Config{Now: iss.Now, ReplayStore: &counted{err: outage}})
		got, err := v.Verify(t.Context(), request(client))
		require.ErrorIs(t, err, outage)
		require.Empty(t, got.Thumbprint())
		var refusal *valetkey.Error
		require.False(t, errors.As(err, &refusal))
	})
	t.Run("DPOP-42 a full memory is a failure that states when to try again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			client, v := iss.ProofKey("ES256"), newVerifier(t, dpop.Config{Now: iss.Now, ReplayStore: dpop.NewReplayStore(1)})
			_, err := v.Verify(t.Context(), request(client))
			require.NoError(t, err)
			_, err = v.Verify(t.Context(), request(client))
			var full *valetkey.Unavailable
			require.ErrorAs(t, err, &full)
			require.Equal(t, 71*time.Second, full.RetryAfter)
		})
	})
	t.Run("DPOP-43 a proof is remembered until no replica accepts it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			client := iss.ProofKey("ES256")
			for name, c := range map[string]struct {
				cfg  dpop.Config
				opts []valetkeytest.Option
				want time.Duration
			}{
				"just made":             {dpop.Config{}, nil, 70 * time.Second},
				"half a minute ago":     {dpop.Config{}, []valetkeytest.Option{valetkeytest.Claim("iat", iss.Now().Unix()-30)}, 40 * time.Second},
				"ahead":                 {dpop.Config{}, []valetkeytest.Option{valetkeytest.Claim("iat", iss.Now().Unix()+8)}, 78 * time.Second},
				"window and skew given": {dpop.Config{Window: 5 * time.Minute, Leeway: time.Minute}, nil, 6 * time.Minute},
			} {
				replays := new(counted)
				c.cfg.ReplayStore, c.cfg.Now = replays, iss.Now
				_, err := newVerifier(t, c.cfg).Verify(t.Context(), request(client, c.opts...))
				require.NoError(t, err, name)
				require.Equal(t, c.want, time.Until(replays.until), name)
			}
		})
	})
	t.Run("DPOP-43 by the real clock, whatever the Verifier's clock shows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Advance(-365 * 24 * time.Hour)
			replays := new(counted)
			_, err := newVerifier(t, dpop.Config{Now: iss.Now, ReplayStore: replays}).Verify(t.Context(), request(iss.ProofKey("ES256")))
			require.NoError(t, err)
			require.Equal(t, 70*time.Second, time.Until(replays.until))
		})
	})
}

func TestNew(t *testing.T) {
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := dpop.New(dpop.Config{Algorithms: []string{"ES256", "HS256", "none"}, Window: -1, Leeway: time.Hour, Nonces: new(dpop.Nonces)})
		for _, mistake := range []string{`dpop: Algorithms[1]: "HS256"`, `dpop: Algorithms[2]: "none"`, "dpop: Window: ", "dpop: Leeway: ", "dpop: Nonces: must be created with NewNonces"} {
			require.ErrorContains(t, err, mistake)
		}
	})
	t.Run("DPOP-27 a window is a matter of seconds or minutes", func(t *testing.T) {
		_, err := dpop.New(dpop.Config{Window: time.Hour})
		require.ErrorContains(t, err, "Window: 1h0m0s is not between")
		newVerifier(t, dpop.Config{Window: 10 * time.Minute, Leeway: 10 * time.Minute})
	})
}

// counted remembers nothing but that it was asked.
type counted struct {
	calls atomic.Int64
	until time.Time
	err   error
}

func (c *counted) Use(_ context.Context, _ [32]byte, until time.Time) (bool, error) {
	c.calls.Add(1)
	c.until = until
	return c.err == nil, c.err
}

// jwkOf returns the key in the header of a proof.
func jwkOf(t testing.TB, proof string) map[string]any {
	t.Helper()
	header, _, _ := strings.Cut(proof, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	require.NoError(t, err)
	var members struct{ JWK map[string]any }
	require.NoError(t, json.Unmarshal(text, &members))
	return members.JWK
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return text
}

// A mutated proof is not accepted: there is one text only that its key has signed. (Of ECDSA there would be two, see
// jose.Parse; they count as the same proof.)
func FuzzVerify(f *testing.F) {
	iss := valetkeytest.NewIssuer(f, valetkeytest.InMemory())
	client := iss.ProofKey("EdDSA")
	now := iss.Now()
	v := newVerifier(f, dpop.Config{Now: func() time.Time { return now }, ReplayStore: dpop.InsecureAllowReplays{}})
	good := request(client)
	if _, err := v.Verify(f.Context(), good); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good.Proofs[0], rfcProof, rfcTokenProof, "", "..", "e30.e30.e30", good.Proofs[0] + ","} {
		f.Add(0, seed)
	}
	f.Add(20, "A")
	f.Add(400, "eyJ")
	f.Fuzz(func(t *testing.T, at int, text string) {
		r := good
		proof := r.Proofs[0]
		switch {
		case at <= 0 || at >= len(proof):
			r.Proofs = []string{text}
		default: // text in place of what stands there
			r.Proofs = []string{proof[:at] + text + proof[min(at+len(text), len(proof)):]}
		}
		_, err := v.Verify(t.Context(), r)
		if (err == nil) != (r.Proofs[0] == proof) {
			t.Fatalf("%q: %v", r.Proofs[0], err)
		}
		var refusal *valetkey.Error
		if err != nil && !errors.As(err, &refusal) {
			t.Fatalf("not a refusal: %v", err)
		}
	})
}
