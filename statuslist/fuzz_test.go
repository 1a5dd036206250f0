package statuslist_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/statuslist"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzToken signs any claims as the status list of a token with any claims. The token is accepted only if it has no status, or the list at its
// URI is of the issuer, is that of the URI and contains a valid status at its index, as encoding/json and zlib read them. A list that cannot
// be read is a failure. No list is fetched from elsewhere.
func FuzzToken(f *testing.F) {
	const issuer = "https://as.example.com"
	const home = issuer + "/list"
	key, err := jose.GenerateKey("EdDSA", "")
	require.NoError(f, err)
	reference := `{"status":{"status_list":{"idx":1,"uri":"` + home + `"}}}`
	for _, claims := range []string{
		`{"sub":"` + home + `","iat":1,"status_list":{"bits":1,"lst":"LIST"}}`, `{"sub":"` + home + `","iat":1,"exp":9999999999,"ttl":60,"iss":"` + issuer + `","status_list":{"bits":8,"lst":"LIST"}}`,
		`{"sub":"` + home + `","sub":"x","iat":1,"status_list":{"bits":2,"lst":"LIST"}}`, `{"sub":"` + home + `","iat":1,"exp":1,"ttl":null,"status_list":{"bits":4,"lst":"LIST"}}`,
		`{"sub":"` + home + `/","iat":1,"ttl":1e-300,"status_list":{"bits":4,"LST":"LIST","lst":"eNoDAAAAAAE"}}`,
	} {
		f.Add("statuslist+jwt", claims, reference)
	}
	for _, token := range []string{
		``, `{}`, `{"status":{}}`, `{"status":null}`, `{"Status":{}}`, `{"status":{"status_list":{"idx":1e1,"uri":"` + home + `#a"}}}`, `{"status":{"status_list":{"idx":-1,"uri":"` + home + `"}}}`,
		`{"status":{"status_list":{"idx":1,"uri":"` + issuer + `?list"}}}`,
		`{"status":{"status_list":{"idx":0,"uri":"https://as.example.com.evil.example/list"}}}`, `{"status":{"status_list":{"idx":1.5,"idx":1,"uri":"` + home + `"}}}`,
	} {
		f.Add("application/statuslist+jwt", `{"sub":"`+home+`","iat":1,"status_list":{"bits":1,"lst":"LIST"}}`, token)
	}
	list := pack([]byte{0b1010_0100, 0, 0xff})
	var current, token string
	var asked []string
	v, err := statuslist.New(statuslist.Config{
		Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Raw: token}), nil
		}),
		Issuer: issuer, JWKS: []byte(`{"keys":[` + string(key.PublicJWK()) + `]}`), Logger: quiet, RefreshInterval: time.Hour,
		Client: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.String())
			return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(current))}, nil
		})},
	})
	require.NoError(f, err)
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, typ, claims, of string) {
		claims = strings.ReplaceAll(claims, "LIST", list)
		current, err = key.Sign(map[string]any{"typ": typ}, []byte(claims))
		if err != nil {
			return // no header
		}
		token, asked = of, nil
		v.Purge()
		_, err := v.Verify(t.Context(), "a-token")
		for _, u := range asked {
			at, err := url.Parse(u)
			require.NoError(t, err)
			require.Equal(t, issuer, at.Scheme+"://"+at.Host)
		}
		if err != nil {
			var refusal *valetkey.Error
			require.True(t, !errors.As(err, &refusal) || refusal.Code == valetkey.InvalidToken, err)
			return
		}
		var c struct { // names in another letter case are refused if they would decide
			Status *struct {
				List *struct {
					Idx float64
					URI string
				} `json:"status_list"`
			}
		}
		if of == "" {
			return // a verifier that knows no claims
		}
		var names map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(of), &names))
		if names["status"] == nil || string(names["status"]) == "null" {
			return
		}
		require.NoError(t, json.Unmarshal([]byte(of), &c))
		require.NotNil(t, c.Status.List)
		var l struct {
			Iss, Sub *string
			Iat, Exp *float64
			List     struct {
				Bits float64
				Lst  string
			} `json:"status_list"`
		}
		require.NoError(t, json.Unmarshal([]byte(claims), &l))
		require.Equal(t, []string{c.Status.List.URI}, asked)
		require.Equal(t, c.Status.List.URI, *l.Sub)
		require.True(t, l.Iss == nil || *l.Iss == "" || *l.Iss == issuer)
		require.NotNil(t, l.Iat)
		require.True(t, l.Exp == nil || *l.Exp > float64(time.Now().Unix()-1))
		compressed, err := base64.RawURLEncoding.DecodeString(l.List.Lst)
		require.NoError(t, err)
		inflater, err := zlib.NewReader(bytes.NewReader(compressed))
		require.NoError(t, err)
		data, err := io.ReadAll(inflater)
		require.NoError(t, err)
		bits := int(l.List.Bits)
		at := int(c.Status.List.Idx) * bits
		require.Less(t, at/8, len(data))
		require.Zero(t, data[at/8]>>(at%8)&(1<<bits-1))
	})
}
