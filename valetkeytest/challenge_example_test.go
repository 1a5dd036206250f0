package valetkeytest_test

import (
	"fmt"
	"net/http"

	"github.com/valetkey/valetkey/valetkeytest"
)

func ExampleChallenges() {
	h := http.Header{"Www-Authenticate": {`Bearer realm="api", error="insufficient_scope", scope="orders:write", DPoP algs="ES256"`}}
	challenges, err := valetkeytest.Challenges(h)
	if err != nil {
		panic(err)
	}
	for _, c := range challenges {
		fmt.Println(c.Scheme, c.Params["error"], c.Params["scope"])
	}
	// Output:
	// Bearer insufficient_scope orders:write
	// DPoP
}
