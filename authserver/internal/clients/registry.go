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

// A Registry contains all clients. It is safe for concurrent use, holds no lock and caches nothing: changes by one replica are
// visible to the others.
type Registry struct {
	store      store.Store
	static     map[string]Client
	ids        []string // sorted IDs of the static clients
	privateUse []string
	documents  *Documents // nil: none
	leave      func(ctx context.Context, id string) error
}

const (
	kind     = "client"
	maxOwned = 100 // clients of one owner
)

// ErrStatic is wrapped by the error of a change to a client in the configuration.
var ErrStatic = errors.New("the client is in the configuration")

// NewRegistry returns the registry of the clients in s and the static ones, which take precedence if both have an ID. The caller
// must have validated the static clients, and must not modify them afterwards. Redirect URIs may also have one of the private-use
// schemes, which need no period (RFC 8252, section 8.4).
func NewRegistry(s store.Store, static []Client, privateUse ...string) *Registry {
	r := &Registry{store: s, static: make(map[string]Client, len(static)), privateUse: slices.Clone(privateUse)}
	for _, c := range static {
		c.Static, c.Expires, c.PrivateUse = true, time.Time{}, r.privateUse
		r.static[c.ID] = c
	}
	r.ids = slices.Sorted(maps.Keys(r.static))
	return r
}

// ValidRedirectURI is [ValidRedirectURI] with the schemes of the registry.
func (r *Registry) ValidRedirectURI(uri string, native bool) error {
	return ValidRedirectURI(uri, native, r.privateUse...)
}

// UseDocuments makes clients with a metadata document known, too. Clients in the configuration or in the store take precedence. It
// must be called before the registry is in use.
func (r *Registry) UseDocuments(d *Documents) { r.documents = d }

// OnDelete makes Delete call leave first, which removes what else belongs to the client. It must be called before the registry is in use.
func (r *Registry) OnDelete(leave func(ctx context.Context, id string) error) { r.leave = leave }

