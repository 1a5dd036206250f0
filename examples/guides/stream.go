package guides

import (
	"fmt"
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// Stream guards server-sent events that end with the token.
func Stream(verifier valetkey.Verifier) (http.Handler, *middleware.Guard, error) {
	guard, err := middleware.New(middleware.Config{
		Verifier:        verifier,
		CancelWithToken: true, // r.Context() ends when the token expires or is revoked
		Methods:         []middleware.BearerMethod{middleware.WebSocketProtocolPair("access_token")},
	})
	if err != nil {
		return nil, nil, err
	}
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-r.Context().Done():
				return
			case at := <-tick.C:
				fmt.Fprintf(w, "data: %s\n\n", at.Format(time.RFC3339Nano))
				http.NewResponseController(w).Flush()
			}
		}
	}), scopes.All("orders:read")), guard, nil
}
