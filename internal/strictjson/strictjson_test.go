package strictjson_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/strictjson"
)

func nested(open, end string, depth int) string {
	return strings.Repeat(open, depth) + strings.Repeat(end, depth)
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestObjectRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, mistake string }{
		"nothing":                             {"", "an object is expected (byte 0)"},
		"space only":                          {" ", "an object is expected (byte 1)"},
		"an array":                            {`[]`, "an object is expected (byte 0)"},
		"a string":                            {`"a"`, "an object is expected (byte 0)"},
		"a number":                            {`1`, "an object is expected (byte 0)"},
		"null":                                {`null`, "an object is expected (byte 0)"},
		"a second object":                     {`{}{}`, "nothing may follow the object (byte 2)"},
		"a letter after the object":           {`{} x`, "nothing may follow the object (byte 3)"},
		"a NUL after the object":              {"{}\x00", "nothing may follow the object (byte 2)"},
		"a form feed as space":                {"{\f}", "a member name is expected (byte 1)"},
		"a no-break space":                    {"{\u00a0}", "a member name is expected (byte 1)"},
		"an object without end":               {`{`, "a member name is expected (byte 1)"},
		"an object without end after a name":  {`{"a"`, "':' is expected (byte 4)"},
		"an object without end after ':'":     {`{"a":`, "a value is expected (byte 5)"},
		"an object without end after a value": {`{"a":1`, "',' or '}' is expected (byte 6)"},
		"an object without end after ','":     {`{"a":1,`, "a member name is expected (byte 7)"},
		"a comma at the end":                  {`{"a":1,}`, "a member name is expected (byte 7)"},
		"a comma at the start":                {`{,"a":1}`, "a member name is expected (byte 1)"},
		"no comma":                            {`{"a":1 "b":2}`, "',' or '}' is expected (byte 7)"},
		"no colon":                            {`{"a" 1}`, "':' is expected (byte 5)"},
		"a name without quotes":               {`{a:1}`, "a member name is expected (byte 1)"},
		"a name in single quotes":             {`{'a':1}`, "a member name is expected (byte 1)"},
		"a name that is a number":             {`{1:1}`, "a member name is expected (byte 1)"},
		"no value":                            {`{"a":}`, "a value is expected (byte 5)"},
		"a comment":                           {`{/**/"a":1}`, "a member name is expected (byte 1)"},
		"a word that is not a literal":        {`{"a":nul}`, "a value is expected (byte 5)"},
		"a part of true":                      {`{"a":tru}`, "a value is expected (byte 5)"},
		"a part of false":                     {`{"a":falsE}`, "a value is expected (byte 5)"},
		"a literal in capitals":               {`{"a":True}`, "a value is expected (byte 5)"},
		"NaN":                                 {`{"a":NaN}`, "a value is expected (byte 5)"},
		"an array without end":                {`{"a":[1`, "',' or ']' is expected (byte 7)"},
		"an array with a comma at the end":    {`{"a":[1,]}`, "a value is expected (byte 8)"},
		"an array with a comma at the start":  {`{"a":[,1]}`, "a value is expected (byte 6)"},
		"an array without comma":              {`{"a":[1 2]}`, "',' or ']' is expected (byte 8)"},
		"an array closed as an object":        {`{"a":[1}}`, "',' or ']' is expected (byte 7)"},

		"a number with a plus":             {`{"a":+1}`, "a value is expected (byte 5)"},
		"a number with a zero before it":   {`{"a":01}`, "',' or '}' is expected (byte 6)"},
		"a negative one with a zero":       {`{"a":-01}`, "',' or '}' is expected (byte 7)"},
		"a minus alone":                    {`{"a":-}`, "a value is expected (byte 6)"},
		"a point without digits after it":  {`{"a":1.}`, "a digit is expected (byte 7)"},
		"a point without digits before it": {`{"a":.5}`, "a value is expected (byte 5)"},
		"an exponent without digits":       {`{"a":1e}`, "a digit is expected (byte 7)"},
		"an exponent with a sign only":     {`{"a":1e+}`, "a digit is expected (byte 8)"},
		"a hexadecimal number":             {`{"a":0x10}`, "',' or '}' is expected (byte 6)"},
		"a number with an underscore":      {`{"a":1_000}`, "',' or '}' is expected (byte 6)"},
		"Infinity":                         {`{"a":-Infinity}`, "a value is expected (byte 6)"},

		"a string without end":              {`{"a":"b`, "a string has no end (byte 7)"},
		"a string that ends in a backslash": {`{"a":"b\`, "a string has no end (byte 8)"},
		"a string that ends in an escape":   {`{"a":"b\"`, "a string has no end (byte 9)"},
		"a line break in a string":          {"{\"a\":\"\n\"}", "a string has a control character (byte 6)"},
		"a tab in a string":                 {"{\"a\":\"\t\"}", "a string has a control character (byte 6)"},
		"a NUL in a name":                   {"{\"\x00\":1}", "a string has a control character (byte 2)"},
		"the last control character":        {"{\"a\":\"\x1f\"}", "a string has a control character (byte 6)"},
		"an unknown escape":                 {`{"a":"\x41"}`, "a string has an escape that stands for nothing (byte 10)"},
		"an invalid escape of a quote":      {`{"a":"\'"}`, "a string has an escape that stands for nothing (byte 8)"},
		"an escape with three digits":       {`{"a":"\u004"}`, "a string has an escape that stands for nothing (byte 11)"},
		"an escape without digits":          {`{"a":"\u"}`, "a string has an escape that stands for nothing (byte 8)"},
		"an escape that is not hexadecimal": {`{"a":"\u00g0"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the character before 0 in one":     {`{"a":"\u00/0"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the character after 9 in one":      {`{"a":"\u00:0"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the character before A in one":     {`{"a":"\u00@0"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the character after F in one":      {`{"a":"\u00G0"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the character before a in one":     {"{\"a\":\"\\u00`0\"}", "a string has an escape that stands for nothing (byte 12)"},
		"an escape with a capital U":        {`{"a":"\U0041"}`, "a string has an escape that stands for nothing (byte 12)"},
		"a high surrogate alone":            {`{"a":"\ud800"}`, "a string has an escape that stands for nothing (byte 12)"},
		"a high surrogate before a letter":  {`{"a":"\ud800x"}`, "a string has an escape that stands for nothing (byte 13)"},
		"a high surrogate before an escape": {`{"a":"\ud800\ndc00"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a high one before digits only":     {`{"a":"\ud800xudc00"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a high one before the text's end":  {`{"a":"\ud800\udc"}`, "a string has an escape that stands for nothing (byte 16)"},
		"a high one before U+E000":          {`{"a":"\ud800\ue000"}`, "a string has an escape that stands for nothing (byte 18)"},
		"the last high surrogate alone":     {`{"a":"\udbff"}`, "a string has an escape that stands for nothing (byte 12)"},
		"the last low surrogate alone":      {`{"a":"\udfff"}`, "a string has an escape that stands for nothing (byte 12)"},
		"two high surrogates":               {`{"a":"\ud800\ud800"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a high one before no surrogate":    {`{"a":"\ud800\u0041"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a high one before bad digits":      {`{"a":"\ud800\udcgg"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a low surrogate alone":             {`{"a":"\udc00"}`, "a string has an escape that stands for nothing (byte 12)"},
		"two low surrogates":                {`{"a":"\udc00\udc00"}`, "a string has an escape that stands for nothing (byte 18)"},
		"surrogates in the wrong order":     {`{"a":"\udc00\ud800"}`, "a string has an escape that stands for nothing (byte 18)"},
		"a lone surrogate in a name":        {`{"\ud800":1}`, "a string has an escape that stands for nothing (byte 8)"},

		"a name that is not UTF-8":      {"{\"\xff\":1}", "a string is not UTF-8 (byte 3)"},
		"a string that is not UTF-8":    {"{\"a\":\"\xc3\"}", "a string is not UTF-8 (byte 7)"},
		"a byte that only continues":    {"{\"a\":\"\x80\"}", "a string is not UTF-8 (byte 7)"},
		"an overlong form":              {"{\"a\":\"\xc0\xaf\"}", "a string is not UTF-8 (byte 8)"},
		"a surrogate in UTF-8":          {"{\"a\":\"\xed\xa0\x80\"}", "a string is not UTF-8 (byte 9)"},
		"beyond Unicode":                {"{\"a\":\"\xf4\x90\x80\x80\"}", "a string is not UTF-8 (byte 10)"},
		"not UTF-8 within an array":     {"{\"a\":[{\"b\":\"\xff\"}]}", "a string is not UTF-8 (byte 13)"},
		"not UTF-8 outside of a string": {"{\"a\":1\xff}", "',' or '}' is expected (byte 6)"},
		"a byte order mark":             {"\xef\xbb\xbf{}", "an object is expected (byte 0)"},
		"UTF-16":                        {"{\x00}\x00", "a member name is expected (byte 1)"},

		"a member twice":                       {`{"exp":1,"exp":2}`, "an object has a member twice (byte 14)"},
		"a member twice with the same value":   {`{"exp":1,"exp":1}`, "an object has a member twice (byte 14)"},
		"a member twice, once in an escape":    {`{"alg":1,"\u0061lg":2}`, "an object has a member twice (byte 19)"},
		"an empty name twice":                  {`{"":1,"":2}`, "an object has a member twice (byte 8)"},
		"a member twice, far apart":            {strings.Replace(manyMembers(200), `"m199"`, `"m0"`, 1), "an object has a member twice (byte 1974)"},
		"a member twice among many":            {strings.Replace(manyMembers(200), `"m199"`, `"m100"`, 1), "an object has a member twice (byte 1976)"},
		"a member twice, the last few":         {strings.Replace(manyMembers(16), `"m15"`, `"m0"`, 1), "an object has a member twice (byte 120)"},
		"a member twice, the first of many":    {strings.Replace(manyMembers(17), `"m16"`, `"m0"`, 1), "an object has a member twice (byte 129)"},
		"a member twice within an object":      {`{"cnf":{"jkt":"a","jkt":"b"}}`, "an object has a member twice (byte 23)"},
		"a member twice within an array":       {`{"a":[1,{"b":1,"b":2}]}`, "an object has a member twice (byte 18)"},
		"a member twice around an object":      {`{"a":1,"b":{"a":1},"a":2}`, "an object has a member twice (byte 22)"},
		"objects nested too deep":              {nested(`{"a":`, `}`, strictjson.MaxDepth)[:5*strictjson.MaxDepth] + `{}` + strings.Repeat(`}`, strictjson.MaxDepth), "nested too deep (byte 161)"},
		"objects too deep within an array":     {`{"a":` + strings.Repeat(`[`, strictjson.MaxDepth-1) + `{}` + strings.Repeat(`]`, strictjson.MaxDepth-1) + `}`, "nested too deep (byte 37)"},
		"arrays nested too deep":               {`{"a":` + nested(`[`, `]`, strictjson.MaxDepth) + `}`, "nested too deep (byte 37)"},
		"10,000 objects within each other":     {strings.Repeat(`{"a":`, 10_000), "nested too deep (byte 161)"},
		"10,000 arrays within each other":      {`{"a":` + strings.Repeat(`[`, 10_000), "nested too deep (byte 37)"},
		"one member too many":                  {manyMembers(strictjson.MaxMembers + 1), "an object has too many members (byte 10788)"},
		"one member too many within an object": {`{"a":` + manyMembers(strictjson.MaxMembers+1) + `}`, "an object has too many members (byte 10793)"},
	} {
		t.Run(name, func(t *testing.T) {
			data := []byte(c.text)
			data = data[:len(data):len(data)]
			require.EqualError(t, strictjson.Object(data, nil), "JSON: "+c.mistake)
			require.EqualError(t, strictjson.Object(data, func(string, strictjson.Value) error { return nil }), "JSON: "+c.mistake)
		})
	}
}

func TestObjectTellsItsMembersInOrder(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no member":                         {` { } `, ``},
		"all kinds of values":               {`{"a":1,"b":"x","c":[1, 2],"d":{"e":null},"f":true,"g":false}`, `a=1 b="x" c=[1, 2] d={"e":null} f=true g=false`},
		"null":                              {`{"a":null,"b":[null],"c":{"d":null},"e":"null"}`, `b=[null] c={"d":null} e="null"`},
		"space wherever it may stand":       {"\r\n{\t\"a\" : 1 ,\n\"b\":[ ] , \"c\" : { } }\n", `a=1 b=[] c={}`},
		"a name with escapes":               {`{"\u0061\n\"\ud83d\ude00":1}`, "a\n\"\U0001F600=1"},
		"a name beyond ASCII":               {`{"é":1,"e":2}`, `é=1 e=2`},
		"an empty name":                     {`{"":1}`, `=1`},
		"the same name in other objects":    {`{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}`, `a={"a":{"a":1}} b=[{"a":1},{"a":2}]`},
		"names that differ in case":         {`{"Email":1,"email":2,"EMAIL":3}`, `Email=1 email=2 EMAIL=3`},
		"the long s and an s":               {`{"s":1,"\u017f":2}`, "s=1 \u017f=2"},
		"names that only begin alike":       {`{"a":1,"ab":2,"A_":3}`, `a=1 ab=2 A_=3`},
		"numbers of every form":             {`{"a":0,"b":-0,"c":1.50,"d":1e5,"e":-1.5E-07,"f":1E+400}`, `a=0 b=-0 c=1.50 d=1e5 e=-1.5E-07 f=1E+400`},
		"the deepest":                       {nested(`{"a":`, `}`, strictjson.MaxDepth-1)[:5*(strictjson.MaxDepth-1)] + `{}` + strings.Repeat(`}`, strictjson.MaxDepth-1), `a=` + strings.Repeat(`{"a":`, strictjson.MaxDepth-2) + `{}` + strings.Repeat(`}`, strictjson.MaxDepth-2)},
		"the deepest arrays":                {`{"a":` + nested(`[`, `]`, strictjson.MaxDepth-1) + `}`, `a=` + nested(`[`, `]`, strictjson.MaxDepth-1)},
		"space in a name and in a string":   {`{"a b":"c d"}`, `a b="c d"`},
		"escapes at the ends of the ranges": {`{"\u0009\uaf0A\uFa0f":1}`, "\t\uaf0a\ufa0f=1"},
		"an escape of NUL":                  {`{"a\u0000":1}`, "a\x00=1"},
		"escapes around the surrogates":     {`{"\ud7ff\ue000\uffff":1}`, "\ud7ff\ue000\uffff=1"},
		"the first and the last surrogates": {`{"\ud800\udc00\udbff\udfff":1}`, "\U00010000\U0010FFFF=1"},
		"a character beyond the basic ones": {"{\"a\":\"\U0001F600\u2028\"}", "a=\"\U0001F600\u2028\""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := strictjson.Object([]byte(c.text), func(name string, v strictjson.Value) error {
				text := string(v)
				if strings.ContainsAny(c.want, "]}") && strings.Trim(text, " []{}") == "" {
					text = strings.ReplaceAll(text, " ", "")
				}
				got = append(got, name+"="+text)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, c.want, strings.Join(got, " "))
			require.NoError(t, strictjson.Object([]byte(c.text), nil))
		})
	}
}

func TestEntriesAlsoHasThoseThatAreNull(t *testing.T) {
	var got []string
	require.NoError(t, strictjson.Entries([]byte(`{"a":null,"b":1}`), func(name string, v strictjson.Value) error {
		got = append(got, name+"="+string(v))
		return nil
	}))
	require.Equal(t, []string{"a=null", "b=1"}, got)
	for _, text := range []string{`{"a":null,"a":1}`, `{"a":1,"a":null}`, `{"a":null,"A":1}`} { // null or not, a name occurs once
		require.Error(t, strictjson.Object([]byte(text), func(string, strictjson.Value) error { return nil }, "a"), text)
		require.Error(t, strictjson.Entries([]byte(text), func(string, strictjson.Value) error { return nil }, "a"), text)
	}
	require.Nil(t, strictjson.At(strictjson.Value(`{"a":null}`), "a"))
	require.Equal(t, "1", string(strictjson.At(strictjson.Value(`{"a.b":null,"a":{"b":1}}`), "a.b")))
}

// RFC 7519, section 10.1.1: two claims, unless one of them is read here.
func TestNamesInTwoLetterCases(t *testing.T) {
	reads := []string{"exp", "auth_time", "kid", "iss", "x5t#S256", "aud", "azp"}
	for name, text := range map[string]string{
		"two that differ in case":               `{"exp":1,"Exp":2}`,
		"reversed":                              `{"EXP":1,"exp":2}`,
		"only in the first letter of ASCII":     `{"aud":1,"Aud":2}`,
		"only in the last letter of ASCII":      `{"azp":1,"aZp":2}`,
		"neither as it is read":                 `{"EXP":1,"Exp":2}`,
		"in an escape":                          `{"exp":1,"\u0045xp":2}`,
		"the Kelvin sign for k":                 "{\"kid\":1,\"\u212aid\":2}",
		"the long s for s":                      `{"iss":1,"i\u017fs":2}`,
		"far apart":                             strings.Replace(manyMembers(200), `{`, `{"exp":1,"EXP":2,`, 1),
		"among many":                            strings.Replace(strings.Replace(manyMembers(200), `"m199"`, `"exp"`, 1), `"m150"`, `"EXP"`, 1),
		"a name with capitals, in lower case":   `{"x5t#S256":1,"x5t#s256":2}`,
		"a name with a character after Z":       `{"AUTH_TIME":1,"auth_time":2}`,
		"a name with capitals, and with more":   `{"X5T#S256":1,"x5t#S256":2}`,
		"after a nested object with such names": `{"exp":1,"a":{"exp":1,"b":2},"Exp":2}`,
	} {
		t.Run("refused if it is read: "+name, func(t *testing.T) {
			err := strictjson.Object([]byte(text), nil, reads...)
			require.ErrorContains(t, err, "JSON: an object has a member in two letter cases (byte ")
			require.NoError(t, strictjson.Object([]byte(text), nil))
			require.NoError(t, strictjson.Object([]byte(text), nil, "other"))
			require.False(t, strictjson.FoldsApart([]byte(text)))
		})
	}
	for name, text := range map[string]string{
		"a member twice":                      `{"exp":1,"exp":1}`,
		"a member twice, in the other case":   `{"Exp":1,"Exp":1}`,
		"a member twice, with a nested one":   `{"exp":1,"a":{"b":[{}]},"exp":2}`,
		"another member twice":                `{"exp":1,"Email":1,"Email":2}`,
		"a member in three, two of them same": `{"Exp":1,"Exp":2,"exp":3}`,
	} {
		t.Run("the message is true: "+name, func(t *testing.T) {
			require.ErrorContains(t, strictjson.Object([]byte(text), nil, reads...), "JSON: an object has a member twice (byte ")
		})
	}
	t.Run("too many members are not two letter cases", func(t *testing.T) {
		require.EqualError(t, strictjson.Object([]byte(manyMembers(strictjson.MaxMembers+1)), nil, reads...), "JSON: an object has too many members (byte 10788)")
	})
	for name, text := range map[string]string{
		"others":                       `{"exp":1,"Email":1,"email":2}`,
		"one of those names, but once": `{"Exp":1}`,
		"within an object":             `{"exp":1,"a":{"exp":1,"Exp":2}}`,
		"within an array":              `{"exp":1,"a":[{"exp":1,"Exp":2}]}`,
		"across objects":               `{"exp":1,"a":{"Exp":2}}`,
	} {
		t.Run("accepted: "+name, func(t *testing.T) { require.NoError(t, strictjson.Object([]byte(text), nil, reads...)) })
	}
	for name, c := range map[string]struct {
		text  string
		apart bool
	}{
		"within an object":        {`{"a":{"sub":1,"SUB":2}}`, false},
		"within an array":         {`{"a":[1,{"b":1,"B":2}]}`, false},
		"a final sigma and sigma": {`{"σ":1,"ς":2}`, false},
		"across objects":          {`{"a":{"A":{"a":[{"A":1}]}}}`, true},
		"names that begin alike":  {`{"a":1,"Ab":2}`, true},
		"another mistake":         {`{"a":1,"a":2}`, true},
	} {
		t.Run("for encoding/json: "+name, func(t *testing.T) { require.Equal(t, c.apart, strictjson.FoldsApart([]byte(c.text))) })
	}
}

func TestObjectTakesAsManyMembersAsItSays(t *testing.T) {
	count := 0
	err := strictjson.Object([]byte(manyMembers(strictjson.MaxMembers)), func(name string, v strictjson.Value) error {
		require.Equal(t, fmt.Sprintf("m%d", count), name)
		n, ok := v.Number()
		require.True(t, ok)
		require.EqualValues(t, count, n)
		count++
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, strictjson.MaxMembers, count)
}

func TestObjectStopsAtTheErrorOfItsCaller(t *testing.T) {
	enough := errors.New("enough")
	calls := 0
	err := strictjson.Object([]byte(`{"a":1,"b":2,"c":`), func(string, strictjson.Value) error {
		if calls++; calls == 2 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, 2, calls)
}

func TestObjectNamesTheByteOfAMistake(t *testing.T) {
	err := strictjson.Object([]byte(`{"secret":x}`), nil)
	require.EqualError(t, err, "JSON: a value is expected (byte 10)")
	require.EqualError(t, strictjson.Object([]byte(`{"a":`), nil), "JSON: a value is expected (byte 5)")
}

// A name of which no part of the text is left to point to is a separate string: the reader uses its buffer again.
func TestNamesWithEscapesKeepTheirText(t *testing.T) {
	var names []string
	text := []byte(`{"\u0061b":1,"\u0063d":"\u0065f","\u0067h":{"\u0069j":2}}`)
	require.NoError(t, strictjson.Object(text, func(name string, _ strictjson.Value) error { names = append(names, name); return nil }))
	clear(text)
	require.Equal(t, []string{"ab", "cd", "gh"}, names)
}

func TestNamesWithoutEscapesShareMemoryWithTheText(t *testing.T) {
	var names []string
	text := []byte(`{"ab":1,"cd":{"e":2}}`)
	require.NoError(t, strictjson.Object(text, func(name string, _ strictjson.Value) error { names = append(names, name); return nil }))
	copy(text, strings.ToUpper(string(text)))
	require.Equal(t, []string{"AB", "CD"}, names)
}
