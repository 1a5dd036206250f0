package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/signals"
)

// ordersAPI is the orders API with a guard for JWTs, as an application would write it. The guard verifies them with the keys of the
// issuer, and learns from its signals which ones to refuse nevertheless.
type ordersAPI struct {
	keys     *jwks.Verifier
	received *signals.Receiver
	guard    *middleware.Guard
	stop     chan struct{} // closed when the streams must end
}

// newOrdersAPI registers the orders API on mux. Call run to receive signals, and close.
func newOrdersAPI(mux *http.ServeMux, at Place, log *slog.Logger) (_ *ordersAPI, err error) {
	a := &ordersAPI{stop: make(chan struct{})}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.keys, err = jwks.New(jwks.Config{Issuer: at.Issuer, Audience: []string{at.API}, Logger: log}); err != nil {
		return nil, err
	}
	a.received, err = signals.New(signals.Config{
		Transmitter: at.Issuer,
		Delivery:    signals.Poll,
		Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{Auth: introspect.BasicAuth(ordersID, secret(ordersID))}),
		Logger:      log,
	})
	if err != nil {
		return nil, err
	}
	a.guard, err = middleware.New(middleware.Config{
		Verifier:        a.keys,
		CancelWithToken: true, // a stream ends with its token
		Revocations:     middleware.Revocations{Source: a.received},
		Realm:           "orders",
		Logger:          log,
	})
	if err != nil {
		return nil, err
	}
	book := &orders{all: []order{{ID: 1, Item: "apples", By: "the demonstration"}}, changed: make(chan struct{}), stop: a.stop}
	mux.Handle("GET /orders", a.guard.Handler(http.HandlerFunc(book.list), scopes.All("orders:read")))
	mux.Handle("GET /orders/stream", a.guard.Handler(http.HandlerFunc(book.stream), scopes.All("orders:read")))
	mux.Handle("POST /orders", a.guard.Handler(http.HandlerFunc(book.place), scopes.All("orders:write")))
	return a, nil
}

// run receives signals until ctx is done. It then ends the streams, which would delay the shutdown.
func (a *ordersAPI) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { a.received.Run(ctx) })
	running.Go(func() { a.guard.Watch(ctx) })
	<-ctx.Done()
	close(a.stop)
	running.Wait()
}

// ready waits until the guard has the keys and has caught up with the signals.
func (a *ordersAPI) ready(ctx context.Context) error {
	if err := errors.Join(a.keys.Ready(ctx), a.received.Ready(ctx)); err != nil {
		return err
	}
	for a.guard.Status().Revocations.Source.State == valetkey.Down { // it watches the receiver, which is ready
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (a *ordersAPI) close() {
	if a.received != nil {
		a.received.Close()
	}
	if a.keys != nil {
		a.keys.Close()
	}
}

const (
	maxOrders = 1000
	maxOrder  = 4 << 10 // bytes
)

type orders struct {
	mu      sync.Mutex // guards what follows
	all     []order
	changed chan struct{} // closed and replaced when an order is added
	stop    <-chan struct{}
}

type order struct {
	ID   int    `json:"id"`
	Item string `json:"item"`
	By   string `json:"by"` // the subject of the token
}

func (o *orders) list(w http.ResponseWriter, r *http.Request) {
	all, _ := o.from(0)
	answer(w, http.StatusOK, all)
}

// from returns the orders without the first n, and a channel that is closed when there is another one.
func (o *orders) from(n int) ([]order, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all[n:]), o.changed
}

// stream sends each order as a server-sent event, until the token ends or the client leaves. A client of the demonstration may open any
// number of streams; each takes a connection.
func (o *orders) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	for sent := 0; ; {
		more, changed := o.from(sent)
		for _, one := range more {
			text, _ := json.Marshal(one) // cannot fail
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", one.ID, text)
		}
		sent += len(more)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-changed:
		case <-o.stop:
			return
		case <-r.Context().Done():
			if ended, is := errors.AsType[*valetkey.Error](context.Cause(r.Context())); is { // revoked or expired
				fmt.Fprintf(w, "%s%s\n\n", endEvent, ended.Reason.Description())
			}
			return
		}
	}
}

// endEvent is the beginning of the last event of a stream whose token has ended.
const endEvent = "event: end\ndata: "

func (o *orders) place(w http.ResponseWriter, r *http.Request) {
	var placed order
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&placed)
	if err != nil || placed.Item == "" {
		http.Error(w, `an order looks like {"item":"pears"}`, http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.all) == maxOrders {
		http.Error(w, "the book is full", http.StatusInsufficientStorage)
		return
	}
	placed.ID = len(o.all) + 1
	placed.By = valetkey.FromContext(r.Context()).Subject()
	o.all = append(o.all, placed)
	close(o.changed)
	o.changed = make(chan struct{})
	answer(w, http.StatusCreated, placed)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
