package introspect_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

var (
	basic = introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret)
	quiet = slog.New(slog.DiscardHandler)
)

// verifierOf returns a Verifier that asks iss.
func verifierOf(t testing.TB, iss *valetkeytest.Issuer, change ...func(*introspect.Config)) *introspect.Verifier {
	t.Helper()
	cfg := introspect.Config{
		URL:      iss.Introspection.URL,
		Issuer:   iss.URL,
		Audience: []string{valetkeytest.DefaultAudience},
		Auth:     basic,
		Client:   iss.Client(),
		Now:      iss.Now,
		Logger:   quiet,
	}
	for _, c := range change {
		c(&cfg)
	}
	v, err := introspect.New(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

// forgetful asks about every token anew.
func forgetful(cfg *introspect.Config) { cfg.NegativeTTL = -1 }

func refused(t testing.TB, err error, description string) {
	t.Helper()
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidToken, refusal.Code)
	assert.Equal(t, description, refusal.Reason.Description())
}

func failed(t testing.TB, err error) *valetkey.Unavailable {
	t.Helper()
	require.Error(t, err)
	var refusal *valetkey.Error
	require.False(t, errors.As(err, &refusal), "a failure, not a refusal: %v", err)
	var u *valetkey.Unavailable
	require.ErrorAs(t, err, &u)
	return u
}

// A journal keeps what is logged.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	return nil
}

