package onbehalf_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/valetkeytest"

	"github.com/stretchr/testify/require"
	"net/http/httptest"
)

// BenchmarkCall compares a call to another service with a cached exchanged token with one that carries a constant token.
func BenchmarkCall(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"`+iss.Token()+`","token_type":"Bearer","expires_in":3600,"issued_token_type":"`+accessType+`"}`)
	})
	st := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer st.Close()
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{here}, Client: iss.Client(), Logger: quiet})
	require.NoError(b, err)
	defer keys.Close()
	guard, err := middleware.New(middleware.Config{Verifier: keys, OnBehalf: true, Logger: quiet})
	require.NoError(b, err)
	c, err := onbehalf.New(onbehalf.Config{TokenURL: iss.Introspection.URL, Issuer: iss.URL, Auth: introspect.BasicAuth("a", "b"), InputAudience: []string{here},
		Targets: []string{st.URL}, Logger: quiet})
	require.NoError(b, err)
	defer c.Close()
	token := iss.Token()
	ctx := guard.DecideToken(b.Context(), iss.Token(valetkeytest.ExpiresIn(3600e9))).Context(b.Context())
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	plain := roundTrip(func(r *http.Request) (*http.Response, error) {
		out := *r
		out.Header = r.Header.Clone()
		out.Header.Set("Authorization", "Bearer "+token)
		return base.RoundTrip(&out)
	})
	for _, x := range []struct {
		name string
		via  http.RoundTripper
	}{{"plain", plain}, {"exchanged", c.Transport(base)}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			client := &http.Client{Transport: x.via}
			for b.Loop() {
				if _, err := call(ctx, client, "GET", st.URL); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Token(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}
