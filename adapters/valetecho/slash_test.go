package valetecho_test

import (
	"net/url"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

func TestEncodedSlash(t *testing.T) {
	respond := func(kind string) echo.HandlerFunc {
		return func(c *echo.Context) error {
			id, err := url.PathUnescape(c.Param("id")) // echo does not decode it
			if err != nil {
				return err
			}
			return c.String(200, kind+" "+id)
		}
	}
	router := echo.New()
	router.GET("/projects/:id", respond("project"))
	router.GET("/projects/:id/keys", respond("keys"))
	adaptertest.TestEncodedSlash(t, router)
}
