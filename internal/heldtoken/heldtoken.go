// Package heldtoken carries the text of an accepted token from a guard to package onbehalf, which exchanges it for another one.
//
// The text is in the context of one request only, which has it in its headers anyway, and only if the guard is configured so. Printing
// or marshaling a Token does not reveal the text.
package heldtoken

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"weak"

	"github.com/valetkey/valetkey"
)

// A Token is an accepted token with its text.
type Token struct {
	text  func() string // a function, so that nothing that prints values finds the text
	facts *valetkey.Token
	guard Guard
}

// A Guard is the guard that has accepted a token.
type Guard interface {
	// Still returns nil if t, which was accepted, has neither expired nor been revoked.
	Still(t *valetkey.Token) error

	// Attach registers d, so that it is purged when the guard's tokens are.
	Attach(d *Dependent)
}

// Text returns the token as the client sent it.
func (t *Token) Text() string { return t.text() }

// Facts returns what the guard has verified.
func (t *Token) Facts() *valetkey.Token { return t.facts }

// Still returns nil if the token can still be accepted.
func (t *Token) Still() error { return t.guard.Still(t.facts) }

// Attach registers d with the guard.
func (t *Token) Attach(d *Dependent) { t.guard.Attach(d) }

// Format implements [fmt.Formatter]. It prints no text for any verb.
func (Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[token]") }

type held struct {
	context.Context
	token Token
}

type key struct{}

func (h *held) Value(asked any) any {
	if asked == (key{}) {
		return &h.token
	}
	return h.Context.Value(asked)
}

// NewContext returns a context that carries the text of a token that guard has accepted.
func NewContext(ctx context.Context, text string, facts *valetkey.Token, guard Guard) context.Context {
	return &held{ctx, Token{func() string { return text }, facts, guard}}
}

// FromContext returns the text of the token that [valetkey.FromContext] returns for ctx, or nil if ctx does not have it. The text of
// a token that another guard has accepted before or after is not that.
func FromContext(ctx context.Context) *Token {
	t, _ := ctx.Value(key{}).(*Token)
	if t == nil || t.facts != valetkey.FromContext(ctx) {
		return nil
	}
	return t
}

// A Dependent holds results that depend on the tokens of guards.
type Dependent struct {
	// Purge removes the results for which match returns true, given the token that they depend on; all if match is nil. It must be
	// safe for concurrent use.
	Purge func(match func(t *valetkey.Token) bool)
}

// Dependents are those of the guards that share their revocations. The zero value is empty. It does not keep a Dependent alive, so its
// size is the number of Dependents since the last collection, which the program determines.
type Dependents struct {
	mu  sync.Mutex
	all []weak.Pointer[Dependent]
}

// Attach adds d, once.
func (ds *Dependents) Attach(d *Dependent) {
	p := weak.Make(d)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if slices.Contains(ds.all, p) {
		return
	}
	ds.all = slices.DeleteFunc(ds.all, func(p weak.Pointer[Dependent]) bool { return p.Value() == nil })
	ds.all = append(ds.all, p)
}

// Purge calls Purge of each.
func (ds *Dependents) Purge(match func(t *valetkey.Token) bool) {
	ds.mu.Lock()
	all := slices.Clone(ds.all)
	ds.mu.Unlock()
	for _, p := range all {
		if d := p.Value(); d != nil {
			d.Purge(match)
		}
	}
}
