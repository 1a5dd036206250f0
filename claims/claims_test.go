package claims_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/claims"
)

const token = `{"repository":"example/orders","ref":"refs/heads/main","id":7,"verified":true,"groups":["ops","dev",3],"none":null,"empty":"","list":[],
	"kubernetes.io":{"namespace":"shop","pod":{"name":"p"}},"object":{"a":1},"dotted.name":"flat","dotted":{"name":"nested"},
	"null.name":null,"null":{"name":"nested"}}`

func TestCheck(t *testing.T) {
	for name, rule := range map[string]claims.Rule{
		"the zero rule":                                     {},
		"another value":                                     claims.Equal("repository", "example/other"),
		"another letter case of the value":                  claims.Equal("repository", "Example/orders"),
		"another letter case of the name":                   claims.Equal("Repository", "example/orders"),
		"an empty value and no claim":                       claims.Equal("missing", ""),
		"an empty value and an empty claim":                 claims.Equal("empty", ""),
		"the text null":                                     claims.Equal("none", "null"),
		"the text of an object":                             claims.Equal("object", `{"a":1}`),
		"the text of an array":                              claims.Equal("groups", `["ops","dev",3]`),
		"an element of an array, without Contains":          claims.Equal("groups", "ops"),
		"another form of a number":                          claims.Equal("id", "7.0"),
		"no values":                                         claims.OneOf("repository"),
		"none of several values":                            claims.OneOf("repository", "a", "b"),
		"a prefix of something else":                        claims.Prefix("ref", "refs/tags/"),
		"the empty prefix":                                  claims.Prefix("ref", ""),
		"a prefix of a missing claim":                       claims.Prefix("missing", "a"),
		"a prefix of a number":                              claims.Prefix("id", "7"),
		"an element that the array lacks":                   claims.Contains("groups", "admin"),
		"an element of a missing claim":                     claims.Contains("missing", "ops"),
		"the whole value, with Contains":                    claims.Contains("repository", "example/orders"),
		"an empty element":                                  claims.Contains("groups", ""),
		"a missing claim that must be there":                claims.Present("missing"),
		"null that must be there":                           claims.Present("none"),
		"an empty string that must be there":                claims.Present("empty"),
		"an empty array that must be there":                 claims.Present("list"),
		"a claim that must not be there":                    claims.Absent("repository"),
		"a path that must not be there":                     claims.Absent("kubernetes.io.pod.name"),
		"a path that must not be there, behind null":        claims.Absent("null.name"),
		"a path to another value":                           claims.Equal("kubernetes.io.namespace", "other"),
		"a path through a string":                           claims.Present("repository.name"),
		"the nested value where a claim has the whole name": claims.Equal("dotted.name", "nested"),
	} {
		t.Run(name+" does not hold", func(t *testing.T) {
			require.ErrorContains(t, claims.Check([]byte(token), rule), "does not hold")
			assert.Error(t, claims.Check([]byte(token), claims.Present("ref"), rule), "behind one that holds")
		})
	}
	for name, rules := range map[string][]claims.Rule{
		"no rule":                     nil,
		"the value":                   {claims.Equal("repository", "example/orders")},
		"a number":                    {claims.Equal("id", "7")},
		"a boolean":                   {claims.Equal("verified", "true")},
		"one of several values":       {claims.OneOf("repository", "a", "example/orders")},
		"a prefix":                    {claims.Prefix("ref", "refs/heads/")},
		"an element":                  {claims.Contains("groups", "dev")},
		"a number as an element":      {claims.Contains("groups", "3")},
		"a claim":                     {claims.Present("object")},
		"missing, null, empty claims": {claims.Absent("missing"), claims.Absent("none"), claims.Absent("empty"), claims.Absent("list")},
		"a path":                      {claims.Equal("kubernetes.io.namespace", "shop"), claims.Equal("kubernetes.io.pod.name", "p")},
		"a path behind null":          {claims.Equal("null.name", "nested")},
		"a name with a dot":           {claims.Equal("dotted.name", "flat")},
	} {
		t.Run(name+" holds", func(t *testing.T) {
			assert.NoError(t, claims.Check([]byte(token), rules...))
		})
	}
	t.Run("the error names the rule and no value of a claim", func(t *testing.T) {
		err := claims.Check([]byte(token), claims.Present("ref"), claims.Equal("repository", "example/other"))
		assert.EqualError(t, err, `the rule "repository = example/other" does not hold`)
	})
	t.Run("claims that are not a JSON object fail", func(t *testing.T) {
		assert.Error(t, claims.Check([]byte("[]"), claims.Absent("a")))
		assert.Error(t, claims.Check([]byte(`{"a":1,"a":2}`), claims.Absent("b")))
	})
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                "the name of the claim is empty",
		"!":               "the name of the claim is empty",
		" = a":            "the name of the claim is empty",
		"a  = b":          "surrounded by spaces",
		"a = ":            "the value is empty",
		"a = b | ":        "the value is empty",
		"a ^= ":           "the value is empty",
		" a":              "surrounded by spaces",
		"a=b":             "an operator (=, ~=, ^=) needs a space on each side",
		"a =b":            "an operator (=, ~=, ^=) needs a space on each side",
		"sub^=repo:x/":    "an operator (=, ~=, ^=) needs a space on each side",
		"!role=guest":     "an operator (=, ~=, ^=) needs a space on each side",
		"role != guest":   "an operator (=, ~=, ^=) needs a space on each side",
		"!a | b":          "an operator (=, ~=, ^=) needs a space on each side",
		"!!a":             "! is followed by the name of a claim alone",
		"!a = b":          "! is followed by the name of a claim alone",
		"a ~=  ":          "", // the value is a space
		"a = b | c":       "",
		"sub ^= repo:x/":  "",
		"a = b ^= c":      "",
		"https://x/t = 1": "",
		"!act":            "",
		"email":           "",
	} {
		t.Run(text, func(t *testing.T) {
			r, err := claims.Parse(text)
			if want != "" {
				assert.ErrorContains(t, err, want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, text, r.String())
		})
	}
	t.Run("the rules of the documentation", func(t *testing.T) {
		for text, want := range map[string]claims.Rule{
			"repository = example/orders": claims.Equal("repository", "example/orders"),
			"tid = t1 | t2":               claims.OneOf("tid", "t1", "t2"),
			"groups ~= ops":               claims.Contains("groups", "ops"),
			"sub ^= repo:example/":        claims.Prefix("sub", "repo:example/"),
			"email":                       claims.Present("email"),
			"!act":                        claims.Absent("act"),
			"a = b ^= c":                  claims.Equal("a", "b ^= c"),
			"a ^= b = c":                  claims.Prefix("a", "b = c"),
		} {
			got, err := claims.Parse(text)
			require.NoError(t, err)
			assert.Equal(t, want, got, text)
			assert.Equal(t, !(text == "email" || text == "!act"), got.Pins())
		}
	})
	t.Run("a rule that its text does not express has none", func(t *testing.T) {
		for _, r := range []claims.Rule{
			claims.Equal("a", "b | c"), claims.Equal("a = b", "c"), claims.Present("a = b"), claims.Absent("a = b"), claims.Present("!a"), {},
		} {
			_, err := r.MarshalText()
			assert.Error(t, err, r.String())
		}
	})
	t.Run("the values", func(t *testing.T) {
		for text, want := range map[string]struct {
			values     []string
			beginnings bool
		}{
			"tid = t1 | t2":        {[]string{"t1", "t2"}, false},
			"groups ~= ops":        {[]string{"ops"}, false},
			"sub ^= repo:example/": {[]string{"repo:example/"}, true},
			"email":                {nil, false},
			"!act":                 {nil, false},
		} {
			r, err := claims.Parse(text)
			require.NoError(t, err)
			values, beginnings := r.Values()
			assert.Equal(t, want.values, values, text)
			assert.Equal(t, want.beginnings, beginnings, text)
		}
	})
	t.Run("as text in a document", func(t *testing.T) {
		var r claims.Rule
		require.NoError(t, json.Unmarshal([]byte(`"sub ^= repo:example/"`), &r))
		assert.Equal(t, "sub", r.Claim())
		text, err := json.Marshal(r)
		require.NoError(t, err)
		assert.JSONEq(t, `"sub ^= repo:example/"`, string(text))
		_, err = json.Marshal(claims.Rule{})
		assert.ErrorContains(t, err, "zero Rule")
		assert.Error(t, json.Unmarshal([]byte(`"a = "`), &r))
	})
}

// A text that Parse accepts names one rule, and the rule's text names it again.
func FuzzParse(f *testing.F) {
	f.Add("a = b | c")
	f.Add("!a ~= b")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := claims.Parse(text)
		if err != nil {
			return
		}
		if r.String() != text || r.Validate() != nil {
			t.Errorf("%q became %q, valid: %v", text, r, r.Validate())
		}
		if again, err := r.MarshalText(); err != nil || string(again) != text {
			t.Errorf("%q is another rule the second time: %v", text, err)
		}
	})
}
