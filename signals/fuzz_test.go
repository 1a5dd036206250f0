package signals_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
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
	for _, seed := range []string{`{"sets":{"a":"x.y.z"},"moreAvailable":true}`, `{}`, `{"sets":null}`, `{"sets":{"a":1}}`, `{"sets":[]}`, `[]`, `{"Sets":[]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sets, more, err := signals.ReadPollAnswer([]byte(text))
		if err != nil {
			return
		}
		var names map[string]json.RawMessage // which are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(text), &names))
		var want map[string]any
		if len(names["sets"]) > 0 {
			require.NoError(t, json.Unmarshal(names["sets"], &want))
		}
		assert.Equal(t, len(want), len(sets), "each name is unique")
		for _, s := range sets {
			raw, _ := want[s[0]].(string)
			assert.Equal(t, raw, s[1])
		}
		is := string(names["moreAvailable"]) == "true"
		assert.Equal(t, is, more)
	})
}

// FuzzLogout: a logout token, or a JWT of a global token revocation with its body, revokes only if it is for this receiver and valid now, as
// encoding/json reads it. It revokes nothing but tokens of the issuer, of the user or session that it is about, up to now. A refusal has an
// error and revokes nothing. URL is the issuer, and NOW the time.
func FuzzLogout(f *testing.F) {
	tr := newTransmitter(f)
	s := &sink{}
	r := newReceiver(f, signals.Config{
		Delivery: signals.NoStream, Issuer: tr.URL, Guards: []signals.Guard{s}, Logger: slog.New(slog.DiscardHandler), Widen: true,
		Logout: signals.LogoutConfig{Audience: []string{logoutClient}, AllowUntyped: true, JWKSURL: tr.URL + "/jwks"}, Resolve: people,
		GlobalRevocation: signals.GlobalRevocationConfig{Issuer: tr.URL, Audience: []string{endpoint}, JWKSURL: tr.URL + "/jwks"},
	})
	for _, claims := range []string{
		`{"iss":"URL","aud":"orders-app","sub":"alice","sid":"s1","iat":NOW,"exp":NOW00,"jti":"1","events":{"EVENT":{}}}`,
		`{"iss":"URL","aud":["x","orders-app"],"sub":"alice","iat":NOW,"exp":NOW.5,"jti":"1","events":{"EVENT":{"a":1},"x":null},"nonce":null}`,
		`{"iss":"URL","aud":"orders-app","sid":"s1","sid":"s2","iat":NOW,"exp":NOW,"jti":"1","events":{"EVENT":{}}}`,
		`{"iss":"URL","AUD":"orders-app","aud":null,"sid":"","iat":1e99,"exp":NOW,"jti":"1","events":{"EVENT":[]}}`,
	} {
		f.Add("logout+jwt", strings.ReplaceAll(claims, "EVENT", string(signals.Logout)), "")
	}
	for _, body := range []string{
		`{"sub_id":{"format":"iss_sub","iss":"URL","sub":"alice"}}`, `{"subject":{"format":"email","email":"alice@example.com"}}`, `{"sub_id":{"format":"opaque","id":"x"},"sub_id":{}}`,
	} {
		f.Add("global-token-revocation+jwt", `{"iss":"URL","aud":"`+endpoint+`","iat":NOW,"exp":NOW,"jti":"1","sub":"x"}`, body)
	}
	logout, global := r.Logout(), r.GlobalRevocation()
	f.Fuzz(func(t *testing.T, typ, claims, body string) {
		now := time.Now()
		values := strings.NewReplacer("URL", tr.URL, "NOW", strconv.FormatInt(now.Unix(), 10))
		claims, body = values.Replace(claims), values.Replace(body)
		s.mu.Lock()
		s.all = nil
		s.mu.Unlock()
		token, err := tr.keys[0].Sign(M{"typ": typ}, []byte(claims))
		require.NoError(t, err)
		w, done := httptest.NewRecorder(), http.StatusOK
		if body == "" {
			req := httptest.NewRequest("POST", "/", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			logout.ServeHTTP(w, req)
		} else {
			req := httptest.NewRequest("POST", "/", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+token)
			global.ServeHTTP(w, req)
			done = http.StatusNoContent
		}
		assert.NotContains(t, w.Body.String(), token)
		if w.Code != done {
			assert.Contains(t, []int{400, 401, 403, 404}, w.Code)
			assert.NotEmpty(t, errOf(t, w))
			assert.Empty(t, s.what())
			return
		}
		var c map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(claims), &c))
		text := func(name string) (v string) {
			_ = json.Unmarshal(c[name], &v) // v stays empty if it is not a string
			return v
		}
		var exp, iat float64
		require.NoError(t, json.Unmarshal(c["exp"], &exp))
		require.NoError(t, json.Unmarshal(c["iat"], &iat))
		assert.Equal(t, tr.URL, text("iss"))
		assert.Greater(t, exp, float64(now.Unix()-120))
		assert.Less(t, iat, float64(now.Unix()+120))
		audience, wanted := []string{text("aud")}, logoutClient
		if text("aud") == "" {
			require.NoError(t, json.Unmarshal(c["aud"], &audience))
		}
		subject := []string{text("sub")}
		if body == "" {
			var events map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(c["events"], &events))
			assert.True(t, strings.HasPrefix(string(events[string(signals.Logout)]), "{"))
			assert.NotContains(t, c, "nonce")
		} else {
			wanted = endpoint
			var sent map[string]json.RawMessage
			require.NoError(t, json.Unmarshal([]byte(body), &sent))
			var id struct{ Format, Iss, Sub string }
			require.NoError(t, json.Unmarshal(slices.Concat(sent["sub_id"], sent["subject"]), &id), "exactly one of them")
			if subject = []string{"alice", "bob"}; id.Format == "iss_sub" {
				assert.Equal(t, tr.URL, id.Iss)
				subject = []string{id.Sub}
			}
		}
		assert.Contains(t, audience, wanted)
		assert.NotEmpty(t, s.all)
		for _, rev := range s.all {
			assert.Equal(t, tr.URL, rev.Issuer)
			assert.False(t, rev.Subject == "" && rev.SessionID == "", "more than a user or session is revoked")
			assert.False(t, later(rev.Before, rev.At).After(now.Add(2*time.Minute)), "the future is not revoked")
			assert.Contains(t, append(subject, ""), rev.Subject)
			assert.Contains(t, []string{"", text("sid")}, rev.SessionID)
		}
	})
}
