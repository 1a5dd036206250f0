// Package derived lets packages of this module store values with a token that they compute from its claims, so that they compute
// them once per token instead of once per request.
package derived

// Of returns the value stored under key with token, a *valetkey.Token. If there is none, it calls make and stores the result.
// Concurrent calls may each call make, but all return the value that is stored. Package valetkey sets Of.
//
// A stored value lives as long as the token. Each key adds one value, so a key must be a constant of the program. Values do not
// count toward the memory limits of a guard, so their size must be bounded.
var Of func(token, key any, make func() any) any

// Stored returns the value stored under key with token, or nil if there is none. Calling it before Of saves the allocation of a make
// that captures variables. Package valetkey sets Stored.
var Stored func(token, key any) any
