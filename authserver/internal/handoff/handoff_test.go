package handoff_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

var key = sync.OnceValue(func() *jose.PrivateKey {
	k, err := jose.GenerateKey("EdDSA", "")
	if err != nil {
		panic(err)
	}
	return k
})

// Whatever a page signs, a message is refused or has one of the responses that the documentation lists, and nothing but an answer to
// an existing challenge is stored.
func FuzzMessage(f *testing.F) {
	f.Add(`{"aud":"https://as.example.com","challenge":"x","exp":1,"jti":"1","sub":"alice","auth_time":1,"scope":"a b"}`, "login-answer+jwt")
	f.Add(`{"aud":["https://as.example.com"],"challenge":null,"exp":1e99,"error":"access_denied"}`, "application/login-challenge+jwt")
	f.Add(`{"aud":{},"scope":["a",1],"acr":[]}`, "")
	f.Fuzz(func(t *testing.T, claims, typ string) {
		records := store.NewMemory(0)
		door := handoff.New(handoff.Config{
			Issuer: "https://as.example.com", Redirect: "https://login.example.com", Keys: []*jose.Key{key().Public()}, UserType: "person",
			ACRs: []string{"pwd"}, Lifetime: time.Minute, Store: records, Logger: quiet,
		})
		mux := http.NewServeMux()
		door.Routes(mux, "/as")
		raw, err := key().Sign(map[string]any{"typ": typ}, []byte(claims))
		if err != nil {
			t.Skip("not a header")
		}
		for _, path := range []string{"/as/login/challenge", "/as/login/answer"} {
			r := httptest.NewRequest("POST", path, strings.NewReader(raw))
			r.Header.Set("Content-Type", "application/jwt")
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			require.Contains(t, []int{400, 404}, w.Code, w.Body.String()) // no challenge exists
			require.Contains(t, w.Body.String(), `"error_description"`)
		}
		for _, kind := range []string{"challenge", "jti"} {
			found, err := records.Find(t.Context(), kind, store.Key{}, "", 1)
			require.NoError(t, err)
			require.Empty(t, found)
		}
	})
}

var quiet = slog.New(slog.DiscardHandler)
