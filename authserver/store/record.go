package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The limits of a record.
const (
	maxName  = 32 // bytes of a kind and of the name of a key
	maxID    = 512
	maxKeys  = 16
	maxKey   = 512 // bytes of the value of a key
	maxValue = 1 << 20
	maxOwner = 512
)

// Validate reports every limit that r exceeds. A kind and the name of a key have 1 to 32 of a-z and _. An ID has 1 to 512 bytes.
// The value of a key and an owner have at most 512 bytes. There are at most 16 keys. The value has at most 1 MiB. The version is
// not negative. IDs and values may contain any bytes. Every store rejects an invalid record before it does anything else. The
// error quotes neither IDs nor values.
func (r Record) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !isName(r.Kind) {
		refuse("Kind: not 1 to %d of a-z and _", maxName)
	}
	if len(r.ID) < 1 || len(r.ID) > maxID {
		refuse("ID: %d bytes, not 1 to %d", len(r.ID), maxID)
	}
	if r.Version < 0 {
		refuse("Version: %d is negative", r.Version)
	}
	if len(r.Keys) > maxKeys {
		refuse("Keys: %d, more than %d", len(r.Keys), maxKeys)
	}
	for i, k := range r.Keys {
		if !isName(k.Name) {
			refuse("Keys[%d].Name: not 1 to %d of a-z and _", i, maxName)
		}
		if len(k.Value) > maxKey {
			refuse("Keys[%d].Value: %d bytes, more than %d", i, len(k.Value), maxKey)
		}
	}
	if len(r.Owner) > maxOwner {
		refuse("Owner: %d bytes, more than %d", len(r.Owner), maxOwner)
	}
	if len(r.Value) > maxValue {
		refuse("Value: %d bytes, more than %d", len(r.Value), maxValue)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("store: not a valid record: %w", err)
	}
	return nil
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// clone returns r as a store returns it: with a copy of the value, keys sorted and without duplicates, and Expires in whole
// seconds.
func (r Record) clone() Record {
	r.Value = slices.Clone(r.Value)
	r.Keys = slices.Clone(r.Keys)
	slices.SortFunc(r.Keys, compareKeys)
	r.Keys = slices.Compact(r.Keys)
	if !r.Expires.IsZero() {
		r.Expires = time.Unix(r.Expires.Unix(), 0).UTC()
	}
	return r
}

func (r Record) expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
}
