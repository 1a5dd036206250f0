package signals_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/signals"
)

func TestParseSubject(t *testing.T) {
	long := strings.Repeat("x", 1024)
	many := func(n int) string {
		return `{"format":"aliases","identifiers":[` + strings.TrimSuffix(strings.Repeat(`{"format":"opaque","id":"a"},`, n), ",") + `]}`
	}
	for _, c := range []struct {
		name   string
		text   string
		legacy bool
		want   []signals.Subject // without Raw; nil: an error
		err    string
	}{
		{"an email address", `{"format":"email","email":"a@example.com"}`, false, []signals.Subject{{Format: "email", ID: "a@example.com"}}, ""},
		{"an account", `{"format":"account","uri":"acct:a"}`, false, []signals.Subject{{Format: "account", ID: "acct:a"}}, ""},
		{"a phone number", `{"format":"phone_number","phone_number":"+1"}`, false, []signals.Subject{{Format: "phone_number", ID: "+1"}}, ""},
		{"a DID", `{"format":"did","url":"did:x"}`, false, []signals.Subject{{Format: "did", ID: "did:x"}}, ""},
		{"a URI", `{"format":"uri","uri":"urn:x"}`, false, []signals.Subject{{Format: "uri", ID: "urn:x"}}, ""},
		{"a user of an issuer", `{"format":"iss_sub","iss":"i","sub":"s"}`, false, []signals.Subject{{Format: "iss_sub", Issuer: "i", ID: "s"}}, ""},
		{"a token of an issuer", `{"format":"jwt_id","iss":"i","jti":"j"}`, false, []signals.Subject{{Format: "jwt_id", Issuer: "i", ID: "j"}}, ""},
		{"a format of others", `{"format":"catalog_item","catalog_id":"c"}`, false, []signals.Subject{{Format: "catalog_item"}}, ""},
		{"an ID of the greatest length", `{"format":"opaque","id":"` + long + `"}`, false, []signals.Subject{{Format: "opaque", ID: long}}, ""},
		{"an ID that is too long", `{"format":"opaque","id":"` + long + `x"}`, false, nil, "id has more than 1024 bytes"},
		{"an ID that is missing", `{"format":"opaque"}`, false, nil, "id is missing"},
		{"an ID that is empty", `{"format":"opaque","id":""}`, false, nil, "id is missing"},
		{"an ID that is a number", `{"format":"opaque","id":7}`, false, nil, "id is not a string"},
		{"an ID that is null", `{"format":"opaque","id":null}`, false, nil, "id is missing"},
		{"an issuer that is missing", `{"format":"iss_sub","sub":"s"}`, false, nil, "iss is missing"},
		{"an issuer of a token that is missing", `{"format":"jwt_id","jti":"j"}`, false, nil, "iss is missing"},
		{"no format", `{"id":"a"}`, false, nil, "the subject has no format"},
		{"an empty format", `{"format":"","id":"a"}`, false, nil, "the subject has no format"},
		{"an empty format, of drafts", `{"format":"","subject_type":"opaque","id":"a"}`, true, nil, "the subject has no format"},
		{"a format that is a number", `{"format":7,"id":"a"}`, true, nil, "the subject has no format"},
		{"a format that is a number, with members", `{"format":7,"user":{"format":"opaque","id":"a"}}`, true, nil, "the subject has no format"},
		{"a text", `"a"`, false, nil, "the subject is not an object"},
		{"a format in two letter cases", `{"format":"opaque","Format":"email","id":"a"}`, false, nil, "two letter cases"},

		{"a type of drafts", `{"subject_type":"iss-sub","iss":"i","sub":"s"}`, true, []signals.Subject{{Format: "iss_sub", Issuer: "i", ID: "s"}}, ""},
		{"a type of drafts, without the option", `{"subject_type":"iss-sub","iss":"i","sub":"s"}`, false, nil, "the subject has no format"},
		{"a type of drafts that is a number", `{"subject_type":7,"id":"a"}`, true, nil, "the subject has no format"},
		{"a format and another type", `{"format":"opaque","subject_type":"email","id":"a"}`, true, []signals.Subject{{Format: "opaque", ID: "a"}}, ""},
		{"the name jwt-id", `{"format":"jwt-id","iss":"i","jti":"j"}`, true, []signals.Subject{{Format: "jwt_id", Issuer: "i", ID: "j"}}, ""},
		{"the name jwt-id, without the option", `{"format":"jwt-id","iss":"i","jti":"j"}`, false, []signals.Subject{{Format: "jwt-id"}}, ""},
		{"the name phone", `{"format":"phone","phone_number":"+1"}`, true, []signals.Subject{{Format: "phone_number", ID: "+1"}}, ""},
		{"the name phone, without the option", `{"format":"phone","phone_number":"+1"}`, false, []signals.Subject{{Format: "phone"}}, ""},
		{"the name id_token_claims", `{"format":"id_token_claims","iss":"i"}`, true, []signals.Subject{{Format: "id_token_claims"}}, ""},

		{"aliases", `{"format":"aliases","identifiers":[{"format":"opaque","id":"a"},{"format":"opaque","id":"b"}]}`, false,
			[]signals.Subject{{Format: "opaque", ID: "a"}, {Format: "opaque", ID: "b"}}, ""},
		{"as many aliases as are allowed", many(32), false, make([]signals.Subject, 32), ""},
		{"more aliases", many(33), false, nil, "identifiers is not an array of 1 to 32 subjects"},
		{"aliases of nothing", many(0), false, nil, "identifiers is not an array of 1 to 32 subjects"},
		{"aliases that are an object", `{"format":"aliases","identifiers":{}}`, false, nil, "identifiers is not an array of 1 to 32 subjects"},
		{"aliases without identifiers", `{"format":"aliases"}`, false, nil, "identifiers is not an array of 1 to 32 subjects"},
		{"aliases of aliases", `{"format":"aliases","identifiers":[` + many(1) + `]}`, false, nil, "aliases contain aliases"},
		{"aliases of which one is malformed", `{"format":"aliases","identifiers":[{"format":"opaque","id":"a"},{"format":"opaque"}]}`, false, nil, "id is missing"},
		{"aliases of a complex subject", `{"format":"aliases","identifiers":[{"format":"complex","user":{"format":"opaque","id":"a"}}]}`, false, nil, "a complex subject is not allowed here"},
		{"aliases of a type of drafts", `{"subject_type":"aliases","identifiers":[{"subject_type":"opaque","id":"a"}]}`, true, []signals.Subject{{Format: "opaque", ID: "a"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, members, err := signals.ParseSubject(c.text, c.legacy)
			if c.want == nil {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Nil(t, members)
			require.Len(t, got, len(c.want))
			for i, want := range c.want {
				assert.NotEmpty(t, got[i].Raw)
				if want != (signals.Subject{}) {
					got[i].Raw = ""
					assert.Equal(t, want, got[i])
				}
			}
		})
	}
	for _, c := range []struct {
		name   string
		text   string
		legacy bool
		want   []string // names of the members; nil: an error
		err    string
	}{
		{"a user and a session", `{"format":"complex","user":{"format":"opaque","id":"a"},"session":{"format":"opaque","id":"b"}}`, false, []string{"user", "session"}, ""},
		{"any member", `{"format":"complex","planet":{"format":"opaque","id":"a"}}`, false, []string{"planet"}, ""},
		{"no member", `{"format":"complex"}`, false, nil, "a complex subject has no member"},
		{"no member but another type", `{"format":"complex","subject_type":"x"}`, false, nil, "a complex subject has no member"},
		{"a member that is malformed", `{"format":"complex","user":{"format":"opaque"}}`, false, nil, "user: id is missing"},
		{"a member that is a text", `{"format":"complex","user":"a"}`, false, nil, "user: the subject is not an object"},
		{"aliases as a member", `{"format":"complex","user":` + many(2) + `}`, false, []string{"user"}, ""},
		{"without a format, of drafts", `{"user":{"format":"opaque","id":"a"}}`, true, []string{"user"}, ""},
		{"without a format, of drafts, with a device alone", `{"device":{"subject_type":"opaque","id":"a"}}`, true, []string{"device"}, ""},
		{"without a format", `{"user":{"format":"opaque","id":"a"}}`, false, nil, "the subject has no format"},
		{"without a format, with a member of another name", `{"planet":{"format":"opaque","id":"a"}}`, true, nil, "the subject has no format"},
		{"without a format, with a text", `{"user":"a"}`, true, nil, "the subject has no format"},
		{"the type of drafts", `{"subject_type":"complex","user":{"subject_type":"opaque","id":"a"}}`, true, []string{"user"}, ""},
		{"another type of drafts beside a user", `{"subject_type":"opaque","id":"x","user":{"subject_type":"opaque","id":"a"}}`, true, []string{}, ""},
	} {
		t.Run("complex: "+c.name, func(t *testing.T) {
			_, members, err := signals.ParseSubject(c.text, c.legacy)
			if c.want == nil {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			names := []string{}
			for name := range members {
				names = append(names, name)
			}
			assert.ElementsMatch(t, c.want, names)
		})
	}
}

func TestTypesOfSETs(t *testing.T) {
	tr := newTransmitter(t)
	for _, c := range []struct {
		typ     any
		untyped bool // the option
		code    int
	}{
		{"secevent+jwt", false, 202}, {"application/secevent+jwt", false, 202}, {"SECEVENT+JWT", false, 202}, {"secevent+jwt", true, 202},
		{nil, true, 202}, {"JWT", true, 202}, {"jwt", true, 202}, {"at+jwt", true, 400}, {"logout+jwt", true, 400}, {nil, false, 400}, {"JWT", false, 400},
	} {
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Legacy.AllowUntyped = c.untyped }))
		assert.Equal(t, c.code, push(r, tr.set(header("typ", c.typ))).Code, "%v with %v", c.typ, c.untyped)
	}
}

