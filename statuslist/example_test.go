package statuslist_test

import (
	"fmt"

	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

// A verifier that also refuses the tokens that their issuer has revoked in its status list. The list is fetched with the first token that
// names it, not with each one.
func Example() {
	keys, err := jwks.New(jwks.Config{Issuer: "https://as.example.com", Audience: []string{"https://api.example.com"}})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	verifier, err := statuslist.New(statuslist.Config{
		Verifier: keys,
		Issuer:   "https://as.example.com",
		Required: true, // a token without a place in a list is refused
	})
	if err != nil {
		panic(err)
	}
	defer verifier.Close()
	fmt.Println(len(verifier.Health()) > 0)
	// Output: true
}
