package strictjson_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/strictjson"
)

func TestAt(t *testing.T) {
	for name, c := range map[string]struct{ object, path, want string }{
		"no such member":                                {`{"b":1}`, "a", ``},
		"not an object":                                 {`[1]`, "a", ``},
		"a member twice":                                {`{"a":1,"a":2}`, "a", ``},
		"a value below a string":                        {`{"a":"b"}`, "a.b", ``},
		"a name that the path only begins with":         {`{"ab":{"c":1}}`, "a.c", ``},
		"another name of the same length":               {`{"x":{"c":1}}`, "a.c", ``},
		"a name before something other than a dot":      {`{"ab":{"c":1}}`, "abxc", ``},
		"an object with another name":                   {`{"b":{"c":1}}`, "a", ``},
		"an object with a longer name":                  {`{"a.b":{"c":1}}`, "a", ``},
		"a path that ends at the dot":                   {`{"a":{"b":1}}`, "a.", ``},
		"a path that is a part of a name":               {`{"a.b":1}`, "a", ``},
		"a member":                                      {`{"a":1}`, "a", `1`},
		"a member of a member":                          {`{"a":{"b":1}}`, "a.b", `1`},
		"three levels":                                  {`{"a":{"b":{"c":1}}}`, "a.b.c", `1`},
		"a name with dots":                              {`{"https://example.com/a":{"b":1}}`, "https://example.com/a.b", `1`},
		"a member with that name, before the nested":    {`{"a.b":1,"a":{"b":2}}`, "a.b", `1`},
		"a member with that name, after the nested":     {`{"a":{"b":2},"a.b":1}`, "a.b", `1`},
		"an empty member with that name":                {`{"a.b":"","a":{"b":2}}`, "a.b", `2`},
		"an empty member with that name, nothing below": {`{"a.b":"","a":{"c":2}}`, "a.b", `""`},
		"the first of two objects on the way":           {`{"a":{"b.c":1},"a.b":{"c":2}}`, "a.b.c", `1`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, string(strictjson.At(strictjson.Value(c.object), c.path)))
		})
	}
}
