package dpop_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The thumbprint that a proof is held against comes from a verified token.
func TestBoundTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	client, thief := iss.ProofKey("ES256"), iss.ProofKey("ES256")
	proofs := newVerifier(t, dpop.Config{Now: iss.Now})
	local, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now})
	require.NoError(t, err)
	t.Cleanup(local.Close)
	remote, err := introspect.New(introspect.Config{
		URL: iss.Introspection.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now,
		Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
	})
	require.NoError(t, err)

	thumbprint := client.Thumbprint()
	for _, c := range []struct {
		name string
		jkt  any
	}{
		{"DPOP-53 a jkt that is a number", 1},
		{"DPOP-53 a jkt that is null", nil},
		{"DPOP-53 a jkt that is an array", []string{thumbprint}},
		{"DPOP-53 an empty jkt", ""},
		{"DPOP-53 a jkt of 42 characters", thumbprint[1:]},
		{"DPOP-53 a jkt of 44 characters", thumbprint + "A"},
		{"DPOP-53 a jkt with padding", thumbprint[1:] + "="},
		{"DPOP-53 a jkt in standard base64", "+/" + thumbprint[2:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			cnf := valetkeytest.Claim("cnf", map[string]any{"jkt": c.jkt})
			_, err := local.Verify(t.Context(), iss.Token(cnf))
			requireRefusal(t, err, valetkey.InvalidToken, "")
			_, err = remote.Verify(t.Context(), iss.Opaque(cnf))
			want := "cnf: jkt is not"
			if c.jkt == nil { // as if it were not there
				want = "cnf is empty"
			}
			require.ErrorContains(t, err, want, "an issuer that answers so is out of order")
		})
	}
	for _, c := range []struct {
		name     string
		verifier valetkey.Verifier
		token    string
	}{
		{"DPOP-53 a JWT", local, iss.Token(valetkeytest.BoundTo(client))},
		{"DPOP-54 an opaque token", remote, iss.Opaque(valetkeytest.BoundTo(client))},
		{"DPOP-54 an opaque token whose answer states its type", remote, iss.Opaque(valetkeytest.BoundTo(client), valetkeytest.Claim("token_type", "DPoP"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			verified, err := c.verifier.Verify(t.Context(), c.token)
			require.NoError(t, err)
			ask := func(by *valetkeytest.ProofKey, token string) error {
				_, err := proofs.Verify(t.Context(), dpop.Request{
					Proofs: []string{by.Proof(method, target, token)}, Method: method, URL: target,
					Token: c.token, Thumbprint: verified.Binding().JWKThumbprint,
				})
				return err
			}
			requireRefusal(t, ask(thief, c.token), valetkey.InvalidToken, "another key")
			requireRefusal(t, ask(client, "another"), valetkey.InvalidProof, "another access token")
			require.NoError(t, ask(client, c.token))
		})
	}
}
