package valetchi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

func TestEncodedSlash(t *testing.T) {
	respond := func(kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			id, err := url.PathUnescape(chi.URLParam(r, "id")) // chi does not decode it
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			fmt.Fprint(w, kind, " ", id)
		}
	}
	router := chi.NewRouter()
	router.Get("/projects/{id}", respond("project"))
	router.Get("/projects/{id}/keys", respond("keys"))
	adaptertest.TestEncodedSlash(t, router)
}
