package routes_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// projects returns a router of net/http with the routes of adaptertest.TestEncodedSlash.
func projects() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /projects/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "project ", r.PathValue("id")) })
	mux.HandleFunc("GET /projects/{id}/keys", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "keys ", r.PathValue("id")) })
	return mux
}

func TestAllowEncodedSlash(t *testing.T) {
	adaptertest.TestEncodedSlash(t, projects())

	t.Run("a router that decodes before it splits is found", func(t *testing.T) {
		err := adaptertest.CheckEncodedSlash(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			decoded := *r.URL
			decoded.RawPath = ""
			r.URL, r.RequestURI = &decoded, decoded.Path
			projects().ServeHTTP(w, r)
		}))
		assert.ErrorContains(t, err, `GET /projects/project%2Fkeys: it answers 200 "keys project", not 200 "project project/keys"`)
	})

	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	t.Run("rows that are not there, or have nothing that could contain a slash", func(t *testing.T) {
		_, err := routes.Table{"GET /orders": valetkey.AnyToken, "GET /x/{id}": valetkey.AnyToken}.Guard(guard, hello, routes.AllowEncodedSlash("GET /orders", "GET /x/{name}"))
		for _, want := range []string{
			`routes: AllowEncodedSlash["GET /orders"]: has no effect: the row has no wildcard`,
			`routes: AllowEncodedSlash["GET /x/{name}"]: the table has no such row`,
		} {
			assert.ErrorContains(t, err, want)
		}
		assert.Len(t, valetkey.ConfigErrors(err), 2)
	})
	t.Run("everything below a path, and a mux", func(t *testing.T) {
		var mux routes.Mux
		mux.HandleFunc("GET /files/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.EscapedPath()) }, valetkey.AnyToken)
		mux.HandleFunc("GET /repos/{path...}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("path")) }, valetkey.AnyToken)
		h, err := mux.Guarded(guard, routes.AllowEncodedSlash("GET /files/"), routes.AllowEncodedSlash("GET /repos/{path...}"), routes.Option{})
		require.NoError(t, err)
		url := serve(t, h)
		assert.Equal(t, "/files/a%2Fb/c", do(t, "GET", url+"/files/a%2Fb/c", "Bearer "+iss.Token()).body)
		assert.Equal(t, "a/b/c", do(t, "GET", url+"/repos/a%2Fb/c", "Bearer "+iss.Token()).body)
		assert.Equal(t, 200, do(t, "GET", url+"/files/a/", "Bearer "+iss.Token()).status)
		assert.Equal(t, 400, do(t, "GET", url+"/files/a%2F", "Bearer "+iss.Token()).status)
		assert.Equal(t, 400, do(t, "GET", url+"/files/..%2Fa", "Bearer "+iss.Token()).status)
	})
}
