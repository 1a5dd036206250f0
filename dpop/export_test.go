package dpop

import (
	"context"
	"time"
)

// UseBy marks a proof as used in the share of a user of a client.
func (m *MemoryReplayStore) UseBy(key [32]byte, client, user string, until time.Time) (fresh bool, err error) {
	return m.useShared(context.Background(), use{key: key, client: client, user: user, until: until})
}
