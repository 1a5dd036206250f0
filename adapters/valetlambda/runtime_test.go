package valetlambda_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetlambda"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestMain is the function of TestInTheRuntimeOfLambda if the environment asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") == "" {
		os.Exit(m.Run())
	}
	keys, err := jwks.New(jwks.Config{Issuer: os.Getenv("TEST_ISSUER"), Audience: []string{valetkeytest.DefaultAudience}, JWKS: []byte(os.Getenv("TEST_JWKS"))})
	if err != nil {
		panic(err)
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys})
	if err != nil {
		panic(err)
	}
	decider, err := table.Decider(guard)
	if err != nil {
		panic(err)
	}
	authorizer, err := valetlambda.New(valetlambda.Config{Decider: decider, Kind: valetlambda.REST})
	if err != nil {
		panic(err)
	}
	lambda.Start(authorizer)
}

// TestInTheRuntimeOfLambda runs an authorizer as a function, with the runtime interface of Lambda in front of it.
func TestInTheRuntimeOfLambda(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	type result struct{ id, kind, body string }
	asked, answered := make(chan []byte), make(chan result)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case payload := <-asked:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "r1")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:authorizer")
			w.Write(payload)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{kind}", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		answered <- result{r.PathValue("id"), r.PathValue("kind"), string(body)}
	})
	runtime := httptest.NewServer(mux)
	t.Cleanup(runtime.Close)

	self, err := os.Executable()
	require.NoError(t, err)
	function := exec.CommandContext(t.Context(), self)
	function.Env = append(os.Environ(), "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(runtime.URL, "http://"), "TEST_ISSUER="+iss.URL, "TEST_JWKS="+string(iss.JWKS()))
	require.NoError(t, function.Start())
	t.Cleanup(func() {
		function.Process.Kill()
		function.Wait()
	})

	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name    string
		payload []byte
		kind    string
		field   string // of the body
		want    string
	}{
		{"no token", event(t, valetlambda.REST, get("/orders")), "error", "errorMessage", "Unauthorized"},
		{"another event", []byte(`{"type":"REQUEST","version":"2.0"}`), "error", "errorMessage",
			"valetlambda: the event is that of an HTTP API with payload format 2.0, but Kind is rest"},
		{"too little scope", event(t, valetlambda.REST, get("/admin/", bearer)), "response", "principalId", "anonymous"},
		{"a good token", event(t, valetlambda.REST, get("/orders", bearer)), "response", "principalId", "alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked <- c.payload
			got := <-answered
			assert.Equal(t, "r1", got.id)
			assert.Equal(t, c.kind, got.kind, got.body)
			var body map[string]any
			require.NoError(t, json.Unmarshal([]byte(got.body), &body))
			assert.Equal(t, c.want, body[c.field])
		})
	}
}
