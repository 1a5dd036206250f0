package fapi_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/statuslist"
	"github.com/valetkey/valetkey/valetkeytest"
)

// transfers makes an API for payments. It is what README shows.
func transfers(issuer string, client *http.Client) http.Handler {
	mux := http.NewServeMux()
	// README
	keys, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{"https://api.example.com"}, Client: client})
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := statuslist.New(statuslist.Config{Verifier: keys, Issuer: issuer, Client: client}) // revoked tokens
	if err != nil {
		log.Fatal(err)
	}
	proofs, err := dpop.New(dpop.Config{}) // replays are remembered; replicas share them with ReplayStore: valetredis
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(middleware.Config{
		Verifier:          verifier,
		DPoP:              proofs,                                             // tokens bound to a key: RFC 9449
		ClientCertificate: middleware.TLSCertificate(),                        // tokens bound to a certificate: RFC 8705
		SenderConstrained: true,                                               // and no others
		Resource:          middleware.Resource{ID: "https://api.example.com"}, // proofs are for URLs of this origin
	})
	if err != nil {
		log.Fatal(err)
	}
	transfer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, _ := rar.Of(valetkey.FromContext(r.Context())) // the requirement has read them, too
		fmt.Fprintf(w, "from %s\n", list[0].Identifier)
	})
	mux.Handle("POST /transfers", guard.Handler(transfer,
		scopes.All("payments"),
		middleware.ACR("phr", "phrh"),                                   // the user logged in with something hard to phish: RFC 9470
		middleware.MaxAge(5*time.Minute),                                // and just now
		rar.Requirement{Type: "payment", Actions: []string{"initiate"}}, // and agreed to it in detail: RFC 9396
	))
	// README
	return mux
}

func TestREADME(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := transfers(iss.URL, iss.Client())
	key := iss.ProofKey("ES256")
	bound, scope, status := valetkeytest.BoundTo(key), valetkeytest.Scopes("payments"), iss.Status(1)
	phr, now := valetkeytest.Claim("acr", "phr"), valetkeytest.Claim("auth_time", iss.Now().Unix())
	detail := valetkeytest.Claim("authorization_details", []any{map[string]any{"type": "payment", "actions": []string{"initiate"}, "identifier": "account 7"}})
	for _, c := range []struct {
		name, code string
		status     int
		options    []valetkeytest.Option
	}{
		{"without a scope", "insufficient_scope", 403, []valetkeytest.Option{bound, phr, now, detail}},
		{"without a login", "insufficient_user_authentication", 401, []valetkeytest.Option{bound, scope, detail}},
		{"without details", "insufficient_scope", 403, []valetkeytest.Option{bound, scope, phr, now}},
		{"bound to another key", "invalid_token", 401, []valetkeytest.Option{valetkeytest.BoundTo(iss.ProofKey("ES256")), scope, phr, now, detail}},
		{"with everything", "", 200, []valetkeytest.Option{bound, scope, phr, now, detail, status}},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := iss.Token(c.options...)
			r := valetkeytest.Request("POST", "https://api.example.com/transfers", token)
			key.Authorize(r, token)
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if c.code == "" {
				if w.Body.String() != "from account 7\n" {
					t.Errorf("body %q", w.Body)
				}
				return
			}
			if got := valetkeytest.Challenge(t, w.Header(), "DPoP")["error"]; got != c.code {
				t.Errorf("error %q", got)
			}
		})
	}
}
