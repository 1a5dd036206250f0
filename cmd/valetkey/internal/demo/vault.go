package demo

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// remembered is how long the vault caches an introspection response, and so how long a revoked token can remain accepted.
const remembered = time.Second

// guardVault registers the vault on mux with a guard for opaque tokens, as an application would. The issuer is asked about the
// tokens. The caller must close the returned verifier.
func guardVault(mux *http.ServeMux, issuer, audience string, log *slog.Logger) (*introspect.Verifier, error) {
	opaque, err := introspect.New(introspect.Config{
		Issuer:   issuer,
		Audience: []string{audience},
		Auth:     introspect.BasicAuth(vaultAPI, secret(vaultAPI)),
		CacheTTL: remembered,
		Logger:   log,
	})
	if err != nil {
		return nil, err
	}
	guard, err := middleware.New(middleware.Config{Verifier: opaque, Realm: "vault", Logger: log})
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /vault", guard.Handler(http.HandlerFunc(look), scopes.All("vault:open")))
	return opaque, nil
}

func look(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]string{"opened_by": valetkey.FromContext(r.Context()).Subject()})
}
