package tokencache

import (
	"encoding/binary"
	"reflect"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// A kind is what tokens have in common: who issued them, for whom, with which scopes, and what vouches for them. A shard
// keeps it once for all of its tokens.
type kind struct {
	kindKey
	issuer   string // like the lists, cut from text
	audience valetkey.List[string]
	scopes   valetkey.Scopes

	tokens int // of the shard's; the rest does not change
	bytes  int64
}

type kindKey struct {
	text  string
	while valetkey.Condition
}

// kinds are those of the tokens in one shard, whose lock guards them.
type kinds struct {
	table map[kindKey]*kind
	bytes int64
}

// take returns the kind of t, with one token more.
func (ks *kinds) take(t *valetkey.Token) *kind {
	var buf [512]byte
	text := appendText(buf[:0], t)
	while := t.Freshness().While
	if !comparable(while) {
		return ks.add(text, while, t.Audience().Len())
	}
	k := ks.table[kindKey{string(text), while}]
	if k == nil {
		k = ks.add(text, while, t.Audience().Len())
		ks.table[k.kindKey] = k
		return k
	}
	k.tokens++
	return k
}

// comparable reports whether while can be told from others, and so be part of a map's key.
func comparable(while valetkey.Condition) bool {
	return while == nil || reflect.ValueOf(while).Comparable()
}

// drop takes one token from k, and forgets k with the last one.
func (ks *kinds) drop(k *kind) {
	if k.tokens--; k.tokens > 0 {
		return
	}
	ks.bytes -= k.bytes
	if comparable(k.while) {
		delete(ks.table, k.kindKey)
	}
}

// kindBytes is what a kind costs beside its text and lists: itself and its place in the table.
const kindBytes = int(unsafe.Sizeof(kind{})) + 110

func (ks *kinds) add(text []byte, while valetkey.Condition, audience int) *kind {
	k := &kind{kindKey: kindKey{string(text), while}, tokens: 1}
	var list []string
	for rest := k.text[4:]; rest != ""; {
		end := 4 + binary.LittleEndian.Uint32([]byte(rest[:4]))
		list = append(list, rest[4:end])
		rest = rest[end:]
	}
	k.issuer = list[0]
	k.audience, k.scopes = valetkey.ListOf(list[1:1+audience]...), valetkey.NewScopes(list[1+audience:]...)
	k.bytes = int64(kindBytes + allocated(len(text)) + (k.audience.Len()+k.scopes.Len())*int(unsafe.Sizeof("")))
	ks.bytes += k.bytes
	return k
}

// appendText writes the strings that make the kind of t, each behind its length, so that no two kinds read alike.
func appendText(to []byte, t *valetkey.Token) []byte {
	write := func(s string) {
		to = append(binary.LittleEndian.AppendUint32(to, uint32(len(s))), s...)
	}
	to = binary.LittleEndian.AppendUint32(to, uint32(t.Audience().Len()))
	write(t.Issuer())
	for s := range t.Audience().All() {
		write(s)
	}
	for s := range t.Scopes().All() {
		write(s)
	}
	return to
}
