package flow_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/flow"
)

func TestReadDetails(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":                     `x`,
		"an object":                   `{"type":"a"}`,
		"no element":                  `[]`,
		"null":                        `null`,
		"an element that is null":     `[null]`,
		"a type that is null":         `[{"type":null}]`,
		"a text":                      `["a"]`,
		"no type":                     `[{"amount":1}]`,
		"an empty type":               `[{"type":""}]`,
		"a type that is a number":     `[{"type":1}]`,
		"a type twice":                `[{"type":"a","type":"b"}]`,
		"a type in two letter cases":  `[{"type":"a","Type":"b"}]`,
		"a member twice, further in":  `[{"type":"a","b":{"c":1,"c":2}}]`,
		"two arrays":                  `[{"type":"a"}],[{"type":"b"}]`,
		"a member after the array":    `[{"type":"a"}],"x":[]`,
		"the end of the object in it": `[{"type":"a"}]},{"details":[{"type":"b"}]`,
		"too many":                    "[" + strings.Repeat(`{"type":"a"},`, 20) + `{"type":"a"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := flow.ReadDetails(text)
			assert.Error(t, err)
		})
	}
	none, err := flow.ReadDetails("")
	require.NoError(t, err)
	assert.Empty(t, none)
	got, err := flow.ReadDetails(` [ {"type": "pay", "amount": 12.30, "to": "<b>", "at": {"z": 1, "a": 2}} , {"type":"x"}]`)
	require.NoError(t, err)
	assert.Equal(t, []flow.Detail{
		{Type: "pay", JSON: `{"amount":12.30,"at":{"a":2,"z":1},"to":"\u003cb\u003e","type":"pay"}`}, {Type: "x", JSON: `{"type":"x"}`},
	}, got)
}

// What is read is stored and read again unchanged: users see what the API gets.
func FuzzReadDetails(f *testing.F) {
	f.Add(`[{"type":"pay","amount":1e400,"a":[null,true,{"b":"\u2028<"}]}]`)
	f.Add(`[{"type":"a"}],"x":[]`)
	f.Fuzz(func(t *testing.T, text string) {
		read, err := flow.ReadDetails(text)
		if err != nil || read == nil {
			return
		}
		stored, err := json.Marshal(read)
		require.NoError(t, err)
		var again []flow.Detail
		require.NoError(t, json.Unmarshal(stored, &again))
		require.Equal(t, read, again)
		twice, err := flow.ReadDetails(string(stored))
		require.NoError(t, err)
		require.Equal(t, read, twice)
	})
}
