package ratelog_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/internal/ratelog"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit ratelog.Limit
		assert.Equal(t, 1, limit.Permit())
		assert.Zero(t, limit.Permit())
		time.Sleep(time.Minute - 1)
		assert.Zero(t, limit.Permit())
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 3, limit.Permit(), "with those since the last line")
		assert.Zero(t, limit.Permit())
	})
}
