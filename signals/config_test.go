package signals_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

// TestEachSetting changes one setting of a valid configuration at a time.
func TestEachSetting(t *testing.T) {
	type change = func(*signals.Config)
	none := func(cfg *signals.Config) {
		*cfg = signals.Config{Delivery: signals.NoStream, Issuer: "https://as.example.com", Logout: signals.LogoutConfig{Audience: []string{"app"}}}
	}
	unmanaged := func(d signals.Delivery) change {
		return func(cfg *signals.Config) {
			*cfg = signals.Config{Transmitter: "https://idp.example.com", Delivery: d, Audience: []string{audience}, Stream: signals.Stream{Unmanaged: true}}
			if d == signals.Poll {
				cfg.Stream.PollURL, cfg.Credentials = "https://idp.example.com/poll", signals.BearerToken(apiTokenOf)
			}
		}
	}
	poll := func(cfg *signals.Config) { cfg.Delivery, cfg.Endpoint = signals.Poll, "" }
	withoutURL := signals.ClientCredentialsGrant(signals.ClientCredentials{Auth: introspect.BasicAuth("a", "b")})
	// The valid configuration is that of a managed stream with Push; each row changes it.
	for name, c := range map[string]struct {
		changes []change
		fields  []string // nil: it is valid
	}{
		"push":           {nil, nil},
		"poll":           {[]change{poll}, nil},
		"unmanaged push": {[]change{unmanaged(signals.Push)}, nil},
		"unmanaged poll": {[]change{unmanaged(signals.Poll)}, nil},
		"no stream":      {[]change{none}, nil},

		"no transmitter":                          {[]change{func(cfg *signals.Config) { cfg.Transmitter = "" }}, []string{"Transmitter"}},
		"no transmitter, and no URL of tokens":    {[]change{func(cfg *signals.Config) { cfg.Transmitter, cfg.Credentials = "", withoutURL }}, []string{"Transmitter"}},
		"a transmitter without metadata":          {[]change{func(cfg *signals.Config) { cfg.Transmitter = "urn:idp" }}, []string{"Transmitter"}},
		"one whose keys are known, managed":       {[]change{func(cfg *signals.Config) { cfg.Transmitter, cfg.JWKSURL = "urn:idp", "https://idp.example.com/jwks" }}, []string{"Transmitter"}},
		"one whose keys are known, unmanaged":     {[]change{unmanaged(signals.Push), func(cfg *signals.Config) { cfg.Transmitter, cfg.JWKSURL = "urn:idp", "https://idp.example.com/jwks" }}, nil},
		"one whose keys are not known, unmanaged": {[]change{unmanaged(signals.Push), func(cfg *signals.Config) { cfg.Transmitter = "urn:idp" }}, []string{"Transmitter"}},
		"keys without TLS":                        {[]change{func(cfg *signals.Config) { cfg.JWKSURL = "http://idp.example.com/jwks" }}, []string{"Transmitter.JWKSURL"}},
		"keys without TLS by option":              {[]change{func(cfg *signals.Config) { cfg.JWKSURL, cfg.InsecureHTTP = "http://idp.example.com/jwks", true }}, nil},
		"a delivery that is unknown":              {[]change{func(cfg *signals.Config) { cfg.Delivery, cfg.Endpoint = "fax", "" }}, []string{"Delivery"}},
		"no stream, and global revocations": {[]change{none, func(cfg *signals.Config) {
			cfg.Logout, cfg.GlobalRevocation.Audience = signals.LogoutConfig{}, []string{"x"}
		}}, nil},
		"no stream, and nothing else":               {[]change{none, func(cfg *signals.Config) { cfg.Logout = signals.LogoutConfig{} }}, []string{"Delivery"}},
		"no stream, and no issuer":                  {[]change{none, func(cfg *signals.Config) { cfg.Issuer = "" }}, []string{"Issuer"}},
		"no stream, no issuer, and global requests": {[]change{none, func(cfg *signals.Config) { cfg.Issuer, cfg.GlobalRevocation.Audience = "", []string{"x"} }}, []string{"Issuer"}},

		"no credentials": {[]change{func(cfg *signals.Config) { cfg.Credentials = signals.Credentials{} }}, []string{"Credentials"}},
		"no credentials to poll an unmanaged stream": {[]change{unmanaged(signals.Poll), func(cfg *signals.Config) { cfg.Credentials = signals.Credentials{} }}, []string{"Credentials"}},
		"no credentials to poll a managed stream":    {[]change{poll, func(cfg *signals.Config) { cfg.Credentials = signals.Credentials{} }}, []string{"Credentials"}},
		"credentials with a mistake":                 {[]change{func(cfg *signals.Config) { cfg.Credentials = signals.TokenFile("") }}, []string{"Credentials"}},
		"credentials with the URL in the metadata":   {[]change{func(cfg *signals.Config) { cfg.Credentials = withoutURL }}, nil},
		"credentials with no metadata": {[]change{unmanaged(signals.Poll), func(cfg *signals.Config) {
			cfg.Transmitter, cfg.JWKSURL, cfg.Credentials = "urn:idp", "https://idp.example.com/jwks", withoutURL
		}}, []string{"Credentials"}},
		"credentials with no metadata, and no stream": {[]change{none, func(cfg *signals.Config) { cfg.Transmitter, cfg.Credentials = "urn:idp", withoutURL }}, nil},

		"an unmanaged stream without aud":     {[]change{unmanaged(signals.Push), func(cfg *signals.Config) { cfg.Audience = nil }}, []string{"Audience"}},
		"an unmanaged stream with an ID":      {[]change{unmanaged(signals.Push), func(cfg *signals.Config) { cfg.Stream.ID = "m" }}, []string{"Stream.ID"}},
		"an unmanaged stream to poll nowhere": {[]change{unmanaged(signals.Poll), func(cfg *signals.Config) { cfg.Stream.PollURL = "" }}, []string{"Stream.PollURL"}},
		"an unmanaged stream without TLS":     {[]change{unmanaged(signals.Poll), func(cfg *signals.Config) { cfg.Stream.PollURL = "http://idp.example.com/poll" }}, []string{"Stream.PollURL"}},
		"a managed stream with a URL":         {[]change{poll, func(cfg *signals.Config) { cfg.Stream.PollURL = "https://idp.example.com/poll" }}, []string{"Stream.PollURL"}},
		"a managed stream with an ID":         {[]change{func(cfg *signals.Config) { cfg.Stream.ID, cfg.Endpoint = "m", "" }}, nil},
		"an endpoint on loopback":             {[]change{func(cfg *signals.Config) { cfg.Endpoint = "http://127.0.0.1:8080/events" }}, nil},
		"an endpoint without TLS":             {[]change{func(cfg *signals.Config) { cfg.Endpoint = "http://api.example.com/events" }}, []string{"Endpoint"}},
		"an endpoint without TLS by option":   {[]change{func(cfg *signals.Config) { cfg.Endpoint, cfg.InsecureHTTP = "http://api.example.com/events", true }}, nil},
		"an endpoint without a host":          {[]change{func(cfg *signals.Config) { cfg.Endpoint = "https:///events" }}, []string{"Endpoint"}},
		"an endpoint that is not a URL":       {[]change{func(cfg *signals.Config) { cfg.Endpoint = "https://a b/" }}, []string{"Endpoint"}},
		"an endpoint that is not used":        {[]change{poll, func(cfg *signals.Config) { cfg.Endpoint = endpoint }}, []string{"Endpoint"}},
		"no endpoint":                         {[]change{func(cfg *signals.Config) { cfg.Endpoint = "" }}, []string{"Endpoint"}},
		"a header with a carriage return":     {[]change{func(cfg *signals.Config) { cfg.AuthorizationHeader = "a\rb" }}, []string{"AuthorizationHeader"}},
		"a header with a line feed":           {[]change{func(cfg *signals.Config) { cfg.AuthorizationHeader = "a\nb" }}, []string{"AuthorizationHeader"}},
		"a header":                            {[]change{func(cfg *signals.Config) { cfg.AuthorizationHeader = secret }}, nil},
		"a header that is not used":           {[]change{poll, func(cfg *signals.Config) { cfg.AuthorizationHeader = secret }}, []string{"AuthorizationHeader"}},
		"an empty aud":                        {[]change{func(cfg *signals.Config) { cfg.Audience = []string{"a", ""} }}, []string{"Audience[1]"}},
		"an empty alias":                      {[]change{func(cfg *signals.Config) { cfg.IssuerAliases = []string{"a", ""} }}, []string{"IssuerAliases[1]"}},
		"an algorithm with a secret":          {[]change{func(cfg *signals.Config) { cfg.Algorithms = []string{"ES256", "HS256"} }}, []string{"Algorithms[1]"}},
		"origins": {[]change{func(cfg *signals.Config) {
			cfg.TrustedOrigins = []string{"https://a.example.com", "https://a.example.com/"}
		}}, nil},
		"an origin with a path":                 {[]change{func(cfg *signals.Config) { cfg.TrustedOrigins = []string{"https://a.example.com/x"} }}, []string{"TrustedOrigins[0]"}},
		"an origin without TLS":                 {[]change{func(cfg *signals.Config) { cfg.TrustedOrigins = []string{"http://a.example.com"} }}, []string{"TrustedOrigins[0]"}},
		"an origin without a host":              {[]change{func(cfg *signals.Config) { cfg.TrustedOrigins = []string{"https://"} }}, []string{"TrustedOrigins[0]"}},
		"an origin that is not a URL":           {[]change{func(cfg *signals.Config) { cfg.TrustedOrigins = []string{"https://a b"} }}, []string{"TrustedOrigins[0]"}},
		"no events":                             {[]change{func(cfg *signals.Config) { cfg.Events = []signals.Event{} }}, []string{"Events"}},
		"an event that is unknown":              {[]change{func(cfg *signals.Config) { cfg.Events = []signals.Event{signals.Logout, "x"} }}, []string{"Events[1]"}},
		"a guard that is nil":                   {[]change{func(cfg *signals.Config) { cfg.Guards = []signals.Guard{&sink{}, nil} }}, []string{"Guards[1]"}},
		"a policy":                              {[]change{func(cfg *signals.Config) { cfg.Gaps = signals.RevokeBeforeGaps }}, nil},
		"a policy that is unknown":              {[]change{func(cfg *signals.Config) { cfg.Gaps = "x" }}, []string{"Gaps"}},
		"a negative lifetime":                   {[]change{func(cfg *signals.Config) { cfg.MaxTokenLifetime = -1 }}, []string{"MaxTokenLifetime"}},
		"a negative leeway":                     {[]change{func(cfg *signals.Config) { cfg.Leeway = -1 }}, []string{"Leeway"}},
		"the longest leeway":                    {[]change{func(cfg *signals.Config) { cfg.Leeway = 5 * time.Minute }}, nil},
		"a longer leeway":                       {[]change{func(cfg *signals.Config) { cfg.Leeway = 5*time.Minute + 1 }}, []string{"Leeway"}},
		"a negative interval of polls":          {[]change{func(cfg *signals.Config) { cfg.PollInterval = -1 }}, []string{"PollInterval"}},
		"a negative number of events":           {[]change{func(cfg *signals.Config) { cfg.MaxEvents = -1 }}, []string{"MaxEvents"}},
		"the largest number of events":          {[]change{func(cfg *signals.Config) { cfg.MaxEvents = 1000 }}, nil},
		"more events":                           {[]change{func(cfg *signals.Config) { cfg.MaxEvents = 1001 }}, []string{"MaxEvents"}},
		"a negative retention":                  {[]change{func(cfg *signals.Config) { cfg.Retention = -1 }}, []string{"Retention"}},
		"a proof":                               {[]change{func(cfg *signals.Config) { cfg.RequireProof = true }}, nil},
		"a proof that is never requested":       {[]change{func(cfg *signals.Config) { cfg.RequireProof, cfg.VerifyInterval = true, -1 }}, []string{"RequireProof"}},
		"a proof of an unmanaged stream":        {[]change{unmanaged(signals.Push), func(cfg *signals.Config) { cfg.RequireProof = true }}, []string{"RequireProof"}},
		"no verifications":                      {[]change{func(cfg *signals.Config) { cfg.VerifyInterval = -1 }}, nil},
		"a client of logouts that is empty":     {[]change{none, func(cfg *signals.Config) { cfg.Logout.Audience = []string{"a", ""} }}, []string{"Logout.Audience[1]"}},
		"untyped logouts without clients":       {[]change{func(cfg *signals.Config) { cfg.Logout.AllowUntyped = true }}, []string{"Logout.Audience"}},
		"keys of logouts without clients":       {[]change{func(cfg *signals.Config) { cfg.Logout.JWKSURL = "https://as.example.com/jwks" }}, []string{"Logout.Audience"}},
		"an endpoint of requests that is empty": {[]change{none, func(cfg *signals.Config) { cfg.GlobalRevocation.Audience = []string{"a", ""} }}, []string{"GlobalRevocation.Audience[1]"}},
		"an issuer of requests alone":           {[]change{func(cfg *signals.Config) { cfg.GlobalRevocation.Issuer = "https://okta.example.com" }}, []string{"GlobalRevocation.Audience"}},
		"a subject of requests alone":           {[]change{func(cfg *signals.Config) { cfg.GlobalRevocation.Subject = "x" }}, []string{"GlobalRevocation.Audience"}},
		"keys of requests alone":                {[]change{func(cfg *signals.Config) { cfg.GlobalRevocation.JWKSURL = "https://okta.example.com/jwks" }}, []string{"GlobalRevocation.Audience"}},
		"an issuer of requests without metadata": {[]change{none, func(cfg *signals.Config) {
			cfg.GlobalRevocation = signals.GlobalRevocationConfig{Audience: []string{"a"}, Issuer: "urn:okta"}
		}}, []string{"GlobalRevocation.Issuer"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := signals.Config{Transmitter: "https://idp.example.com", Delivery: signals.Push, Endpoint: endpoint, Credentials: signals.BearerToken(apiTokenOf)}
			for _, change := range c.changes {
				change(&cfg)
			}
			r, err := signals.New(cfg)
			var fields []string
			for _, m := range valetkey.ConfigErrors(err) {
				fields = append(fields, m.Field)
			}
			slices.Sort(fields)
			assert.Equal(t, c.fields, fields, "%v", err)
			if c.fields == nil {
				require.NoError(t, err)
				r.Close()
			}
		})
	}
	t.Run("changes of a list after New have no effect", func(t *testing.T) {
		tr, first := newTransmitter(t), &sink{}
		guards, events := []signals.Guard{first}, signals.DefaultEvents()
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards, cfg.Events = guards, events }))
		guards[0] = &sink{err: errors.New("another")}
		for i := range events {
			events[i] = signals.Logout
		}
		assert.Equal(t, 202, push(r, tr.set()).Code)
		assert.Equal(t, []string{"sub alice"}, first.what())
	})
	t.Run("the defaults of the logger and the client", func(t *testing.T) {
		before := slog.Default()
		defer slog.SetDefault(before)
		var log logBuffer
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Logger, cfg.Client = nil, nil }))
		assert.Equal(t, 400, push(r, "x").Code)
		assert.Equal(t, 202, push(r, tr.set()).Code)
		assert.Contains(t, log.String(), "signals: a token is refused")
	})
	t.Run("the issuer sends the global revocations unless another one is named", func(t *testing.T) {
		a, s := newAPI(t), &sink{}
		r := newReceiver(t, globally(a, s, func(cfg *signals.Config) { cfg.Issuer, cfg.GlobalRevocation.Issuer = a.iss.URL, "" }))
		assert.Equal(t, 204, revokeGlobally(r, a.assertion(), aliceByEmail).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
	})
}

