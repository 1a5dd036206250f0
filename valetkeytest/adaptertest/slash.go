package adaptertest

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestEncodedSlash tests that a router splits a path before it decodes it, so that a table with [routes.AllowEncodedSlash] may guard
// it. The router must have two routes, in its own syntax: GET /projects/{id} responds with "project " and the decoded id, and GET
// /projects/{id}/keys responds with "keys " and the decoded id.
func TestEncodedSlash(t *testing.T, router http.Handler) {
	if err := CheckEncodedSlash(t, router); err != nil {
		t.Error(err)
	}
}

// CheckEncodedSlash does the same as [TestEncodedSlash] and returns an error that lists every fault of the router. Use it to show
// that a router is not suitable.
func CheckEncodedSlash(t testing.TB, router http.Handler) error {
	t.Helper()
	iss, quiet := valetkeytest.NewIssuer(t), slog.New(slog.DiscardHandler)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet})
	if err != nil {
		return err
	}
	t.Cleanup(keys.Close)
	if err := keys.Ready(t.Context()); err != nil {
		return err
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys, Now: iss.Now, Logger: quiet})
	if err != nil {
		return err
	}
	// A requirement must see the same value as the handler.
	visible := valetkey.RequirementFunc(func(a valetkey.Access) error {
		if a.Request.PathValue("id") == "hidden/project" {
			return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: valetkey.ReasonScope}
		}
		return nil
	})
	table := routes.Table{"GET /projects/{id}": visible, "GET /projects/{id}/keys": scopes.All("keys")}
	closed, err := table.Guard(guard, router)
	if err != nil {
		return err
	}
	open, err := table.Guard(guard, router, routes.AllowEncodedSlash("GET /projects/{id}"))
	if err != nil {
		return err
	}
	serve := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	strict, allowing := &adapterServer{url: serve(closed)}, &adapterServer{url: serve(open)}
	token, withKeys := iss.Token(), iss.Token(valetkeytest.Scopes("keys"))
	var faults []error
	for _, c := range []struct {
		server      *adapterServer
		path, token string
		status      int
		body        string // if status is 200
	}{
		{strict, "/projects/group%2Fproject", token, 400, ""},
		{strict, "/projects/project", token, 200, "project project"},
		{strict, "/projects/project/keys", withKeys, 200, "keys project"},

		{allowing, "/projects/group%2Fproject", "", 401, ""},
		{allowing, "/projects/group%2Fproject/keys", withKeys, 400, ""}, // the row is not among those that allow it
		{allowing, "/projects/hidden%2Fproject", token, 403, ""},
		{allowing, "/projects/%2Fproject", token, 400, ""},
		{allowing, "/projects/project%2F", token, 400, ""},
		{allowing, "/projects/group%2F%2Fproject", token, 400, ""},
		{allowing, "/projects/group%2F..%2Fproject", token, 400, ""},
		{allowing, "/projects/group%2F%2e%2E", token, 400, ""},
		{allowing, "/projects/%2e%2Fproject", token, 400, ""},
		{allowing, "/projects/project/keys", token, 403, ""},
		{allowing, "/projects/group%2Fproject", token, 200, "project group/project"},
		{allowing, "/projects/group%2fsubgroup%2Fproject", token, 200, "project group/subgroup/project"},
		{allowing, "/projects/project%2Fkeys", token, 200, "project project/keys"}, // not the keys of a project
		{allowing, "/projects/project", token, 200, "project project"},
		{allowing, "/projects/project/keys", withKeys, 200, "keys project"},
	} {
		resp, body, err := c.server.get(c.path, c.token)
		switch {
		case err != nil:
			faults = append(faults, err)
		case resp.StatusCode != c.status || c.status == http.StatusOK && body != c.body:
			faults = append(faults, fmt.Errorf("GET %s: it answers %d %q, not %d %q", c.path, resp.StatusCode, body, c.status, c.body))
		}
	}
	return errors.Join(faults...)
}
