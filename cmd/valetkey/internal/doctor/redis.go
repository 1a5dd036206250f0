package doctor

import (
	"context"
	"errors"

	"github.com/valetkey/valetkey"
)

// redis examines the Redis that proxies share.
func (x *examination) redis(ctx context.Context) {
	switch err := x.target.Redis(ctx); {
	case err == nil:
		x.ok("redis", "a proxy that starts knows the revocations")
	case errors.Is(err, valetkey.ErrRevocationsMissing):
		x.add(Finding{Level: Warn, Check: "redis", Cause: err.Error()})
	default:
		x.add(Finding{Level: Fail, Check: "redis", Cause: err.Error(),
			Fix: "until this is corrected, a proxy that starts refuses all tokens unless redis.allow_before_caught_up is set"})
	}
}