func TestSameHost(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"https://idp.example.com", "https://idp.example.com", true},
		{"https://idp.example.com", "https://IDP.example.com/realms/a", true},
		{"https://idp.example.com", "https://as.example.com", false},
		{"https://idp.example.com", "https://idp.example.com:8443", false},
		{"https://idp.example.com", "urn:idp", false},
		{"urn:idp", "urn:idp", true},
		{"urn:idp", "urn:as", false},
		{"https://idp.example.com", "https://a b", false},
		{"https://a b", "https://idp.example.com", false},
		{"https://a b", "https://a b", true},
		{"", "https://idp.example.com", false},
	} {
		assert.Equal(t, c.want, signals.SameHost(c.a, c.b), "%q and %q", c.a, c.b)
	}
}

func TestAudienceOfAStream(t *testing.T) {
	for _, c := range []struct {
		id, aud string
		allowed bool
		code    int
	}{
		{"m", audience + "/m", true, 202}, {"m", audience + "/m", false, 400}, {"m", audience + "/n", true, 400}, {"m", audience + "/", true, 400},
		{"m", audience, true, 202}, {"", audience + "/", true, 400}, {"", audience, true, 202},
	} {
		t.Run(fmt.Sprintf("%q of the stream %q, with the option %v", c.aud, c.id, c.allowed), func(t *testing.T) {
			tr := newTransmitter(t)
			tr.streams = []M{tr.pushStream("m")}
			r := newReceiver(t, tr.config(func(cfg *signals.Config) {
				cfg.Legacy.AllowAudienceOfStream = c.allowed
				if c.id != "" {
					managed(signals.Push)(cfg)
					cfg.Stream.ID, cfg.Audience, cfg.AuthorizationHeader = c.id, []string{audience}, ""
				}
			}))
			run(t, r)
			eventually(t, "it is ready", isReady(r))
			assert.Equal(t, c.code, push(r, tr.set(claim("aud", c.aud))).Code)
		})
	}
}