func (j *journal) count(part string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func TestNew(t *testing.T) {
	good := func() introspect.Config {
		return introspect.Config{URL: "https://as.example.com/introspect", Audience: []string{"api"}, Auth: basic}
	}
	for _, c := range []struct {
		name, want string
		change     func(*introspect.Config)
	}{
		{"neither URL nor issuer", "URL, Issuer: one of them", func(c *introspect.Config) { c.URL = "" }},
		{"INTRO-21 http beyond loopback", "URL: not https; InsecureHTTP allows http", func(c *introspect.Config) { c.URL = "http://as.example.com/introspect" }},
		{"a URL without host", "URL: not a URL", func(c *introspect.Config) { c.URL = "introspect" }},
		{"an issuer that cannot be discovered", "Issuer: cannot be discovered", func(c *introspect.Config) { c.URL, c.Issuer = "", "urn:as" }},
		{"INTRO-21 an issuer with http beyond loopback", "Issuer: cannot be discovered: not https; InsecureHTTP allows http", func(c *introspect.Config) { c.URL, c.Issuer = "", "http://as.example.com" }},
		{"AUD-01 no audience", "Audience: required", func(c *introspect.Config) { c.Audience = nil }},
		{"AUD-01 no audience, though the issuer checks it", "Audience: required", func(c *introspect.Config) { c.Audience, c.AudienceByIssuer = []string{}, true }},
		{"an empty audience", "Audience[1]: is empty", func(c *introspect.Config) { c.Audience = []string{"api", ""} }},
		{"AUD-03 an audience with a fragment", "Audience[0]: has a fragment", func(c *introspect.Config) { c.Audience = []string{"https://api.example.com/#orders"} }},
		{"INTRO-03 no authentication", "Auth: required", func(c *introspect.Config) { c.Auth = introspect.Auth{} }},
		{"no client id", "Auth: the client id or the secret is empty", func(c *introspect.Config) { c.Auth = introspect.BasicAuth("", "secret") }},
		{"a raw client id with a colon", "Auth: the client id contains a colon", func(c *introspect.Config) { c.Auth = introspect.RawBasicAuth("urn:api", "secret") }},
		{"a raw secret with a control character", "Auth: the client id or the secret contains a control character", func(c *introspect.Config) { c.Auth = introspect.RawBasicAuth("api", "a\u0085b") }},
		{"no raw secret", "Auth: the client id or the secret is empty", func(c *introspect.Config) { c.Auth = introspect.RawBasicAuth("api", "") }},
		{"no secret", "Auth: the client id or the secret is empty", func(c *introspect.Config) { c.Auth = introspect.PostAuth("api", "") }},
		{"a nil token function", "Auth: BearerAuth", func(c *introspect.Config) { c.Auth = introspect.BearerAuth(nil) }},
		{"an invalid key", "Auth: PrivateKeyJWT", func(c *introspect.Config) { c.Auth = introspect.PrivateKeyJWT("api", []byte("{}"), "ES256") }},
		{"a certificate without id", "Auth: TLSAuth: the client id", func(c *introspect.Config) { c.Auth = introspect.TLSAuth("") }},
		{"TLS authentication without a certificate", "Auth: TLSAuth requires", func(c *introspect.Config) { c.Auth = introspect.TLSAuth("api") }},
		{"an empty issuer of JWTs", "JWTIssuers[0]: is empty", func(c *introspect.Config) { c.JWTIssuers = []string{""} }},
		{"INTRO-27 refusals remembered for long", "NegativeTTL: 1h0m0s", func(c *introspect.Config) { c.NegativeTTL = time.Hour }},
		{"a limit of tokens that no header can have", "MaxTokenBytes: ", func(c *introspect.Config) { c.MaxTokenBytes = 1 << 20 }},
		{"a certificate over http", "Auth: TLSAuth requires", func(c *introspect.Config) {
			c.URL, c.Client, c.Auth = "http://127.0.0.1/introspect", http.DefaultClient, introspect.TLSAuth("api")
		}},
		{"too much leeway", "Leeway: 1h0m0s", func(c *introspect.Config) { c.Leeway = time.Hour }},
		{"a negative timeout", "Timeout: -1s", func(c *introspect.Config) { c.Timeout = -time.Second }},
		{"a long timeout", "Timeout: 1m0s", func(c *introspect.Config) { c.Timeout = time.Minute }},
		{"a negative bound", "MaxInFlight: -1", func(c *introspect.Config) { c.MaxInFlight = -1 }},
		{"signed answers of an unknown issuer", "Issuer: required with Signed", func(c *introspect.Config) { c.Signed = &introspect.Signed{} }},
		{"JRESP-10 signed with nothing", `Signed.Algorithm: "none"`, func(c *introspect.Config) { c.Signed = &introspect.Signed{Algorithm: "none"} }},
		{"JRESP-10 signed with a shared secret", `Signed.Algorithm: "HS256"`, func(c *introspect.Config) { c.Signed = &introspect.Signed{Algorithm: "HS256"} }},
		{"signed answers without an audience", "Signed.Audience: required", func(c *introspect.Config) {
			c.Auth, c.Signed = introspect.NoAuth(), &introspect.Signed{}
		}},
		{"keys from two places", "Signed.JWKSURL, Signed.JWKS", func(c *introspect.Config) {
			c.Signed = &introspect.Signed{JWKSURL: "https://x.example/k", JWKS: []byte("{}")}
		}},
		{"invalid keys", "Signed.JWKS: it has no", func(c *introspect.Config) { c.Signed = &introspect.Signed{JWKS: []byte("{}")} }},
		{"keys from nowhere", "Signed.JWKSURL: not https", func(c *introspect.Config) { c.Signed = &introspect.Signed{JWKSURL: "http://x.example/k"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good()
			c.change(&cfg)
			v, err := introspect.New(cfg)
			require.ErrorContains(t, err, "introspect: "+c.want)
			assert.Nil(t, v)
		})
	}
	t.Run("the largest values", func(t *testing.T) {
		cfg := good()
		cfg.Leeway, cfg.Timeout, cfg.NegativeTTL = 5*time.Minute, 5*time.Second, time.Minute
		v, err := introspect.New(cfg)
		require.NoError(t, err)
		v.Close()
	})
	t.Run("one mistake is reported once", func(t *testing.T) {
		cfg := good()
		cfg.Signed = &introspect.Signed{}
		_, err := introspect.New(cfg)
		assert.EqualError(t, err, "introspect: Issuer: required with Signed: it must be the iss of every signed response")
	})
	t.Run("the caller may change its lists afterwards", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		audience, issuers := []string{valetkeytest.DefaultAudience}, []string{iss.URL}
		v := verifierOf(t, iss, func(c *introspect.Config) { c.Audience, c.JWTIssuers = audience, issuers })
		clear(audience)
		clear(issuers)
		_, err := v.Verify(t.Context(), iss.Token())
		require.NoError(t, err)
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := introspect.New(introspect.Config{Leeway: time.Hour, Signed: &introspect.Signed{}})
		for _, field := range []string{"URL", "Audience", "Auth", "Leeway", "Issuer", "Signed.Audience"} {
			assert.ErrorContains(t, err, "introspect: "+field)
		}
	})
	t.Run("a good one, and nothing is fetched", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, func(c *introspect.Config) { c.URL, c.Client, c.InsecureHTTP = "", nil, true })
		assert.Equal(t, iss.URL, v.Issuer())
		assert.Zero(t, iss.Metadata.Hits()+iss.Introspection.Hits())
		assert.Equal(t, introspect.Status{}, v.Status())
	})
	t.Run("no secret is printed", func(t *testing.T) {
		cfg := introspect.Config{Auth: introspect.PostAuth("orders-api", "hunter2hunter2")}
		assert.NotContains(t, fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), "hunter2")
	})
}

