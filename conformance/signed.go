package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// signedResponse returns the introspection response of the token that is being made as a JWT (RFC 9701, section 5). flaw names what is
// wrong with it; "good": nothing.
func (b *bench) signedResponse(flaw string) (string, error) {
	var response map[string]any
	if err := json.Unmarshal([]byte(b.response), &response); err != nil {
		return "", err
	}
	owner, now := "main", b.issuer.now()
	header := map[string]any{"typ": "token-introspection+jwt", "alg": "ES256", "kid": "main-es256"}
	claims := map[string]any{"iss": b.issuer.url, "aud": introspectionID, "iat": now.Unix(), "token_introspection": response}
	switch flaw {
	case "good", "flipped", "hmac":
	case "typ":
		header["typ"] = "JWT"
	case "no-typ":
		delete(header, "typ")
	case "iss":
		claims["iss"] = "https://as.example.org"
	case "no-iss":
		delete(claims, "iss")
	case "aud":
		claims["aud"] = "another-server"
	case "no-aud":
		delete(claims, "aud")
	case "no-iat":
		delete(claims, "iat")
	case "old":
		claims["iat"] = now.Add(-time.Hour).Unix()
	case "ahead":
		claims["iat"] = now.Add(time.Hour).Unix()
	case "no-claim":
		delete(claims, "token_introspection")
	case "claim-text":
		claims["token_introspection"] = b.response
	case "inactive":
		response["active"] = false
	case "top-level":
		claims["token_introspection"] = map[string]any{"active": false}
		for name, value := range response {
			if name != "iss" && name != "aud" && name != "iat" {
				claims[name] = value
			}
		}
	case "hostile":
		owner = "hostile"
	case "none":
		header["alg"] = "none"
	case "jwe":
		return b.jwe(&Token{Header: maps.Clone(header)})
	default:
		return "", fmt.Errorf("unknown flaw of a signed response: %q", flaw)
	}
	k, err := findKey(owner, "es256")
	if err != nil {
		return "", err
	}
	alg, way := k.alg, ""
	if flaw == "hmac" {
		if k, err = findKey(owner, "rs256"); err != nil {
			return "", err
		}
		alg, way, header["alg"], header["kid"] = "HS256", "hmac pem", "HS256", k.id
	}
	raw, err := compact(k, alg, way, header, claims)
	switch {
	case err != nil:
		return "", err
	case flaw == "none":
		return edited(raw, "empty signature")
	case flaw == "flipped":
		return edited(raw, "flip signature")
	}
	return raw, nil
}
