package valetkey

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Requirement decides whether a verified token is sufficient for a route, for example because of its scopes. A Requirement that
// can state in advance what it requires is also a [Describer].
type Requirement interface {
	// Check returns nil if the token is sufficient, or an [*Error], usually with [InsufficientScope]. Any other error is a
	// failure and becomes 503. A guard calls Check on every request, because a cached token holds facts, not decisions.
	//
	// Check must be safe for concurrent use.
	Check(a Access) error
}

// An Access is the input of a [Requirement]: a verified token, and the request that carries it. It is passed by value.
type Access struct {
	Token   *Token
	Time    time.Time     // of the decision, by the clock of the guard
	Request *http.Request // nil if the token did not come with an HTTP request
}

// PathValue returns the part of the request's path that the router matched with the wildcard name, as [http.Request.PathValue]
// does. It returns "" if there is no such wildcard or no request. An adapter for a router with its own path parameters sets them
// on the request before it calls the guard.
//
// A Requirement must not accept the empty string as a value: EqualPathValue("", "") would grant access wherever the wildcard is
// missing.
func (a Access) PathValue(name string) string {
	if a.Request == nil {
		return ""
	}
	return a.Request.PathValue(name)
}

// RequirementFunc adapts a function to a [Requirement]. It is not a [Describer].
type RequirementFunc func(a Access) error

// Check calls f.
func (f RequirementFunc) Check(a Access) error { return f(a) }

// A RemoteRequirement is a [Requirement] whose Check asks another service. [AllOf] checks it only if all other elements accept the token,
// wherever it is in the list or in an [AllOf] or [AnyOf] in the list, so that the service is not asked in vain.
type RemoteRequirement interface {
	Requirement

	// Remote marks the requirement. It does nothing.
	Remote()
}

// A Describer is a [Requirement] that states in advance what it requires: for the challenge to a request without a token, for
// metadata (RFC 9728), and for audits.
type Describer interface {
	// Describe must return the same value on each call.
	Describe() Needs
}

// Needs describes a [Requirement]. The zero value describes nothing.
type Needs struct {
	Challenge   Scopes   // a sufficient set of scopes, for the challenge (RFC 6750, section 3)
	All         Scopes   // all scopes, including alternatives, for scopes_supported (RFC 9728, section 2)
	StepUp      *StepUp  // the required login (RFC 9470); nil: any
	DetailTypes []string // types of authorization details (RFC 9396)
	Rules       []string // rules on claims, as text, for audits
	Open        bool     // as the only requirement of a route, it accepts requests without credentials
}

// Describe returns the combined needs of rs. It skips requirements that are nil or that are not a [Describer].
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
		all.Rules = append(all.Rules, n.Rules...)
		all.Open = n.Open && len(rs) == 1
	}
	slices.Sort(all.DetailTypes)
	all.DetailTypes = slices.Compact(all.DetailTypes)
	return all
}

// AllOf is a [Requirement] that a token meets if it meets each element. An empty AllOf refuses every token, so that a loop that
// collects requirements and never runs does not open a route.
type AllOf []Requirement

var errNilRequirement = errors.New("valetkey: a requirement is nil")

