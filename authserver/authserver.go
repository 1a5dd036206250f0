// Package authserver is a small OAuth 2.0 authorization server, for one machine, a demonstration or a team's tests.
//
//	server, err := authserver.New(authserver.Demo())
//	...
//	http.ListenAndServe("127.0.0.1:8888", server)
//
// It issues access tokens for the client credentials grant (RFC 6749, section 4.4): JWTs (RFC 9068) or opaque ones, as
// each API wants. It serves its metadata (RFC 8414), its key set, introspection (RFC 7662) and revocation (RFC 7009).
// Clients authenticate with client_secret_basic or client_secret_post. A resource parameter (RFC 8707) says which API a
// token is for.
//
// Not done: grants that need a user, dynamic registration, sender-constrained tokens, limits on the rate of requests, TLS
// (put it in front), and storage that outlives the process: keys are made at start, and all tokens die with them.
package authserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/engine"
)

// A Server is an [http.Handler] that is safe for concurrent use. It runs no goroutines and needs no closing.
type Server struct {
	issuer  string
	clients []string // their ids, for the log
	engine  *engine.Engine
	logger  *slog.Logger
	mux     *http.ServeMux
}

// New makes a server and its signing keys. The error names every mistake in cfg, which is not kept. New does no I/O.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	s := &Server{issuer: cfg.Issuer, logger: cfg.logger(), mux: http.NewServeMux()}
	for _, c := range cfg.Clients {
		s.clients = append(s.clients, c.ID)
	}
	var err error
	if s.engine, err = engine.New(cfg.compile()); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	keySet, err := s.engine.KeySet()
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	about, err := json.Marshal(describe(cfg))
	if err != nil {
		return nil, fmt.Errorf("authserver: write the metadata: %w", err)
	}

	path := issuerPath(cfg.Issuer)
	for _, endpoint := range []string{engine.TokenPath, engine.IntrospectPath, engine.RevokePath} {
		s.mux.Handle("POST "+path+endpoint, http.StripPrefix(path, http.HandlerFunc(s.answer)))
	}
	s.mux.Handle("GET "+path+keySetPath, document(keySet))
	for _, p := range wellKnown(path) {
		s.mux.Handle("GET "+p, document(about))
	}
	return s, nil
}

// Issuer returns the issuer identifier, as configured.
func (s *Server) Issuer() string { return s.issuer }

// ServeHTTP serves the endpoints at the path of the issuer, and the metadata also at the root.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// answer serves the endpoints that clients authenticate to.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	// RFC 6749, section 5.1.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")

	r, err := readRequest(w, r)
	var body []byte
	if err == nil {
		body, err = s.engine.Answer(r)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if len(body) > 0 { // a revocation has none
		w.Header().Set("Content-Type", "application/json")
	}
	w.Write(body)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *engine.Refusal
	if errors.As(err, &refusal) {
		// What the client sent is logged only where it is nothing secret: people mistake a secret for an id.
		client := r.PostForm.Get("client_id")
		if !slices.Contains(s.clients, client) {
			client = "unknown"
		}
		s.logger.InfoContext(r.Context(), "request refused", "path", r.URL.Path, "client", client, "error", refusal.Code)
	} else {
		s.logger.ErrorContext(r.Context(), "request not answered", "path", r.URL.Path, "error", err)
		refusal = &engine.Refusal{Status: http.StatusInternalServerError, Code: "server_error", Description: "the server is in trouble, not the request"}
	}
	if refusal.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="authorization server"`) // RFC 6749, section 5.2
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(refusal.Status)
	json.NewEncoder(w).Encode(map[string]string{"error": refusal.Code, "error_description": refusal.Description})
}

// document serves JSON that never changes, and may be remembered for a few minutes.
func document(body []byte) http.Handler {
	etag := fmt.Sprintf(`"%x"`, sha256.Sum256(body))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}

// issuerPath returns the path of an issuer without a slash at its end.
func issuerPath(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return "" // not after validate
	}
	return strings.TrimSuffix(u.Path, "/")
}
