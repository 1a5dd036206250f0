package valetkeytest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestRequestCarriesTheToken(t *testing.T) {
	r := valetkeytest.Request("GET", "/orders", "abc")
	assert.Equal(t, []string{"Bearer abc"}, r.Header.Values("Authorization"))
	assert.Empty(t, valetkeytest.Request("GET", "/orders", "").Header)
}
