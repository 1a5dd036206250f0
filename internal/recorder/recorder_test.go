package recorder_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/internal/recorder"
)

func TestResponse(t *testing.T) {
	var r recorder.Response
	assert.Zero(t, r.Status, "nothing is written yet")
	r.Header().Set("A", "b")
	io.WriteString(&r, "text")
	r.WriteHeader(http.StatusTeapot)
	assert.Equal(t, http.StatusOK, r.Status, "the first status counts, and writing has one")
	assert.Equal(t, "b", r.Header().Get("A"))
	assert.Equal(t, "text", r.Body.String())

	var refused recorder.Response
	refused.WriteHeader(http.StatusForbidden)
	io.WriteString(&refused, "no")
	assert.Equal(t, http.StatusForbidden, refused.Status)
}
