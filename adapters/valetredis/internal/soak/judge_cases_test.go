package soak_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The judge is what the soak relies on, so it has separate tests.
func TestJudge(t *testing.T) {
	now := time.Now()
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	done := func(seconds float64) change { return change{at(seconds), at(seconds)} }
	good := func(set func(*facts)) facts {
		f := facts{exp: at(60), keySet: "key set 1"}
		set(&f)
		return f
	}
	calm := map[string][]window{}
	faulty := func(target string, begin, end float64) map[string][]window {
		return map[string][]window{target: {{at(begin), at(end)}}}
	}
	for _, c := range []struct {
		name    string
		windows map[string][]window
		facts   facts
		sent    float64
		status  int
		fresh   []string
		want    verdict
	}{
		{"a forged token is never accepted", faulty(redisTarget, -10, 10), good(func(f *facts) { f.bad = "forged" }), 0, 204, nil, wrongAccept},
		{"an expired token is not accepted beyond the leeway", calm, good(func(f *facts) { f.exp = at(-1.01) }), 0, 204, nil, wrongAccept},
		{"a token revoked at the issuer is not accepted beyond CacheTTL, in a fault either", faulty(introspectionTarget, -10, 10),
			good(func(f *facts) { f.opaque, f.asked = true, done(-5.01) }), 0, 204, nil, wrongAccept},
		{"a token revoked by the guard is not accepted after that", calm, good(func(f *facts) { f.guard = done(-0.01) }), 0, 204, nil, wrongAccept},
		{"a token revoked through Redis is not accepted beyond a second", calm, good(func(f *facts) { f.told = done(-4.01) }), 0, 204, nil, wrongAccept},
		{"nor after Redis has returned", faulty(redisTarget, -20, -19), good(func(f *facts) { f.told = done(-19.5) }), 0, 204, nil, wrongAccept},
		{"nor because something else is faulty", faulty(introspectionTarget, -10, 10), good(func(f *facts) { f.told = done(-4.01) }), 0, 204, nil, wrongAccept},
		{"a token of a withdrawn key is not accepted beyond RefreshInterval", calm, good(func(f *facts) { f.withdrawn = done(-13.01) }), 0, 204, nil, wrongAccept},
		{"a good token is not refused", calm, good(func(*facts) {}), 0, 401, nil, wrongRefusal},
		{"a good token of a known key is not refused in a fault", faulty("key set 1", -10, 10), good(func(*facts) {}), 0, 401, nil, wrongRefusal},
		{"a token of a new key is not refused beyond MinRefetchInterval", calm, good(func(f *facts) { f.published = at(-4.01) }), 0, 401, nil, wrongRefusal},
		{"a good token that is revoked later is not refused", calm, good(func(f *facts) { f.told = done(1) }), 0, 401, nil, wrongRefusal},
		{"503 without a fault is counted", calm, good(func(*facts) {}), 0, 503, nil, unavailable},
		{"503 for a JWT in a fault of introspection is counted", faulty(introspectionTarget, -1, 1), good(func(*facts) {}), 0, 503, nil, unavailable},
		{"503 for a JWT in a fault of its key set is counted if the replica holds keys", faulty("key set 1", -1, 1), good(func(*facts) {}), 0, 503, nil, unavailable},
		{"another status is a violation", calm, good(func(*facts) {}), 0, 500, nil, strange},

		{"503 for an opaque token in a fault of introspection", faulty(introspectionTarget, -1, 1), good(func(f *facts) { f.opaque = true }), 0, 503, nil, excused},
		{"503 for a proof in a fault of Redis", faulty(redisTarget, -1, 1), good(func(f *facts) { f.bound = true }), 0, 503, nil, excused},
		{"503 of a replica that starts in a fault of the key set", faulty("key set 1", -1, 1), good(func(*facts) {}), 0, 503, []string{"key set 1"}, excused},
		{"401 for a new key, at once", calm, good(func(f *facts) { f.published = at(-0.5) }), 0, 401, nil, excused},
		{"401 for a new key, in a fault of the key set", faulty("key set 1", -9, -1), good(func(f *facts) { f.published = at(-8) }), 0, 401, nil, excused},
		{"401 for a revoked token, at once", calm, good(func(f *facts) { f.asked.begun = at(0) }), 0, 401, nil, right},
		{"401 for an expired token", calm, good(func(f *facts) { f.exp = at(0) }), 0, 401, nil, right},
		{"a revoked token within the bound", calm, good(func(f *facts) { f.asked = done(-4.99) }), 0, 204, nil, right},
		{"a revoked token while Redis is gone", faulty(redisTarget, -9, -5), good(func(f *facts) { f.told = done(-8) }), 0, 204, nil, right},
		{"a withdrawn key that could not be learned", faulty("key set 1", -20, -15), good(func(f *facts) { f.withdrawn = done(-19) }), 0, 204, nil, right},
		{"a good token", calm, good(func(*facts) {}), 0, 204, nil, right},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &history{windows: c.windows}
			got, why := judge(h, c.facts, sight{sent: at(c.sent), answered: at(c.sent), status: c.status, fresh: c.fresh})
			assert.Equal(t, c.want, got, why)
			assert.Equal(t, c.want == right, why == "")
		})
	}
}

func TestJudgeStream(t *testing.T) {
	now := time.Now()
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	done := func(seconds float64) change { return change{at(seconds), at(seconds)} }
	for _, c := range []struct {
		name  string
		facts facts
		want  verdict
	}{
		{"it goes on after the token has expired", facts{exp: at(-4.01)}, wrongAccept},
		{"it goes on after the guard has revoked the token", facts{exp: at(60), guard: done(-3.01)}, wrongAccept},
		{"it goes on for more than a minute after the issuer has revoked the token", facts{exp: at(60), asked: done(-68.01)}, wrongAccept},
		{"it ends before the token does", facts{exp: at(5)}, wrongRefusal},
		{"it ends with the token", facts{exp: at(-1)}, right},
		{"it ends as the guard revokes the token", facts{exp: at(60), guard: done(0)}, right},
		{"it ends within a minute after the issuer has revoked the token", facts{exp: at(60), asked: done(-50)}, right},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := judgeStream(new(history), c.facts, now)
			assert.Equal(t, c.want, got, why)
		})
	}
}
