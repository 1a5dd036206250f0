package clients

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// A Registry knows all clients. It is safe for concurrent use, holds no lock and caches nothing: what one replica writes, the
// others read.
type Registry struct {
	store  store.Store
	static map[string]Client
	ids    []string // of the static ones, in order
}

const (
	kind     = "client"
	maxOwned = 100 // clients of one owner
)

// ErrStatic is wrapped by the error of a change to a client of the configuration.
var ErrStatic = errors.New("the client is in the configuration")

// NewRegistry returns the registry of the clients in s and the static ones, which come first where an id is both. The caller
// has validated these, and does not modify them any more.
func NewRegistry(s store.Store, static []Client) *Registry {
	r := &Registry{store: s, static: make(map[string]Client, len(static))}
	for _, c := range static {
		c.Static, c.Expires = true, time.Time{}
		r.static[c.ID] = c
	}
	r.ids = slices.Sorted(maps.Keys(r.static))
	return r
}

// Get returns the client, whose slices must not be modified. If there is none, the error wraps [store.ErrNotFound].
func (r *Registry) Get(ctx context.Context, id string) (*Client, error) {
	if c, ok := r.static[id]; ok {
		return &c, nil
	}
	if !isID(id) { // from a request: not every store takes every text
		return nil, fmt.Errorf("read a client: %w", store.ErrNotFound)
	}
	rec, err := r.store.Get(ctx, kind, id)
	if err != nil {
		return nil, fmt.Errorf("read a client: %w", err)
	}
	return read(rec)
}

// Create registers c under a new id. With a secret it returns that, too, which nobody can learn later: only its digest is
// kept. An empty AuthMethod stands for client_secret_basic if there is a secret, and for none if not. The error is an
// [*Invalid] if c cannot be registered.
func (r *Registry) Create(ctx context.Context, c Client, withSecret bool) (*Client, string, error) {
	if c.AuthMethod == "" {
		c.AuthMethod = "none"
		if withSecret {
			c.AuthMethod = "client_secret_basic"
		}
	}
	if withSecret != usesSecret(c.AuthMethod) {
		return nil, "", &Invalid{InvalidMetadata, "token_endpoint_auth_method: does not go with having a secret, or with having none"}
	}
	if err := c.Validate(); err != nil {
		return nil, "", err
	}
	if err := r.room(ctx, c.Owner); err != nil {
		return nil, "", err
	}
	c.ID, c.IssuedAt, c.Static, c.version = rand.Text(), time.Now().UTC().Truncate(time.Second), false, 0
	var secret string
	c.SecretDigest = nil
	if withSecret {
		secret = c.newSecret()
	}
	if err := r.put(ctx, &c); err != nil {
		return nil, "", err
	}
	return &c, secret, nil
}

// room returns an error if the owner has as many clients as one may have. Registrations at the same time may exceed that.
func (r *Registry) room(ctx context.Context, owner string) error {
	if owner == "" {
		return nil
	}
	owned, err := r.ByOwner(ctx, owner)
	if err != nil {
		return err
	}
	if len(owned) >= maxOwned {
		return &Invalid{InvalidMetadata, fmt.Sprintf("you have %d applications already", maxOwned)}
	}
	return nil
}

// newSecret gives the client a new secret, its only one: 130 random bits (RFC 6749, section 10.10).
func (c *Client) newSecret() string {
	secret := rand.Text()
	c.SecretDigest = []string{store.Digest(secret)}
	return secret
}

