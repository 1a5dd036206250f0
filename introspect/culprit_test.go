package introspect_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A poison is what the endpoint does when it is asked about one token.
type poison struct {
	name  string
	serve http.HandlerFunc
}

// answers returns a handler that answers 200 with body, as a good endpoint would.
func answers(body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		fmt.Fprint(w, body)
	}
}

func fails(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

const goodAnswer = `{"active":true,"aud":"` + valetkeytest.DefaultAudience + `"`

// content are the faults within an answer that has arrived.
func content() []poison {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, goodAnswer+"}"+strings.Repeat(" ", 1<<20))
	z.Close()
	return []poison{
		{"an act nested 34 deep", answers(goodAnswer + strings.Repeat(`,"act":{"sub":"x"`, 34) + strings.Repeat("}", 35))},
		{"an answer over the limit", answers(goodAnswer + `,"x":"` + strings.Repeat("x", 1<<20) + `"}`)},
		{"an answer that is not JSON", answers("active")},
		{"an answer that is empty", answers("")},
		{"an answer without active", answers("{}")},
		{"an active that is a string", answers(`{"active":"true"}`)},
		{"an exp that is a string", answers(goodAnswer + `,"exp":"tomorrow"}`)},
		{"a member twice", answers(goodAnswer + `,"active":true}`)},
		{"a compressed answer that is over the limit", answers(packed.String(), "Content-Encoding", "gzip")},
		{"an answer that is cut off", answers(goodAnswer, "Content-Length", "4000")},
	}
}

// endpointFor answers well about all tokens but one.
func endpointFor(culprit string, p http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") == culprit {
			p(w, r)
			return
		}
		answers(goodAnswer+"}")(w, r)
	}
}

func TestOneTokenDoesNotAffectAnother(t *testing.T) {
	poisons := append(content(),
		poison{"400", fails(400)}, poison{"401", fails(401)}, poison{"403", fails(403)}, poison{"404", fails(404)},
		poison{"500", fails(500)}, poison{"503", fails(503)},
		poison{"a page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		poison{"a connection that breaks at once", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		poison{"no answer in time", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		poison{"half an answer in time", func(w http.ResponseWriter, r *http.Request) {
			answers(goodAnswer)(w, r)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		poison{"a token that is not active", answers(`{"active":false}`)},
	)
	const culprit, victim = "culprit", "victim"
	for _, p := range poisons {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
				v := verifierOf(t, iss)
				iss.Introspection.Serve(endpointFor(culprit, p.serve))
				for n := range 40 {
					_, err := v.Verify(t.Context(), culprit)
					require.Error(t, err)
					begun := time.Now()
					_, err = v.Verify(t.Context(), victim)
					require.NoError(t, err, "after %d requests", n+1)
					require.Zero(t, time.Since(begun))
					require.NotEqual(t, valetkey.Down, v.Health()[0].State)
				}
				// Nor if the culprit comes alone, for as long as it likes.
				for range 200 {
					_, err := v.Verify(t.Context(), culprit)
					require.Error(t, err)
					time.Sleep(100 * time.Millisecond)
				}
				_, err := v.Verify(t.Context(), victim)
				require.NoError(t, err)
				// And after an outage, with the culprit in the way of every probe.
				iss.Introspection.Fail(502)
				for n := range 5 {
					_, err := v.Verify(t.Context(), fmt.Sprint("other", n))
					failed(t, err)
				}
				_, err = v.Verify(t.Context(), victim)
				failed(t, err)
				iss.Introspection.Serve(endpointFor(culprit, p.serve))
				time.Sleep(time.Second)
				for range 10 {
					_, err := v.Verify(t.Context(), culprit)
					require.Error(t, err)
				}
				time.Sleep(time.Minute)
				_, err = v.Verify(t.Context(), victim)
				require.NoError(t, err)
			})
		})
	}
}

func TestFaultyAnswersCountAgainstTheirTokenOnly(t *testing.T) {
	for _, p := range content() {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
				v := verifierOf(t, iss)
				iss.Introspection.Serve(p.serve)
				for n := range 20 {
					_, err := v.Verify(t.Context(), fmt.Sprint("token", n))
					failed(t, err)
				}
				assert.Equal(t, 20, iss.Introspection.Hits(), "every token is asked about")
				assert.Zero(t, v.Status().Failures)

				for range 100 { // the same one waits by itself
					_, err := v.Verify(t.Context(), "one")
					failed(t, err)
				}
				assert.Equal(t, 25, iss.Introspection.Hits())
				iss.Introspection.Restore()
				time.Sleep(time.Second)
				_, err := v.Verify(t.Context(), "one")
				refused(t, err, "the token is not active")
			})
		})
	}
}

func TestSignedAnswersAtFaultCountAgainstTheirTokenOnly(t *testing.T) {
	signed := func(cfg *introspect.Config) { cfg.Signed = &introspect.Signed{Algorithm: "ES256"} }
	for _, body := range []string{"", "not.a.jwt", "e30.e30.e30", strings.Repeat("x", 17<<10)} {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss, signed)
			iss.Introspection.Serve(answers(body, "Content-Type", "application/token-introspection+jwt"))
			for n := range 20 {
				_, err := v.Verify(t.Context(), fmt.Sprint("token", n))
				failed(t, err)
			}
			assert.Equal(t, 20, iss.Introspection.Hits())
			assert.Zero(t, v.Status().Failures)
		})
	}
}

