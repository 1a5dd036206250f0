package signals_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

func TestMistakes(t *testing.T) {
	credentials := signals.BearerToken(func(context.Context) (string, error) { return "x", nil })
	for name, test := range map[string]struct {
		cfg    signals.Config
		fields []string
	}{
		"nothing": {signals.Config{}, []string{"Credentials", "Delivery"}},
		"everything wrong": {signals.Config{
			Transmitter: "http://idp.example.com?x=1", Delivery: signals.Push, Audience: []string{""}, IssuerAliases: []string{""},
			Algorithms: []string{"HS256"}, TrustedOrigins: []string{"https://a.example.com/path"}, Events: []signals.Event{"https://example.com/event"},
			Guards: []signals.Guard{nil}, Gaps: "ignore", MaxTokenLifetime: -1, Leeway: time.Hour, PollInterval: -1, MaxEvents: 1001, Retention: -1,
			AuthorizationHeader: "a\nb", RequireProof: true, VerifyInterval: -1, Logout: signals.LogoutConfig{AllowUntyped: true},
			GlobalRevocation: signals.GlobalRevocationConfig{Issuer: "x"},
		}, []string{"Algorithms[0]", "Audience[0]", "AuthorizationHeader", "Credentials", "Endpoint", "Events[0]", "Gaps", "GlobalRevocation.Audience", "Guards[0]",
			"IssuerAliases[0]", "Leeway", "Logout.Audience", "MaxEvents", "MaxTokenLifetime", "PollInterval", "RequireProof", "Retention", "Transmitter", "TrustedOrigins[0]"}},
		"poll with settings of push": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: credentials,
			Endpoint: "https://api.example.com/", AuthorizationHeader: "x"}, []string{"AuthorizationHeader", "Endpoint"}},
		"an unmanaged stream without what it needs": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Stream: signals.Stream{Unmanaged: true, ID: "x"}},
			[]string{"Audience", "Credentials", "Stream.ID", "Stream.PollURL"}},
		"a managed stream with a poll URL": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: credentials,
			Stream: signals.Stream{PollURL: "https://idp.example.com/poll"}}, []string{"Stream.PollURL"}},
		"no stream and nothing else": {signals.Config{Delivery: signals.NoStream}, []string{"Delivery", "Issuer"}},
		"an endpoint without TLS": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Push, Credentials: credentials, Endpoint: "http://api.example.com/"},
			[]string{"Endpoint"}},
		"an empty list of events": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: credentials, Events: []signals.Event{}},
			[]string{"Events"}},
		"credentials without their parts": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll,
			Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{Auth: introspect.NoAuth()})}, []string{"Credentials"}},
		"a nil function as credentials": {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: signals.BearerToken(nil)}, []string{"Credentials"}},
		"no file as credentials":        {signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Poll, Credentials: signals.TokenFile("")}, []string{"Credentials"}},
		"an issuer of logout tokens that has no URL": {signals.Config{Delivery: signals.NoStream, Issuer: "urn:example", Logout: signals.LogoutConfig{Audience: []string{"x"}}},
			[]string{"Logout.Issuer"}},
	} {
		t.Run(name+": every mistake is named", func(t *testing.T) {
			_, err := signals.New(test.cfg)
			require.Error(t, err)
			var fields []string
			for _, m := range valetkey.ConfigErrors(err) {
				fields = append(fields, m.Field)
			}
			slices.Sort(fields)
			assert.Equal(t, test.fields, fields, "%v", err)
		})
	}
	t.Run("printing credentials does not reveal a secret", func(t *testing.T) {
		c := signals.ClientCredentialsGrant(signals.ClientCredentials{TokenURL: "https://idp.example.com/token", Auth: introspect.BasicAuth("id", "s3cret")})
		for _, format := range []string{"%v", "%+v", "%s"} {
			assert.NotContains(t, fmt.Sprintf(format, c), "s3cret")
		}
	})
}

