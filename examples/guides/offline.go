package guides

import (
	"os"

	"github.com/valetkey/valetkey/jwks"
)

// Offline verifies tokens with the keys in a file and uses no network.
func Offline(issuer, file string) (*jwks.Verifier, error) {
	keys, err := os.ReadFile(file) // curl https://as.example.com/jwks >keys.json
	if err != nil {
		return nil, err
	}
	return jwks.New(jwks.Config{Issuer: issuer, Audience: []string{"https://api.example.com"}, JWKS: keys})
}
