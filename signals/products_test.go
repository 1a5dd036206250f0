package signals_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
)

// A product sends SETs in the shape of one transmitter. The settings are those of docs/signals.md.
type product struct {
	name   string
	config func(tr *transmitter, cfg *signals.Config)
	inputs []input
}

type input struct {
	name string
	set  func(tr *transmitter) []change
	want []string // revocations; nil: none
	code int      // zero: 202
	bare int      // status without the settings for the product; zero: not checked
}

func products() []product {
	return []product{
		{"Okta", func(_ *transmitter, cfg *signals.Config) {
			cfg.Legacy.AllowSubjectType = true
			cfg.Events = append(signals.DefaultEvents(), signals.CredentialChange)
		}, []input{
			{"session-revoked with sub_id", func(tr *transmitter) []change {
				return []change{claim("sub_id", session(user(tr.URL, "00u1"), "102s")), event(signals.SessionRevoked,
					M{"event_timestamp": time.Now().Unix(), "initiating_entity": "admin", "reason_admin": M{"en": "User Session ended"}})}
			}, []string{"sid 102s"}, 0, 0},
			{"session-revoked with the subject in the payload", func(tr *transmitter) []change {
				return []change{claim("sub_id", nil), event(signals.SessionRevoked, M{"event_timestamp": time.Now().Unix(), "subject": M{"user": user(tr.URL, "00u1")}})}
			}, []string{"sub 00u1"}, 0, 400},
			{"credential-change: a factor is reset", func(tr *transmitter) []change {
				return []change{claim("sub_id", user(tr.URL, "00u1")), event(signals.CredentialChange, M{"credential_type": "fido2-roaming", "change_type": "delete"})}
			}, []string{"sub 00u1"}, 0, 0},
			{"credential-change: a factor is activated", func(tr *transmitter) []change {
				return []change{claim("sub_id", user(tr.URL, "00u1")), event(signals.CredentialChange, M{"credential_type": "app", "change_type": "create"})}
			}, nil, 0, 0},
		}},
		{"Google", func(tr *transmitter, cfg *signals.Config) {
			cfg.Transmitter, cfg.Issuer, cfg.IssuerAliases = tr.URL+"/", tr.URL, []string{tr.URL + "/"}
			cfg.Audience = []string{"123.apps.googleusercontent.com"}
			cfg.Events = append(signals.DefaultEvents(), signals.TokensRevoked, signals.AccountCredentialChangeRequired)
			cfg.Legacy = signals.Legacy{AllowSubjectType: true, AllowRISCMetadata: true, AllowUntyped: true}
		}, []input{
			{"sessions-revoked", google(signals.SessionsRevoked, nil), []string{"sub 7375626A656374"}, 0, 400},
			{"sessions-revoked with the typ JWT", func(tr *transmitter) []change {
				return append(google(signals.SessionsRevoked, nil)(tr), header("typ", "JWT"))
			}, []string{"sub 7375626A656374"}, 0, 400},
			{"tokens-revoked", google(signals.TokensRevoked, nil), []string{"sub 7375626A656374"}, 0, 400},
			{"account-disabled with a reason", google(signals.AccountDisabled, M{"reason": "hijacking"}), []string{"sub 7375626A656374"}, 0, 400},
			{"account-enabled", google("https://schemas.openid.net/secevent/risc/event-type/account-enabled", nil), nil, 0, 400},
			{"account-credential-change-required", google(signals.AccountCredentialChangeRequired, nil), []string{"sub 7375626A656374"}, 0, 400},
			{"a verification with the state of the operator", func(tr *transmitter) []change {
				return []change{claim("iss", tr.URL+"/"), claim("aud", "123.apps.googleusercontent.com"), claim("sub_id", nil),
					event("https://schemas.openid.net/secevent/risc/event-type/verification", M{"state": "test"})}
			}, nil, 0, 400},
			{"the aud of another project", func(tr *transmitter) []change {
				return append(google(signals.SessionsRevoked, nil)(tr), claim("aud", []string{"456.apps.googleusercontent.com"}))
			}, nil, 400, 400},
		}},
		{"Keycloak", func(_ *transmitter, cfg *signals.Config) {
			cfg.Audience = []string{"orders-api"}
			cfg.Legacy = signals.Legacy{AllowAudienceOfStream: true, AllowAllSessions: true}
			cfg.Stream.ID = "5f3c"
			cfg.Stream.Unmanaged = false
			managed(signals.Poll)(cfg)
			cfg.Audience = []string{"orders-api"}
		}, []input{
			{"session-revoked of a session, with aud <client>/<stream>", func(tr *transmitter) []change {
				return []change{claim("aud", "orders-api/5f3c"), claim("sub_id", session(user(tr.URL, "f4d1"), "a9b8")), event(signals.SessionRevoked, M{})}
			}, []string{"sid a9b8"}, 0, 400},
			{"session-revoked of the session ALL", func(tr *transmitter) []change {
				return []change{claim("aud", "orders-api/5f3c"), claim("sub_id", session(user(tr.URL, "f4d1"), "ALL")), event(signals.SessionRevoked, M{})}
			}, []string{"sub f4d1"}, 0, 400},
			{"the aud of another stream", func(tr *transmitter) []change {
				return []change{claim("aud", "orders-api/0000"), claim("sub_id", session(user(tr.URL, "f4d1"), "a9b8")), event(signals.SessionRevoked, M{})}
			}, nil, 400, 400},
			{"milliseconds", func(tr *transmitter) []change {
				return []change{claim("aud", "orders-api/5f3c"), claim("sub_id", user(tr.URL, "f4d1")), event(signals.SessionRevoked, M{"event_timestamp": time.Now().UnixMilli()})}
			}, []string{"sub f4d1"}, 0, 400},
			{"stream-updated with a status object", func(*transmitter) []change {
				return []change{claim("aud", "orders-api/5f3c"), claim("sub_id", opaque("5f3c")), event(streamUpdated, M{"status": M{"status": "enabled"}})}
			}, nil, 0, 400},
		}},
		{"Jamf", func(_ *transmitter, cfg *signals.Config) {
			cfg.Events = []signals.Event{signals.DeviceComplianceChange}
			cfg.Resolve = people
			cfg.Widen = true
		}, []input{
			{"device-compliance-change of a device of a user", func(*transmitter) []change {
				return []change{claim("sub_id", M{"format": "complex", "user": M{"format": "email", "email": "alice@example.com"}, "device": opaque("udid")}),
					event(signals.DeviceComplianceChange, M{"current_status": "not-compliant", "previous_status": "compliant"})}
			}, []string{"sub alice"}, 0, 0},
			{"device-compliance-change of a device alone", func(*transmitter) []change {
				return []change{claim("sub_id", M{"format": "complex", "device": opaque("udid")}), event(signals.DeviceComplianceChange, M{"current_status": "not-compliant"})}
			}, nil, 0, 0},
			{"its own risk event for Okta", func(*transmitter) []change {
				return []change{event("https://schemas.okta.com/secevent/okta/event-type/device-risk-change", M{"current_level": "high", "subject": M{"device": opaque("udid")}})}
			}, nil, 0, 0},
		}},
	}
}

