package ldaplogin_test

import (
	"context"
	"crypto/x509"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
	"github.com/valetkey/valetkey/authserver/login"
)

// configOf returns the configuration for the directory, over ldaps.
func configOf(s *slapdtest.Server) ldaplogin.Config {
	return ldaplogin.Config{
		URL: s.TLSURL, RootCAs: s.CAs, BindDN: slapdtest.BindDN, BindPassword: slapdtest.BindPassword, BaseDN: slapdtest.BaseDN,
	}
}

func directory(t testing.TB, cfg ldaplogin.Config) *ldaplogin.Directory {
	t.Helper()
	d, err := ldaplogin.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// requireOutage asserts that err is an outage, not a refusal, and reveals nothing.
func requireOutage(t testing.TB, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, login.ErrRefused)
	for _, secret := range []string{slapdtest.CarolPassword, slapdtest.BindPassword} {
		require.NotContains(t, err.Error(), secret)
	}
}

func TestSlapd(t *testing.T) {
	s := slapdtest.Start(t)
	startTLS := configOf(s)
	startTLS.URL = s.URL
	for protection, cfg := range map[string]ldaplogin.Config{"ldaps": configOf(s), "StartTLS": startTLS} {
		t.Run(protection, func(t *testing.T) {
			d := directory(t, cfg)
			require.NoError(t, d.Ready(t.Context()))
			for _, c := range []struct{ name, user, password string }{
				{"a wrong password", slapdtest.Carol, slapdtest.DavePassword},
				{"an unknown name", "mallory", slapdtest.CarolPassword},
				{"no password", slapdtest.Carol, ""},
				{"no password of one who has none", slapdtest.Guest, ""},
				{"a password of one who has none", slapdtest.Guest, "guest"},
				{"no name", "", slapdtest.CarolPassword},
				{"a filter in the name", "*)(uid=*", slapdtest.CarolPassword},
				{"a filter for all users", "*", slapdtest.CarolPassword},
				{"a wildcard", "car*", slapdtest.CarolPassword},
				{"an escape", `\63arol`, slapdtest.CarolPassword},
				{"an alternative", "carol)(|(uid=carol", slapdtest.CarolPassword},
				{"a NUL behind the name", "carol\x00", slapdtest.CarolPassword},
				{"a DN", slapdtest.CarolDN, slapdtest.CarolPassword},
				{"a name that two people bear", slapdtest.Kim, slapdtest.KimPassword},
				{"an entry that is not a person", "valetkey", slapdtest.BindPassword},
				{"a name in full-width letters", "ｃａｒｏｌ", slapdtest.CarolPassword},
				{"a name with a soft hyphen", "ca\u00adrol", slapdtest.CarolPassword},
				{"a password of a NUL", slapdtest.Carol, "\x00"},
				{"a password beyond all limits", slapdtest.Carol, strings.Repeat("x", 1<<20)},
			} {
				t.Run(c.name+" is refused", func(t *testing.T) {
					u, err := d.Login(t.Context(), c.user, c.password)
					assert.Nil(t, u)
					assert.Equal(t, login.ErrRefused, err, "all refusals read alike")
				})
			}
			for _, name := range []string{"carol", "CAROL", " carol "} {
				u, err := d.Login(t.Context(), name, slapdtest.CarolPassword)
				require.NoError(t, err)
				assert.Equal(t, &login.User{Subject: "employee:" + slapdtest.CarolID, Type: "employee", Name: "carol", Display: "Carol Jones"}, u)
			}
			u, err := d.Login(t.Context(), slapdtest.Dave, slapdtest.DavePassword)
			require.NoError(t, err)
			assert.Equal(t, "employee:"+slapdtest.DaveID, u.Subject)
			assert.Equal(t, "Dave Ødegård", u.Display)
		})
	}

	t.Run("groups give scopes, and who is in none may allow nothing", func(t *testing.T) {
		cfg := configOf(s)
		cfg.Groups = map[string][]string{
			"CN=Finance, OU=groups, DC=example, DC=com": {"invoices:write", "invoices:read", "invoices:read"},
			"cn=sales,ou=groups,dc=example,dc=com":      {"offers:write"},
		}
		d := directory(t, cfg)
		u, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		require.NoError(t, err)
		assert.Equal(t, []string{"invoices:read", "invoices:write"}, u.Scopes)
		u, err = d.Login(t.Context(), slapdtest.Dave, slapdtest.DavePassword)
		require.NoError(t, err)
		assert.Equal(t, []string{}, u.Scopes, "nil would be all")
	})
	t.Run("other attributes and another type by choice", func(t *testing.T) {
		cfg := configOf(s)
		cfg.Filter, cfg.ID, cfg.Display, cfg.Type = "(|(uid=%s)(mail=%s))", "uid", "sn", "staff"
		d := directory(t, cfg)
		u, err := d.Login(t.Context(), "Carol@Example.com", slapdtest.CarolPassword)
		require.NoError(t, err)
		assert.Equal(t, &login.User{Subject: "staff:carol", Type: "staff", Name: "carol@example.com", Display: "Jones"}, u)
	})

	for _, c := range []struct {
		name   string
		change func(*ldaplogin.Config)
		want   string
	}{
		{"a certificate of another authority", func(c *ldaplogin.Config) { c.RootCAs = x509.NewCertPool() }, "certificate"},
		{"a certificate of another authority, with StartTLS",
			func(c *ldaplogin.Config) { c.URL, c.RootCAs = s.URL, x509.NewCertPool() }, "certificate"},
		{"a certificate of another host",
			func(c *ldaplogin.Config) { c.URL = strings.Replace(c.URL, "127.0.0.1", "localhost", 1) }, "localhost"},
		{"TLS at the port of StartTLS", func(c *ldaplogin.Config) { c.URL = strings.Replace(s.URL, "ldap:", "ldaps:", 1) }, ""},
		{"no TLS, where the directory insists on it", func(c *ldaplogin.Config) { c.URL, c.InsecurePlain = s.URL, true }, "binding as the service"},
		{"a wrong password of the service", func(c *ldaplogin.Config) { c.BindPassword = "wrong" }, "binding as the service"},
		{"a service that may not search", func(c *ldaplogin.Config) { c.BindDN, c.BindPassword = "", "" }, "No Such Object"},
		{"a base that is not there", func(c *ldaplogin.Config) { c.BaseDN = "ou=nowhere," + slapdtest.BaseDN }, "No Such Object"},
		{"an attribute in place of an ID that people lack", func(c *ldaplogin.Config) { c.ID = "employeeNumber" }, "employeeNumber has 0 values"},
	} {
		t.Run(c.name+" is an outage", func(t *testing.T) {
			cfg := configOf(s)
			c.change(&cfg)
			d := directory(t, cfg)
			for range 2 {
				_, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
				requireOutage(t, err)
				require.ErrorContains(t, err, c.want)
			}
		})
	}

	t.Run("a crash is an outage, and its end the end of it", func(t *testing.T) {
		d := directory(t, configOf(s))
		for round := range 2 {
			_, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
			require.NoError(t, err, "round %d", round)
			s.Kill()
			for _, name := range []string{slapdtest.Carol, "mallory"} {
				_, err = d.Login(t.Context(), name, slapdtest.CarolPassword)
				requireOutage(t, err)
			}
			requireOutage(t, d.Ready(t.Context()))
			s.Restart(t)
		}
		_, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		require.NoError(t, err)
	})
	t.Run("a customer gets in while the directory is down", func(t *testing.T) {
		s.Kill()
		defer s.Restart(t)
		customer := &login.User{Subject: "customer:1"}
		d := directory(t, configOf(s))
		u, err := login.Chain(d, loginOf(customer)).Login(t.Context(), "alice", "a password")
		require.NoError(t, err)
		assert.Same(t, customer, u)
		_, err = login.Chain(d, loginOf(nil)).Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		requireOutage(t, err)
	})
	t.Run("crowds get their own answers", func(t *testing.T) {
		cfg := configOf(s)
		cfg.PoolSize, cfg.Timeout = 2, soon
		d := directory(t, cfg)
		var crowd sync.WaitGroup
		for i := range 40 {
			crowd.Go(func() {
				name, id := slapdtest.Carol, slapdtest.CarolID
				if i%2 == 0 {
					name, id = slapdtest.Dave, slapdtest.DaveID
				}
				u, err := d.Login(t.Context(), name, map[string]string{slapdtest.Carol: slapdtest.CarolPassword, slapdtest.Dave: slapdtest.DavePassword}[name])
				if assert.NoError(t, err) {
					assert.Equal(t, "employee:"+id, u.Subject)
				}
			})
		}
		crowd.Wait()
	})
	t.Run("after Close there are no logins", func(t *testing.T) {
		d := directory(t, configOf(s))
		_, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		require.NoError(t, err)
		require.NoError(t, d.Close())
		require.NoError(t, d.Close())
		_, err = d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		requireOutage(t, err)
		require.ErrorContains(t, err, "has been closed")
	})
}

// A loginFunc is a Login of a test.
type loginFunc func() (*login.User, error)

func (f loginFunc) Login(context.Context, string, string) (*login.User, error) { return f() }

func (f loginFunc) Lookup(context.Context, string) (*login.Account, error) {
	return nil, login.ErrNoUser
}

// loginOf accepts every user as u, or refuses every user if u is nil.
func loginOf(u *login.User) login.Login {
	return loginFunc(func() (*login.User, error) {
		if u == nil {
			return nil, login.ErrRefused
		}
		return u, nil
	})
}

func BenchmarkSlapd(b *testing.B) {
	s := slapdtest.Start(b)
	d := directory(b, configOf(s))
	start := time.Now()
	for b.Loop() {
		if _, err := d.Login(b.Context(), slapdtest.Carol, slapdtest.CarolPassword); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "logins/s")
}
