package signals_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
)

// Whatever a genuine transmitter signs, it revokes nothing but tokens of the configured issuer, and a SET is accepted only if it is
// well-formed.
func FuzzSET(f *testing.F) {
	tr := newTransmitter(f)
	s := &sink{}
	cfg := tr.config(all, func(cfg *signals.Config) {
		cfg.Guards, cfg.Widen = []signals.Guard{s}, true
		cfg.Legacy = signals.Legacy{AllowSubjectType: true, AllowAllSessions: true}
	})
	r := newReceiver(f, cfg)
	claims := func(raw string) string {
		parts := strings.Split(raw, ".")
		return decode(f, parts[1])
	}
	for _, seed := range []string{
		claims(tr.set()),
		claims(tr.set(event(signals.SessionRevoked, M{"event_timestamp": 1615304991}), claim("sub_id", session(user(tr.URL, "alice"), "s1")))),
		claims(tr.set(event(signals.CredentialChange, M{"change_type": "revoke"}), claim("sub_id", M{"format": "aliases", "identifiers": []M{user(tr.URL, "alice")}}))),
		claims(tr.set(event(verification, M{"state": "x"}), claim("sub_id", opaque("stream-1")))),
		claims(tr.set(event(streamUpdated, M{"status": M{"status": "paused"}}), claim("sub_id", nil))),
		claims(tr.set(event(signals.SessionsRevoked, M{"subject": M{"subject_type": "iss-sub", "iss": tr.URL, "sub": "a"}}), claim("sub_id", nil))),
	} {
		f.Add(strings.ReplaceAll(seed, tr.URL, "URL"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		s.mu.Lock()
		s.all = nil
		s.mu.Unlock()
		text = strings.ReplaceAll(text, "URL", tr.URL)
		signed, err := tr.keys[0].Sign(M{"typ": "secevent+jwt"}, []byte(text))
		require.NoError(t, err)
		w := push(r, signed)
		switch w.Code {
		case 202:
			var c struct {
				Iss    string                     `json:"iss"`
				Exp    any                        `json:"exp"`
				Events map[string]json.RawMessage `json:"events"`
			}
			assert.NoError(t, json.Unmarshal([]byte(text), &c))
			assert.Equal(t, tr.URL, c.Iss)
			assert.Nil(t, c.Exp)
			assert.Len(t, c.Events, 1)
		case 400:
			assert.NotEmpty(t, errOf(t, w))
			assert.Empty(t, s.what())
		default:
			t.Errorf("status %d", w.Code)
		}
		for _, rev := range s.all {
			assert.Equal(t, tr.URL, rev.Issuer)
			assert.NotEqual(t, "nothing", what(rev))
			assert.NotEqual(t, "all", what(rev), "there is no tenant")
			assert.False(t, rev.Before.After(time.Now().Add(time.Minute)), "the future is not revoked")
			assert.False(t, rev.Until.After(time.Now().Add(25*time.Hour)))
		}
	})
}

func FuzzSubject(f *testing.F) {
	for _, seed := range []string{
		`{"format":"iss_sub","iss":"i","sub":"a"}`, `{"format":"complex","user":{"format":"email","email":"a@b"},"session":{"format":"opaque","id":"s"}}`,
		`{"format":"aliases","identifiers":[{"format":"opaque","id":"s"}]}`, `{"subject_type":"iss-sub","iss":"i","sub":"a"}`, `{"user":{"format":"opaque","id":"x"}}`,
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, legacy bool) {
		simple, complex, err := signals.ParseSubject(text, legacy)
		if err != nil {
			return
		}
		assert.True(t, json.Valid([]byte(text)))
		assert.NotEqual(t, len(simple) == 0, len(complex) == 0, "one of them")
		for _, list := range complex {
			simple = append(simple, list...)
		}
		for _, s := range simple {
			assert.LessOrEqual(t, len(s.ID), 1024)
			assert.True(t, json.Valid([]byte(s.Raw)))
			assert.NotContains(t, []string{"aliases", "complex", ""}, s.Format, "they do not nest")
			if s.Format == "iss_sub" {
				assert.NotEmpty(t, s.Issuer)
				assert.NotEmpty(t, s.ID)
			}
		}
	})
}

func FuzzPollAnswer(f *testing.F) {
	for _, seed := range []string{`{"sets":{"a":"x.y.z"},"moreAvailable":true}`, `{}`, `{"sets":null}`, `{"sets":{"a":1}}`, `{"sets":[]}`, `[]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sets, more, err := signals.ReadPollAnswer([]byte(text))
		if err != nil {
			return
		}
		var want struct {
			Sets map[string]any `json:"sets"`
			More any            `json:"moreAvailable"`
		}
		assert.NoError(t, json.Unmarshal([]byte(text), &want))
		assert.Equal(t, len(want.Sets), len(sets), "each name is unique")
		for _, s := range sets {
			raw, _ := want.Sets[s[0]].(string)
			assert.Equal(t, raw, s[1])
		}
		is, _ := want.More.(bool)
		assert.Equal(t, is, more)
	})
}
