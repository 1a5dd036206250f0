// Package engine decides about the requests of the protocol: authorization, tokens, introspection, revocation, pushed requests and
// devices. It consists of functions over the store:
//
//	request -> validated request -> interaction -> decision -> response
//
// An interaction is a value that the server gets from [Engine.Authorize] and shows to the user; [Engine.Finish] continues with the
// decision. The responses for browsers are values, too ([flow.Step]), which the server carries out. The engine calls no page.
package engine

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/fetch"
)

// An Engine serves the protocol endpoints. It is safe for concurrent use. It runs goroutines only while it fetches the key sets
// of clients and trusted issuers.
type Engine struct {
	cfg     Config
	keySets keySets
	issuers keySets // of Config.Issuers

	grantTypes []string            // that are offered
	redeemers  map[string]redeemer // by grant type

	failures *login.Limiter
	pushes   *login.Limiter

	// polls counts the requests of waiting devices, so that polling writes nothing. It has one key per device, in a bounded
	// table of this process. When the table is full, a new device may be told once to slow down without need.
	polls *login.Limiter
}

// New returns an Engine. The error lists every mistake in cfg.
func New(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	cfg.setDefaults()
	e := &Engine{cfg: cfg, keySets: newKeySets(fetch.Client{HTTP: cfg.KeySets}), issuers: newKeySets(fetch.Client{})}
	var errs [3]error
	e.failures, errs[0] = login.NewLimiter(cfg.Failures, 0)
	e.pushes, errs[1] = login.NewLimiter(cfg.Pushes, 0)
	e.polls, errs[2] = login.NewLimiter(login.Rate{Burst: 1, Every: pollEvery*time.Second - pollSlack}, 0)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("engine: Failures, Pushes: %w", err)
	}
	e.offer()
	e.warn()
	return e, nil
}

// Routes registers the endpoints for clients, below the path of the issuer.
func (e *Engine) Routes(mux *http.ServeMux) {
	path, p := e.cfg.path(), e.cfg.Paths
	mux.HandleFunc("POST "+path+p.Token, e.Token)
	mux.HandleFunc("POST "+path+p.PAR, e.PAR)
	mux.HandleFunc("POST "+path+p.Device, e.DeviceAuthorization)
	mux.HandleFunc("POST "+path+p.Introspect, e.Introspect)
	mux.HandleFunc("POST "+path+p.Revoke, e.Revoke)
}