func TestSETsInDetail(t *testing.T) {
	tr := newTransmitter(t)
	legacy := func(cfg *signals.Config) { cfg.Legacy.AllowSubjectType = true }
	for _, c := range []struct {
		name   string
		set    string
		config func(*signals.Config)
		code   string
		err    string
	}{
		{"an algorithm that is not allowed", tr.set(), func(cfg *signals.Config) { cfg.Algorithms = []string{"RS256"} }, "invalid_key", "which is not allowed"},
		{"another typ", tr.set(header("typ", "at+jwt")), nil, "invalid_request", `typ is "at+jwt", not secevent+jwt`},
		{"iss in two letter cases", tr.set(claim("Iss", "x")), nil, "invalid_request", "two letter cases"},
		{"a toe that is a text", tr.set(claim("toe", "now")), nil, "invalid_request", "toe"},
		{"an iat that is missing", tr.set(claim("iat", nil)), nil, "invalid_request", "iat is missing"},
		{"a jti that is missing", tr.set(claim("jti", nil)), nil, "invalid_request", "jti is missing"},
		{"an aud that is a number", tr.set(claim("aud", 7)), nil, "invalid_request", "aud is not a string"},
		{"another iss", tr.set(claim("iss", "https://evil.example.com")), nil, "invalid_issuer", "iss is"},
		{"another aud", tr.set(claim("aud", "x")), nil, "invalid_audience", "aud does not contain this receiver"},
		{"a sub", tr.set(claim("sub", "alice")), nil, "invalid_request", "sub is present"},
		{"an exp", tr.set(claim("exp", 1)), nil, "invalid_request", "exp is present"},
		{"no events", tr.set(claim("events", nil)), nil, "invalid_request", "events is missing or not an object"},
		{"events that are a text", tr.set(claim("events", "x")), nil, "invalid_request", "events is missing or not an object"},
		{"two events", tr.set(claim("events", M{"a": M{}, "b": M{}})), nil, "invalid_request", "events has 2 events, not one"},
		{"an event that is a text", tr.set(claim("events", M{"a": "x"})), nil, "invalid_request", "the event is not an object"},
		{"a subject in the payload in two letter cases", tr.set(claim("sub_id", nil), event(signals.AccountDisabled, M{"subject": M{}, "SUBJECT": M{}})), legacy, "invalid_request", "two letter cases"},
		{"a key that is unknown", tr.set(with(newKey(t, "ES256"))), nil, "invalid_key", ""},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, tr.config(to(s), func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			}))
			w := push(r, c.set)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, c.code, errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), c.err)
			assert.Empty(t, s.what())
			assert.True(t, r.Status().LastContact.IsZero())
		})
	}
	t.Run("sub_id counts before a subject in the payload", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(to(s), legacy))
		assert.Equal(t, 202, push(r, tr.set(event(signals.AccountDisabled, M{"subject": user(tr.URL, "bob")}))).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
		assert.False(t, r.Status().LastContact.IsZero())
	})
}

