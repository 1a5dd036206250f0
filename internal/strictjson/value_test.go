package strictjson_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// The result of each method for a value; "none" if it is not of its kind.
func TestValue(t *testing.T) {
	const none = "none"
	for _, c := range []struct {
		value                                  string
		text, strings, number, boolean, others any
	}{
		{``, none, none, none, none, none},
		{`"a"`, "a", none, none, none, none},
		{`""`, "", none, none, none, none},
		{`"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`, "\"\\/\b\f\n\r\té\U0001F600", none, none, none, none},
		{`["a","\u0062"]`, none, []string{"a", "b"}, none, none, 2},
		{`[]`, none, []string{}, none, none, 0},
		{`["a",1]`, none, none, none, none, 2},
		{`[["a"]]`, none, none, none, none, 1},
		{`[ 1 , {"a":[2]} ]`, none, none, none, none, 2},
		{`1`, none, none, 1.0, none, none},
		{`-1.5e3`, none, none, -1500.0, none, none},
		{`0`, none, none, 0.0, none, none},
		{`1e400`, none, none, none, none, none},
		{`-1e400`, none, none, none, none, none},
		{`1e-400`, none, none, 0.0, none, none},
		{`9223372036854775808`, none, none, 9223372036854775808.0, none, none},
		{`true`, none, none, none, true, none},
		{`false`, none, none, none, false, none},
		{`null`, none, none, none, none, "null"},
		{`{}`, none, none, none, none, "object"},
		// What cannot come from Object.
		{`"`, none, none, none, none, none},
		{`"a" `, none, none, none, none, none},
		{`"a"b"`, none, none, none, none, none},
		{`"\ud800"`, none, none, none, none, none},
		{`[`, none, none, none, none, none},
		{`["a"`, none, none, none, none, none},
		{`["a"]]`, none, none, none, none, none},
		{`01`, none, none, none, none, none},
		{`0x1`, none, none, none, none, none},
		{`1_0`, none, none, none, none, none},
		{`inf`, none, none, none, none, none},
		{`NaN`, none, none, none, none, none},
		{` 1`, none, none, none, none, none},
		{`True`, none, none, none, none, none},
	} {
		t.Run(c.value, func(t *testing.T) {
			v := strictjson.Value(c.value)
			answer := func(x any, ok bool) any {
				if !ok {
					return none
				}
				return x
			}
			text, ok := v.Text()
			require.Equal(t, c.text, answer(text, ok))
			view, ok := v.View()
			require.Equal(t, c.text, answer(view, ok))
			list, ok := v.Strings()
			require.Equal(t, c.strings, answer(list, ok))
			number, ok := v.Number()
			require.Equal(t, c.number, answer(number, ok))
			boolean, ok := v.Bool()
			require.Equal(t, c.boolean, answer(boolean, ok))
			elements, ok := v.Elements()
			switch {
			case v.IsNull():
				require.Equal(t, c.others, "null")
			case v.IsObject():
				require.Equal(t, c.others, "object")
			default:
				require.Equal(t, c.others, answer(len(elements), ok))
			}
		})
	}
}

func TestTextDoesNotShareMemory(t *testing.T) {
	v := strictjson.Value(`"abc"`)
	text, _ := v.Text()
	view, _ := v.View()
	v[1] = 'X'
	require.Equal(t, "abc", text)
	require.Equal(t, "Xbc", view)
}

func TestIsEmpty(t *testing.T) {
	for text, empty := range map[string]bool{
		`null`: true, `""`: true, `[]`: true, "[ \n]": true,
		`" "`: false, `"a"`: false, `0`: false, `false`: false, `{}`: false, `[1]`: false, `[""]`: false, `[[]]`: false,
	} {
		require.Equal(t, empty, strictjson.Value(text).IsEmpty(), text)
	}
	require.True(t, strictjson.Value(nil).IsEmpty())
}

func TestElementsAreTheValues(t *testing.T) {
	elements, ok := strictjson.Value(`[ 1 , "a" , [ ] ,{"b":2}]`).Elements()
	require.True(t, ok)
	require.Equal(t, []strictjson.Value{strictjson.Value(`1`), strictjson.Value(`"a"`), strictjson.Value(`[ ]`), strictjson.Value(`{"b":2}`)}, elements)
}
