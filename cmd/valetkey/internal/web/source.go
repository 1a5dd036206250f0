package web

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"time"

	"github.com/valetkey/valetkey/internal/config"
)

// A Source describes the configuration in use. The digest covers the file, but not the files that it names.
type Source struct {
	SHA256 string    `json:"sha256,omitempty"` // of the file in hexadecimal; empty: there is no file
	Loaded time.Time `json:"loaded"`
}

// ReadFile is [config.ReadFile], and returns the SHA-256 digest of the file in hexadecimal.
func ReadFile(path string, v any, check func(*config.Document) error) (digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	err = config.Read(path, io.TeeReader(f, h), v, check)
	return hex.EncodeToString(h.Sum(nil)), err
}
