package statuslist

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// The statuses of the draft, section 7.1.
const (
	valid     = 0
	invalid   = 1
	suspended = 2
)

// Verify accepts a token that Config.Verifier accepts and whose status is acceptable (section 8.3 of the draft). The result
// is valid for as long as the current list confirms it. Verify waits at most 2 s for a list. A list that is unavailable or
// malformed is not the token's fault: the error is [*valetkey.Unavailable] instead of a refusal.
func (v *Verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	t, err := v.cfg.Verifier.Verify(ctx, raw)
	if err != nil || t == nil {
		return nil, err
	}
	ref, err := referenceOf(strictjson.Value(t.Raw()))
	switch {
	case err != nil:
		return nil, refuse(valetkey.ReasonStatusMalformed, err)
	case ref == nil && v.cfg.Required:
		return nil, refuse(valetkey.ReasonNoStatusList, nil)
	case ref == nil:
		return t, nil
	}
	// Section 11.3: only from known origins of the issuer's lists; otherwise a token could cause a request to any host.
	if origin, err := originOf(ref.uri); err != nil || !slices.Contains(v.origins, origin) {
		return nil, refuse(valetkey.ReasonStatusListOrigin, tokenclaims.Mismatch("Origins", "token", []string{ref.uri}, func() []string { return v.origins }))
	}
	l, held, err := v.need(ctx, ref.uri)
	if err != nil {
		return nil, err
	}
	status, ok := held.status(ref.index)
	switch {
	case !ok: // section 8.3, step 6
		return nil, refuse(valetkey.ReasonNotInStatusList, fmt.Errorf("idx %d of %d", ref.index, held.len()))
	case !v.accepts(status):
		return nil, refuse(meaning(status), fmt.Errorf("status %d", status))
	}
	f := t.Fields()
	f.Freshness = f.Freshness.And(valetkey.Freshness{Until: f.Freshness.Until, While: &position{v, l, ref.index}})
	return valetkey.NewToken(f), nil
}

func (v *Verifier) accepts(status uint8) bool {
	return status == valid || status != invalid && v.cfg.Allow != nil && v.cfg.Allow(status)
}

func meaning(status uint8) valetkey.Reason {
	switch status {
	case invalid:
		return valetkey.ReasonRevoked
	case suspended:
		return valetkey.ReasonSuspended
	default:
		return valetkey.ReasonStatus
	}
}

func refuse(reason valetkey.Reason, err error) error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason, Err: err}
}

// A position is the place of a token in a list. It is the [valetkey.Condition] of a cached token.
type position struct {
	v     *Verifier
	list  *list
	index int
}

// Holds reads the current list without a lock or the clock. A timer has removed a list that is too old, and a list whose key
// the issuer has withdrawn is not usable.
func (p *position) Holds() bool {
	held := p.list.Load()
	if !held.usable() {
		return false
	}
	p.list.Use()
	status, ok := held.status(p.index)
	return ok && p.v.accepts(status)
}

// A reference is the status claim of a token (section 6.2).
type reference struct {
	uri   string
	index int
}

// maxIndex is the largest integer that a JSON number represents exactly everywhere (RFC 8259, section 6).
const maxIndex = min(1<<53-1, math.MaxInt)

// referenceOf decodes the status claim of a token; nil: the token has none. A status that has only other mechanisms is an
// error, since this package cannot tell whether the token is still valid.
func referenceOf(claims strictjson.Value) (*reference, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	status, err := member(claims, "status")
	if status == nil || err != nil {
		return nil, err
	}
	inList, err := member(status, "status_list")
	if err != nil {
		return nil, err
	}
	if inList == nil {
		return nil, errors.New("status has no status_list")
	}
	var ref reference
	idx, err := member(inList, "idx")
	if err != nil {
		return nil, err
	}
	n, ok := idx.Number()
	if !ok || n != math.Trunc(n) || n < 0 || n > maxIndex {
		return nil, errors.New("idx is not an index")
	}
	ref.index = int(n)
	uri, err := member(inList, "uri")
	if err != nil {
		return nil, err
	}
	if ref.uri, ok = uri.Text(); !ok {
		return nil, errors.New("uri is missing or not a string")
	}
	if u, err := url.Parse(ref.uri); err != nil || u.Fragment != "" {
		return nil, errors.New("uri is not a URL without a fragment")
	}
	return &ref, nil
}

// member returns a member of an object, or nil if the object does not have it.
func member(object []byte, name string) (found strictjson.Value, err error) {
	err = strictjson.Object(object, func(n string, value strictjson.Value) error {
		if n == name {
			found = value
		}
		return nil
	}, name)
	return found, err
}
