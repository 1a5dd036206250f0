package signals_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/signals"
)

func TestRefusedSETs(t *testing.T) {
	tr := newTransmitter(t)
	other := newKey(t, "ES256")
	another := newKey(t, "ES256")
	s := &sink{}
	for _, test := range []struct {
		name string
		raw  string
		err  string
	}{
		{"SSF-01 no typ", tr.set(header("typ", nil)), "invalid_request"},
		{"SSF-01 the typ of any JWT", tr.set(header("typ", "JWT")), "invalid_request"},
		{"SSF-01 the typ of an access token", tr.set(header("typ", "at+jwt")), "invalid_request"},
		{"SSF-02 a top-level sub", tr.set(claim("sub", "alice")), "invalid_request"},
		{"SSF-02 an empty top-level sub", tr.set(claim("sub", "")), "invalid_request"},
		{"SSF-03 an exp", tr.set(claim("exp", time.Now().Add(time.Hour).Unix())), "invalid_request"},
		{"SSF-04 an iss with a slash", tr.set(claim("iss", tr.URL+"/")), "invalid_issuer"},
		{"SSF-04 the iss of another transmitter", tr.set(claim("iss", "https://evil.example.com")), "invalid_issuer"},
		{"SSF-04 an iss in capitals", tr.set(claim("iss", strings.ToUpper(tr.URL))), "invalid_issuer"},
		{"SSF-05 another aud", tr.set(claim("aud", "https://other.example.com")), "invalid_audience"},
		{"SSF-05 an array without us", tr.set(claim("aud", []string{"https://other.example.com", audience + "/"})), "invalid_audience"},
		{"SSF-05 no aud", tr.set(claim("aud", nil)), "invalid_audience"},
		{"SSF-05 an aud that is not text", tr.set(claim("aud", 1)), "invalid_request"},
		{"SSF-06 a key of another issuer", tr.set(with(other)), "invalid_key"},
		{"SSF-06 the kid of our key, but another key", tr.set(with(another), header("kid", tr.keys[0].ID())), "invalid_key"},
		{"SSF-06 alg HS256", symmetric(t, tr), "invalid_key"},
		{"SSF-06 alg none", strings.Join(append(strings.Split(tr.set(header("alg", "none")), ".")[:2], "AA"), "."), "invalid_key"},
		{"SSF-06 alg none without a signature", strings.Join(append(strings.Split(tr.set(header("alg", "none")), ".")[:2], ""), "."), "invalid_request"},
		{"SSF-07 no jti", tr.set(claim("jti", nil)), "invalid_request"},
		{"SSF-07 an empty jti", tr.set(claim("jti", "")), "invalid_request"},
		{"SSF-07 a jti that is not text", tr.set(claim("jti", 7)), "invalid_request"},
		{"SSF-07 no iat", tr.set(claim("iat", nil)), "invalid_request"},
		{"SSF-07 no iss", tr.set(claim("iss", nil)), "invalid_request"},
		{"SSF-07 no events", tr.set(claim("events", nil)), "invalid_request"},
		{"SSF-07 empty events", tr.set(claim("events", M{})), "invalid_request"},
		{"SSF-07 events as an array", tr.set(claim("events", []string{string(signals.AccountDisabled)})), "invalid_request"},
		{"SSF-07 an event that is null", tr.set(claim("events", M{string(signals.AccountDisabled): nil})), "invalid_request"},
		{"SSF-08 two events", tr.set(claim("events", M{string(signals.AccountDisabled): M{}, string(signals.AccountPurged): M{}})), "invalid_request"},
		{"SSF-27 iss twice", tr.set(raw(`{"iss":"` + tr.URL + `","iss":"` + tr.URL + `","aud":"` + audience + `","iat":1,"jti":"x","events":{"e":{}}}`)), "invalid_request"},
		{"SSF-27 iss in two letter cases", tr.set(claim("Iss", tr.URL)), "invalid_request"},
		{"SSF-27 the sub of a subject twice", tr.set(raw(`{"iss":"` + tr.URL + `","aud":"` + audience + `","iat":1,"jti":"x","events":{"` +
			string(signals.AccountDisabled) + `":{}},"sub_id":{"format":"iss_sub","iss":"` + tr.URL + `","sub":"alice","sub":"bob"}}`)), "invalid_request"},
		{"no subject", tr.set(claim("sub_id", nil)), "invalid_request"},
		{"a subject without format", tr.set(claim("sub_id", M{"iss": tr.URL, "sub": "alice"})), "invalid_request"},
		{"nothing", "", "invalid_request"},
		{"no JWT", "not a token", "invalid_request"},
		{"a SET that is too long", tr.set(claim("more", strings.Repeat("x", jose.MaxToken))), "invalid_request"},
		{"a payload that is not an object", tr.set(raw(`[]`)), "invalid_request"},
	} {
		t.Run(test.name+" is refused", func(t *testing.T) {
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
			w := push(r, test.raw)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, test.err, errOf(t, w))
			assert.NotContains(t, w.Body.String(), "alice", "a reason does not repeat the content")
			assert.Equal(t, uint64(1), r.Status().Outcomes[test.err])
			assert.Empty(t, s.what())
		})
	}
	for name, change := range map[string]func(*http.Request){
		"a GET":              func(r *http.Request) { r.Method = "GET" },
		"JSON":               func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no Content-Type":    func(r *http.Request) { r.Header.Del("Content-Type") },
		"another JWT's type": func(r *http.Request) { r.Header.Set("Content-Type", "application/jwt") },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
			w := push(r, tr.set(), change)
			assert.Contains(t, []int{400, 405}, w.Code)
			assert.Empty(t, s.what())
		})
	}
}

