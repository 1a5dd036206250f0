package digest_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/internal/digest"
)

func TestDigest(t *testing.T) {
	t.Run("texts that differ by a bit have different digests, and one text has one digest", func(t *testing.T) {
		text := []byte(strings.Repeat("e", 700))
		seen := map[digest.Digest]bool{digest.OfBytes(text): true}
		for i := range text {
			text[i] ^= 1
			d := digest.OfBytes(text)
			assert.False(t, seen[d])
			seen[d] = true
			assert.Equal(t, d, digest.Of(string(text)))
			text[i] ^= 1
		}
		assert.Len(t, seen, 701)
	})
	t.Run("a context has the digest of one text only", func(t *testing.T) {
		mark := digest.Digest{1} // no text's, so that it can be seen where it comes from
		ctx := digest.NewContext(context.Background(), "a", mark)
		assert.Equal(t, mark, digest.FromContext(ctx, "a"))
		assert.Equal(t, digest.Of("b"), digest.FromContext(ctx, "b"))
		assert.Equal(t, digest.Of("a"), digest.FromContext(context.Background(), "a"))
	})
}

// The candidates for the key, each with a map look-up under it: what a digest costs against what the exact text costs
// the map.
func BenchmarkDigest(b *testing.B) {
	type table map[string]*int
	for _, size := range []int{681, 937} {
		tokens := make([]string, 1024)
		for i := range tokens {
			tokens[i] = strings.Repeat("e", size-12) + fmt.Sprintf("%012d", i)
		}
		secret := make([]byte, 32)
		mac := hmac.New(sha256.New, secret)
		var wide [sha256.Size]byte
		s1, s2 := maphash.MakeSeed(), maphash.MakeSeed()

		for _, c := range []struct {
			name string
			key  func(raw string, k *digest.Digest) string // over k, or raw itself
		}{
			{"GMAC", func(raw string, k *digest.Digest) string { *k = digest.Of(raw); return k.Text() }},
			{"SHA-256", func(raw string, k *digest.Digest) string {
				sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
				*k = digest.Digest(sum[:16])
				return k.Text()
			}},
			{"HMAC-SHA-256", func(raw string, k *digest.Digest) string {
				mac.Reset()
				mac.Write(unsafe.Slice(unsafe.StringData(raw), len(raw)))
				*k = digest.Digest(mac.Sum(wide[:0])[:16])
				return k.Text()
			}},
			{"two maphashes", func(raw string, k *digest.Digest) string {
				a, b := maphash.String(s1, raw), maphash.String(s2, raw)
				for i := range 8 {
					k[i], k[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
				}
				return k.Text()
			}},
			{"exact text", func(raw string, _ *digest.Digest) string { return raw }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				m, k := table{}, new(digest.Digest)
				for _, raw := range tokens {
					m[strings.Clone(c.key(raw, k))] = new(int)
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if m[c.key(tokens[i%1024], k)] == nil {
						b.Fatal("lost")
					}
				}
			})
		}
	}
}
