package tokencache

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// The candidates for the key, each with a map look-up under it: what a digest costs against what the exact text costs
// the map.
func BenchmarkDigest(b *testing.B) {
	type table map[string]*Entry
	for _, size := range []int{681, 937} {
		tokens := make([]string, 1024)
		for i := range tokens {
			tokens[i] = strings.Repeat("e", size-12) + fmt.Sprintf("%012d", i)
		}
		d := NewDigester()
		secret := make([]byte, 32)
		mac := hmac.New(sha256.New, secret)
		var wide [sha256.Size]byte
		s1, s2 := maphash.MakeSeed(), maphash.MakeSeed()

		for _, c := range []struct {
			name string
			key  func(raw string, k *digest) string // over k, or raw itself
		}{
			{"GMAC", func(raw string, k *digest) string { *k = d.sum(raw); return k.text() }},
			{"SHA-256", func(raw string, k *digest) string {
				sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
				*k = digest(sum[:16])
				return k.text()
			}},
			{"HMAC-SHA-256", func(raw string, k *digest) string {
				mac.Reset()
				mac.Write(unsafe.Slice(unsafe.StringData(raw), len(raw)))
				*k = digest(mac.Sum(wide[:0])[:16])
				return k.text()
			}},
			{"two maphashes", func(raw string, k *digest) string {
				a, b := maphash.String(s1, raw), maphash.String(s2, raw)
				for i := range 8 {
					k[i], k[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
				}
				return k.text()
			}},
			{"exact text", func(raw string, _ *digest) string { return raw }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				m, k := table{}, new(digest)
				for _, raw := range tokens {
					m[strings.Clone(c.key(raw, k))] = new(Entry)
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

func TestSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the classes are those of 64 bits")
	}
	if size := unsafe.Sizeof(valetkey.Token{}); size > 416 {
		t.Errorf("a Token is %d bytes, more than its size class", size)
	}
	if size := unsafe.Sizeof(record{}); size > 192 {
		t.Errorf("a record is %d bytes, more than its size class", size)
	}
}
