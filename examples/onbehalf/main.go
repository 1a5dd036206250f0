package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/scopes"
)

// Each process is one service of the shop: NAME is gateway, orders or stock. It answers itself, or asks the service NEXT at NEXT_URL.
var (
	name, issuer  = os.Getenv("NAME"), os.Getenv("ISSUER")
	next, nextURL = os.Getenv("NEXT"), os.Getenv("NEXT_URL")
)

func audienceOf(service string) string { return "https://" + service + ".example.com/" }

func main() {
	audit, err := middleware.Audit(slog.NewJSONHandler(os.Stdout, nil), middleware.AuditOptions{Grants: 1})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(middleware.Config{
		Issuer:   issuer,
		Audience: []string{audienceOf(name)},
		OnBehalf: true,
		Observer: audit,
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := http.HandlerFunc(answer)
	if next != "" {
		handler = askNext(guard)
	}
	http.Handle("GET /items/{id}", guard.Handler(handler, scopes.All(name+":read")))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

func answer(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "item %s for %s\n", r.PathValue("id"), valetkey.FromContext(r.Context()).Subject())
}

func askNext(guard *middleware.Guard) http.HandlerFunc {
	auth := introspect.BasicAuth(name, os.Getenv("SECRET"))
	own, err := onbehalf.New(onbehalf.Config{Issuer: issuer, Auth: auth, Dialect: onbehalf.ClientCredentials, Scope: []string{name + ":read"}})
	if err != nil {
		log.Fatal(err)
	}
	forUser, err := onbehalf.New(onbehalf.Config{
		Issuer:        issuer,
		Auth:          auth,
		Resource:      []string{audienceOf(next)},
		Scope:         []string{next + ":read"},
		ActorToken:    own.Text, // the next service learns that this one acts
		InputAudience: []string{audienceOf(name)},
		Targets:       []string{nextURL},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: forUser.Transport(nil)}
	return func(w http.ResponseWriter, r *http.Request) {
		call, err := http.NewRequestWithContext(r.Context(), "GET", nextURL+r.URL.EscapedPath(), nil)
		if err != nil {
			http.Error(w, "bad path", http.StatusBadRequest)
			return
		}
		response, err := client.Do(call)
		if err == nil {
			defer response.Body.Close()
			err = onbehalf.ChallengeOf(response)
		}
		if err != nil {
			onbehalf.WriteError(w, r, guard, err)
			return
		}
		w.WriteHeader(response.StatusCode)
		io.Copy(w, response.Body)
	}
}