// google returns the SET of a RISC event.
func google(e signals.Event, more M) func(*transmitter) []change {
	return func(tr *transmitter) []change {
		payload := M{"subject": M{"subject_type": "iss-sub", "iss": tr.URL + "/", "sub": "7375626A656374"}}
		for name, v := range more {
			payload[name] = v
		}
		return []change{claim("iss", tr.URL+"/"), claim("aud", "123.apps.googleusercontent.com"), claim("sub_id", nil), claim("txn", nil), event(e, payload)}
	}
}

func TestProducts(t *testing.T) {
	for _, p := range products() {
		t.Run(p.name, func(t *testing.T) {
			tr, s := newTransmitter(t), &sink{}
			if p.name == "Google" { // its metadata has another name, and its keys are on another host
				tr = googleTransmitter(t)
			}
			tr.streams = []M{tr.stream("5f3c", M{"method": "urn:ietf:rfc:8936"}, []string{string(signals.SessionRevoked)})}
			tr.streams[0]["aud"] = nil
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }, func(cfg *signals.Config) { p.config(tr, cfg) }))
			run(t, r)
			eventually(t, "it is ready", isReady(r))
			for _, in := range p.inputs {
				t.Run(in.name, func(t *testing.T) {
					s.mu.Lock()
					s.all = nil
					s.mu.Unlock()
					raw := tr.set(in.set(tr)...)
					if in.code == 0 {
						in.code = 202
					}
					w := push(r, raw)
					assert.Equal(t, in.code, w.Code, w.Body.String())
					assert.ElementsMatch(t, in.want, s.what())
					for _, rev := range s.all {
						assert.False(t, rev.Before.After(time.Now().Add(time.Minute)), "the future is not revoked")
					}
					if in.bare != 0 {
						plain := newReceiver(t, tr.config())
						assert.Equal(t, in.bare, push(plain, raw).Code, "without the settings")
					}
				})
			}
		})
	}
}

