package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	maxSecret = 64 << 10 // bytes of a secret file
	keySize   = 32       // bytes
)

// A Secret is a text that a file can specify in one of three ways. For a field with the tag yaml:"key", they are key (the text),
// key_file (the path of a file that contains it) and key_env (the name of an environment variable). With the tag
// yaml:"key,apart", only key_file and key_env exist. Reading the document does not read the secret; use [Document.Secret],
// [Document.Key] or [Secret.Read].
type Secret struct {
	Text, File, Env string
	field           string
}

// Sources returns the suffixes of the fields that are set, in the order "", "_file", "_env". Only one may be set.
func (s Secret) Sources() (suffixes []string) {
	for i, value := range []string{s.Text, s.File, s.Env} {
		if value != "" {
			suffixes = append(suffixes, []string{"", "_file", "_env"}[i])
		}
	}
	return suffixes
}

// Read returns the secret from the first of s.Sources without a trailing line break, or "" if there is no source. The error
// contains neither the path nor the name of the variable, because either may be the secret itself, in the wrong place.
func (s Secret) Read() (string, error) {
	text := s.Text
	switch {
	case s.Text == "" && s.File == "" && s.Env == "":
		return "", nil
	case s.Text != "":
	case s.File != "":
		content, err := Content(s.File, maxSecret)
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			return "", fmt.Errorf("the file cannot be read: %w", path.Err)
		}
		text = string(content)
	default:
		text = os.Getenv(s.Env)
	}
	if text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"); text == "" {
		return "", errors.New("is empty or missing")
	}
	return text, nil
}

// SecretGiven reports whether one of the fields of s is present in the file.
func (d *Document) SecretGiven(s Secret) bool {
	return d.Given(s.field) || d.Given(s.field+"_file") || d.Given(s.field+"_env")
}

// Secret reads s; see [Secret.Read]. The following are mistakes: a secret that cannot be read (the result is then ""), an empty
// field of s, and a second source.
func (d *Document) Secret(s Secret) string {
	text, _ := d.secret(s)
	return text
}

func (d *Document) secret(s Secret) (text, field string) {
	for _, f := range []struct{ suffix, value string }{{"", s.Text}, {"_file", s.File}, {"_env", s.Env}} {
		if f.value == "" && d.Given(s.field+f.suffix) {
			d.Mistake(s.field+f.suffix, "is empty")
		}
	}
	sources := s.Sources()
	if len(sources) == 0 {
		return "", ""
	}
	field = s.field + sources[0]
	for _, suffix := range sources[1:] {
		d.Mistake(s.field+suffix, "cannot be combined with %s", field[strings.LastIndex(field, ".")+1:])
	}
	s.File = d.Path(s.File)
	text, err := s.Read()
	if err != nil {
		d.Mistake(field, "%w", err)
	}
	return text, field
}

// Key reads s as the base64 of a random key of at least 32 bytes. It returns nil if s is absent or has a mistake.
func (d *Document) Key(s Secret) []byte {
	text, field := d.secret(s)
	key, err := base64.StdEncoding.DecodeString(text)
	if text != "" && (err != nil || len(key) < keySize) {
		d.Mistake(field, "is not the base64 of %d random bytes, as from openssl rand -base64 %[1]d", keySize)
		return nil
	}
	return key
}

// Content returns the content of a file of at most max bytes. Every error is an [*fs.PathError].
func Content(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > max {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is longer than %d bytes", max)}
	}
	return text, nil
}
