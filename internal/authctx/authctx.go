// Package authctx holds the context key that packages valetkey and middleware share.
package authctx

// Token is the key of a *valetkey.Token.
type Token struct{}
