package dpop_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A token that is bound to a key is refused as a bearer token.
func Example() {
	// In a program, a jwks.Verifier. This one accepts every token, and reports that it is bound to a key.
	verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{
			Subject: "alice", Expiry: time.Now().Add(time.Minute), Binding: valetkey.Binding{JWKThumbprint: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
		}), nil
	})
	proofs, err := dpop.New(dpop.Config{})
	if err != nil {
		panic(err)
	}
	guard, err := middleware.New(middleware.Config{
		Verifier: verifier,
		DPoP:     proofs,
		Resource: middleware.Resource{ID: "https://api.example.com"}, // proofs are for URLs of this origin
	})
	if err != nil {
		panic(err)
	}
	api := guard.Handler(http.NotFoundHandler(), valetkey.AnyToken)

	w := httptest.NewRecorder()
	api.ServeHTTP(w, valetkeytest.Request("GET", "/orders", "stolen"))
	fmt.Println(w.Code)
	challenges, err := valetkeytest.Challenges(w.Header())
	if err != nil {
		panic(err)
	}
	for _, c := range challenges {
		fmt.Println(c.Scheme, c.Params["error"])
	}
	// Output:
	// 401
	// Bearer invalid_token
	// DPoP
}
