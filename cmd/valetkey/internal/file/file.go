// Package file reads files that somebody named.
package file

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read returns what the file holds, at most max bytes. Every error is an [*fs.PathError].
func Read(path string, max int64) ([]byte, error) {
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