// googleTransmitter returns a transmitter with the metadata of Google: under the name risc-configuration, with an issuer that ends with
// a slash.
func googleTransmitter(t *testing.T) *transmitter {
	tr := prepareTransmitter(t)
	tr.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/risc-configuration":
			reply(w, 200, M{"issuer": tr.URL + "/", "jwks_uri": tr.URL + "/certs", "delivery_methods_supported": []string{"https://schemas.openid.net/secevent/risc/delivery-method/push"}})
		case "/certs":
			reply(w, 200, M{"keys": []json.RawMessage{tr.keys[0].PublicJWK()}})
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(tr.server.Close)
	tr.URL = tr.server.URL
	return tr
}

// Keycloak has no long poll, and its metadata is behind the path of the realm.
func TestKeycloakPolls(t *testing.T) {
	key := newKey(t, "ES256")
	var polls, metadata int
	var base string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /realms/a/.well-known/ssf-configuration", func(w http.ResponseWriter, _ *http.Request) {
		metadata++
		reply(w, 200, M{"issuer": base + "/realms/a", "jwks_uri": base + "/certs", "configuration_endpoint": base + "/realms/a/ssf/transmitter/streams"})
	})
	mux.HandleFunc("GET /certs", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, M{"keys": []json.RawMessage{key.PublicJWK()}})
	})
	mux.HandleFunc("GET /realms/a/ssf/transmitter/streams", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, M{"stream_id": "5f3c", "iss": base + "/realms/a", "aud": []string{"orders-api/5f3c"}, "delivery": M{"method": "urn:ietf:rfc:8936",
			"endpoint_url": base + "/realms/a/ssf/poll"}, "events_delivered": []string{string(signals.SessionRevoked)}})
	})
	sent := make(chan M, 10)
	mux.HandleFunc("POST /realms/a/ssf/poll", func(w http.ResponseWriter, r *http.Request) {
		polls++
		select {
		case sent <- body(r):
		default: // further ones do not matter
		}
		sets := M{}
		if polls == 1 {
			claims, _ := json.Marshal(M{"iss": base + "/realms/a", "aud": "orders-api/5f3c", "iat": time.Now().Unix(), "jti": "one",
				"sub_id": session(user(base+"/realms/a", "f4d1"), "a9b8"), "events": M{string(signals.SessionRevoked): M{}}})
			signed, err := key.Sign(M{"typ": "secevent+jwt"}, claims)
			require.NoError(t, err)
			sets["one"] = signed
		}
		reply(w, 200, M{"sets": sets})
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	base = server.URL
	s := &sink{}
	tr := &transmitter{URL: base + "/realms/a"}
	r := newReceiver(t, tr.config(managed(signals.Poll), func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
	run(t, r)
	eventually(t, "it has caught up", isReady(r))
	assert.Equal(t, []string{"sid a9b8"}, s.what())
	first, second := <-sent, <-sent
	assert.Nil(t, first["ack"])
	assert.Equal(t, []any{"one"}, second["ack"])
	assert.GreaterOrEqual(t, metadata, 1)
}

// Apple and Microsoft send no signals to the APIs of others. Whatever has the form of their tokens is refused.
func TestOthersAreRefused(t *testing.T) {
	tr, s := newTransmitter(t), &sink{}
	r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
	for name, raw := range map[string]string{
		// Sign in with Apple sends account events in another form: events is a text.
		"the account notification of Apple": tr.set(header("typ", nil), claim("aud", audience), claim("sub_id", nil),
			claim("events", `{"type":"consent-revoked","sub":"001","event_time":1600000000000}`)),
		// A claims challenge of Microsoft is an access token's matter, and no SET.
		"an access token of Microsoft": tr.set(header("typ", "JWT"), claim("sub", "AAAA"), claim("exp", time.Now().Add(time.Hour).Unix()), claim("xms_cc", []string{"cp1"}), claim("events", nil)),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			assert.Equal(t, 400, push(r, raw).Code)
			assert.Empty(t, s.what())
		})
	}
}
