package jwks_test

import (
	"context"
	ed "crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// An issuer with one key. A real one publishes its keys at a URL, which [jwks.New] discovers.
type authority struct{ key ed.PrivateKey }

func (a authority) keys() []byte {
	x := base64.RawURLEncoding.EncodeToString(a.key.Public().(ed.PublicKey))
	return []byte(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "` + x + `"}]}`)
}

func (a authority) token(claims string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"at+jwt","alg":"EdDSA","kid":"1"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed.Sign(a.key, []byte(text)))
}

func Example() {
	issuer := authority{ed.NewKeyFromSeed(make([]byte, ed.SeedSize))} // a seed for examples only
	verifier, err := jwks.New(jwks.Config{
		Issuer:   "https://as.example.com",
		Audience: []string{"https://api.example.com"},
		JWKS:     issuer.keys(), // without it, the keys are fetched
	})
	if err != nil {
		panic(err)
	}
	defer verifier.Close()

	claims := func(aud string) string {
		return `{"iss": "https://as.example.com", "aud": "` + aud + `", "sub": "alice", "client_id": "app", "jti": "1", "iat": 1700000000,
			"exp": 2000000000, "scope": "orders:read"}`
	}
	token, err := verifier.Verify(context.Background(), issuer.token(claims("https://api.example.com")))
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Subject(), token.Scopes())

	// A token for another API of the same issuer would open this one, if the audience were not checked.
	_, err = verifier.Verify(context.Background(), issuer.token(claims("https://billing.example.com")))
	var refusal *valetkey.Error
	fmt.Println(errors.As(err, &refusal), refusal.Reason)
	// Output:
	// alice orders:read
	// true audience
}

// Incorrect: the client ID of an application is not an audience of an API, and an empty list would accept the tokens of every API. All mistakes
// are reported at once.
func ExampleNew_incorrect() {
	_, err := jwks.New(jwks.Config{Issuer: "", Audience: nil, Algorithms: []string{"none"}})
	for _, mistake := range valetkey.ConfigErrors(err) {
		fmt.Println(mistake.Field)
	}
	// Output:
	// Issuer
	// Audience
	// Algorithms[0]
}
