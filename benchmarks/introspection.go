package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
)

// introspection asks what an opaque token costs: never seen, seen, and never seen by 64 requests at a time.
func introspection(b *bench) error {
	t := b.table("introspection", "Introspection (RFC 7662) over loopback",
		"The endpoint answers at once; its own work is part of every call. The ratio is to a plain POST of the same form to it, over kept "+
			"connections, by as many callers. Warm are 64 tokens that were seen before. \"64 callers\" is the machine's time a call.",
		"candidate", "callers")
	var asked atomic.Int64
	addr, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if err := r.ParseForm(); err != nil || !strings.HasPrefix(r.PostForm.Get("token"), "opaque-") {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":true,"iss":%q,"aud":%q,"sub":"alice","client_id":"app","scope":%q,"exp":%d}`,
			issuerURL, audience, scope, time.Now().Add(time.Hour).Unix())
	}))
	if err != nil {
		return err
	}
	defer end()
	endpoint := "http://" + addr + "/introspect"
	v, err := introspect.New(introspect.Config{
		URL: endpoint, Issuer: issuerURL, Audience: []string{audience}, Auth: introspect.BasicAuth("api", "secret"), CacheTTL: time.Hour,
	})
	if err != nil {
		return err
	}
	defer v.Close()
	g, err := guardWith(v, middleware.Cache{MaxAge: time.Hour})
	if err != nil {
		return err
	}
	const callers = 64
	opaque := make([]*token, 64*callers)
	for i := range opaque {
		opaque[i] = newToken(fmt.Sprintf("opaque-%032d", i))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	post := func(t *token) error {
		form := url.Values{"token": {t.raw}}.Encode()
		r, err := http.NewRequest("POST", endpoint, strings.NewReader(form))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("api", "secret")
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	verify := func(t *token) error { _, err := v.Verify(context.Background(), t.raw); return err }

	for _, n := range []int{1, callers} {
		cold := g.cold(ours + ", guard, cold")
		cold.workers = n
		results, err := race(b.budget, opaque, &entrant{name: "plain POST", do: post, workers: n},
			&entrant{name: ours + ", verifier, cold", do: verify, workers: n}, cold)
		if err != nil {
			return err
		}
		for _, r := range results {
			t.add(r, fmt.Sprintf(", %d", n), fmt.Sprint(n))
		}
	}

	iss, jwts, err := b.issuer("RS256")
	if err != nil {
		return err
	}
	local, err := iss.guarded(middleware.Cache{})
	if err != nil {
		return err
	}
	// Both in one race, so both kinds of token in one list.
	pairs, turn := jwts[:fewTokens], 0
	warmJWT := local.entrant("a warm JWT")
	warm := &entrant{name: ours + ", guard, warm", do: func(*token) error {
		turn++
		return opaque[turn%fewTokens].serve(g.handler)
	}}
	results, err := race(b.budget/2, pairs, warmJWT, warm)
	if err != nil {
		return err
	}
	b.goalAtMost("a remembered opaque token / a warm JWT", find(results, warm.name).ratio, 1.05)
	t.note += " The last two rows are a separate race: their ratio is to a warm JWT, whose text is three times as long."
	for _, r := range results {
		t.add(r, "", "1")
	}

	calls, err := stampede(g, &asked)
	if err != nil {
		return err
	}
	t.note += fmt.Sprintf(" 1,000 simultaneous requests with one unknown token made %d call.", calls)
	b.count("calls for 1,000 simultaneous requests with one unknown token", float64(calls), 1, "")
	return nil
}

// stampede sends 1,000 simultaneous requests with one token that nobody knows and returns how many calls that makes.
func stampede(g guarded, asked *atomic.Int64) (calls int64, err error) {
	const crowd = 1000
	before := asked.Load()
	var (
		group sync.WaitGroup
		gate  = make(chan struct{})
		errs  = make([]error, crowd)
	)
	for i := range crowd {
		t := newToken("opaque-stampede")
		group.Go(func() {
			<-gate
			errs[i] = t.serve(g.handler)
		})
	}
	close(gate)
	group.Wait()
	return asked.Load() - before, errors.Join(errs...)
}
