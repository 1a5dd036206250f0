package tokencache

import (
	"encoding/binary"
	"reflect"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// A kind holds the facts that many tokens share: issuer, audience, scopes and freshness condition. A shard stores each kind once.
type kind struct {
	kindKey
	issuer   string // a substring of text, like the elements of the lists
	audience valetkey.List[string]
	scopes   valetkey.Scopes

	tokens int // number of tokens in the shard; the other fields do not change
	bytes  int64
}

type kindKey struct {
	text  string
	while valetkey.Condition
}

// kinds holds the kinds of the tokens in one shard, whose lock guards it.
type kinds struct {
	table map[kindKey]*kind
	bytes int64
}

// take returns the kind of t and increments its number of tokens.
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

// comparable reports whether while can be compared, and so be part of a map key.
func comparable(while valetkey.Condition) bool {
	return while == nil || reflect.ValueOf(while).Comparable()
}

// drop decrements the number of tokens of k, and removes k with the last one.
func (ks *kinds) drop(k *kind) {
	if k.tokens--; k.tokens > 0 {
		return
	}
	ks.bytes -= k.bytes
	if comparable(k.while) {
		delete(ks.table, k.kindKey)
	}
}

// kindBytes is the memory that a kind takes without its text and lists: itself and its slot in the table.
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

// appendText appends the strings of the kind of t, each prefixed with its length, so that different kinds have different texts.
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
