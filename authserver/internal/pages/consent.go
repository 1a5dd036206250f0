package pages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/store"
)

// A consent records what a user has allowed an application. It is valid until the user revokes it or gets another credential: a
// later account may have the same subject, and the grant that the consent was given for has ended by then. So users are asked
// again after a new password.
type consent struct {
	Subject string          `json:"subject"`
	Client  string          `json:"client"`
	Scopes  valetkey.Scopes `json:"scopes"` // at any API
	Since   time.Time       `json:"since"`
	Last    time.Time       `json:"last"` // when the user was last asked

	At map[string]valetkey.Scopes `json:"at"` // by audience: several APIs may have a scope of the same name

	Credential time.Time `json:"credential,omitzero"` // User.Since of the user who gave it
}

// covers reports whether all scopes are allowed at the API.
func (c *consent) covers(audience string, scopes valetkey.Scopes) bool {
	for s := range scopes.All() {
		if !c.At[audience].Has(s) {
			return false
		}
	}
	return true
}

// consents keeps consents in the store, as records of kind consent.
type consents struct{ records store.Store }

const (
	consentKind = "consent"
	maxConsents = 500 // of one user that are listed
)

func consentID(subject, client string) string { return store.Digest(subject + "\x00" + client) }

// by reports whether the user gave the consent with the credential of the present log-in.
func (c *consent) by(u *person) bool { return c.Subject == u.Subject && !c.Credential.Before(u.Since) }

// get returns the consent, or one without scopes.
func (cs consents) get(ctx context.Context, u *person, client string) (*consent, error) {
	c, _, err := cs.read(ctx, u, client)
	return c, err
}

func (cs consents) read(ctx context.Context, u *person, client string) (*consent, int64, error) {
	subject := u.Subject
	none := &consent{Subject: subject, Client: client, Credential: u.Since}
	c := &consent{}
	rec, err := cs.records.Get(ctx, consentKind, consentID(subject, client))
	if errors.Is(err, store.ErrNotFound) {
		return none, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(rec.Value, c)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read a consent: %w", err)
	}
	if !c.by(u) {
		c = none
	}
	return c, rec.Version, nil
}

// decide records which of the requested scopes the user has allowed at an API. Scopes allowed earlier remain.
func (cs consents) decide(ctx context.Context, u *person, client, audience string, asked, allowed valetkey.Scopes) error {
	err := retry(func() error {
		c, version, err := cs.read(ctx, u, client)
		if err != nil {
			return err
		}
		c.Last = time.Now().UTC().Truncate(time.Second)
		if c.Since.IsZero() {
			c.Since = c.Last
		}
		earlier := slices.DeleteFunc(c.At[audience].Slice(), asked.Has)
		if c.At == nil {
			c.At = map[string]valetkey.Scopes{}
		}
		c.At[audience] = valetkey.NewScopes(append(earlier, allowed.Slice()...)...)
		var all []string
		for _, scopes := range c.At {
			all = append(all, scopes.Slice()...)
		}
		c.Scopes = valetkey.NewScopes(all...)
		value, err := json.Marshal(c)
		if err != nil {
			return err
		}
		_, err = cs.records.Put(ctx, store.Record{
			Kind: consentKind, ID: consentID(u.Subject, client), Version: version, Value: value,
			Keys: []store.Key{{Name: "user", Value: u.Subject}, {Name: "client", Value: client}},
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("remember the consent: %w", err)
	}
	return nil
}

// of returns at most 500 consents with a key, user or client.
func (cs consents) of(ctx context.Context, key, value string) ([]consent, error) {
	records, err := cs.records.Find(ctx, consentKind, store.Key{Name: key, Value: value}, "", maxConsents)
	if err != nil {
		return nil, fmt.Errorf("list the consents: %w", err)
	}
	list := make([]consent, len(records))
	for i, rec := range records {
		if err := json.Unmarshal(rec.Value, &list[i]); err != nil {
			return nil, fmt.Errorf("read a consent: %w", err)
		}
	}
	return list, nil
}

func (cs consents) forget(ctx context.Context, subject, client string) error {
	if err := cs.records.Delete(ctx, consentKind, consentID(subject, client)); err != nil {
		return fmt.Errorf("forget a consent: %w", err)
	}
	return nil
}

// forgetUser removes all consents of a user.
func (cs consents) forgetUser(ctx context.Context, subject string) error {
	for {
		list, err := cs.of(ctx, "user", subject)
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := cs.forget(ctx, subject, c.Client); err != nil {
				return err
			}
		}
		if len(list) < maxConsents {
			return nil
		}
	}
}

// forgetClient removes the consents of all users to a client that no longer exists.
func (cs consents) forgetClient(ctx context.Context, client string) error {
	for {
		list, err := cs.of(ctx, "client", client)
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := cs.forget(ctx, c.Subject, client); err != nil {
				return err
			}
		}
		if len(list) < maxConsents {
			return nil
		}
	}
}