// raw replaces the claims by a text.
func raw(text string) change {
	return func(_, claims M) { claims["\x00raw"] = text }
}

// symmetric returns a SET that is signed with the public key as a secret.
func symmetric(t *testing.T, tr *transmitter) string {
	parts := strings.Split(tr.set(), ".")
	signed, err := jose.SignSecret([]byte(tr.keys[0].PublicJWK()), "HS256", M{"typ": "secevent+jwt", "kid": tr.keys[0].ID()}, []byte(`{"iss":"`+tr.URL+`"}`))
	require.NoError(t, err)
	mine := strings.Split(signed, ".")
	return mine[0] + "." + parts[1] + "." + mine[2]
}

func TestAcceptedSETs(t *testing.T) {
	a := newAPI(t)
	tr := newTransmitter(t)
	receiver := func(t *testing.T, more ...func(*signals.Config)) *signals.Receiver {
		return newReceiver(t, tr.config(append([]func(*signals.Config){a.of}, more...)...))
	}
	of := func(sub string) change { return claim("sub_id", user(a.iss.URL, sub)) }

	t.Run("SSF-12 a SET that is applied gets 202 with an empty body, and the next request 401", func(t *testing.T) {
		token, bystander := a.token("u1", "s"), a.token("u2", "s")
		require.Equal(t, 200, a.get(token))
		w := push(receiver(t), tr.set(of("u1")))
		assert.Equal(t, 202, w.Code)
		assert.Empty(t, w.Body.String())
		assert.Equal(t, 401, a.get(token))
		assert.Equal(t, 200, a.get(bystander))
	})
	t.Run("SSF-05 an aud that is an array with us is accepted", func(t *testing.T) {
		token := a.token("u3", "s")
		assert.Equal(t, 202, push(receiver(t), tr.set(of("u3"), claim("aud", []string{"https://other.example.com", audience}))).Code)
		assert.Equal(t, 401, a.get(token))
	})
	t.Run("SSF-09 unknown members are ignored", func(t *testing.T) {
		token := a.token("u4", "s")
		w := push(receiver(t), tr.set(of("u4"), claim("x", M{"y": 1}), event(signals.AccountDisabled, M{"reason": "hijacking", "new": []int{1}}), header("x", "y")))
		assert.Equal(t, 202, w.Code)
		assert.Equal(t, 401, a.get(token))
	})
	t.Run("SSF-09 optional members that are null are absent", func(t *testing.T) {
		token := a.token("u40", "s")
		text := `{"iss":"` + tr.URL + `","aud":"` + audience + `","jti":"x","iat":` + fmt.Sprint(time.Now().Unix()) + `,"sub":null,"exp":null,"toe":null,"events":{"` +
			string(signals.AccountDisabled) + `":{"event_timestamp":null}},"sub_id":{"format":"iss_sub","iss":"` + a.iss.URL + `","sub":"u40"}}`
		w := push(receiver(t), tr.set(raw(text)))
		assert.Equal(t, 202, w.Code, w.Body.String())
		assert.Equal(t, 401, a.get(token))
	})
	t.Run("SSF-10 an unknown event is acknowledged and counted, and revokes nothing", func(t *testing.T) {
		token, r := a.token("u5", "s"), receiver(t)
		assert.Equal(t, 202, push(r, tr.set(of("u5"), event("https://example.com/event", M{}))).Code)
		assert.Equal(t, map[string]uint64{"disabled": 1}, r.Status().Outcomes)
		assert.Equal(t, 200, a.get(token))
	})
	t.Run("SSF-11 the same SET twice gets 202 twice, and the second changes nothing", func(t *testing.T) {
		r, again := receiver(t), tr.set(of("u6"), claim("iat", time.Now().Add(-40*time.Second).Unix()))
		old := a.token("u6", "s")
		require.Equal(t, 202, push(r, again).Code)
		require.Equal(t, 401, a.get(old))
		fresh := a.iss.Token(subject("u6")...)
		require.Equal(t, 200, a.get(fresh), "the user has logged in again")
		assert.Equal(t, 202, push(r, again).Code)
		assert.Equal(t, 200, a.get(fresh))
		assert.Equal(t, 401, a.get(old))
	})
	t.Run("SSF-13 without the publisher a SET gets 503 with Retry-After, and the repeat is applied", func(t *testing.T) {
		down := &sink{err: errors.New("redis is down")}
		r, again := receiver(t, func(cfg *signals.Config) { cfg.Publish = down }), tr.set(of("u7"))
		token := a.token("u7", "s")
		w := push(r, again)
		assert.Equal(t, 503, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		assert.Equal(t, 401, a.get(token), "it is in force here all the same")
		down.fail(nil)
		assert.Equal(t, 202, push(r, again).Code)
		assert.Equal(t, []string{"sub u7"}, down.what())
	})
	t.Run("SSF-13 without any destination a full list gets 503, and a watcher makes room", func(t *testing.T) {
		r := newReceiver(t, tr.config())
		signals.SetCapacity(r, 2)
		for _, sub := range []string{"a", "b"} {
			require.Equal(t, 202, push(r, tr.set(claim("sub_id", user(tr.URL, sub)))).Code)
		}
		assert.Equal(t, 202, push(r, tr.set(claim("sub_id", user(tr.URL, "a")))).Code, "it is held already")
		third := tr.set(claim("sub_id", user(tr.URL, "c")))
		assert.Equal(t, 503, push(r, third).Code)
		w := watch(t, r)
		assert.ElementsMatch(t, []string{"sub a", "sub b"}, w.what())
		assert.Equal(t, 202, push(r, third).Code)
		assert.Contains(t, w.what(), "sub c")
		run(t, r)
		late := watch(t, r)
		eventually(t, "one that comes later learns that some are missing", func() bool { return late.says("more of them are in force") })
	})
	t.Run("SSF-14 without the keys a SET gets 503 and not 400", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.jwksDown = true
		s := &sink{}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
		w := push(r, tr.set())
		assert.Equal(t, 503, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		assert.Empty(t, s.what())
	})
	t.Run("SSF-15 without the right Authorization a SET gets 401 and is not parsed", func(t *testing.T) {
		r := receiver(t, func(cfg *signals.Config) { cfg.AuthorizationHeader = secret })
		token := a.token("u8", "s")
		for name, value := range map[string]string{"none": "", "another": "Bearer other", "a longer one": secret + "x", "a prefix": secret[:8]} {
			w := push(r, tr.set(of("u8")), func(r *http.Request) { r.Header.Set("Authorization", value); r.Body = unreadable{t} })
			assert.Equal(t, 401, w.Code, name)
			assert.Equal(t, "authentication_failed", errOf(t, w), name)
		}
		assert.Equal(t, 200, a.get(token))
		assert.Equal(t, 202, push(r, tr.set(of("u8")), func(r *http.Request) { r.Header.Set("Authorization", secret) }).Code)
		assert.Equal(t, 401, a.get(token))
	})
	t.Run("a hostile transmitter changes nothing of another issuer", func(t *testing.T) {
		hostile := newTransmitter(t)
		b := newAPI(t)
		r := newReceiver(t, hostile.config(b.of))
		mine := a.token("alice", "session-1")
		theirs := b.token("alice", "session-1")
		for _, raw := range []string{
			hostile.set(claim("sub_id", user(a.iss.URL, "alice"))),
			hostile.set(claim("iss", a.iss.URL), claim("sub_id", user(a.iss.URL, "alice"))),
			hostile.set(event(signals.SessionRevoked, M{}), claim("sub_id", session(user(a.iss.URL, "alice"), "session-1"))),
			hostile.set(event(signals.SessionRevoked, M{}), claim("sub_id", M{"format": "complex", "tenant": opaque("*")})),
			hostile.set(event(signals.SessionRevoked, M{}), claim("sub_id", M{"format": "jwt_id", "iss": a.iss.URL, "jti": "*"})),
		} {
			push(r, raw)
			push(receiver(t), raw)
		}
		assert.Equal(t, 200, a.get(mine))
		assert.Equal(t, 200, b.get(theirs), "a session of another issuer's user is not ours either")
	})
}

// An unreadable body fails the test if it is read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, errors.New("unreadable")
}
func (unreadable) Close() error { return nil }

