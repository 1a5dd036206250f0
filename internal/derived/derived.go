// Package derived lets packages of this module keep with a token what they have made of its claims, so that they read them once and
// not at each request.
package derived

// Of returns what make returned for this key when it was first called for the token, a *valetkey.Token, and calls it now if that is
// new. Concurrent calls may each call make; all get a good value. Package valetkey sets it.
//
// What it keeps lives as long as the token: a caller fills it with one value for each key, so a key is a constant of the program.
// A value is not counted in the memory of a guard, so its size must have a bound.
var Of func(token, key any, make func() any) any
