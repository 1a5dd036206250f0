package valetcel

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
)

func TestFactsAreConvertedOncePerToken(t *testing.T) {
	c := factCache{limit: 1 << 20}
	one := valetkey.NewToken(valetkey.TokenFields{Raw: `{"a":1}`})
	other := valetkey.NewToken(valetkey.TokenFields{Raw: `{"a":1}`})
	first, err := c.of(one)
	require.NoError(t, err)
	again, err := c.of(one)
	require.NoError(t, err)
	assert.Same(t, first, again)
	different, err := c.of(other)
	require.NoError(t, err)
	assert.NotSame(t, first, different)
	runtime.KeepAlive(one)
	runtime.KeepAlive(other)
}

func TestAFullCacheConvertsEachTime(t *testing.T) {
	c := factCache{limit: 1024}
	big := valetkey.NewToken(valetkey.TokenFields{Raw: `{"a":"` + strings.Repeat("x", 2048) + `"}`})
	one, err := c.of(big)
	require.NoError(t, err)
	two, err := c.of(big)
	require.NoError(t, err)
	assert.NotSame(t, one, two)
	assert.Zero(t, c.bytes.Load(), "what is not stored does not count")
	small := valetkey.NewToken(valetkey.TokenFields{Raw: `{"a":1}`})
	_, err = c.of(small)
	require.NoError(t, err)
	assert.EqualValues(t, len(small.Raw())+entryBytes, c.bytes.Load())
	runtime.KeepAlive(small)
}

func TestAnEntryEndsWithItsToken(t *testing.T) {
	c := factCache{limit: 1 << 20}
	func() {
		for range 100 {
			_, err := c.of(valetkey.NewToken(valetkey.TokenFields{Raw: `{"a":1}`}))
			require.NoError(t, err)
		}
	}()
	for c.bytes.Load() > 0 { // the test ends at its own timeout if entries stay
		runtime.GC()
		runtime.Gosched()
	}
	c.entries.Range(func(any, any) bool { t.Error("an entry is left"); return false })
}
