package proxy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/file"
)

const maxSecret = 64 << 10 // bytes of a file that holds one

// secret returns what one of the fields name, name_file and name_env gives, without a line break at its end: itself, what a
// file holds, or what an environment variable holds. from is that field; there is none if none is given. If it is wrong,
// that is said without repeating any of it, since the secret itself may stand where its place belongs.
func secret(fields map[string]node, name string) (value string, from node) {
	for _, source := range []struct {
		field string
		read  func(node) (string, error)
	}{
		{name, func(n node) (string, error) { return n.Value, nil }},
		{name + "_file", secretFile},
		{name + "_env", func(n node) (string, error) { return os.Getenv(n.Value), nil }},
	} {
		n := fields[source.field]
		switch {
		case n.Node == nil:
			continue
		case from.Node != nil:
			n.mistake("stands beside another one: give one of %[1]s, %[1]s_file and %[1]s_env", name)
			continue
		}
		from = n
		switch {
		case n.absent(yaml.ScalarNode, "a string"): // which is said
			continue
		case !n.isText():
			n.mistake("is not a string: put it in quotes")
			continue
		}
		text, err := source.read(n)
		if value = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"); err == nil && value == "" {
			err = errors.New("is empty, or not there")
		}
		if err != nil {
			n.mistake("%v", err)
		}
	}
	return value, from
}

func secretFile(n node) (string, error) {
	text, err := file.Read(n.file(), maxSecret)
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err // without the path
	}
	if err != nil {
		return "", fmt.Errorf("the file cannot be read: %w", err)
	}
	return string(text), nil
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
