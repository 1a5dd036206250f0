package guides

import (
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Browser returns a guard for a web application whose server keeps the token in a cookie that scripts cannot read.
func Browser(verifier valetkey.Verifier) (*middleware.Guard, error) {
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin("https://app.example.com"); err != nil {
		return nil, err
	}
	return middleware.New(middleware.Config{
		Verifier: verifier,
		Methods: []middleware.BearerMethod{
			middleware.Cookie("__Host-token", protection), // beside Authorization
		},
	})
}