// A wrong signature by a key that is known is refused for good only while the keys are known to be recent.
func TestForgedSETs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, s := newTransmitterInMemory(t), &sink{}
		r := newReceiver(t, tr.config(to(s)))
		require.Equal(t, 202, push(r, tr.set()).Code)
		forged := tr.set(with(newKey(t, "ES256")), header("kid", tr.keys[0].ID()), claim("sub_id", user(tr.URL, "bob")))
		for range 5 { // more often than the keys are fetched
			time.Sleep(time.Millisecond)
			w := push(r, forged)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "invalid_key", errOf(t, w))
		}
		tr.with(func() { tr.jwksDown = true })
		time.Sleep(time.Minute)
		for range 5 {
			time.Sleep(time.Millisecond)
			assert.Equal(t, 503, push(r, forged).Code, "the keys may have changed")
		}
		tr.with(func() { tr.jwksDown = false })
		time.Sleep(10 * time.Minute)
		assert.Equal(t, 400, push(r, forged).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
		r.Close()
		tr.close()
	})
}

// A SET that comes before the keys must not be lost.
func TestSETsBeforeTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, s := newTransmitterInMemory(t), &sink{}
		tr.jwksWait = 3 * time.Second // longer than a SET waits
		r := newReceiver(t, tr.config(to(s)))
		genuine := tr.set()
		w := push(r, genuine)
		assert.Equal(t, 503, w.Code, "no key has been fetched that could prove anything")
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		assert.Empty(t, s.what())
		time.Sleep(time.Second + time.Millisecond)
		assert.Equal(t, 202, push(r, genuine).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
		r.Close()
		tr.close()
	})
}