func TestLifeOfAReceiver(t *testing.T) {
	t.Run("before Run it has not caught up", func(t *testing.T) {
		r := newReceiver(t, newTransmitter(t).config())
		assert.True(t, watch(t, r).says("Run has not begun"))
		assert.Equal(t, valetkey.Down, health(r).State)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		assert.Error(t, r.Ready(ctx))
	})
	t.Run("a second Run is an error, and another one after the end is not", func(t *testing.T) {
		r := newReceiver(t, newTransmitter(t).config())
		stop := run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.ErrorContains(t, r.Run(t.Context()), "is running already")
		stop()
		assert.NotEqual(t, valetkey.Ready, health(r).State)
		run(t, r)
		eventually(t, "it is ready again", isReady(r))
	})
	t.Run("Close ends Run and Watch, and further SETs are sent again", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config())
		done := make(chan error, 2)
		go func() { done <- r.Run(context.Background()) }()
		go func() {
			done <- r.Watch(context.Background(), func(...valetkey.Revocation) error { return nil }, func(error) {})
		}()
		eventually(t, "it is ready", isReady(r))
		raw := tr.set()
		require.Equal(t, 202, push(r, raw).Code)
		r.Close()
		r.Close()
		for range 2 {
			select {
			case err := <-done:
				assert.Error(t, err)
			case <-time.After(soon):
				t.Fatal("it does not end")
			}
		}
		assert.Equal(t, 503, push(r, raw).Code)
	})
	t.Run("after Close no keys are held or fetched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(func(cfg *signals.Config) {
				cfg.Logout = signals.LogoutConfig{Audience: []string{audience}, JWKSURL: tr.URL + "/jwks"}
				cfg.GlobalRevocation = signals.GlobalRevocationConfig{Audience: []string{audience}, JWKSURL: tr.URL + "/jwks"}
			}))
			stop := run(t, r)
			require.NoError(t, r.Ready(t.Context()))
			hits := func() (n int) { tr.with(func() { n = tr.jwksHits }); return n }
			require.Equal(t, 3, hits())
			time.Sleep(time.Hour)
			require.Greater(t, hits(), 3)
			r.Close()
			stop()
			for _, h := range r.Health()[1:] {
				assert.Equal(t, valetkey.Down, h.State)
				assert.ErrorContains(t, h.Err, "closed")
			}
			before := hits()
			time.Sleep(24 * time.Hour)
			assert.Equal(t, before, hits())
			tr.close()
		})
	})
	t.Run("a SET that waits for its audience is sent again if its request or the receiver ends", func(t *testing.T) {
		for name, end := range map[string]func(r *signals.Receiver, cancel func()){
			"the request":  func(_ *signals.Receiver, cancel func()) { cancel() },
			"the receiver": func(r *signals.Receiver, _ func()) { r.Close() },
		} {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				tr.noCreate = 500
				r := newReceiver(t, tr.config(managed(signals.Push)))
				stop := run(t, r)
				time.Sleep(time.Second)
				ctx, cancel := context.WithCancel(t.Context())
				code := make(chan int, 1)
				go func() {
					code <- push(r, tr.set(), authorized, func(req *http.Request) { *req = *req.WithContext(ctx) }).Code
				}()
				synctest.Wait()
				begun := time.Now()
				end(r, cancel)
				assert.Equal(t, 503, <-code, name)
				assert.Equal(t, begun, time.Now(), "at once")
				cancel()
				stop()
				r.Close()
				tr.close()
			})
		}
	})
	t.Run("several guards may watch, also later, and an error of one does not harm the others", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config())
		first := watch(t, r)
		first.fail(errors.New("malformed"))
		second := watch(t, r)
		require.Equal(t, 202, push(r, tr.set()).Code)
		assert.Equal(t, []string{"sub alice"}, first.what())
		assert.Equal(t, []string{"sub alice"}, second.what())
		assert.Equal(t, []string{"sub alice"}, watch(t, r).what())
	})
	t.Run("a guard that watches the receiver answers 503 until it has caught up", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config())
		a := newAPI(t, source(r))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { _ = a.guard.Watch(ctx) }()
		token := a.token("alice", "s")
		assert.Equal(t, 503, a.get(token))
		run(t, r)
		eventually(t, "then it does not", func() bool { return a.get(token) == 200 })
	})
	t.Run("the state in a file survives, and one that is broken is reported", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state")
		state := signals.FileState(file)
		data, err := state.Load(t.Context())
		assert.NoError(t, err)
		assert.Nil(t, data)
		require.NoError(t, state.Save(t.Context(), []byte("one")))
		require.NoError(t, state.Save(t.Context(), []byte("two")))
		data, err = state.Load(t.Context())
		assert.NoError(t, err)
		assert.Equal(t, "two", string(data))
		names, err := os.ReadDir(filepath.Dir(file))
		require.NoError(t, err)
		assert.Len(t, names, 1, "no temporary file is left")
		assert.Error(t, signals.FileState(filepath.Join(file, "x")).Save(t.Context(), nil))

		tr := newTransmitter(t)
		var log logBuffer
		r := newReceiver(t, tr.config(log.log, func(cfg *signals.Config) { cfg.State = state }))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		assert.Contains(t, log.String(), "the saved state cannot be read")
	})
	t.Run("no token and no secret is logged", func(t *testing.T) {
		tr := newTransmitter(t)
		var log logBuffer
		r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		bad := tr.set(claim("exp", 1))
		push(r, bad)
		push(r, bad, authorized)
		push(r, tr.set(claim("sub_id", user("https://other.example.com", "alice"))), authorized)
		for _, secret := range []string{secret, apiToken, bad, "alice"} {
			assert.NotContains(t, log.String(), secret)
		}
	})
}