// idle is a network that counts the calls of CloseIdleConnections.
type idle struct {
	down
	closed int
}

func (i *idle) CloseIdleConnections() { i.closed++ }

func TestAudienceOfAStreamThatIsFound(t *testing.T) {
	tr := newTransmitter(t)
	tr.streams = []M{tr.pushStream("m")}
	r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
		cfg.Legacy.AllowAudienceOfStream, cfg.Audience, cfg.AuthorizationHeader = true, []string{audience}, ""
	}))
	run(t, r)
	eventually(t, "it is ready", isReady(r))
	assert.Equal(t, 202, push(r, tr.set(claim("aud", audience+"/m"))).Code)
}

func TestBackoff(t *testing.T) {
	refused, away := signals.APIError(403, 0), signals.APIError(500, 0)
	for _, c := range []struct {
		name string
		err  error
		want []time.Duration // at most, and at least nine tenths of it; the time between them passes
	}{
		{"a refusal", refused, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}},
		{"another error", errors.New("malformed"), []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}},
		{"an answer 499", signals.APIError(499, 0), []time.Duration{1, 2, 4}},
		{"an answer 500", away, []time.Duration{1, 1, 1}},
		{"an answer 500 to a fetch", &fetch.Error{Status: 500}, []time.Duration{1, 1, 1}},
		{"no answer", &fetch.Error{}, []time.Duration{1, 1, 1}},
		{"a refusal to a fetch", &fetch.Error{Status: 400}, []time.Duration{1, 2, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b signals.Backoff
				for i, want := range c.want {
					got := b.Next(c.err)
					assert.LessOrEqual(t, got, want*time.Second, "%d", i)
					assert.GreaterOrEqual(t, got, want*time.Second*9/10, "%d", i)
					time.Sleep(got)
				}
			})
		})
	}
	t.Run("an outage: every second for a minute, then after an eighth of what follows, up to a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var b signals.Backoff
			begun := time.Now()
			b.Next(away)
			for _, c := range []struct{ since, want time.Duration }{
				{time.Minute, time.Second}, {68 * time.Second, time.Second}, {76 * time.Second, 2 * time.Second}, {300 * time.Second, 30 * time.Second},
				{540 * time.Second, time.Minute}, {time.Hour, time.Minute},
			} {
				time.Sleep(c.since - time.Since(begun))
				got := b.Next(away)
				assert.LessOrEqual(t, got, c.want, "%v", c.since)
				assert.GreaterOrEqual(t, got, c.want*9/10, "%v", c.since)
			}
		})
	})
	t.Run("Retry-After: not before, up to 5 min, and the outage begins then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, c := range []struct {
				err  error
				want time.Duration
			}{
				{signals.APIError(503, 20*time.Second), 20 * time.Second}, {signals.APIError(403, 20*time.Second), 20 * time.Second},
				{&fetch.Error{Status: 503, RetryAfter: 20 * time.Second}, 20 * time.Second}, {signals.APIError(503, time.Hour), 5 * time.Minute},
			} {
				var b signals.Backoff
				got := b.Next(c.err)
				assert.GreaterOrEqual(t, got, c.want)
				assert.Less(t, got, c.want*11/10+time.Second)
				time.Sleep(c.want + 60*time.Second)
				assert.LessOrEqual(t, b.Next(away), time.Second)
			}
		})
	})
	t.Run("the error of the API counts before that of its cause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var b signals.Backoff
			both := errors.Join(&fetch.Error{Status: 503, RetryAfter: time.Minute}, refused)
			assert.LessOrEqual(t, b.Next(both), time.Second)
			assert.Greater(t, b.Next(both), 1500*time.Millisecond)
		})
	})
}

