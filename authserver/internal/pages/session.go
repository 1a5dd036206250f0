package pages

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/valetkey/valetkey/authserver/store"
)

// newSessions returns a manager whose sessions are in the store. It does not use scs.New, which would start a goroutine that
// cannot be stopped.
func newSessions(s store.Store, lifetime time.Duration, secure bool) *scs.SessionManager {
	cookie := scs.SessionCookie{Name: "valetkey", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: secure}
	if secure {
		cookie.Name = "__Host-valetkey" // browsers accept it only from this host, and only over TLS
	}
	return &scs.SessionManager{Lifetime: lifetime, Store: webStore{s}, Codec: scs.GobCodec{}, Cookie: cookie}
}

// put stores a value in the session, encrypted with a key derived from the session token, of which the store has only the
// digest. A reader of the store thus learns neither the user of a session nor a secret that is yet to be shown.
func (v *visit) put(key string, value any) error {
	if v.sessions.Token(v.r.Context()) == "" {
		if err := v.sessions.RenewToken(v.r.Context()); err != nil {
			return fmt.Errorf("begin a session: %w", err)
		}
	}
	plain, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write to the session: %w", err)
	}
	seal, err := v.seal()
	if err != nil {
		return err
	}
	v.sessions.Put(v.r.Context(), key, seal.Seal(nil, nil, plain, []byte(key)))
	return nil
}

// get reads a value of the session, and reports whether there is one that was stored with the present token.
func (v *visit) get(key string, value any) bool {
	sealed := v.sessions.GetBytes(v.r.Context(), key)
	if sealed == nil {
		return false
	}
	seal, err := v.seal()
	if err != nil {
		return false
	}
	plain, err := seal.Open(nil, nil, sealed, []byte(key))
	return err == nil && json.Unmarshal(plain, value) == nil
}

// take is get for a value that can be read once.
func (v *visit) take(key string, value any) bool {
	ok := v.get(key, value)
	v.drop(key)
	return ok
}

func (v *visit) drop(key string) { v.sessions.Remove(v.r.Context(), key) }

func (v *visit) seal() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(v.sessions.Token(v.r.Context())), nil, "valetkey web session", 32)
	if err != nil {
		return nil, fmt.Errorf("make the key of the session: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the key of the session: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// webStore keeps sessions as records of kind web. Of two concurrent writes by requests of one session, the last one wins.
type webStore struct{ records store.Store }

const (
	webKind    = "web"
	webSubject = "subject" // key of the session of a logged-in user: the digest of the subject
)

// subjectKey is the context key of the subject during a commit. The store cannot read the subject in the value.
type subjectKey struct{}

func (s webStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	rec, err := s.records.Get(ctx, webKind, store.Digest(token))
	if errors.Is(err, store.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the session: %w", err)
	}
	return rec.Value, true, nil
}

func (s webStore) CommitCtx(ctx context.Context, token string, value []byte, expires time.Time) error {
	id := store.Digest(token)
	err := retry(func() error {
		rec, err := s.records.Get(ctx, webKind, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		next := store.Record{Kind: webKind, ID: id, Version: rec.Version, Expires: expires, Value: value, MayDrop: true}
		if subject, ok := ctx.Value(subjectKey{}).(string); ok {
			next.Keys = []store.Key{{Name: webSubject, Value: store.Digest(subject)}}
			next.Owner = next.Keys[0].Value
		}
		_, err = s.records.Put(ctx, next)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the session: %w", err)
	}
	return nil
}

func (s webStore) DeleteCtx(ctx context.Context, token string) error {
	if err := s.records.Delete(ctx, webKind, store.Digest(token)); err != nil {
		return fmt.Errorf("end the session: %w", err)
	}
	return nil
}

// The methods without a context are required by scs.Store; the manager calls the others.
func (s webStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}
func (s webStore) Commit(token string, value []byte, expires time.Time) error {
	return s.CommitCtx(context.Background(), token, value, expires)
}
func (s webStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

const endedKind = "ended" // of the records of the time until which a user's sessions are ended

// markedFor is how long the end of sessions is recorded, at least. An operator's command may have another SessionLifetime than
// the server whose sessions it ends.
const markedFor = 365 * 24 * time.Hour

// ForgetConsents removes all consents of a user, so that the user is asked again.
func (p *Pages) ForgetConsents(ctx context.Context, subject string) error {
	return p.consents.forgetUser(ctx, subject)
}

// EndSessions logs a user out everywhere, and returns the number of sessions that were found and removed. It also records the
// time, for longer than a session lasts: a request in progress may store its session again, and a session of an earlier release
// cannot be found by user.
func (p *Pages) EndSessions(ctx context.Context, subject string) (n int, err error) {
	if err := p.markEnded(ctx, subject, ""); err != nil {
		return 0, err
	}
	const page = 100
	for after := ""; ; {
		found, err := p.cfg.Store.Find(ctx, webKind, store.Key{Name: webSubject, Value: store.Digest(subject)}, after, page)
		if err != nil {
			return n, fmt.Errorf("find the sessions of a user: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			if err := p.cfg.Store.Delete(ctx, webKind, rec.ID); err != nil {
				return n, fmt.Errorf("end a session of a user: %w", err)
			}
			n++
		}
		if len(found) < page {
			return n, nil
		}
	}
}

// retry repeats do while it loses a race for a record, up to five times.
func retry(do func() error) (err error) {
	for range 5 {
		if err = do(); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return err
}
