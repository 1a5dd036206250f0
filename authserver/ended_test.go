package authserver_test

import (
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
)

// TestWhatIsEndedStaysEnded asserts, for every way to end a grant, that neither its access token nor its refresh token is
// ever valid again: at random times, in virtual time, until the grant would have expired.
func TestWhatIsEndedStaysEnded(t *testing.T) {
	const rounds = 2
	seed := rand.Uint64()
	t.Logf("seed %d", seed) // replace rand.Uint64 by it to repeat the test
	for _, c := range []struct {
		name string
		end  func(t *testing.T, s *authserver.Server, access, refresh string) error
	}{
		{"its access token revoked by the client", func(t *testing.T, s *authserver.Server, access, _ string) error {
			require.Equal(t, 200, asked(s, "/oauth2/revoke", "writer", "token", access).Code)
			return nil
		}},
		{"its refresh token revoked by the client", func(t *testing.T, s *authserver.Server, _, refresh string) error {
			require.Equal(t, 200, asked(s, "/oauth2/revoke", "writer", "token", refresh).Code)
			return nil
		}},
		{"its user logged out everywhere", func(t *testing.T, s *authserver.Server, _, _ string) error {
			people, err := s.Users("")
			require.NoError(t, err)
			bob, err := people.Login(t.Context(), "bob", "correct mule")
			require.NoError(t, err)
			_, _, err = s.RevokeUser(t.Context(), bob.Subject)
			return err
		}},
		{"its user given a new password", func(t *testing.T, s *authserver.Server, _, _ string) error {
			return s.SetPassword(t.Context(), "", "bob", "another mule")
		}},
		{"its user removed", func(t *testing.T, s *authserver.Server, _, _ string) error {
			return s.RemoveUser(t.Context(), "", "bob")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for round := range uint64(rounds) {
				synctest.Test(t, func(t *testing.T) {
					dice := rand.New(rand.NewPCG(seed, round))
					cfg := config("http://localhost:1")
					passwords(&cfg)
					s, err := authserver.New(t.Context(), cfg)
					require.NoError(t, err)
					_, err = s.AddUser(t.Context(), "", login.NewUser{Name: "bob", Password: "correct mule"})
					require.NoError(t, err)
					granted := func(name, password string) map[string]any {
						w := asked(s, "/oauth2/token", "writer", "grant_type", "password", "username", name, "password", password)
						return read(t, w.Result(), nil).body
					}
					tokens := granted("bob", "correct mule")
					access, refresh := tokens["access_token"].(string), tokens["refresh_token"].(string)
					active := func() bool {
						return strings.Contains(asked(s, "/oauth2/introspect", "orders-api", "token", access).Body.String(), `"active":true`)
					}
					time.Sleep(time.Duration(dice.Int64N(int64(9 * time.Minute))))
					require.True(t, active(), "before")
					require.NoError(t, c.end(t, s, access, refresh))
					begun := time.Now()
					for steps := 0; time.Since(begun) < 31*24*time.Hour; steps++ {
						require.False(t, active(), "after %v", time.Since(begun))
						w := asked(s, "/oauth2/token", "writer", "grant_type", "refresh_token", "refresh_token", refresh)
						require.Equal(t, 400, w.Code, "after %v", time.Since(begun))
						switch dice.IntN(40) { // what must not bring it back
						case 0:
							granted("alice", "correct horse")
						case 1:
							granted("bob", "another mule")
						case 2:
							require.NoError(t, s.RotateKeys(t.Context(), false))
						}
						most := 2 * time.Minute // at first, while the access token has not expired
						if time.Since(begun) > 10*time.Minute {
							most = 2 * 24 * time.Hour
						}
						time.Sleep(time.Duration(1 + dice.Int64N(int64(most))))
					}
				})
			}
		})
	}
}

// asked posts a form as a configured client, without a network.
func asked(s *authserver.Server, path, id string, pairs ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://localhost:1"+path, strings.NewReader(form(pairs...).Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape("test-secret-of-"+id))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
