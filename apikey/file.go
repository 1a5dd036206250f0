package apikey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	rereadInterval = 10 * time.Second
	staleIfError   = time.Hour
	maxFile        = 64 << 20 // bytes
)

// A file holds the keys of the last valid version of a file.
type file struct {
	path string

	mu      sync.Mutex // held while the file is read, at most once per interval
	keys    map[Digest]*Key
	version fs.FileInfo // of keys
	next    time.Time   // of the next look
	since   time.Time   // of the first failure since then; zero: there is none
	err     error
}

func open(path string, now time.Time) (*file, error) {
	f := &file{path: path}
	f.look(now)
	return f, f.err
}

// read returns the keys. It looks at the file if that is due.
func (f *file) read(now time.Time) (map[Digest]*Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look(now)
	if f.err != nil && now.Sub(f.since) > staleIfError {
		return nil, f.err
	}
	return f.keys, nil
}

// look reads the file if that is due and it has changed.
func (f *file) look(now time.Time) {
	if now.Before(f.next) {
		return
	}
	f.next = now.Add(rereadInterval)
	err := f.load()
	switch {
	case err == nil:
		f.err, f.since = nil, time.Time{}
	case f.err == nil:
		f.err, f.since = err, now
	default:
		f.err = err
	}
}

func (f *file) load() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.version != nil && f.err == nil && os.SameFile(info, f.version) && info.ModTime().Equal(f.version.ModTime()) && info.Size() == f.version.Size() {
		return nil
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s has more than %d bytes", f.path, maxFile)
	}
	keys, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.keys, f.version = keys, info
	return nil
}

// parse returns the keys in the text of a file.
func parse(text []byte) (map[Digest]*Key, error) {
	var list []Key
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // a misspelled "expires" would never expire
	if err := decoder.Decode(&list); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(text, &elements); err != nil || elements == nil { // null would withdraw all keys
		return nil, errors.New("not an array of keys")
	}
	var mistakes []error
	for i, element := range elements {
		if err := once(element, list[i]); err != nil {
			mistakes = append(mistakes, fmt.Errorf("key %d: %w", i, err))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return byDigest(list)
}

// once checks what the decoder of key has not: that no member is present twice or in another letter case, so that two readers see one key,
// and that the key expires if the file states a time.
func once(element []byte, key Key) error {
	return strictjson.Entries(element, func(name string, v strictjson.Value) error { // also "Claims": null would remove the claims
		switch name {
		case "digest", "subject", "client_id", "id", "scopes", "claims":
		case "expires":
			if !v.IsNull() && key.Expiry.IsZero() {
				return errors.New("expires: the year 1 would mean that the key does not expire")
			}
		default:
			return fmt.Errorf("unknown field %q: use lower case", name)
		}
		return nil
	})
}

func (f *file) health(name string, now time.Time) valetkey.Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := valetkey.Health{Name: name, State: valetkey.Ready, Since: f.since, Err: f.err}
	switch {
	case f.err == nil:
	case now.Sub(f.since) > staleIfError:
		h.State = valetkey.Down
	default:
		h.State = valetkey.Degraded
	}
	return h
}
