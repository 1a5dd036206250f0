package login

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/scopes"
)

// A Database is a [Login] of people who are in a store with a hash of their password. It also adds and removes them. Users of a
// configuration file are a Database in a store.Memory.
//
// Names are compared as in [Fold]. Passwords are hashed with argon2id. An imported hash (argon2id with other parameters, or
// bcrypt) is replaced when its user next logs in; until then, a log-in takes as long as that hash requires.
//
// A Database is safe for concurrent use, including by several processes on one store.
type Database struct {
	store    store.Store
	userType string
	hashing  chan struct{}           // one element for each hash being computed, which needs 19 MiB and a core
	matches  func(hash, string) bool // hash.matches, except in a test that counts the cost of log-ins
}

// maxWait is how long a log-in waits for its turn to hash, when there are more log-ins than the processors can serve.
const maxWait = 10 * time.Second

// NewDatabase returns the Database of the users of one type, such as "customer", in records. Databases of several types can
// share a store.
func NewDatabase(records store.Store, userType string) (*Database, error) {
	wrong := mistakes.List{Package: "login"}
	wrong.AddIf(records == nil, "records", "required")
	wrong.Within("userType", ValidType(userType))
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return &Database{store: records, userType: userType, hashing: make(chan struct{}, min(runtime.GOMAXPROCS(0), 8)), matches: hash.matches}, nil
}

// person is the stored form of a user.
type person struct {
	Subject string   `json:"subject"`
	Name    string   `json:"name"` // as it was added
	Display string   `json:"display,omitempty"`
	Scopes  []string `json:"scopes"` // null differs from empty
	Hash    string   `json:"hash"`

	Since time.Time `json:"since,omitzero"` // when the password was set; zero: before this was recorded
}

func (d *Database) user(p *person) *User {
	return &User{Subject: p.Subject, Type: d.userType, Name: p.Name, Display: p.Display, Scopes: p.Scopes, Since: p.Since}
}

// Lookup implements [Login]. A replaced password counts from the moment of [Database.SetPassword]. A hash that a log-in updates
// is not a new password.
func (d *Database) Lookup(ctx context.Context, subject string) (*Account, error) {
	if !strings.HasPrefix(subject, d.userType+":") {
		return nil, fmt.Errorf("login: %w of type %s: %q", ErrNoUser, d.userType, subject)
	}
	found, err := d.store.Find(ctx, kind, store.Key{Name: "subject", Value: subject}, "", 1)
	if err != nil {
		return nil, fmt.Errorf("login: looking up %q: %w", subject, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("login: %w: %q", ErrNoUser, subject)
	}
	var p person
	if err := json.Unmarshal(found[0].Value, &p); err != nil {
		return nil, fmt.Errorf("login: looking up %q: %w", subject, err)
	}
	return &Account{Scopes: p.Scopes, Since: p.Since}, nil
}

// Login implements [Login]. It returns an error if the server is too busy to hash the password within ten seconds.
func (d *Database) Login(ctx context.Context, name, password string) (*User, error) {
	// These may return quickly, because no user can have such a name or password.
	if ValidName(name) != nil || password == "" || len(password) > maxPassword {
		return nil, ErrRefused
	}
	h := unknownUser
	p, version, err := d.read(ctx, name)
	known := err == nil
	if known {
		h, err = parseHash(p.Hash)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("login: reading %q: %w", name, err)
	}

	end, err := d.turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("login: waiting for other logins: %w", err)
	}
	defer end()
	if right := d.matches(h, password); !right || !known {
		return nil, ErrRefused
	}
	if !h.current() {
		p.Hash = newHash(password).String()
		_ = d.write(ctx, p, version) // if it fails, because of a new password or otherwise, the next login tries again
	}
	return d.user(p), nil
}

// A NewUser is a person to add to a [Database].
type NewUser struct {
	Name     string   // required
	Password string   // 8 to 1,024 bytes. Either Password
	Hash     string   // or Hash is required: argon2id in the PHC string format, see [Hash], or bcrypt
	ID       string   // the part of the subject after the colon: 1 to 64 visible ASCII characters; empty: random
	Display  string   // the name shown on pages; empty: Name
	Scopes   []string // all scopes, and types of authorization_details, that the user may allow an application; nil: all
}

