// Package store is where the authorization server keeps everything that outlives a request: grants, tokens, clients, users, keys
// and sessions. It defines one small contract of versioned records, so that a database needs only a page of code. The meaning of
// the records is defined above it, in one place for all databases.
//
// [Memory] is for one process and for tests. Module sqlitestore keeps records in a file, and module pgstore in a database
// server. Package storetest tests that an implementation fulfills the contract.
package store

import (
	"context"
	"errors"
	"time"
)

// A Store keeps records. It is safe for concurrent use. A record that Put has confirmed survives the process, unless the store
// documents otherwise. An error that wraps neither [ErrNotFound] nor [ErrConflict] is an outage.
type Store interface {
	// Get returns the record. The error wraps [ErrNotFound] if there is none, or if it has expired.
	Get(ctx context.Context, kind, id string) (Record, error)

	// Put stores r if the stored record of its kind and ID has r.Version or, with version zero, if there is none or an expired
	// one. It returns the new version. Otherwise it changes nothing and the error wraps [ErrConflict]. Of any number of writers
	// who read the same version, exactly one succeeds.
	//
	// A store of limited size makes room by removing records that have expired or were put with [Record].MayDrop. If that is not
	// enough, it changes nothing and the error wraps [ErrFull]. It never drops any other record: many of them deny something,
	// such as the second use of an assertion, and dropping them would allow it.
	Put(ctx context.Context, r Record) (version int64, err error)

	// Delete removes the record. Deleting a missing record is not an error.
	Delete(ctx context.Context, kind, id string) error

	// Find returns at most limit records of a kind that have the key, ordered by ID, with IDs greater than after. limit must be
	// positive. An empty key matches all records of the kind.
	Find(ctx context.Context, kind string, key Key, after string, limit int) ([]Record, error)

	// Sweep removes expired records and returns their number.
	Sweep(ctx context.Context) (int, error)

	// Ping returns an error if the store cannot be used now.
	Ping(ctx context.Context) error

	// Close releases all resources. The store must not be used afterwards.
	Close() error
}

// Errors that callers act on.
var (
	ErrNotFound = errors.New("no such record")
	ErrConflict = errors.New("the record has changed meanwhile")
	ErrFull     = errors.New("no room for another record") // an outage that ends when records expire
)

// A Record is a versioned value with an ID and further keys. The store contains no secrets: if an ID or a key is a secret, such
// as a code or a refresh token, the caller passes its [Digest].
type Record struct {
	Kind    string    // 1 to 32 of a-z and _
	ID      string    // 1 to 512 bytes; unique within its kind
	Version int64     // as Get or Find returned it; zero: new
	Keys    []Key     // further keys to find it by, at most 16; not unique
	Expires time.Time // zero: never. A store may round down to whole seconds
	Value   []byte    // at most 1 MiB

	// MayDrop lets a full store remove the record before it expires. Set it if the loss only costs a user another attempt. Leave
	// it unset if the loss would allow something, as with a used jti or proof, a spent refresh token, or an ended session. It
	// has no effect on a record that never expires. It is an instruction to Put only: Get and Find return false.
	MayDrop bool

	// Owner is the party that the record's space is charged to, such as a client: at most 512 bytes. A full store removes
	// records with MayDrop of the owner that has most of them, so that an owner cannot displace the records of one that has
	// fewer. The empty string is an owner like any other. It is an instruction to Put only: Get and Find return "".
	Owner string
}

// A Key is a name and a value that records are found by, such as {"client", "shop"}.
type Key struct{ Name, Value string }