// A SET is not refused for good while the fetch that it has caused takes longer than it can wait.
func TestSETsWhileTheKeysAreFetched(t *testing.T) {
	const wait = 2 * time.Second // of a SET for the keys
	fetching := func(t *testing.T, age time.Duration, f func(t *testing.T, tr *transmitter, r *signals.Receiver)) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(to(&sink{})))
			require.Equal(t, 202, push(r, tr.set()).Code)
			time.Sleep(age)
			tr.with(func() { tr.jwksWait = wait + time.Second })
			f(t, tr, r)
			time.Sleep(wait) // the fetch ends
			r.Close()
			tr.close()
		})
	}
	t.Run("one with a new key is accepted when it is sent again", func(t *testing.T) {
		fetching(t, time.Minute, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			tr.with(func() { tr.keys = []*jose.PrivateKey{newKey(t, "ES256")} })
			genuine := tr.set()
			assert.Equal(t, 503, push(r, genuine).Code)
			time.Sleep(time.Second + time.Millisecond)
			assert.Equal(t, 202, push(r, genuine).Code)
		})
	})
	for name, c := range map[string]struct {
		age  time.Duration // of the keys, when the answer is sent
		code int
	}{
		"keys of less than five minutes prove that a signature is wrong": {5*time.Minute - 1, 400},
		"older ones do not": {5 * time.Minute, 503},
	} {
		t.Run(name, func(t *testing.T) {
			fetching(t, c.age-wait, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				assert.Equal(t, c.code, push(r, tr.set(with(newKey(t, "ES256")), header("kid", tr.keys[0].ID()))).Code)
			})
		})
	}
}
