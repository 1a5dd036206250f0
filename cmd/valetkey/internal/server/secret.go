package server

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/file"
)

const maxSecret = 64 << 10 // bytes of a file that holds one

// secret returns what the file or the variable holds that the fields name_file and name_env name, without a line break at its
// end; "" if neither is given, or with a mistake. That does not repeat what stands there: it may be the secret itself.
func (d *document) secret(name, path, variable string) string {
	var text, from string
	var err error
	switch {
	case path != "" && variable != "":
		d.mistake(name+"_env", "stands beside %s_file: give one of them", name)
		return ""
	case path != "":
		var read []byte
		read, err = file.Read(d.path(path), maxSecret)
		text, from = string(read), "_file"
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err // without the path
		}
	case variable != "":
		text, from = os.Getenv(variable), "_env"
	default:
		return ""
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if err == nil && text == "" {
		err = errors.New("is empty, or not there")
	}
	if err != nil {
		d.mistake(name+from, "cannot be read: %w", err)
		return ""
	}
	return text
}

const sealSize = 32 // bytes

// sealing is secret for one that signing keys are encrypted under.
func (d *document) sealing(name, path, variable string) []byte {
	text := d.secret(name, path, variable)
	if text == "" {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) < sealSize {
		from := "_file"
		if variable != "" {
			from = "_env"
		}
		d.mistake(name+from, "is not the base64 of %d random bytes, such as openssl rand -base64 %[1]d prints", sealSize)
		return nil
	}
	return key
}
