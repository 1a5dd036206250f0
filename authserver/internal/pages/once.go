package pages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// onceKind is the kind of records of forms that have been applied, by user and token. Who can fill them: logged-in users, with one
// small record per form that they send. What happens when they are full: the oldest of the user with the most are dropped. Whom that
// hurts: that user, if a double click then counts twice.
const onceKind = "once"

const (
	onceFor   = 10 * time.Minute      // a form that is sent again later counts again
	onceFirst = 10 * time.Millisecond // until the second request looks for the result of the first; doubled each time
	onceLast  = 2 * time.Second
)

// applied is the result of a form that is applied once.
type applied struct {
	Location string
	Flash    *flash `json:",omitempty"`
	Notice   *notice
}

// once wraps the handler of a form with a token in the field once: if the form is sent twice, the second request waits for the first
// one and gets the same result. A form that is shown again because of a problem has another token.
func once(h handler) handler {
	return func(v *visit) (*reply, error) {
		token := v.r.PostForm.Get("once")
		if token == "" || len(token) > 64 {
			return h(v)
		}
		ctx, id := v.r.Context(), store.Digest(v.user.Subject+"\x00"+token)
		rec := store.Record{Kind: onceKind, ID: id, Expires: time.Now().Add(onceFor), MayDrop: true, Owner: store.Digest(v.user.Subject)}
		for wait := onceFirst; ; wait *= 2 {
			version, err := v.cfg.Store.Put(ctx, rec)
			if err == nil {
				rec.Version = version
				break
			}
			if !errors.Is(err, store.ErrConflict) {
				return nil, fmt.Errorf("begin a form: %w", err)
			}
			re, err := v.appliedBefore(id)
			if re != nil || err != nil {
				return re, err
			}
			if wait > onceLast {
				return nil, errBusy
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(wait):
			}
		}
		// The browser aborts the first request when it sends the second one, whose result is that of the first.
		ctx = context.WithoutCancel(ctx)
		v.r = v.r.WithContext(ctx)
		re, err := h(v)
		if err == nil && re.location != "" {
			err = v.keepApplied(rec, re.location)
			return re, err
		}
		if gone := v.cfg.Store.Delete(ctx, onceKind, id); err == nil && gone != nil {
			err = fmt.Errorf("end a form: %w", gone)
		}
		return re, err
	}
}

// appliedBefore returns the result of the first request, or nil if there is none yet.
func (v *visit) appliedBefore(id string) (*reply, error) {
	rec, err := v.cfg.Store.Get(v.r.Context(), onceKind, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && len(rec.Value) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the result of a form: %w", err)
	}
	seal, err := v.seal()
	if err != nil {
		return nil, err
	}
	var was applied
	plain, err := seal.Open(nil, nil, rec.Value, []byte(onceKind))
	if err != nil || json.Unmarshal(plain, &was) != nil {
		return nil, v.stale() // the user has logged in again in between
	}
	if was.Flash != nil {
		err = v.put(flashKey, was.Flash)
	}
	if was.Notice != nil && err == nil {
		err = v.put(noticeKey, was.Notice)
	}
	return &reply{location: was.Location}, err
}

// keepApplied stores the result for a second request. It may contain a secret, so only the session can read it.
func (v *visit) keepApplied(rec store.Record, location string) error {
	was := applied{Location: location}
	var f flash
	if v.get(flashKey, &f) {
		was.Flash = &f
	}
	var n notice
	if v.get(noticeKey, &n) {
		was.Notice = &n
	}
	plain, err := json.Marshal(was)
	if err != nil {
		return fmt.Errorf("keep the result of a form: %w", err)
	}
	seal, err := v.seal()
	if err != nil {
		return err
	}
	rec.Value = seal.Seal(nil, nil, plain, []byte(onceKind))
	if _, err := v.cfg.Store.Put(v.r.Context(), rec); err != nil {
		v.cfg.Logger.WarnContext(v.r.Context(), "result of a form not kept: it counts again if it is sent again", "error", err)
	}
	return nil
}