// Update replaces the client that c was read as. If somebody else has changed or deleted it meanwhile, nothing is changed
// and the error wraps [store.ErrConflict]. It is an [*Invalid] if c cannot be registered.
func (r *Registry) Update(ctx context.Context, c Client) error {
	if _, is := r.static[c.ID]; is {
		return fmt.Errorf("change a client: %w", ErrStatic)
	}
	if c.version == 0 {
		return fmt.Errorf("change a client that was not read: %w", store.ErrConflict)
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if usesSecret(c.AuthMethod) != (len(c.SecretDigest) > 0) {
		return &Invalid{InvalidMetadata, "token_endpoint_auth_method: does not go with having a secret, or with having none"}
	}
	return r.put(ctx, &c)
}

// RotateSecret gives the client a new secret. The old one is dead at once, and of several calls at the same time one
// succeeds: the others get an error that wraps [store.ErrConflict].
func (r *Registry) RotateSecret(ctx context.Context, id string) (secret string, err error) {
	c, err := r.Get(ctx, id)
	if err != nil {
		return "", err
	}
	if !usesSecret(c.AuthMethod) {
		return "", &Invalid{InvalidMetadata, "token_endpoint_auth_method: the client has no secret"}
	}
	secret = c.newSecret()
	if err := r.Update(ctx, *c); err != nil {
		return "", err
	}
	return secret, nil
}

// Keep makes the registration of a client that somebody uses permanent. For one that is, it costs nothing.
func (r *Registry) Keep(ctx context.Context, c *Client) error {
	for err := error(nil); ; {
		if c.Expires.IsZero() {
			return nil
		}
		kept := *c
		kept.Expires = time.Time{}
		if err = r.put(ctx, &kept); !errors.Is(err, store.ErrConflict) {
			return err
		}
		if c, err = r.Get(ctx, c.ID); err != nil { // somebody else keeps it, or changes it
			return err
		}
	}
}

// Delete removes the client. It is no error if there is none. Its grants are the caller's to end.
func (r *Registry) Delete(ctx context.Context, id string) error {
	if _, is := r.static[id]; is {
		return fmt.Errorf("delete a client: %w", ErrStatic)
	}
	if err := r.store.Delete(ctx, kind, id); err != nil {
		return fmt.Errorf("delete a client: %w", err)
	}
	return nil
}

// ByOwner returns the clients that a subject has registered, in the order of their ids.
func (r *Registry) ByOwner(ctx context.Context, owner string) ([]Client, error) {
	if owner == "" {
		return nil, nil
	}
	return r.find(ctx, ownerKey(owner), "", maxOwned)
}

// List returns clients, the static ones among them, in the order of their ids: those greater than after, and at most limit,
// which is positive.
func (r *Registry) List(ctx context.Context, after string, limit int) ([]Client, error) {
	list, err := r.find(ctx, store.Key{}, after, limit)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c Client) bool { _, static := r.static[c.ID]; return static })
	for _, id := range r.ids {
		if id > after {
			list = append(list, r.static[id])
		}
	}
	slices.SortFunc(list, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	return list[:min(len(list), limit)], nil
}

func (r *Registry) find(ctx context.Context, key store.Key, after string, limit int) ([]Client, error) {
	records, err := r.store.Find(ctx, kind, key, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	list := make([]Client, 0, len(records))
	for _, rec := range records {
		c, err := read(rec)
		if err != nil {
			return nil, err
		}
		list = append(list, *c)
	}
	return list, nil
}

// put writes c over the version that was read, or as a new one.
func (r *Registry) put(ctx context.Context, c *Client) error {
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write a client: %w", err)
	}
	rec := store.Record{Kind: kind, ID: c.ID, Version: c.version, Expires: c.Expires, Value: value}
	if c.Owner != "" {
		rec.Keys = []store.Key{ownerKey(c.Owner)}
	}
	if c.version, err = r.store.Put(ctx, rec); err != nil {
		return fmt.Errorf("write a client: %w", err)
	}
	return nil
}

func read(rec store.Record) (*Client, error) {
	c := &Client{version: rec.Version, Expires: rec.Expires}
	if err := json.Unmarshal(rec.Value, c); err != nil {
		return nil, fmt.Errorf("read client %s: %w", rec.ID, err)
	}
	return c, nil
}

func ownerKey(subject string) store.Key { return store.Key{Name: "owner", Value: subject} }

// isID reports whether id can be a client's (RFC 6749, appendix A.1).
func isID(id string) bool {
	return id != "" && len(id) <= 512 && !strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