func TestWrongSignaturesDelayTheirTokenAndMissingKeysNone(t *testing.T) {
	in := func(name string, f func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory(), valetkeytest.SignWith("RS256"))
				f(t, iss, verifierOf(t, iss, func(cfg *introspect.Config) { cfg.Signed = &introspect.Signed{} }))
			})
		})
	}
	in("a wrong signature", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		answerSigned(iss, iss.Token(signedAnswer(valetkeytest.TamperedSignature())...))
		for range 20 {
			_, err := v.Verify(t.Context(), "one")
			failed(t, err)
		}
		assert.Equal(t, 5, iss.Introspection.Hits())
	})
	in("keys out of reach", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		answerSigned(iss, iss.Token(signedAnswer()...))
		iss.KeySet.Down()
		for n := range 20 {
			_, err := v.Verify(t.Context(), "one")
			failed(t, err)
			_, err = v.Verify(t.Context(), fmt.Sprint("token", n))
			failed(t, err)
		}
		assert.Equal(t, 40, iss.Introspection.Hits())
		assert.Zero(t, v.Status().Failures)
	})
}

func TestCountsOfFailures(t *testing.T) {
	in := func(name string, f func(t *testing.T, iss *valetkeytest.Issuer)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, valetkeytest.NewIssuer(t, valetkeytest.InMemory())) })
		})
	}
	in("four tokens that fail in turn do not keep others from asking", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss)
		iss.Introspection.Fail(500)
		for range 3 {
			for n := range 4 {
				_, err := v.Verify(t.Context(), fmt.Sprint("token", n))
				failed(t, err)
			}
		}
		assert.Equal(t, 4, v.Status().Failures)
		iss.Introspection.Restore()
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
	})
	in("a good answer ends a token's row of faulty ones", func(t *testing.T, iss *valetkeytest.Issuer) {
		v, token := verifierOf(t, iss), iss.Opaque()
		for range 3 {
			iss.Introspection.Empty().Times(4)
			for range 4 {
				_, err := v.Verify(t.Context(), token)
				failed(t, err)
			}
			_, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
		}
		assert.Equal(t, 15, iss.Introspection.Hits())
	})
	in("the fifth failure opens the breaker, and a success is the end of it", func(t *testing.T, iss *valetkeytest.Issuer) {
		var log journal
		v := verifierOf(t, iss, func(c *introspect.Config) { c.Logger = slog.New(&log) })
		iss.Introspection.Fail(500).Times(5)
		for range 5 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
		}
		time.Sleep(time.Second)
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		assert.Equal(t, 1, log.count("INFO introspection: the endpoint answers again"))
		assert.Zero(t, log.count("ERROR"), "no fault of ours")
	})
	in("the endpoint of a token is looked up again after five failures", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
		iss.Introspection.Fail(404)
		for range 5 {
			_, err := v.Verify(t.Context(), "one")
			failed(t, err)
			assert.Equal(t, 1, iss.Metadata.Hits())
		}
		time.Sleep(time.Second)
		_, err := v.Verify(t.Context(), "one")
		failed(t, err)
		assert.Equal(t, 2, iss.Metadata.Hits())
	})
	in("and 15 seconds later at the earliest", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
		iss.Introspection.Fail(404)
		for _, token := range []string{"one", "two", "three"} {
			for range 5 {
				_, err := v.Verify(t.Context(), token)
				failed(t, err)
			}
		}
		time.Sleep(time.Second)
		for _, token := range []string{"one", "two"} {
			_, err := v.Verify(t.Context(), token)
			failed(t, err)
			assert.Equal(t, 2, iss.Metadata.Hits(), token)
		}
		time.Sleep(15 * time.Second)
		_, err := v.Verify(t.Context(), "three")
		failed(t, err)
		assert.Equal(t, 3, iss.Metadata.Hits())
	})
	in("and all tokens that need it wait for the same look-up", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
		iss.Metadata.Answer(fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":"%s/old"}`, iss.URL, iss.URL))
		tokens := []string{iss.Opaque(), iss.Opaque()}
		for _, token := range tokens {
			for range 5 {
				_, err := v.Verify(t.Context(), token)
				assert.ErrorContains(t, err, "status 404")
			}
		}
		time.Sleep(time.Second)
		iss.Metadata.Restore()
		iss.Metadata.Slow(time.Second)
		for _, token := range tokens {
			go func() {
				_, err := v.Verify(t.Context(), token)
				assert.NoError(t, err)
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, 2, iss.Introspection.Hits())
		assert.Equal(t, 2, iss.Metadata.Hits())
	})
	in("an endpoint that is known is asked although the metadata cannot be had", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
		iss.Introspection.Fail(500)
		for range 5 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
		}
		iss.Metadata.Down()
		iss.Introspection.Restore()
		time.Sleep(time.Second)
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		assert.Greater(t, iss.Metadata.Hits(), 1)
	})
	in("an endpoint that is configured is not looked up, however often it fails", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss)
		iss.Introspection.Fail(500)
		for range 10 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			time.Sleep(time.Minute)
		}
		assert.Zero(t, iss.Metadata.Hits())
	})
	in("busy is not misconfigured", func(t *testing.T, iss *valetkeytest.Issuer) {
		for status, complaints := range map[int]int{400: 1, 401: 1, 408: 0, 429: 0, 500: 0} {
			var log journal
			v := verifierOf(t, iss, func(c *introspect.Config) { c.Logger = slog.New(&log) })
			iss.Introspection.Fail(status)
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			assert.Equal(t, complaints, log.count("ERROR introspection: the endpoint refuses our questions"), status)
			if status >= 408 {
				assert.Equal(t, valetkey.Degraded, v.Health()[0].State, status)
			}
		}
	})
}
