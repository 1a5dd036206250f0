package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/valetkey/valetkey/middleware"
)

// start asks what the construction of a guard and its first request cost, beside the one fetch that they need.
func start(b *bench) error {
	t := b.table("start", "From nothing to the first answer",
		fmt.Sprintf("A verifier and a guard are made, and the first request, with an ES256 token, is served: the key set is fetched from a server on loopback by "+
			"its URL, over a separate connection. The ratio is to that fetch alone, by net/http, with the body read. The server answers at once, or after %v "+
			"as one that is some way off.", slowly),
		"what")
	iss, tokens, err := b.issuer("ES256")
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		wait time.Duration
	}{{"", 0}, {fmt.Sprintf(", issuer %v away", slowly), slowly}} {
		addr, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(c.wait)
			w.Header().Set("Content-Type", "application/json")
			w.Write(keys(iss))
		}))
		if err != nil {
			return err
		}
		defer end()
		url := "http://" + addr + "/jwks"
		fetch := &entrant{name: "the fetch alone" + c.name, do: func(*token) error {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(url)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		}}
		first := &entrant{name: ours + ": New, New, first request" + c.name, do: func(t *token) error {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			v, err := verifierAt(url, transport)
			if err != nil {
				return err
			}
			defer v.Close()
			g, err := guardWith(v, middleware.Cache{})
			if err != nil {
				return err
			}
			return t.serve(g.handler)
		}}
		built := &entrant{name: ours + ": New and New, no request" + c.name, do: func(*token) error {
			v, err := verifierAt(url, http.DefaultTransport)
			if err != nil {
				return err
			}
			defer v.Close()
			_, err = guardWith(v, middleware.Cache{})
			return err
		}}
		results, err := race(b.budget/3, tokens, fetch, first, built)
		if err != nil {
			return err
		}
		for _, r := range results {
			t.add(r, "")
		}
		if c.wait > 0 { // beside it, the verification and the guard must not count
			b.goalAtMost("construction and first request / one fetch"+c.name, results[1].ratio, 1.05)
		}
	}
	return nil
}