func TestReadyAndWatch(t *testing.T) {
	t.Run("a gap does not keep a receiver from being ready, and is reported", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.streams = []M{tr.pushStream("m")}
		r := newReceiver(t, tr.config(managed(signals.Push)))
		run(t, r)
		eventually(t, "it is ready", isReady(r))
		for _, status := range []string{"paused", "enabled"} {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("m")), event(streamUpdated, M{"status": status}))))
		}
		assert.True(t, watch(t, r).says("events may have been lost"))
		assert.NoError(t, r.Ready(t.Context()))
	})
	t.Run("Ready returns the reason when its context ends, and when the receiver is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			for name, end := range map[string]func(r *signals.Receiver, cancel func()){
				"the context":  func(_ *signals.Receiver, cancel func()) { cancel() },
				"the receiver": func(r *signals.Receiver, _ func()) { r.Close() },
			} {
				r := newReceiver(t, tr.config())
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- r.Ready(ctx) }()
				time.Sleep(time.Minute)
				assert.Empty(t, done)
				end(r, cancel)
				assert.ErrorContains(t, <-done, "Run has not begun", name)
				cancel()
				r.Close()
			}
			tr.close()
		})
	})
	t.Run("Ready waits until the receiver has caught up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(managed(signals.Push)))
			created := time.Now()
			time.Sleep(time.Second)
			assert.Equal(t, created, health(r).Since)
			done := make(chan error, 1)
			go func() { done <- r.Ready(t.Context()) }()
			time.Sleep(10 * time.Millisecond)
			assert.Empty(t, done)
			stop := run(t, r)
			assert.NoError(t, <-done)
			assert.NoError(t, r.Ready(t.Context()))
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("a change wakes the watchers, and dates the health", func(t *testing.T) {
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			w := watch(t, r)
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": "paused"}))))
			changed := time.Now()
			synctest.Wait()
			assert.True(t, w.says("the transmitter has paused the stream"))
			time.Sleep(500 * time.Millisecond)
			assert.Equal(t, changed, health(r).Since)
		}, func(cfg *signals.Config) { cfg.VerifyInterval = -1 })
	})
	t.Run("the first reason is reported, although revocations are missing too", func(t *testing.T) {
		r := feeding(t, to(&sink{}))
		signals.SetCapacity(r, 0)
		require.NoError(t, signals.Deliver(t.Context(), r, users("a", 1))[0])
		assert.True(t, watch(t, r).says("Run has not begun"))
	})
	t.Run("Close leaves the connections of a client that is given alone", func(t *testing.T) {
		network := &idle{}
		newReceiver(t, newTransmitter(t).config(func(cfg *signals.Config) { cfg.Client = &http.Client{Transport: network} })).Close()
		assert.Zero(t, network.closed)
	})
	t.Run("Ready returns the error of the keys too", func(t *testing.T) {
		a := newAPI(t)
		r := newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Client = &http.Client{Transport: down{}} }))
		assert.ErrorContains(t, r.Ready(t.Context()), "the network is down")
	})
	t.Run("each change is reported once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Now = time.Now }))
			w := watch(t, r)
			time.Sleep(time.Minute)
			stop := run(t, r)
			time.Sleep(time.Minute)
			for range 3 {
				require.Equal(t, 202, push(r, tr.set()).Code)
				synctest.Wait()
			}
			w.mu.Lock()
			require.Len(t, w.reports, 2)
			assert.ErrorContains(t, w.reports[0], "Run has not begun")
			assert.NoError(t, w.reports[1])
			w.mu.Unlock()
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("Run ends with the error of its context, or that the receiver is closed", func(t *testing.T) {
		for _, change := range []func(*signals.Config){
			func(*signals.Config) {},
			func(cfg *signals.Config) {
				cfg.Delivery, cfg.Stream.Unmanaged, cfg.Issuer, cfg.Logout.Audience = signals.NoStream, false, "https://as.example.com", []string{"app"}
			},
		} {
			r := newReceiver(t, newTransmitter(t).config(change))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.ErrorIs(t, r.Run(ctx), context.Canceled)
			r.Close()
			assert.ErrorContains(t, r.Run(t.Context()), "signals: closed")
		}
	})
}
