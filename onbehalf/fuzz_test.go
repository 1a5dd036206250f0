package onbehalf_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/valetkeytest"
)

// FuzzResponse: any response of a token endpoint is a token or an error. A token is that of a response with status 200, of the requested type,
// and for no longer than stated, as encoding/json reads it. An error becomes a response with well-formed challenges that repeats nothing
// of the endpoint's but claims, and neither response nor error contains the user's token.
func FuzzResponse(f *testing.F) {
	token := `"access_token":"issued-1","issued_token_type":"` + accessType + `"`
	for _, body := range []string{
		`{` + token + `,"token_type":"Bearer","expires_in":300}`, `{` + token + `,"token_type":"bearer","expires_in":"1e400"}`, `{` + token + `,"token_type":"DPoP"}`,
		`{` + token + `,"token_type":"N_A","expires_in":-1}`, `{` + token + `,"access_token":"other","token_type":"Bearer"}`, `{"access_token":"a b","issued_token_type":"` + accessType + `","token_type":"Bearer"}`,
	} {
		f.Add(200, "application/json", body)
	}
	for _, body := range []string{
		`{"error":"invalid_grant"}`, `{"error":"invalid_grant","claims":"{\"access_token\":{\"acrs\":{\"essential\":true}}}","error_codes":[50079,1e300,null]}`, `{"error":"interaction_required","claims":"[]"}`,
		`{"error":"invalid_client\n","error_description":"tell-tale"}`, `{"error":"insufficient_user_authentication","claims":"{\"a\":\"\\u0000\r\n\\\"\"}"}`, `<html>tell-tale`, ``,
	} {
		f.Add(400, "application/json; charset=utf-8", body)
	}
	iss := valetkeytest.NewIssuer(f)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{here}, Client: iss.Client(), Logger: quiet})
	require.NoError(f, err)
	f.Cleanup(keys.Close)
	guard, err := middleware.New(middleware.Config{Verifier: keys, OnBehalf: true, Logger: quiet})
	require.NoError(f, err)
	incoming := iss.Token(valetkeytest.ExpiresIn(time.Hour))
	f.Fuzz(func(t *testing.T, code int, kind, body string) {
		code = 200 + (code%400+400)%400
		asked := 0
		c, err := onbehalf.New(onbehalf.Config{
			TokenURL: "https://as.example.com/token", Issuer: iss.URL, Auth: introspect.BasicAuth("orders", "s3cret"), Resource: []string{"https://stock.example.com"},
			InputAudience: []string{here}, Logger: quiet,
			Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				asked++
				io.Copy(io.Discard, r.Body)
				return &http.Response{StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})},
		})
		require.NoError(t, err)
		defer c.Close()
		d := guard.DecideToken(t.Context(), incoming)
		require.NoError(t, d.Err())
		begun := time.Now()
		got, err := c.Token(d.Context(t.Context()))
		require.Equal(t, 1, asked)
		if err != nil {
			require.NotContains(t, err.Error(), incoming)
			res, text := status(guard, err)
			require.Contains(t, []int{401, 403, 500, 503}, res.StatusCode)
			require.NotContains(t, text, incoming)
			require.NotContains(t, text, "tell-tale")
			challenges, bad := valetkeytest.Challenges(res.Header)
			require.NoError(t, bad)
			require.Equal(t, res.StatusCode == 401 || res.StatusCode == 403, len(challenges) > 0)
			refusal, is := errors.AsType[*valetkey.Error](err)
			require.True(t, !is || code != 200, "%v", refusal)
			return
		}
		require.Equal(t, 200, code)
		var read map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(body), &read))
		text := func(name string) (s string) {
			_ = json.Unmarshal(read[name], &s) // s stays empty if it is not a string
			return s
		}
		require.Equal(t, "Bearer "+text("access_token"), got.Authorization())
		require.True(t, strings.EqualFold("Bearer", text("token_type")))
		require.Equal(t, accessType, text("issued_token_type"))
		life, err := strconv.ParseFloat(cmp.Or(text("expires_in"), string(read["expires_in"])), 64)
		if got.Expiry().IsZero() {
			return // unknown
		}
		require.True(t, life > 0, err)
		require.LessOrEqual(t, got.Expiry().Sub(begun).Seconds(), life+60)
	})
}