// Junk from anyone who can reach the endpoint must not lead to the loss of a genuine SET that is signed with a new key.
func TestJunkDoesNotCostTheNextKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the fetches are limited in time
		tr := newTransmitterInMemory(t)
		s := &sink{}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
		require.Equal(t, 202, push(r, tr.set()).Code)
		hits := tr.jwksHits

		junk := newKey(t, "ES256")
		codes := map[int]int{}
		for i := range 50 {
			codes[push(r, tr.set(with(junk), header("kid", strings.Repeat("k", i+1)))).Code]++
		}
		assert.LessOrEqual(t, tr.jwksHits, hits+2, "junk causes few fetches")
		assert.Equal(t, 50, codes[400]+codes[503])
		assert.Equal(t, 202, push(r, tr.set()).Code, "held keys are not affected")

		tr.with(func() { tr.keys = append([]*jose.PrivateKey{newKey(t, "ES256")}, tr.keys...) })
		time.Sleep(time.Second)
		genuine := tr.set(claim("sub_id", user(tr.URL, "new key")))
		assert.Equal(t, 503, push(r, genuine).Code, "junk has used up the fetches, so the answer must not be final")
		assert.NotContains(t, s.what(), "sub new key")
		r.Close()
		tr.close()
	})
}

func TestNewKeyIsFetchedOnceAllowed(t *testing.T) {
	tr := newTransmitter(t)
	s := &sink{}
	r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
	require.Equal(t, 202, push(r, tr.set()).Code)
	tr.with(func() { tr.keys = append([]*jose.PrivateKey{newKey(t, "ES256")}, tr.keys...) })
	assert.Equal(t, 202, push(r, tr.set(claim("sub_id", user(tr.URL, "new key")))).Code)
	assert.Contains(t, s.what(), "sub new key")
}

// A watching records what a watcher of a receiver gets.
type watching struct {
	sink
	reports []error
}

func watch(t testing.TB, r *signals.Receiver) *watching {
	w := &watching{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.Error(t, r.Watch(ctx, w.Revoke, func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, err)
		}))
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "the first report", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.reports) > 0
	})
	return w
}

// says reports whether the last report contains a text; "": that it is nil.
func (w *watching) says(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.reports[len(w.reports)-1]
	return text == "" && last == nil || text != "" && last != nil && strings.Contains(last.Error(), text)
}
