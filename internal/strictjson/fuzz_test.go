package strictjson_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// All that Object accepts, encoding/json accepts as well, and finds the same members and values in it.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"b":[true,false,null,-1.5e+7],"c":{"d":"\ud83d\ude00\n"}}`, payload, `{"a":"\ud800"}`, `{"exp":1,"Exp":2}`,
		`{"\u0061":1,"a":2}`, "{\"\xff\":1}", `{"a":[[[[]]]]}`, `{"a":01}`, `{"a":["x","y"]} `, "{\"\u212a\":1,\"k\":2}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		found := map[string]any{}
		err := strictjson.Object(data, func(name string, v strictjson.Value) error {
			if _, twice := found[name]; twice {
				t.Fatalf("%q was reported twice", name)
			}
			found[name] = plain(t, v)
			return nil
		})
		if !bytes.Equal(before, data) {
			t.Fatal("the text was changed")
		}
		if (err == nil) != (strictjson.Object(data, nil) == nil) {
			t.Fatal("with and without a caller, the verdicts differ")
		}
		if folded := strictjson.Object(data, nil, "exp", "k", "A"); err != nil && folded == nil || err == nil && strictjson.FoldsApart(data) && folded != nil {
			t.Fatalf("%q: with names that are read: %v", data, folded)
		}
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("encoding/json refuses %q", data)
		}
		if numbersTooLarge(data) {
			return // for a float64, as encoding/json wants it
		}
		var want map[string]any
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if !reflect.DeepEqual(want, found) {
			t.Fatalf("%q: %v, but encoding/json finds %v", data, found, want)
		}
	})
}

func numbersTooLarge(data []byte) bool {
	var v any
	return json.Unmarshal(data, &v) != nil
}

// plain builds of v what encoding/json does.
func plain(t *testing.T, v strictjson.Value) any {
	if s, ok := v.Text(); ok {
		return s
	}
	if n, ok := v.Number(); ok {
		return n
	}
	if b, ok := v.Bool(); ok {
		return b
	}
	if elements, ok := v.Elements(); ok {
		list := make([]any, len(elements))
		for i, e := range elements {
			list[i] = plain(t, e)
		}
		return list
	}
	if v.IsObject() {
		object := map[string]any{}
		// A value within another may only be read while it is part of what Object has accepted.
		if err := strictjson.Object(v, func(name string, v strictjson.Value) error {
			object[name] = plain(t, v)
			return nil
		}); err != nil {
			t.Fatalf("%q was accepted within an object, but not alone: %v", v, err)
		}
		return object
	}
	return nil
}
