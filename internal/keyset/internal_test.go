package keyset

import (
	"context"
	"testing"

	"github.com/valetkey/valetkey/internal/jose"
)

// Only from within can the lock be held while a token is verified.
func TestNoLock(t *testing.T) {
	private, err := jose.GenerateKey("ES256", "a")
	if err != nil {
		t.Fatal(err)
	}
	text, err := private.Sign(nil, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := jose.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("JWKS-11 a token whose key is held takes no lock", func(t *testing.T) {
		s := Static(private.Public())
		s.mu.Lock()
		defer s.mu.Unlock()
		key, err := s.Verify(context.Background(), c)
		if err != nil || !key.Holds() {
			t.Fatal(err)
		}
	})
}
