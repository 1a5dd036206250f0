package proxy

import (
	"encoding/base64"

	"github.com/valetkey/valetkey/internal/config"
)

// secret returns the secret that one of the fields name, name_file and name_env gives, see [config.Secret], and that field; there is
// none if none is given.
func secret(fields map[string]node, name string) (value string, from node) {
	var s config.Secret
	for i, suffix := range []string{"", "_file", "_env"} {
		n := fields[name+suffix]
		switch {
		case n.Node == nil:
			continue
		case from.Node != nil:
			n.mistake("stands beside another one: give one of %[1]s, %[1]s_file and %[1]s_env", name)
			continue
		}
		from = n
		switch {
		case !n.isText():
			n.mistake("is not a string: put it in quotes")
		case n.given() == "": // a mistake by now
		case suffix == "_file":
			s.File = n.file()
		default:
			*[]*string{&s.Text, nil, &s.Env}[i] = n.Value
		}
	}
	value, err := s.Read()
	if err != nil {
		from.mistake("%v", err)
	}
	return value, from
}

const keySize = 32 // bytes

// randomKey returns the key whose base64 [secret] finds under key, and whether one of its fields is given.
func randomKey(fields map[string]node) (key []byte, given bool) {
	text, from := secret(fields, "key")
	key, err := base64.StdEncoding.DecodeString(text)
	if text != "" && (err != nil || len(key) != keySize) { // if it is empty, that is said
		from.mistake("is not the base64 of %d random bytes, such as openssl rand -base64 %[1]d prints", keySize)
	}
	return key, from.Node != nil
}
