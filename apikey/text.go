package apikey

import (
	"encoding/base64"
	"strings"
)

// textPrefix marks the text of an API key. It contains no dot, so the text is not mistaken for a JWT.
const textPrefix = "valetkey-api-key~"

// Text returns the form in which a guard passes an API key to its verifier. It consists of characters that an access token may have (RFC
// 6750, section 2.1), whatever those of the key are. It is for code that calls a [Verifier] itself.
func Text(key string) string { return textPrefix + base64.RawURLEncoding.EncodeToString([]byte(key)) }

// keyOf returns the API key of a text.
func keyOf(text string) (key string, ok bool) {
	encoded, ok := strings.CutPrefix(text, textPrefix)
	if !ok {
		return "", false
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	return string(decoded), err == nil && len(decoded) > 0
}
