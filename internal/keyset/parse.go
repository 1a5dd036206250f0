package keyset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// The maximum number of keys of one set; those that follow are dropped. The publisher fills a set, and the set is parsed again
// with each refresh: 5,000 keys take about 0.2 s and 10 MB.
const (
	MaxKeys        = 5000    // of a configured issuer, whose own tokens alone wait for it
	MaxForeignKeys = 100     // of a party that is not configured by name, such as a tenant or a client: there are many
	MaxBody        = 8 << 20 // bytes of a set of MaxKeys: 1.6 kB for each, enough for one with its certificate
)

// Dropped is an entry of a key set that is not used.
type Dropped struct {
	ID  string // kid as sent, truncated
	Err error  // jose.ErrPrivate, ErrSymmetric, ErrForeign or ErrUnsupported, or one of the errors below
}

var (
	errTooMany = errors.New("they are too many")
	errModulus = errors.New("the set has the same RSA modulus with another exponent")
)

// Forbidden reports whether the entry does not belong in a public key set: it is private or shared, or one too many.
func (d Dropped) Forbidden() bool {
	return errors.Is(d.Err, jose.ErrPrivate) || errors.Is(d.Err, jose.ErrSymmetric) || errors.Is(d.Err, errTooMany)
}

// level returns the level at which the entry is logged. A key for another purpose is not a fault.
func (d Dropped) level() slog.Level {
	if errors.Is(d.Err, jose.ErrForeign) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// A report logs the dropped keys of the answers of one issuer. It is for one goroutine at a time.
type report struct {
	logged map[Dropped]bool // of the last answer, with the text of the error as the error
}

// maxLogged is the maximum number of dropped keys that are logged at one level for one answer. The issuer fills the log: a set with
// a bad entry for each of thousands of keys is one event.
const maxLogged = 20

// log logs each dropped key once for as long as the issuer sends it.
func (r *report) log(logger *slog.Logger, dropped []Dropped) {
	logged, count := map[Dropped]bool{}, map[slog.Level]int{}
	for _, d := range dropped {
		id := Dropped{d.ID, text(d.Err.Error())}
		if !logged[id] && !r.logged[id] {
			if count[d.level()]++; count[d.level()] <= maxLogged {
				logger.Log(context.Background(), d.level(), "key set: a key is dropped", "kid", d.ID, "error", d.Err)
			}
		}
		logged[id] = true
	}
	for level, n := range count {
		if n > maxLogged {
			logger.Log(context.Background(), level, "key set: more keys are dropped", "keys", n-maxLogged)
		}
	}
	r.logged = logged
}

// A text is an error that is compared by its text.
type text string

func (t text) Error() string { return string(t) }

// ErrWithdrawn is the error of [Parse] for a well-formed, non-empty JWK Set without a usable key: each key is of an unknown
// type, for encryption, private or shared. Such a set is a statement of its issuer, so the keys held so far are withdrawn. An
// empty or malformed set is not: that is how an outage or a failed deployment looks.
var ErrWithdrawn = errors.New("it has no usable key")

// ParseGiven parses a key set that is part of a configuration, of at most [MaxKeys] keys. Forbidden entries are mistakes. Others that
// are not used are logged.
func ParseGiven(data []byte, logger *slog.Logger) ([]*jose.Key, error) {
	keys, dropped, err := Parse(data, MaxKeys)
	var wrong mistakes.List
	if err != nil {
		wrong.Add("", "%w", err)
	}
	for _, d := range dropped {
		wrong.AddIf(d.Forbidden(), "", "kid %q: %w", d.ID, d.Err)
	}
	if logger == nil {
		logger = slog.Default()
	}
	new(report).log(logger, slices.DeleteFunc(dropped, Dropped.Forbidden))
	return keys, wrong.Err()
}

// Parse parses a key set of at most limit keys, entry by entry. It returns the usable keys and what is not used.
//
// The set is a JWK Set (RFC 7517, section 5), or an object that has a certificate or public key in PEM under each kid, as Google and
// Firebase publish it. It is an error if no usable key remains: [ErrWithdrawn] if at least one entry is well-formed, that is, PEM of a
// certificate or key, or an object with unique names and a kty.
//
// An RSA modulus that occurs with two exponents is not used at all: whoever has one of the two private keys can compute the other, so
// at least one of them does not belong to its issuer alone. One key under two IDs is common and used under both.
func Parse(data []byte, limit int) (keys []*jose.Key, dropped []Dropped, err error) {
	list, err := entries(data, limit+1)
	if err != nil {
		return nil, nil, err
	}
	if len(list) > limit {
		list = list[:limit]
		dropped = append(dropped, Dropped{Err: fmt.Errorf("the set has more than %d keys: %w", limit, errTooMany)})
	}
	stated := false
	for _, e := range list {
		key, err := e.parse()
		if err == nil {
			keys = append(keys, key)
		} else {
			dropped = append(dropped, Dropped{e.keyID(), err})
		}
		stated = stated || err == nil || e.isKey()
	}
	ambiguous := ambiguousModuli(keys)
	keys = slices.DeleteFunc(keys, func(key *jose.Key) bool {
		twice := ambiguous[string(key.Modulus())]
		if twice {
			dropped = append(dropped, Dropped{key.ID(), errModulus})
		}
		return twice
	})
	switch {
	case len(keys) == 0 && stated:
		return nil, dropped, fmt.Errorf("%w among %d", ErrWithdrawn, len(list))
	case len(keys) == 0:
		return nil, dropped, fmt.Errorf("it has no usable key among %d", len(list))
	}
	return keys, dropped, nil
}

// ambiguousModuli returns the RSA moduli that occur with more than one exponent.
func ambiguousModuli(keys []*jose.Key) map[string]bool {
	ambiguous, first := map[string]bool{}, map[string]string{}
	for _, key := range keys {
		modulus := string(key.Modulus())
		if modulus == "" {
			continue
		}
		if thumbprint, has := first[modulus]; has && thumbprint != key.Thumbprint() {
			ambiguous[modulus] = true
		}
		first[modulus] = key.Thumbprint()
	}
	return ambiguous
}

// An entry of a key set is a JWK, or PEM under a kid.
type entry struct {
	jwk json.RawMessage // nil: PEM
	id  string          // of PEM
	pem string
}

func (e entry) parse() (*jose.Key, error) {
	if e.jwk == nil {
		return jose.ParsePEM(e.id, []byte(e.pem))
	}
	return jose.ParseKey(e.jwk)
}

// isKey reports whether the entry is well-formed although it is not used. A JWK is if it is an object with unique names and a kty
// (RFC 7517, sections 4 and 4.1).
func (e entry) isKey() bool {
	if e.jwk == nil {
		_, err := jose.ParsePEM(e.id, []byte(e.pem))
		return errors.Is(err, jose.ErrForeign) || errors.Is(err, jose.ErrPrivate)
	}
	kty := ""
	err := strictjson.Object(e.jwk, func(name string, v strictjson.Value) error {
		if name == "kty" {
			kty, _ = v.Text()
		}
		return nil
	}, "kty")
	return err == nil && kty != ""
}

// keyID returns the kid of a key that is not used, for the log.
func (e entry) keyID() string {
	id := e.id
	var jwk map[string]json.RawMessage
	if e.jwk != nil && json.Unmarshal(e.jwk, &jwk) == nil {
		_ = json.Unmarshal(jwk["kid"], &id) // id stays empty if kid is not a string
	}
	return id[:min(len(id), 100)]
}

// entries returns the entries of a key set, at most limit, in their order. It does not hold the rest: 8 MiB of "1,1,1", or of members
// that mean nothing, would take some hundred.
func entries(data []byte, limit int) (list []entry, err error) {
	keys, pems, err := members(data, limit)
	if errors.Is(err, errPEM) {
		return nil, err
	}
	if err != nil {
		return nil, errNotObject
	}
	if len(pems) > 0 {
		return pems, nil
	}
	array := json.NewDecoder(bytes.NewReader(keys))
	if start, err := array.Token(); err != nil || start != json.Delim('[') {
		return nil, errors.New(`it has no array "keys"`)
	}
	for len(list) < limit && array.More() {
		var jwk json.RawMessage
		if err := array.Decode(&jwk); err != nil {
			return nil, err
		}
		list = append(list, entry{jwk: jwk})
	}
	return list, nil
}

// members returns the member keys of an object. If all members are PEM, it returns them too, at most limit.
func members(data []byte, limit int) (keys json.RawMessage, pems []entry, err error) {
	object := json.NewDecoder(bytes.NewReader(data))
	if start, err := object.Token(); err != nil || start != json.Delim('{') {
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) {
			return nil, nil, errPEM
		}
		return nil, nil, errNotObject
	}
	var value json.RawMessage
	for all := true; object.More(); {
		name, err := object.Token()
		if err != nil {
			return nil, nil, err
		}
		if err := object.Decode(&value); err != nil {
			return nil, nil, err
		}
		if name == "keys" { // not a member of a struct, whose name would match in any letter case
			keys = bytes.Clone(value)
		}
		e := entry{}
		e.id, _ = name.(string)
		switch {
		case !all:
		case json.Unmarshal(value, &e.pem) != nil || !strings.HasPrefix(e.pem, "-----BEGIN "):
			all, pems = false, nil
		case len(pems) < limit:
			pems = append(pems, e)
		}
	}
	if _, err := object.Token(); err != nil { // its end
		return nil, nil, err
	}
	if _, err := object.Token(); err != io.EOF {
		return nil, nil, errNotObject
	}
	return keys, pems, nil
}

var (
	errNotObject = errors.New("it is not a JSON object")
	errPEM       = errors.New(`it is PEM and not JSON: write {"ID OF THE KEY": "-----BEGIN PUBLIC KEY-----\n..."} with the key as a JSON string, or a JWK Set`)
)
