package valetgin_test

import (
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

func TestEncodedSlash(t *testing.T) {
	router := func(change func(*gin.Engine)) *gin.Engine {
		r := gin.New()
		change(r)
		r.GET("/projects/:id", func(c *gin.Context) { c.String(200, "project %s", c.Param("id")) })
		r.GET("/projects/:id/keys", func(c *gin.Context) { c.String(200, "keys %s", c.Param("id")) })
		return r
	}
	adaptertest.TestEncodedSlash(t, router(func(r *gin.Engine) { r.UseRawPath = true }))
	t.Run("by default, gin decodes a path before it splits it", func(t *testing.T) {
		err := adaptertest.CheckEncodedSlash(t, router(func(*gin.Engine) {}))
		assert.ErrorContains(t, err, `GET /projects/project%2Fkeys: it answers 200 "keys project"`)
	})
}