// Get returns the client. Its slices must not be modified. If there is none, the error wraps [store.ErrNotFound]. Get may fetch
// the metadata document of the client. Then the error may also be a [*DocumentError], or a [*login.TooMany] for the caller of ctx,
// see [WithCaller].
func (r *Registry) Get(ctx context.Context, id string) (*Client, error) {
	if c, ok := r.static[id]; ok {
		return &c, nil
	}
	if !isID(id) { // from a request: not every store accepts every text
		return nil, fmt.Errorf("read a client: %w", store.ErrNotFound)
	}
	rec, err := r.store.Get(ctx, kind, id)
	if errors.Is(err, store.ErrNotFound) && r.documents != nil {
		return r.documents.get(ctx, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read a client: %w", err)
	}
	return r.read(rec)
}

// About returns the client for display, as [Registry.Get] does, but fetches nothing: if its metadata document is not held, only
// ID and Document are set. Users see and revoke what they have allowed even while the document cannot be fetched.
func (r *Registry) About(ctx context.Context, id string) (*Client, error) {
	without := *r
	without.documents = nil
	c, err := without.Get(ctx, id)
	if !errors.Is(err, store.ErrNotFound) || r.documents == nil || !IsDocument(id) {
		return c, err
	}
	if c := r.documents.held(id); c != nil {
		return c, nil
	}
	return &Client{ID: id, Document: true}, nil
}

// Create registers c under a new ID. With withSecret, it also returns a new secret, of which only the digest is stored. An empty
// AuthMethod means client_secret_basic if there is a secret, and none otherwise. The error is an [*Invalid] if c cannot be
// registered.
func (r *Registry) Create(ctx context.Context, c Client, withSecret bool) (*Client, string, error) {
	if c.AuthMethod == "" {
		c.AuthMethod = "none"
		if withSecret {
			c.AuthMethod = "client_secret_basic"
		}
	}
	if withSecret != usesSecret(c.AuthMethod) {
		return nil, "", &Invalid{Code: InvalidMetadata, Member: "token_endpoint_auth_method", Problem: "does not match whether the client has a secret"}
	}
	c.PrivateUse = r.privateUse
	if err := Validate(&c); err != nil {
		return nil, "", err
	}
	if err := r.room(ctx, c.Owner); err != nil {
		return nil, "", err
	}
	c.ID, c.IssuedAt, c.Static, c.Version = rand.Text(), time.Now().UTC().Truncate(time.Second), false, 0
	var secret string
	c.SecretDigest = nil
	if withSecret {
		secret = newSecret(&c)
	}
	if err := r.put(ctx, &c); err != nil {
		return nil, "", err
	}
	return &c, secret, nil
}

// room returns an error if the owner has the maximum number of clients. Concurrent registrations may exceed it.
func (r *Registry) room(ctx context.Context, owner string) error {
	if owner == "" {
		return nil
	}
	owned, err := r.ByOwner(ctx, owner)
	if err != nil {
		return err
	}
	if len(owned) >= maxOwned {
		return &Invalid{Code: InvalidMetadata, Problem: fmt.Sprintf("you have %d applications already", maxOwned)}
	}
	return nil
}

// newSecret gives the client a new secret, its only one: 130 random bits (RFC 6749, section 10.10).
func newSecret(c *Client) string {
	secret := rand.Text()
	c.SecretDigest = []string{store.Digest(secret)}
	return secret
}

// Update replaces the client that c was read as. If it has been changed or deleted meanwhile, Update changes nothing and the
// error wraps [store.ErrConflict]. The error is an [*Invalid] if c cannot be registered.
func (r *Registry) Update(ctx context.Context, c Client) error {
	if _, is := r.static[c.ID]; is {
		return fmt.Errorf("change a client: %w", ErrStatic)
	}
	if c.Version == 0 {
		return fmt.Errorf("change a client that was not read: %w", store.ErrConflict)
	}
	c.PrivateUse = r.privateUse
	if err := Validate(&c); err != nil {
		return err
	}
	if usesSecret(c.AuthMethod) != (len(c.SecretDigest) > 0) {
		return &Invalid{Code: InvalidMetadata, Member: "token_endpoint_auth_method", Problem: "does not match whether the client has a secret"}
	}
	return r.put(ctx, &c)
}

// RotateSecret gives the client a new secret. The old one becomes invalid immediately. Of several concurrent calls one succeeds;
// the others get an error that wraps [store.ErrConflict].
func (r *Registry) RotateSecret(ctx context.Context, id string) (secret string, err error) {
	c, err := r.Get(ctx, id)
	if err != nil {
		return "", err
	}
	if !usesSecret(c.AuthMethod) {
		return "", &Invalid{Code: InvalidMetadata, Member: "token_endpoint_auth_method", Problem: "the client has no secret"}
	}
	secret = newSecret(c)
	if err := r.Update(ctx, *c); err != nil {
		return "", err
	}
	return secret, nil
}

// Keep makes the registration of a client that is in use permanent. If it already is, Keep costs nothing.
func (r *Registry) Keep(ctx context.Context, c *Client) error {
	if c.Document && r.documents != nil {
		r.documents.use(c.ID)
	}
	for err := error(nil); ; {
		if c.Expires.IsZero() {
			return nil
		}
		kept := *c
		kept.Expires = time.Time{}
		if err = r.put(ctx, &kept); !errors.Is(err, store.ErrConflict) {
			return err
		}
		if c, err = r.Get(ctx, c.ID); err != nil { // it has been kept or changed meanwhile
			return err
		}
	}
}

// Delete removes the client. Deleting a missing client is not an error. The caller must end its grants.
func (r *Registry) Delete(ctx context.Context, id string) error {
	if _, is := r.static[id]; is {
		return fmt.Errorf("delete a client: %w", ErrStatic)
	}
	if r.leave != nil { // first: if it fails, the client still exists, so the call can be repeated
		if err := r.leave(ctx, id); err != nil {
			return fmt.Errorf("delete a client: %w", err)
		}
	}
	if err := r.store.Delete(ctx, kind, id); err != nil {
		return fmt.Errorf("delete a client: %w", err)
	}
	return nil
}

// ByOwner returns the clients that a subject has registered, ordered by ID.
func (r *Registry) ByOwner(ctx context.Context, owner string) ([]Client, error) {
	if owner == "" {
		return nil, nil
	}
	return r.find(ctx, ownerKey(owner), "", maxOwned)
}

// List returns at most limit clients, including the static ones, ordered by ID, with IDs greater than after. limit must be
// positive.
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
		c, err := r.read(rec)
		if err != nil {
			return nil, err
		}
		list = append(list, *c)
	}
	return list, nil
}

// put replaces the version of c that was read, or stores a new client.
func (r *Registry) put(ctx context.Context, c *Client) error {
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write a client: %w", err)
	}
	rec := store.Record{Kind: kind, ID: c.ID, Version: c.Version, Expires: c.Expires, Value: value}
	if c.Owner != "" {
		rec.Keys = []store.Key{ownerKey(c.Owner)}
	}
	if c.Version, err = r.store.Put(ctx, rec); err != nil {
		return fmt.Errorf("write a client: %w", err)
	}
	return nil
}

func (r *Registry) read(rec store.Record) (*Client, error) {
	c := &Client{Version: rec.Version, Expires: rec.Expires, PrivateUse: r.privateUse}
	if err := json.Unmarshal(rec.Value, c); err != nil {
		return nil, fmt.Errorf("read client %s: %w", rec.ID, err)
	}
	return c, nil
}

func ownerKey(subject string) store.Key { return store.Key{Name: "owner", Value: subject} }

// isID reports whether id can be a client ID (RFC 6749, appendix A.1).
func isID(id string) bool {
	return id != "" && len(id) <= 512 && !strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