// Check returns one refusal that states everything that is missing, so that a client can fix it with one new token. If scopes are
// insufficient, the refusal lists every required scope (RFC 6750, section 3). If the login is insufficient, which takes
// precedence, it states the required login and, if scopes are insufficient too, the scopes (RFC 9470, section 3). Any other
// refusal ends the check. A nil element is a failure.
//
// Elements that are or contain a [RemoteRequirement] are checked last, and only if the others accept the token.
func (all AllOf) Check(a Access) error {
	var refusal *Error
	remote := false
	for _, r := range all {
		if r == nil {
			return errNilRequirement
		}
		if asks(r) {
			remote = true
			continue
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
	case refusal == nil && remote:
		return all.remote(a)
	case refusal == nil:
		return nil
	}
	if refusal.Code == InsufficientScope || refusal.Scope.Len() > 0 {
		refusal.Scope = all.scope(a)
	}
	return refusal
}

// remote checks the elements that ask another service, until one does not accept the token.
func (all AllOf) remote(a Access) error {
	for _, r := range all {
		if !asks(r) {
			continue
		}
		err := r.Check(a)
		var e *Error
		if errors.As(err, &e) && e != nil && e.Scope.Len() > 0 { // r contains other requirements too
			refusal := *e
			refusal.Scope = refusal.Scope.union(all.scope(a))
			return &refusal
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// asks reports whether Check of r may ask another service.
func asks(r Requirement) bool {
	switch r := r.(type) {
	case RemoteRequirement:
		return true
	case AllOf:
		return slices.ContainsFunc(r, asks)
	case AnyOf:
		return slices.ContainsFunc(r, asks)
	default:
		return false
	}
}

// scope returns the scopes that the token of a would need to meet all requirements. It includes those of requirements that the
// token already meets, because the client may request a token with exactly these scopes.
func (all AllOf) scope(a Access) (named Scopes) {
	for _, r := range all {
		if asks(r) {
			named = named.union(Describe(r).Challenge)
			continue
		}
		var e *Error
		if errors.As(r.Check(a), &e) && e != nil {
			named = named.union(e.Scope)
		} else {
			named = named.union(Describe(r).Challenge)
		}
	}
	return named
}

// Describe returns the combined needs of the elements. Open is always false.
func (all AllOf) Describe() Needs {
	n := Describe(all...)
	n.Open = false
	return n
}

// AnyOf is a [Requirement] that a token meets if it meets at least one element. An empty AnyOf refuses every token. An [Openness]
// cannot be an element.
type AnyOf []Requirement

// Check returns nil if one element does. It checks them in order and stops at the first that the token meets. If an element fails, and
// the token meets no other, Check returns the failure, because the answer is unknown. Otherwise it returns the refusal that most helps
// the client: one about the login, else one about scopes, else the first.
func (any AnyOf) Check(a Access) error {
	var refusal *Error
	var failure error
	for _, r := range any {
		if r == nil {
			return errNilRequirement
		}
		err := r.Check(a)
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) || e == nil {
			failure = errors.Join(failure, err)
		} else if refusal == nil || helps(e) > helps(refusal) {
			refusal = e
		}
	}
	switch {
	case failure != nil:
		return failure
	case refusal == nil:
		return &Error{Code: InsufficientScope, Reason: ReasonNoRequirement}
	}
	return refusal
}

// helps ranks a refusal by what a client can do about it.
func helps(e *Error) int {
	switch e.Code {
	case InsufficientUserAuthentication:
		return 2
	case InsufficientScope:
		return 1
	default:
		return 0
	}
}

// Describe returns what the first element that names scopes, a login or details needs, since that suffices, with the scopes of all
// elements in All. Its one rule lists those of the elements. Open is always false.
func (any AnyOf) Describe() Needs {
	var n Needs
	var texts []string
	chosen := false
	for _, r := range any {
		one := Describe(r)
		n.All = n.All.union(one.All)
		if helpful := one.Challenge.Len() > 0 || one.StepUp != nil || len(one.DetailTypes) > 0; helpful && !chosen {
			chosen = true
			n.Challenge, n.StepUp, n.DetailTypes = one.Challenge, one.StepUp, one.DetailTypes
		}
		text := strings.Join(one.Rules, " and ")
		if scope := one.Challenge.String(); scope != "" {
			text = strings.TrimSuffix("scope "+scope+" and "+text, " and ")
		}
		if text != "" {
			texts = append(texts, text)
		}
	}
	if len(texts) > 0 {
		n.Rules = []string{strings.Join(texts, " or ")}
	}
	return n
}

// together returns a refusal that combines a, which may be nil, and b. If one of them is about the login, the result has its code.
// The result still lists the missing scopes, which saves the client a third attempt.
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

// strictest returns a StepUp that requires both logins. If both list ACR values, it keeps only the list of a, because a challenge
// can carry one list.
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

// InsecureReportOnly is a [Requirement] for the introduction of tokens to an API that is in use: it must be the only requirement of a
// route. A request that its elements would refuse is let through, and observers and the log report the refusal. A request with a valid
// token carries the token even if it is not sufficient; other requests carry none. Without elements, a valid token is sufficient.
//
// It weakens every check of the route. A guard can do the same for all routes, see middleware.Config.
type InsecureReportOnly []Requirement

// Describe returns the needs of the elements, and Open set, because the route is open.
func (all InsecureReportOnly) Describe() Needs {
	n := Describe(all...)
	n.Open = true
	return n
}

// Check always returns an error. A guard handles an InsecureReportOnly itself, and only as the sole requirement of a route.
func (all InsecureReportOnly) Check(Access) error {
	return errors.New("valetkey: InsecureReportOnly must be the only requirement of a route")
}

// Openness is a [Requirement] that requires at most a valid token. It must be the only requirement of a route. If it is combined
// with another one, requests fail with 503. The zero value is invalid.
type Openness string

// The values of [Openness].
const (
	AnyToken Openness = "any token" // requires a valid token and nothing else
	Optional Openness = "optional"  // accepts a valid token, or a request without credentials
	Public   Openness = "public"    // ignores credentials
)

// Known reports whether o is [AnyToken], [Optional] or [Public].
func (o Openness) Known() bool { return o == AnyToken || o == Optional || o == Public }

// Open reports whether o accepts a request without a token.
func (o Openness) Open() bool { return o == Optional || o == Public }

// Describe returns [Needs] with Open set if o accepts a request without a token.
func (o Openness) Describe() Needs { return Needs{Open: o.Open()} }

// Check always returns an error. A guard handles an Openness itself, and only as the sole requirement of a route.
func (o Openness) Check(Access) error {
	return fmt.Errorf("valetkey: %q is not a requirement that can be combined with others", string(o))
}
