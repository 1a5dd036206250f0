package valetkey

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// A Requirement is what a route requires of a verified token, such as its scopes. Check returns nil, or an [*Error],
// usually with [InsufficientScope]; any other error is a failure and becomes 503. A guard calls Check on every request,
// because a remembered token holds facts and no decisions.
//
// Check must not modify the token and must be safe for concurrent use. A Requirement that can state in advance what it
// requires is also a [Describer].
type Requirement interface {
	Check(a Access) error
}

// An Access is what a [Requirement] decides on: a verified token, and the request that it came with. It is passed by value.
type Access struct {
	Token   *Token
	Time    time.Time     // of the decision, by the clock of the guard
	Request *http.Request // nil where the token did not come with an HTTP request
}

// PathValue returns the part of the request's path that the router matched with a wildcard of this name, as
// [http.Request.PathValue] does, or "" if there is none. An adapter for a router with path parameters of another kind
// sets them on the request before it asks the guard.
//
// A rule must not take the empty string for a value: EqualPathValue("", "") would grant access wherever the wildcard is
// missing.
func (a Access) PathValue(name string) string {
	if a.Request == nil {
		return ""
	}
	return a.Request.PathValue(name)
}

// RequirementFunc turns a function into a [Requirement]. It describes nothing.
type RequirementFunc func(a Access) error

// Check calls f.
func (f RequirementFunc) Check(a Access) error { return f(a) }

// A Describer is a [Requirement] that states in advance what it requires: for the challenge of a request without a
// token, for metadata (RFC 9728), and for audits. Describe must always return the same.
type Describer interface {
	Describe() Needs
}

// Needs describes a [Requirement]. The zero value describes nothing.
type Needs struct {
	Challenge   Scopes   // sufficient together; a challenge names them (RFC 6750, section 3)
	All         Scopes   // all that are named, alternatives included, for scopes_supported (RFC 9728, section 2)
	StepUp      *StepUp  // how the user has to log in (RFC 9470); nil: in any way
	DetailTypes []string // types of authorization details (RFC 9396)
	Open        bool     // as the only requirement of a route, it lets a request without credentials through
}

// Describe returns what rs describe together. Those that are nil or no [Describer] add nothing.
func Describe(rs ...Requirement) Needs {
	var all Needs
	for _, r := range rs {
		d, ok := r.(Describer)
		if !ok {
			continue
		}
		n := d.Describe()
		all.Challenge = all.Challenge.union(n.Challenge)
		all.All = all.All.union(n.All)
		all.StepUp = strictest(all.StepUp, n.StepUp)
		all.DetailTypes = append(all.DetailTypes, n.DetailTypes...)
		all.Open = n.Open && len(rs) == 1
	}
	slices.Sort(all.DetailTypes)
	all.DetailTypes = slices.Compact(all.DetailTypes)
	return all
}

// AllOf is met by a token that meets every one of several requirements. An empty one refuses every token: requirements
// gathered in a loop that never ran do not open a route.
type AllOf []Requirement

var errNilRequirement = errors.New("valetkey: a requirement is nil")

// Check refuses with everything that is missing, so that a client can obtain it with one new token: for insufficient scope
// every scope that is required (RFC 6750, section 3), and for an insufficient login, which takes precedence, what is missing
// of it and of the scopes (RFC 9470, section 3). Any other refusal ends the check.
func (all AllOf) Check(a Access) error {
	var refusal *Error
	for _, r := range all {
		if r == nil {
			return errNilRequirement
		}
		err := r.Check(a)
		if err == nil {
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e == nil || e.Code != InsufficientScope && e.Code != InsufficientUserAuthentication {
			return err
		}
		refusal = together(refusal, e)
	}
	switch {
	case len(all) == 0:
		return &Error{Code: InsufficientScope, Reason: ReasonNoRequirement}
	case refusal == nil:
		return nil
	}
	if refusal.Code == InsufficientScope || refusal.Scope.Len() > 0 {
		refusal.Scope = all.scope(a)
	}
	return refusal
}

// scope returns the scopes that a token like that of a should have had to meet all requirements, those included that it
// does meet: a token of exactly these scopes must meet them too.
func (all AllOf) scope(a Access) (named Scopes) {
	for _, r := range all {
		var e *Error
		if errors.As(r.Check(a), &e) && e != nil {
			named = named.union(e.Scope)
		} else {
			named = named.union(Describe(r).Challenge)
		}
	}
	return named
}

// Describe returns what the requirements describe together.
func (all AllOf) Describe() Needs {
	n := Describe(all...)
	n.Open = false
	return n
}

// together returns a refusal that states what a, if it is not nil, and b do. The code is that of the login, if one is
// about it: the client learns of the missing scopes too, and need not come back a third time.
func together(a, b *Error) *Error {
	if a == nil {
		one := *b
		return &one
	}
	first, second := *a, b
	if a.Code != b.Code && b.Code == InsufficientUserAuthentication {
		first, second = *b, a
	}
	first.Scope = first.Scope.union(second.Scope)
	if first.StepUp != nil {
		first.StepUp = strictest(first.StepUp, second.StepUp)
	}
	return &first
}

// strictest returns what asks for both logins. Of two lists of values, only the first can be named.
func strictest(a, b *StepUp) *StepUp {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	both := *a
	if both.ACRValues == nil {
		both.ACRValues = b.ACRValues
	}
	if both.MaxAge == nil || b.MaxAge != nil && *b.MaxAge < *both.MaxAge {
		both.MaxAge = b.MaxAge
	}
	return &both
}

// Openness is a [Requirement] that requires no more than a valid token, or less. It has to be the only requirement of a
// route. Beside another one it is a mistake, and the request fails with 503.
type Openness string

// How open a route without further requirements is.
const (
	AnyToken Openness = "any token" // a valid token, whatever it allows
	Optional Openness = "optional"  // no credentials, or a valid token
	Public   Openness = "public"    // no credentials are looked at
)

// Known reports whether o is one of the three.
func (o Openness) Known() bool { return o == AnyToken || o == Optional || o == Public }

// Open reports whether a request without a token may pass.
func (o Openness) Open() bool { return o == Optional || o == Public }

// Describe reports whether o is open.
func (o Openness) Describe() Needs { return Needs{Open: o.Open()} }

// Check returns an error: only a guard knows what o means, and only where o is the sole requirement.
func (o Openness) Check(Access) error {
	return fmt.Errorf("valetkey: %q is not a requirement that can be combined with others", string(o))
}
