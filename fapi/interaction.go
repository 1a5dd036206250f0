package fapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

const interactionHeader = "X-Fapi-Interaction-Id"

type interactionKey struct{}

// InteractionID returns a handler that gives each request and its response an ID by which client and server can find it in
// their logs: the UUID that the client sent in x-fapi-interaction-id, or else a new one. Wrap the guard with it, so that
// refusals also have an ID. It logs method, path and ID of each request to logger; nil: nothing is logged.
func InteractionID(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := newUUID()
		if sent := r.Header[interactionHeader]; len(sent) == 1 && isUUID(sent[0]) {
			id = sent[0]
		}
		w.Header().Set(interactionHeader, id)
		ctx := context.WithValue(r.Context(), interactionKey{}, id)
		if logger != nil {
			logger.InfoContext(ctx, "request", "method", r.Method, "path", r.URL.Path, "interaction", id)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// InteractionFrom returns the interaction ID in the context of a request, or "" if there is none.
func InteractionFrom(ctx context.Context) string {
	id, _ := ctx.Value(interactionKey{}).(string)
	return id
}

// isUUID reports whether s is a UUID in text form (RFC 9562, section 4). Nothing else is copied into logs and responses.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return false
		}
	}
	return true
}

// newUUID returns a random UUID (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
