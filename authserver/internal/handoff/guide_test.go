package handoff_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/handoff"
)

// The description of a challenge in docs/login.md has every member, and no other.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../../docs/login.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(guide, -1)
	require.Len(t, blocks, 1)
	var said struct {
		handoff.Request
		Expires int64 `json:"expires_at"`
	}
	d := json.NewDecoder(bytes.NewReader(blocks[0][1]))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&said))
	for _, v := range []reflect.Value{reflect.ValueOf(said.Request), reflect.ValueOf(*said.Client), reflect.ValueOf(said)} {
		for i := range v.NumField() {
			assert.False(t, v.Field(i).IsZero(), "the guide lacks %s", v.Type().Field(i).Name)
		}
	}
}
