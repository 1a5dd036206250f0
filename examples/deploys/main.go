package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
)

func main() {
	// GitHub signs tokens for the jobs of everyone, so a rule must pin the repository.
	cfg, err := issuers.GitHubActions(issuers.Params{
		Issuer:   cmp.Or(os.Getenv("ISSUER"), "https://token.actions.githubusercontent.com"), // another one to try the program
		Audience: []string{"https://deploy.example.com"},
		Rules:    []claims.Rule{claims.Equal("repository_id", "701234567")},
	})
	if err != nil {
		log.Fatal(err)
	}
	keys, err := jwks.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys})
	if err != nil {
		log.Fatal(err)
	}
	deploy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "deploying for %s\n", valetkey.FromContext(r.Context()).Subject())
	})
	http.Handle("POST /deploy", guard.Handler(deploy, valetkey.AllOf{
		claims.Equal("environment", "production"),
		claims.Equal("workflow_ref", "example/orders/.github/workflows/deploy.yml@refs/heads/main"),
	}))
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}
