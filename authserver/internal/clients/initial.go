package clients

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/store"
)

// An InitialToken permits the registration of clients (RFC 7591, section 1.2, "initial access token").
type InitialToken struct {
	Name    string    // the recipient, for the audit log
	Digest  string    // the store.Digest of the token, which must be random
	Uses    int       // how many clients may be registered with it, across all replicas and permanently; zero: unlimited
	Expires time.Time // zero: never
}

const initialKind = "initial_token" // of the records that count uses

// initial returns the initial access token of a request.
func (e *registration) initial(token string) (*InitialToken, error) {
	var found *InitialToken
	for i := range e.cfg.InitialTokens {
		if sameDigest(e.cfg.InitialTokens[i].Digest, token) == 1 {
			found = &e.cfg.InitialTokens[i]
		}
	}
	if found == nil || !found.Expires.IsZero() && !time.Now().Before(found.Expires) {
		return nil, invalidToken(reasonInitial)
	}
	return found, nil
}

// spend uses up one of the token's uses.
func (e *registration) spend(ctx context.Context, t *InitialToken) error {
	if t == nil || t.Uses == 0 {
		return nil
	}
	for {
		used := 0
		rec, err := e.cfg.Registry.store.Get(ctx, initialKind, t.Digest)
		if err == nil {
			used, err = strconv.Atoi(string(rec.Value))
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("count the uses of an initial access token: %w", err)
		}
		if used >= t.Uses {
			return invalidToken(reasonUsedUp)
		}
		rec.Kind, rec.ID, rec.Value = initialKind, t.Digest, strconv.AppendInt(nil, int64(used+1), 10)
		if _, err = e.cfg.Registry.store.Put(ctx, rec); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func invalidToken(reason valetkey.Reason) error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason}
}

// The reasons for the refusal of a registration request.
var (
	reasonInitial      = valetkey.NewReason("registration_initial_token", "the initial access token is not valid")
	reasonUsedUp       = valetkey.NewReason("registration_initial_token_used_up", "the initial access token is used up")
	reasonRegistration = valetkey.NewReason("registration_token", "the registration access token is not valid")
	reasonOperator     = valetkey.NewReason("registration_operator", "only the operator changes this client")
)