func TestRequest(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var seen *http.Request
	iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		seen = r
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		fmt.Fprint(w, `{"active":true,"aud":"https://api.example.com"}`)
	})
	t.Run("INTRO-01 a form with the token, and JSON is asked for", func(t *testing.T) {
		_, err := verifierOf(t, iss).Verify(t.Context(), "a.b~c+/==")
		require.NoError(t, err)
		assert.Equal(t, "POST", seen.Method)
		assert.Equal(t, "application/x-www-form-urlencoded", seen.Header.Get("Content-Type"))
		assert.Equal(t, "application/json", seen.Header.Get("Accept"))
		assert.Equal(t, "identity", seen.Header.Get("Accept-Encoding"))
		assert.Equal(t, []string{"a.b~c+/=="}, seen.PostForm["token"])
		assert.Empty(t, seen.URL.RawQuery)
		assert.NotContains(t, seen.PostForm, "token_type_hint")
	})
	t.Run("INTRO-02 the hint, if wanted", func(t *testing.T) {
		_, err := verifierOf(t, iss, func(c *introspect.Config) { c.TypeHint = true }).Verify(t.Context(), "opaque")
		require.NoError(t, err)
		assert.Equal(t, []string{"access_token"}, seen.PostForm["token_type_hint"])
	})
}

// jwtOf returns what has the form of a JWT, with these parts after the header.
func jwtOf(header string, rest ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Join(rest, ".")
}

func TestWhatIsAsked(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	own, foreign := iss.Token(), iss.Token(valetkeytest.WrongIssuer())
	for _, c := range []struct {
		name, token, refusal string
		notMine              bool
		jwts                 []string
	}{
		{name: "INTRO-32 a token that is too long", token: strings.Repeat("a", valetkey.MaxTokenBytes+1), refusal: "the token is malformed"},
		{name: "an empty token", token: "", refusal: "the token is malformed"},
		{name: "padding alone", token: "==", refusal: "the token is malformed"},
		{name: "a space", token: "a b", refusal: "the token is malformed"},
		{name: "a line break", token: "a\nb", refusal: "the token is malformed"},
		{name: "INTRO-33 a JWT", token: own, refusal: "the token is a JWT", notMine: true},
		{name: "INTRO-33 a JWT of an issuer that is not listed", token: foreign, refusal: "the token is a JWT", notMine: true, jwts: []string{iss.URL}},
		{name: "INTRO-33 a JWT that is misshapen", token: jwtOf(`{"alg":"none","alg":1}`, "", ""), refusal: "the token is a JWT", notMine: true, jwts: []string{iss.URL}},
		{name: "INTRO-33 an encrypted JWT", token: jwtOf(`{"alg":"dir","enc":"A256GCM"}`, "", "a", "b", "c"), refusal: "the token is a JWT", notMine: true, jwts: []string{iss.URL}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iss.Introspection.Hits()
			_, err := verifierOf(t, iss, func(cfg *introspect.Config) { cfg.JWTIssuers = c.jwts }).Verify(t.Context(), c.token)
			refused(t, err, c.refusal)
			assert.Equal(t, c.notMine, errors.Is(err, valetkey.ErrNotApplicable))
			assert.Equal(t, before, iss.Introspection.Hits(), "the endpoint is not asked")
		})
	}
	payload := func(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }
	for name, c := range map[string]struct{ token, cause string }{
		"its issuer":                     {foreign, `JWTIssuers: "https://wrong`},
		"an issuer that cannot be read":  {jwtOf(`{"alg":"none","alg":1}`, "", ""), "JWTIssuers: none in the token"},
		"an issuer of a malformed token": {jwtOf(`{"alg":"ES256"}`, payload(`{"iss":"`+iss.URL+`","x":1,"x":2}`), "YQ"), "JWTIssuers: none in the token"},
		"an issuer that is not a string": {jwtOf(`{"alg":"ES256"}`, payload(`{"iss":1}`), "YQ"), "JWTIssuers: none in the token"},
		"an issuer with a longer name":   {jwtOf(`{"alg":"ES256"}`, payload(`{"iss":"`+iss.URL+`x"}`), "YQ"), `JWTIssuers: "` + iss.URL + `x" in the token`},
	} {
		t.Run("INTRO-33 the cause of the refusal of a JWT: "+name, func(t *testing.T) {
			before := iss.Introspection.Hits()
			_, err := verifierOf(t, iss, func(cfg *introspect.Config) { cfg.JWTIssuers = []string{iss.URL} }).Verify(t.Context(), c.token)
			refused(t, err, "the token is a JWT")
			assert.ErrorContains(t, err, c.cause)
			assert.Equal(t, before, iss.Introspection.Hits())
		})
	}
	for name, c := range map[string]struct {
		setting, bytes int
		asked          bool
	}{
		"INTRO-32 64 KiB and a byte with 64 KiB": {64 << 10, 64<<10 + 1, false},
		"a byte more than a smaller limit":       {1000, 1001, false},
		"16 KiB and a byte with more":            {16<<10 + 1, 16<<10 + 1, true},
		"64 KiB with 64 KiB":                     {64 << 10, 64 << 10, true},
	} {
		t.Run("MaxTokenBytes: "+name, func(t *testing.T) {
			before := iss.Introspection.Hits()
			_, err := verifierOf(t, iss, func(cfg *introspect.Config) { cfg.MaxTokenBytes = c.setting }).Verify(t.Context(), strings.Repeat("a", c.bytes))
			assert.Equal(t, c.asked, iss.Introspection.Hits() > before)
			if !c.asked {
				refused(t, err, "the token is malformed")
			}
		})
	}
	t.Run("a JWT of more than 16 KiB is asked about if that is allowed", func(t *testing.T) {
		jwt := iss.Token(valetkeytest.Claim("groups", strings.Repeat("g", 20<<10)))
		before := iss.Introspection.Hits()
		_, err := verifierOf(t, iss, func(cfg *introspect.Config) { cfg.MaxTokenBytes, cfg.JWTIssuers = 64<<10, []string{iss.URL} }).Verify(t.Context(), jwt)
		require.NoError(t, err)
		assert.Equal(t, before+1, iss.Introspection.Hits())
	})
	for _, c := range []struct {
		name, token string
		jwts        []string
	}{
		{"an opaque token of the longest length", strings.Repeat("a", valetkey.MaxTokenBytes), nil},
		{"an opaque token with two dots", "v1.abcd.efgh", nil},
		{"an opaque token that begins with JSON", jwtOf(`{"user":1}`, "abcd", "efgh"), nil},
		{"an opaque token with the header of a JWT and one dot", jwtOf(`{"alg":"x"}`, "abcd"), nil},
		{"an opaque token that begins with the header of a JWT", jwtOf(`{"alg":"x" }`)[:16] + "~~~~.abcd.efgh", nil},
		{"INTRO-33 a JWT of an issuer that is listed", own, []string{"https://other.example.com", iss.URL}},
		{"INTRO-33 a JWT of any issuer", foreign, []string{introspect.AnyIssuer}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iss.Introspection.Hits()
			verifierOf(t, iss, func(cfg *introspect.Config) { cfg.JWTIssuers = c.jwts }).Verify(t.Context(), c.token)
			assert.Equal(t, before+1, iss.Introspection.Hits())
		})
	}
	t.Run("INTRO-33 a JWT that its verifier refuses is not introspected", func(t *testing.T) {
		keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet})
		require.NoError(t, err)
		defer keys.Close()
		both := valetkey.First(keys, verifierOf(t, iss))
		before := iss.Introspection.Hits()
		for name, forgery := range iss.Forgeries() {
			_, err := both.Verify(t.Context(), forgery)
			assert.Error(t, err, name)
		}
		_, err = both.Verify(t.Context(), own)
		require.NoError(t, err)
		assert.Equal(t, before, iss.Introspection.Hits())
		_, err = both.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		assert.Equal(t, before+1, iss.Introspection.Hits())
	})
}

const thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" // RFC 9449, section 6.1

func TestAnswer(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	now := iss.Now().Unix()
	// says is an active answer for us, with more members.
	says := func(more string) string { return `{"active":true,"aud":"https://api.example.com"` + more + `}` }

	for _, c := range []struct{ name, answer, refusal string }{
		{"INTRO-06 not active", `{"active":false}`, "the token is not active"},
		{"INTRO-07 not active, whatever else it contains", `{"active":false,"aud":"https://api.example.com","sub":"alice","scope":"admin","exp":"x"}`, "the token is not active"},
		{"INTRO-08 expired", says(fmt.Sprintf(`,"exp":%d`, now-31)), "the token has expired"},
		{"expired in 1970", says(`,"exp":-1e300`), "the token has expired"},
		{"INTRO-09 not yet valid", says(fmt.Sprintf(`,"nbf":%d`, now+3600)), "the token is not yet valid"},
		{"an exp in milliseconds", says(fmt.Sprintf(`,"exp":%d`, (now+60)*1000)), valetkey.ReasonFarDate.Description()},
		{"an exp in milliseconds that has passed", says(fmt.Sprintf(`,"exp":%d`, (now-60)*1000)), valetkey.ReasonFarDate.Description()},
		{"an exp beyond all dates", says(`,"exp":1e300`), valetkey.ReasonFarDate.Description()},
		{"an iat in milliseconds", says(fmt.Sprintf(`,"iat":%d`, now*1000)), valetkey.ReasonFarDate.Description()},
		{"an nbf in milliseconds", says(fmt.Sprintf(`,"nbf":%d`, now*1000)), valetkey.ReasonFarDate.Description()},
		{"issued in the future", says(fmt.Sprintf(`,"iat":%d`, now+3600)), "the token is not yet valid"},
		{"INTRO-10 another issuer", says(`,"iss":"https://other.example.com"`), "the token is of another issuer"},
		{"an issuer that differs in a slash", says(`,"iss":"` + iss.URL + `/"`), "the token is of another issuer"},
		{"INTRO-11, AUD-11 another audience", `{"active":true,"aud":["https://other.example.com","https://API.example.com"],"scope":"admin"}`, "the token is for another audience"},
		{"an empty audience", `{"active":true,"aud":[]}`, "the token names no audience"},
		{"INTRO-12 no audience", `{"active":true}`, "the token names no audience"},
		{"INTRO-15 a DPoP token that names no key", says(`,"token_type":"dpop"`), "the token must be bound to a key but names none"},
		{"DPOP-54 a token bound to a key that is called a bearer token", says(`,"token_type":"Bearer","cnf":{"jkt":"` + thumbprint + `"}`), "the token is bound to a key and should be of the type DPoP"},
		{"INTRO-15 a DPoP token bound to a certificate", says(`,"token_type":"DPoP","cnf":{"x5t#S256":"` + thumbprint + `"}`), "the token must be bound to a key but names none"},
		{"another unknown type", says(`,"token_type":"pop"`), "the token is of a type that is not known here"},
		{"an ID token by a short name of its type", says(`,"token_type":"id"`), "the token is of a type that is not known here"},
		{"an ID token, in the form of Cognito", says(`,"token_use":"id"`), "the token is not an access token"},
		{"an unknown type", says(`,"token_type":"mac"`), "the token is of a type that is not known here"},
		{"an unknown type of a bound token", says(`,"token_type":"access_token","cnf":{"x5t#S256":"` + thumbprint + `"}`), "the token is of a type that is not known here"},
		{"a refresh token by its type", says(`,"token_type":"refresh_token"`), "the token is of a type that is not known here"},
		{"an ID token by its type", says(`,"token_type":"urn:ietf:params:oauth:token-type:id_token"`), "the token is of a type that is not known here"},
		{"a refresh token, in the form of Hydra", says(`,"token_type":"Bearer","token_use":"refresh_token"`), "the token is not an access token"},
		{"a refresh token, in the form of Keycloak", says(`,"typ":"Refresh"`), "the token is not an access token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss.Introspection.Answer(c.answer)
			_, err := verifierOf(t, iss).Verify(t.Context(), "opaque")
			refused(t, err, c.refusal)
			assert.NotErrorIs(t, err, valetkey.ErrNotApplicable)
		})
	}
	for name, c := range map[string]struct{ answer, cause string }{
		"another issuer":   {says(`,"iss":"` + iss.URL + `/"`), `issuer: "` + iss.URL + `/" in the response, "` + iss.URL + `" configured`},
		"another audience": {`{"active":true,"aud":["x","y"]}`, `audience: "x", "y" in the response, "https://api.example.com" configured`},
		"no audience":      {`{"active":true}`, "the response has no aud, and AudienceByIssuer is off"},
	} {
		t.Run("the cause has both values: "+name, func(t *testing.T) {
			iss.Introspection.Answer(c.answer)
			_, err := verifierOf(t, iss).Verify(t.Context(), "opaque")
			assert.ErrorContains(t, err, c.cause)
		})
	}
	for _, c := range []struct{ name, answer string }{
		{"INTRO-05 no active", `{"aud":"https://api.example.com"}`},
		{"INTRO-05 active null", `{"active":null,"aud":"https://api.example.com"}`},
		{"INTRO-05 active as a string", `{"active":"true","aud":"https://api.example.com"}`},
		{"INTRO-05 active as a number", `{"active":1,"aud":"https://api.example.com"}`},
		{"INTRO-05 Active in another letter case", `{"Active":true,"aud":"https://api.example.com"}`},
		{"INTRO-18 active twice", `{"active":false,"active":true,"aud":"https://api.example.com"}`},
		{"INTRO-18 active twice, in two letter cases", `{"active":true,"ACTIVE":false,"aud":"https://api.example.com"}`},
		{"INTRO-18 an array", `[{"active":true,"aud":"https://api.example.com"}]`},
		{"INTRO-18 truncated", `{"active":true,"aud":"https://api`},
		{"INTRO-18 something after it", says("") + "{}"},
		{"INTRO-18 nothing", ``},
		{"a claim in another letter case", says(`,"Exp":1`)},
		{"a member that is read in two letter cases", says(`,"sid":"a","SID":"b"`)},
		{"INTRO-13 an array as scope", says(`,"scope":["a","b"]`)},
		{"an invalid scope", says(`,"scope":1`)},
		{"an invalid subject", says(`,"sub":1`)},
		{"an invalid client", says(`,"client_id":{}`)},
		{"an invalid id", says(`,"jti":1`)},
		{"an invalid expiry", says(`,"exp":"soon"`)},
		{"an expiry in a string that is null", says(`,"exp":"null"`)},
		{"an invalid beginning", says(`,"nbf":"soon"`)},
		{"an invalid iat", says(`,"iat":"just now"`)},
		{"an invalid session", says(`,"sid":1`)},
		{"an invalid actor", says(`,"act":"bob"`)},
		{"an expiry beyond numbers", says(`,"exp":1e400`)},
		{"an invalid audience", `{"active":true,"aud":["https://api.example.com",1]}`},
		{"an invalid confirmation", says(`,"cnf":"jkt"`)},
		{"an empty confirmation", says(`,"cnf":{}`)},
		{"an invalid thumbprint", says(`,"cnf":{"jkt":"short"}`)},
		{"a thumbprint with spare bits", says(`,"cnf":{"jkt":"` + thumbprint[:42] + `J"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss.Introspection.Answer(c.answer)
			v := verifierOf(t, iss)
			for range 2 {
				before := iss.Introspection.Hits()
				_, err := v.Verify(t.Context(), "opaque")
				failed(t, err)
				assert.Equal(t, before+1, iss.Introspection.Hits(), "a failure is not remembered")
			}
		})
	}

	accepted := func(t *testing.T, answer string, change ...func(*introspect.Config)) *valetkey.Token {
		t.Helper()
		iss.Introspection.Answer(answer)
		token, err := verifierOf(t, iss, change...).Verify(t.Context(), "opaque")
		require.NoError(t, err)
		return token
	}
	t.Run("the empty values of serializers are absent members", func(t *testing.T) {
		for _, more := range []string{
			`,"iss":null`, `,"sub":"","scope":[],"jti":null,"client_id":""`, `,"cnf":null`, `,"nbf":0,"iat":0,"exp":0`, `,"token_type":null`, `,"sid":[ ]`,
		} {
			token := accepted(t, says(more))
			f := token.Fields()
			f.Raw, f.Freshness = "", valetkey.Freshness{}
			assert.Equal(t, valetkey.TokenFields{Issuer: iss.URL, Audience: valetkey.ListOf("https://api.example.com")}, f, more)
		}
	})
	t.Run("an exp of 0 is a token that does not expire: it is remembered for the TTL only", func(t *testing.T) {
		begun := iss.Now()
		token := accepted(t, says(`,"exp":0`))
		assert.True(t, token.Expiry().IsZero())
		// Counted from the question, which was between these two readings of the clock.
		assert.False(t, token.Freshness().Until.Before(begun.Add(30*time.Second)))
		assert.False(t, token.Freshness().Until.After(iss.Now().Add(30*time.Second)))
	})
	t.Run("INTRO-13 who acts for the user, and how the user has logged in", func(t *testing.T) {
		token := accepted(t, says(fmt.Sprintf(`,"act":{"sub":"bob"},"acr":"gold","auth_time":%d`, now-9)))
		actor, ok := token.Actor()
		assert.True(t, ok)
		assert.Equal(t, "bob", actor.Subject)
		assert.Equal(t, "gold", token.ACR())
		assert.Equal(t, now-9, token.AuthTime().Unix())
	})
	t.Run("an access token, in the forms of products", func(t *testing.T) {
		for _, more := range []string{`"token_use":"access"`, `"token_use":"access_token"`, `"typ":"Bearer"`, `"typ":"bearer"`, `"typ":"DPoP"`} {
			accepted(t, says(","+more))
		}
	})
	t.Run("dates in strings are read", func(t *testing.T) {
		assert.Equal(t, now+60, accepted(t, says(fmt.Sprintf(`,"exp":"%d"`, now+60))).Expiry().Unix())
	})
	t.Run("a type with another name does not refuse an unbound token", func(t *testing.T) {
		for _, kind := range []string{"access_token", "urn:ietf:params:oauth:token-type:access_token", "N_A", "JWT"} {
			accepted(t, says(`,"token_type":"`+kind+`"`))
		}
	})
	t.Run("INTRO-13, INTRO-14 all that is said", func(t *testing.T) {
		answer := fmt.Sprintf(`{"active":true,"iss":%q,"sub":"alice","client_id":"app","jti":"7","username":"Alice","aud":["x","https://api.example.com"],`+
			`"scope":"b  a b","exp":%d,"iat":%d,"nbf":%d,"token_type":"bearer","tenant":{"id":1}}`, iss.URL, now+60, now, now)
		begun := iss.Now()
		token := accepted(t, answer)
		// Counted from the question, which was between these two readings of the clock.
		assert.False(t, token.Freshness().Until.Before(begun.Add(30*time.Second)))
		assert.False(t, token.Freshness().Until.After(iss.Now().Add(30*time.Second)))
		fields := token.Fields()
		fields.Freshness = valetkey.Freshness{}
		assert.Equal(t, valetkey.TokenFields{
			Issuer: iss.URL, Subject: "alice", ClientID: "app", ID: "7", Audience: valetkey.ListOf("x", "https://api.example.com"),
			Scopes:   valetkey.NewScopes("a", "b"),
			IssuedAt: time.Unix(now, 0), NotBefore: time.Unix(now, 0), Expiry: time.Unix(now+60, 0), Deadline: time.Unix(now+90, 0),
			Raw: answer,
		}, fields)
		var claims struct {
			Username string
			Tenant   struct{ ID int }
		}
		require.NoError(t, token.Claims(&claims))
		assert.Equal(t, "Alice", claims.Username)
		assert.Equal(t, 1, claims.Tenant.ID)
	})
	t.Run("AUD-04 one audience of several is ours", func(t *testing.T) {
		accepted(t, `{"active":true,"aud":"https://api.example.com/"}`)
		accepted(t, `{"active":true,"aud":["x","https://api.example.com"]}`)
		accepted(t, `{"active":true,"aud":"api2"}`, func(c *introspect.Config) { c.Audience = []string{"api1", "api2"} })
	})
	t.Run("AUD-04 all audiences are ours, if SoleAudience is set", func(t *testing.T) {
		sole := func(c *introspect.Config) { c.SoleAudience, c.Audience = true, append(c.Audience, "api") }
		accepted(t, `{"active":true,"aud":"api"}`, sole)
		accepted(t, `{"active":true,"aud":["api","https://api.example.com"]}`, sole)
		iss.Introspection.Answer(`{"active":true,"aud":["other","https://api.example.com"]}`)
		_, err := verifierOf(t, iss, sole).Verify(t.Context(), "opaque")
		refused(t, err, "the token is for another audience")
	})
	t.Run("INTRO-12 no audience, which the issuer checks", func(t *testing.T) {
		byIssuer := func(c *introspect.Config) { c.AudienceByIssuer = true }
		assert.Empty(t, accepted(t, `{"active":true}`, byIssuer).Audience())
		iss.Introspection.Answer(`{"active":true,"aud":"https://other.example.com"}`)
		_, err := verifierOf(t, iss, byIssuer).Verify(t.Context(), "opaque")
		refused(t, err, "the token is for another audience")
	})
	t.Run("INTRO-13 an array as scope, where that is tolerated", func(t *testing.T) {
		token := accepted(t, says(`,"scope":["b","a c","","a"]`), func(c *introspect.Config) { c.AllowScopeArray = true })
		assert.Equal(t, valetkey.NewScopes("a", "b"), token.Scopes())
	})
	t.Run("INTRO-10 without a configured issuer, the answer's is not taken over", func(t *testing.T) {
		token := accepted(t, says(`,"iss":"https://other.example.com"`), func(c *introspect.Config) { c.Issuer = "" })
		assert.Empty(t, token.Issuer())
	})
	t.Run("INTRO-08, INTRO-09 the leeway", func(t *testing.T) {
		answer := says(fmt.Sprintf(`,"exp":%d,"nbf":%d`, now-10, now+20))
		accepted(t, answer)
		iss.Introspection.Answer(answer)
		_, err := verifierOf(t, iss, func(c *introspect.Config) { c.Leeway = -1 }).Verify(t.Context(), "opaque")
		refused(t, err, "the token has expired")
	})
	t.Run("INTRO-15, AUD-06 a token bound to a DPoP key", func(t *testing.T) {
		for _, kind := range []string{`,"token_type":"dpop"`, ``} {
			token := accepted(t, says(kind+`,"cnf":{"jkt":"`+thumbprint+`"}`))
			assert.Equal(t, valetkey.Binding{JWKThumbprint: thumbprint}, token.Binding())
		}
	})
	t.Run("AUD-06 a token bound to a certificate", func(t *testing.T) {
		token := accepted(t, says(`,"cnf":{"x5t#S256":"`+thumbprint+`"}`))
		assert.Equal(t, valetkey.Binding{CertificateThumbprint: thumbprint}, token.Binding())
	})
	t.Run("INTRO-35 a token with an unknown binding", func(t *testing.T) {
		assert.Equal(t, valetkey.ListOf("kid"), accepted(t, says(`,"cnf":{"kid":"1"}`)).Binding().Unknown)
	})
	t.Run("AUD-07 a client's own token is distinguished from a user's", func(t *testing.T) {
		assert.True(t, accepted(t, says(`,"sub":"app","client_id":"app"`)).ByClient())
		assert.False(t, accepted(t, says(`,"sub":"alice","client_id":"app"`)).ByClient())
	})
	t.Run("INTRO-24, INTRO-25 how long it may be relied on", func(t *testing.T) {
		frozen := time.Unix(1_800_000_000, 0)
		for _, c := range []struct {
			name, exp string
			cacheFor  time.Duration
			want      time.Duration // negative: not at all
		}{
			{"no expiry", ``, 0, 30 * time.Second},
			{"a late expiry", `,"exp":1800000600`, 0, 30 * time.Second},
			{"an early expiry", `,"exp":1800000010`, 0, 10 * time.Second},
			{"longer, as configured", `,"exp":1800000600`, 5 * time.Minute, 5 * time.Minute},
			{"never", `,"exp":1800000600`, -1, -1},
		} {
			token := accepted(t, says(c.exp), func(cfg *introspect.Config) {
				cfg.CacheTTL, cfg.Leeway, cfg.Now = c.cacheFor, -1, func() time.Time { return frozen }
			})
			if c.want < 0 {
				assert.True(t, token.Freshness().Until.IsZero(), c.name)
			} else {
				assert.Equal(t, c.want, token.Freshness().Until.Sub(frozen), c.name)
			}
		}
	})
	t.Run("the deadline is exp and leeway, however short the answer is remembered", func(t *testing.T) {
		at := func(c *introspect.Config) { c.Now = func() time.Time { return time.Unix(1_800_000_000, 0) } }
		token := accepted(t, says(`,"exp":1800000600,"sid":"session-1"`), at)
		assert.Equal(t, 30*time.Second, token.Deadline().Sub(token.Expiry()))
		assert.Greater(t, token.Deadline().Sub(token.Freshness().Until), 9*time.Minute)
		assert.Equal(t, "session-1", token.SessionID())
		assert.Zero(t, accepted(t, says(``), at).Deadline(), "unknown without exp")
	})
}

func TestDiscovery(t *testing.T) {
	discover := func(c *introspect.Config) { c.URL = "" }
	t.Run("the metadata names the endpoint, and is read once", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, discover)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := v.Verify(t.Context(), iss.Opaque())
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		assert.Equal(t, 1, iss.Metadata.Hits())
		assert.Equal(t, iss.Introspection.URL, v.Status().URL)
	})
	t.Run("the metadata of another issuer", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.Metadata.Answer(`{"issuer":"https://other.example.com","introspection_endpoint":"` + iss.Introspection.URL + `"}`)
		_, err := verifierOf(t, iss, discover).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.Zero(t, iss.Introspection.Hits())
	})
	t.Run("metadata that takes longer than a request may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Metadata.Slow(4 * time.Second)
			start := time.Now()
			_, err := verifierOf(t, iss, discover, func(c *introspect.Config) { c.Timeout = time.Second }).Verify(t.Context(), iss.Opaque())
			failed(t, err)
			assert.ErrorContains(t, err, "waiting for the issuer's metadata")
			assert.Equal(t, time.Second, time.Since(start))
		})
	})
	t.Run("metadata that cannot be had is asked for again", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, discover)
		iss.Metadata.Down()
		_, err := v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		iss.Metadata.Restore()
		_, err = v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
	})
	t.Run("INTRO-21 metadata that names an http endpoint", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.Metadata.Answer(`{"issuer":"` + iss.URL + `","introspection_endpoint":"http://as.example.com/introspect"}`)
		_, err := verifierOf(t, iss, discover).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.ErrorContains(t, err, "not https; InsecureHTTP allows http")
	})
}

func TestReady(t *testing.T) {
	t.Run("an endpoint that answers us is asked once", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss)
		require.NoError(t, v.Ready(t.Context()))
		require.NoError(t, v.Ready(t.Context()))
		assert.Equal(t, 1, iss.Introspection.Hits())
		assert.WithinDuration(t, time.Now(), v.Status().LastCall, time.Minute)
	})
	t.Run("INTRO-16 wrong credentials are found at the start", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, func(c *introspect.Config) {
			c.Auth = introspect.BasicAuth(valetkeytest.IntrospectionID, "wrong")
		})
		require.ErrorContains(t, v.Ready(t.Context()), "status 401")
		assert.ErrorContains(t, v.Status().LastError, "status 401")
		assert.Equal(t, 1, v.Status().Failures)
	})
	t.Run("an endpoint that calls anything active", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.Introspection.Answer(`{"active":true,"aud":"https://api.example.com"}`)
		require.ErrorContains(t, verifierOf(t, iss).Ready(t.Context()), "reports a made-up token as active")
	})
	t.Run("an endpoint that has failed since is asked again", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss)
		require.NoError(t, v.Ready(t.Context()))
		iss.Introspection.Fail(500)
		_, err := v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		failed(t, v.Ready(t.Context()))
		iss.Introspection.Restore()
		require.NoError(t, v.Ready(t.Context()))
		assert.Equal(t, 4, iss.Introspection.Hits())
	})
	t.Run("a closed one", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss)
		require.NoError(t, v.Ready(t.Context()))
		v.Close()
		failed(t, v.Ready(t.Context()))
		require.ErrorContains(t, v.Ready(t.Context()), "the verifier is closed")
		_, err := v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.Equal(t, 1, iss.Introspection.Hits())
	})
}

func TestCloseEndsTheConnectionsOfTheDefaultClient(t *testing.T) {
	var open atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"active":true,"aud":"api"}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	v, err := introspect.New(introspect.Config{URL: s.URL, Audience: []string{"api"}, Auth: introspect.NoAuth(), Logger: quiet})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), "opaque")
	require.NoError(t, err)
	require.EqualValues(t, 1, open.Load())
	v.Close()
	require.Eventually(t, func() bool { return open.Load() == 0 }, time.Minute, time.Millisecond)
}

// A server answers with JSON whatever h does not.
func server(t testing.TB, h func(r *http.Request) (status int, answer string)) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		status, answer := h(r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(s.Close)
	return s
}
