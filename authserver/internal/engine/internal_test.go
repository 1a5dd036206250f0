package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// What is kept, and for how long, cannot be seen from outside: the library looks at a token's expiry by itself.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory[int](3)
		has := func(key string, want int) bool {
			v, ok := m.get(key)
			return ok && v == want
		}
		m.put("a", 1, time.Now().Add(time.Minute))
		m.put("b", 2, time.Now().Add(time.Hour))
		m.put("a", 3, time.Now().Add(time.Hour))
		assert.True(t, has("a", 3), "a value can be replaced")

		time.Sleep(time.Minute)
		assert.False(t, has("a", 3), "but lives no longer for it")
		assert.True(t, has("b", 2))
		m.put("c", 4, time.Now().Add(time.Hour))
		assert.Len(t, m.items, 2, "what has expired goes with the next value that comes")

		m.put("d", 5, time.Now().Add(time.Hour))
		m.put("e", 6, time.Now().Add(time.Hour))
		assert.False(t, has("b", 2), "the oldest gives way")
		assert.True(t, has("c", 4) && has("d", 5) && has("e", 6))
		assert.Equal(t, len(m.items), m.order.Len())
	})
}
