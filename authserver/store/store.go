// Package store is where the authorization server keeps what has to outlive a request: grants, tokens, clients, users,
// keys, sessions. It is one small contract of versioned records, so that a database is a page of code; what the records
// mean is decided above it, in one place for all databases.
//
// [Memory] is for one process and for tests. Modules sqlitestore and pgstore are files and servers. Package storetest is what
// all of them pass.
package store

import (
	"context"
	"errors"
	"time"
)

// A Store keeps records. It is safe for concurrent use, and a record that Put has confirmed survives the process, unless
// the store says otherwise. An error that wraps neither
// [ErrNotFound] nor [ErrConflict] is an outage.
type Store interface {
	// Get returns the record, or an error that wraps [ErrNotFound], which an expired record counts as.
	Get(ctx context.Context, kind, id string) (Record, error)

	// Put stores r if the stored record of its kind and id has r.Version, or, with version zero, if there is none or an
	// expired one. It returns the new version. Otherwise it changes nothing and the error wraps [ErrConflict]: of any
	// number of writers who read the same version, exactly one succeeds.
	//
	// A store whose room is bounded makes room by removing records that have expired or that were put with [Record].MayDrop. If
	// that is not enough, it changes nothing and the error wraps [ErrFull]. It never forgets any other record: many of them
	// deny something, such as the second use of an assertion, and to forget them would allow it.
	Put(ctx context.Context, r Record) (version int64, err error)

	// Delete removes the record. It is no error if there is none.
	Delete(ctx context.Context, kind, id string) error

	// Find returns records of a kind that have the key, in the order of their ids, which are greater than after; at most
	// limit of them, which is positive. An empty key stands for all records of the kind.
	Find(ctx context.Context, kind string, key Key, after string, limit int) ([]Record, error)

	// Sweep removes expired records and returns how many there were.
	Sweep(ctx context.Context) (int, error)

	// Ping reports whether the store can be used now.
	Ping(ctx context.Context) error

	// Close releases what the store holds. It must not be used afterwards.
	Close() error
}

// The errors that a caller acts on.
var (
	ErrNotFound = errors.New("no such record")
	ErrConflict = errors.New("the record has changed meanwhile")
	ErrFull     = errors.New("no room for another record") // an outage, which passes when records expire
)

// A Record is a value with its names. The store holds no secret: where an id or a key would be one (a code, a refresh token),
// the caller gives its [Digest].
type Record struct {
	Kind    string    // at most 32 of a-z and _
	ID      string    // at most 512 bytes; unique within its kind
	Version int64     // as Get or Find returned it; zero: new
	Keys    []Key     // other ways to find it; not unique
	Expires time.Time // zero: never. Whole seconds: a store may round down
	Value   []byte    // at most 1 MiB

	// MayDrop lets a store without room remove the record before it expires. Set it if the loss only costs a user another
	// attempt; leave it off if the loss would allow something: a used jti or proof, a spent refresh token, an ended session.
	// It has no effect on a record that never expires. It is an instruction to Put only: Get and Find return false.
	MayDrop bool

	// Owner is whoever fills the room that the record takes, such as a client: at most 512 bytes. A store without room removes
	// records with MayDrop of the owner that has most of them, so that an owner cannot push out the records of one that has
	// fewer. Empty: one more owner. It is an instruction to Put only: Get and Find return "".
	Owner string
}

// A Key is a name that records are found by: {"client", "shop"}.
type Key struct{ Name, Value string }
