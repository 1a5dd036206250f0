package refresh

import "testing"

// The lock can be held only from within the package.
func TestNoLock(t *testing.T) {
	t.Run("JWKS-11 a read of a held document takes no lock", func(t *testing.T) {
		value := "held"
		d := Static(&value, nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.Use()
		if held := d.Load(); held == nil || *held != value {
			t.Fatal(held)
		}
	})
}
