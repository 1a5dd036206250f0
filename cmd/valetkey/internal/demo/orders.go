package demo

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// guardOrders registers the orders API on mux with a guard for JWTs, as an application would. The caller must close the returned
// verifier.
func guardOrders(mux *http.ServeMux, issuer, audience string, log *slog.Logger) (*jwks.Verifier, error) {
	keys, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{audience}, Logger: log})
	if err != nil {
		return nil, err
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys, Realm: "orders", Logger: log})
	if err != nil {
		return nil, err
	}
	orders := &orders{all: []order{{ID: 1, Item: "apples", By: "the demonstration"}}}
	mux.Handle("GET /orders", guard.Handler(http.HandlerFunc(orders.list), scopes.All("orders:read")))
	mux.Handle("POST /orders", guard.Handler(http.HandlerFunc(orders.place), scopes.All("orders:write")))
	return keys, nil
}

const (
	maxOrders = 1000
	maxOrder  = 4 << 10 // bytes
)

type orders struct {
	mu  sync.Mutex // guards all
	all []order
}

type order struct {
	ID   int    `json:"id"`
	Item string `json:"item"`
	By   string `json:"by"` // the subject of the token
}

func (o *orders) list(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	all := slices.Clone(o.all)
	o.mu.Unlock()
	answer(w, http.StatusOK, all)
}

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
	answer(w, http.StatusCreated, placed)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