// Add adds a user. The error lists every mistake; it wraps [store.ErrConflict] if the name or the ID is taken. A user who is
// removed and added again is another person with another subject, unless ID is set.
func (d *Database) Add(ctx context.Context, u NewUser) (*User, error) {
	p := &person{Name: strings.TrimSpace(u.Name), Display: u.Display, Scopes: slices.Clone(u.Scopes), Since: later(time.Time{})}
	var h hash
	var err error
	var wrong mistakes.List
	wrong.Within("Name", ValidName(u.Name))
	secret := "Password"
	switch {
	case (u.Password == "") == (u.Hash == ""):
		err = errors.New("either a password or its hash is required")
	case u.Hash != "":
		secret = "Hash"
		h, err = parseHash(u.Hash)
		p.Hash = h.String()
	default:
		p.Hash, err = Hash(u.Password)
	}
	wrong.Within(secret, err)
	if u.ID == "" {
		u.ID = rand.Text()
	}
	if len(u.ID) > 64 || strings.ContainsFunc(u.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		wrong.Add("ID", "must be 1 to 64 visible ASCII characters")
	}
	p.Subject = d.userType + ":" + u.ID
	for i, s := range u.Scopes {
		wrong.Within(fmt.Sprintf("Scopes[%d]", i), scopes.Validate(s))
	}
	if err := wrong.Err(); err != nil {
		return nil, fmt.Errorf("user %q: %w", u.Name, err)
	}

	same, err := d.store.Find(ctx, kind, store.Key{Name: "subject", Value: p.Subject}, "", 1)
	if err == nil && len(same) > 0 {
		err = taken("ID")
	}
	if err == nil {
		err = d.write(ctx, p, 0)
		if errors.Is(err, store.ErrConflict) {
			err = taken("name")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("adding user %q: %w", u.Name, err)
	}
	return d.user(p), nil
}

// taken is the part of a new user that another user already has. It is a [store.ErrConflict].
type taken string

func (t taken) Error() string        { return "another user has the " + string(t) }
func (t taken) Is(target error) bool { return target == store.ErrConflict }

// later returns the present time, or a time after before if the clock has been set back.
func later(before time.Time) time.Time {
	now := time.Now().UTC().Round(0) // equal to the stored value when read back
	if !now.After(before) {
		now = before.Add(1)
	}
	return now
}

// SetPassword replaces the password of a user and returns the user. Sessions and grants that began with the previous password
// have ended; see [Account]. The error wraps [store.ErrNotFound] if no user has the name.
func (d *Database) SetPassword(ctx context.Context, name, password string) (*User, error) {
	text, err := Hash(password)
	var p *person
	if err == nil {
		p, err = d.setHash(ctx, name, text)
	}
	if errors.Is(err, store.ErrConflict) { // a login has just replaced the hash, which happens only once
		p, err = d.setHash(ctx, name, text)
	}
	if err != nil {
		return nil, fmt.Errorf("setting the password of user %q: %w", name, err)
	}
	return d.user(p), nil
}

// turn waits until a hash may be computed. The caller calls end afterwards.
func (d *Database) turn(ctx context.Context) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case d.hashing <- struct{}{}:
		return func() { <-d.hashing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ChangePassword replaces the password of a user who has entered old. Unless end is set, sessions and grants that began with the
// previous password remain. Of two simultaneous changes, the second one is refused, because its old password is no longer right. The
// error wraps [ErrRefused] if old is wrong, and [store.ErrNotFound] if no user has the name.
func (d *Database) ChangePassword(ctx context.Context, name, old, password string, end bool) (*User, error) {
	done, err := d.turn(ctx) // users cause it, as they cause log-ins
	if err != nil {
		return nil, fmt.Errorf("login: waiting for other logins: %w", err)
	}
	defer done()
	text, err := Hash(password)
	for err == nil {
		var p *person
		var version int64
		if p, version, err = d.read(ctx, name); err != nil {
			break
		}
		if !Verify(p.Hash, old) {
			err = ErrRefused
			break
		}
		p.Hash = text
		if end {
			p.Since = later(p.Since)
		}
		if err = d.write(ctx, p, version); err == nil {
			return d.user(p), nil
		}
		if errors.Is(err, store.ErrConflict) { // another change, or a log-in has replaced the hash
			err = nil
		}
	}
	return nil, fmt.Errorf("changing the password of user %q: %w", name, err)
}

func (d *Database) setHash(ctx context.Context, name, text string) (*person, error) {
	p, version, err := d.read(ctx, name)
	if err != nil {
		return nil, err
	}
	p.Hash, p.Since = text, later(p.Since)
	return p, d.write(ctx, p, version)
}

// Find returns the user with a name. The error wraps [store.ErrNotFound] if there is none.
func (d *Database) Find(ctx context.Context, name string) (*User, error) {
	p, _, err := d.read(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("finding user %q: %w", name, err)
	}
	return d.user(p), nil
}

// Remove removes a user and returns it, so that the caller can revoke its grants. The error wraps [store.ErrNotFound] if no user
// has the name.
func (d *Database) Remove(ctx context.Context, name string) (*User, error) {
	p, _, err := d.read(ctx, name)
	if err == nil {
		err = d.store.Delete(ctx, kind, d.id(name))
	}
	if err != nil {
		return nil, fmt.Errorf("removing user %q: %w", name, err)
	}
	return d.user(p), nil
}

// List returns at most limit users, ordered by folded name, with names after the name after.
func (d *Database) List(ctx context.Context, after string, limit int) ([]User, error) {
	records, err := d.store.Find(ctx, kind, store.Key{Name: "type", Value: d.userType}, d.id(after), limit)
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	users := make([]User, len(records))
	for i, r := range records {
		var p person
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return nil, fmt.Errorf("listing users: %q: %w", r.ID, err)
		}
		users[i] = *d.user(&p)
	}
	return users, nil
}

const kind = "user" // of the records

func (d *Database) id(name string) string { return d.userType + ":" + Fold(name) }

func (d *Database) read(ctx context.Context, name string) (*person, int64, error) {
	r, err := d.store.Get(ctx, kind, d.id(name))
	if err != nil {
		return nil, 0, err
	}
	p := new(person)
	return p, r.Version, json.Unmarshal(r.Value, p)
}

func (d *Database) write(ctx context.Context, p *person, version int64) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = d.store.Put(ctx, store.Record{
		Kind: kind, ID: d.id(p.Name), Version: version, Value: value,
		Keys: []store.Key{{Name: "type", Value: d.userType}, {Name: "subject", Value: p.Subject}},
	})
	return err
}
