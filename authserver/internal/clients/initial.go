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

// An InitialToken allows to register clients (RFC 7591, section 1.2, "initial access token").
type InitialToken struct {
	Name    string    // of whom it was given to, for the audit
	Digest  string    // its store.Digest; the token must be random
	Uses    int       // how many clients may be registered with it, over all replicas and for ever; zero: any number
	Expires time.Time // zero: never
}

const initialKind = "initial_token" // of the records that count uses

// initial returns the initial token that a request carries.
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

// spend takes one of the token's uses.
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

// Why a request for a registration is refused.
var (
	reasonInitial      = valetkey.NewReason("registration_initial_token", "the initial access token is not valid")
	reasonUsedUp       = valetkey.NewReason("registration_initial_token_used_up", "the initial access token is used up")
	reasonRegistration = valetkey.NewReason("registration_token", "the registration access token is not valid")
	reasonOperator     = valetkey.NewReason("registration_operator", "only the operator changes this client")
)
