//go:build !race

package jwks_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The race detector allocates on its own. EdDSA, because crypto/ed25519 allocates nothing.
func TestAllocations(t *testing.T) {
	v, raw := open(t), mint(t, ed25519, nil, good(nil))
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		_, err := v.Verify(background, raw)
		require.NoError(t, err)
	}), 8.0, "the parsed token, two parts, audience, scopes, the Token, and two in jwx")
}
