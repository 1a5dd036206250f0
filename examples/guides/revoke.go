package guides

import (
	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Revoke refuses the tokens that a user has so far, and ends their requests in progress if the guard has CancelWithToken.
func Revoke(guard *middleware.Guard, issuer, user string) error {
	return guard.Revoke(valetkey.Revocation{Issuer: issuer, Subject: user})
}
