package valetcel

import (
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"github.com/valetkey/valetkey"
)

// variables holds the values of a rule. It is an interpreter.Activation for one evaluation.
type variables struct {
	token  *facts
	access *valetkey.Access // nil in a rule on the token
}

func (v *variables) Parent() interpreter.Activation { return nil }

// ResolveName returns the value of a variable. Without a request, those of the request are missing.
func (v *variables) ResolveName(name string) (any, bool) {
	if name == "claims" {
		return v.token.claims, true
	}
	if v.access == nil {
		return nil, false
	}
	t := v.access.Token
	switch name {
	case "token.claims":
		return v.token.claims, true
	case "token.scopes":
		return v.token.scopes, true
	case "token.audience":
		return v.token.audience, true
	case "token.issuer":
		return types.String(t.Issuer()), true
	case "token.subject":
		return types.String(t.Subject()), true
	case "token.client_id":
		return types.String(t.ClientID()), true
	case "token.acr":
		return types.String(t.ACR()), true
	case "now":
		return types.Timestamp{Time: v.access.Time}, true
	}
	r := v.access.Request
	if r == nil {
		return nil, false
	}
	switch name {
	case "request.method":
		return types.String(r.Method), true
	case "request.host":
		return types.String(r.Host), true
	case "request.path":
		return types.String(r.URL.Path), true
	case "path":
		return pathValues{noValues, v.access}, true
	}
	return nil, false
}

// pathValues is the map of the path values of a request. An empty one is absent, so that it equals no claim. Names are unknown until
// they are looked up, so compile refuses rules that list the map or compare it as a whole. The embedded empty map has the methods for
// that.
type pathValues struct {
	traits.Mapper
	access *valetkey.Access
}

var noValues = types.NewStringStringMap(types.DefaultTypeAdapter, nil)

func (p pathValues) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	value := p.access.PathValue(string(name))
	if value == "" {
		return nil, false
	}
	return types.String(value), true
}

func (p pathValues) Get(key ref.Val) ref.Val {
	if v, ok := p.Find(key); ok {
		return v
	}
	return types.NewErr("no such path value")
}

func (p pathValues) Contains(key ref.Val) ref.Val {
	_, ok := p.Find(key)
	return types.Bool(ok)
}

// facts are the values of a token that rules read, converted for CEL.
type facts struct {
	claims, scopes, audience ref.Val
}

func factsOf(t *valetkey.Token) (*facts, error) {
	claims, err := claimsOf(t)
	if err != nil {
		return nil, err
	}
	return &facts{
		claims:   claims,
		scopes:   types.NewStringList(types.DefaultTypeAdapter, slices.Collect(t.Scopes().All())),
		audience: types.NewStringList(types.DefaultTypeAdapter, slices.Collect(t.Audience().All())),
	}, nil
}

// known holds the facts of tokens in use, because converting them takes longer than the rules of a route. It is shared by all
// requirements. A token that has been used on a route with rules has one entry, which ends with the token: when guards no longer remember
// it, at the next garbage collection. Clients with valid tokens can fill the cache. Then the facts of further tokens are converted on each
// request, which takes time in proportion to their claims and changes no verdict.
var known = factCache{limit: 8 << 20}

type factCache struct {
	limit   int64 // of the bytes of claims; their values take several times as many
	bytes   atomic.Int64
	entries sync.Map // from weak.Pointer[valetkey.Token] to *facts
}

type factEntry struct {
	token weak.Pointer[valetkey.Token]
	bytes int64
}

// entryBytes is what an entry counts in addition to the claims.
const entryBytes = 256

func (c *factCache) of(t *valetkey.Token) (*facts, error) {
	e := factEntry{weak.Make(t), int64(len(t.Raw())) + entryBytes}
	if f, ok := c.entries.Load(e.token); ok {
		return f.(*facts), nil
	}
	f, err := factsOf(t)
	if err != nil {
		return nil, err
	}
	if c.bytes.Add(e.bytes) > c.limit {
		c.bytes.Add(-e.bytes)
		return f, nil
	}
	if first, loaded := c.entries.LoadOrStore(e.token, f); loaded {
		c.bytes.Add(-e.bytes)
		return first.(*facts), nil
	}
	runtime.AddCleanup(t, c.remove, e)
	return f, nil
}

func (c *factCache) remove(e factEntry) {
	c.entries.Delete(e.token)
	c.bytes.Add(-e.bytes)
}

// claimsOf returns the claims of t as a map for CEL. A verifier has accepted their text, so an error is a failure.
func claimsOf(t *valetkey.Token) (ref.Val, error) {
	all := map[string]any{}
	if raw := t.Raw(); raw != "" {
		d := json.NewDecoder(strings.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&all); err != nil {
			return nil, errors.New("valetcel: the claims of the token are not a JSON object") // without the error, which can quote a value
		}
	}
	return valueOf(all), nil
}

// valueOf converts the value of a claim that is not null.
func valueOf(v any) ref.Val {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if member == nil {
				delete(v, name)
				continue
			}
			v[name] = valueOf(member)
		}
		return types.NewStringInterfaceMap(types.DefaultTypeAdapter, v)
	case []any:
		list := make([]ref.Val, len(v))
		for i, e := range v {
			list[i] = valueOf(e)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list)
	case json.Number:
		return number(string(v))
	case string:
		return types.String(v)
	case bool:
		return types.Bool(v)
	default:
		return types.NullValue
	}
}

// number returns an int or a uint for the digits of one, so that large IDs are compared exactly, and that their strings have no
// exponent.
func number(text string) ref.Val {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(n)
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return types.Uint(n)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil { // out of range
		return types.NewErr("the number is out of range")
	}
	return types.Double(n)
}
