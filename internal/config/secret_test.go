package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/valetkey/valetkey/internal/config"
)

func TestContent(t *testing.T) {
	dir := t.TempDir()
	five := filepath.Join(dir, "five")
	if err := os.WriteFile(five, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		max        int64
		want       string // of the cause
	}{
		{"nothing there", filepath.Join(dir, "none"), 5, "no such file or directory"},
		{"a folder", dir, 5, "is a directory"},
		{"one byte too many", five, 4, "it is longer than 4 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Content(c.path, c.max)
			if cause, ok := errors.AsType[*fs.PathError](err); !ok || cause.Path != c.path || cause.Err.Error() != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
	if text, err := config.Content(five, 5); err != nil || string(text) != "12345" {
		t.Errorf("got %q: %v", text, err)
	}
}
