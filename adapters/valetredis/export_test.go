package valetredis

import (
	"context"
	"time"
)

// PublishText publishes text in place of the JSON of a revocation, as a later version of this package might.
func (r *Redis) PublishText(ctx context.Context, text string) error {
	sealed, err := r.keys.seal(r.stream, []byte(text))
	if err != nil {
		return err
	}
	return r.add(ctx, sealed, time.Now(), maxAll)
}
