package ldaplogin_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin"
)

func TestConfig(t *testing.T) {
	good := func() ldaplogin.Config {
		return ldaplogin.Config{URL: "ldaps://ldap.example.com", BaseDN: "dc=example,dc=com"}
	}
	for _, c := range []struct {
		name   string
		change func(*ldaplogin.Config)
		want   []string
	}{
		{"nothing at all", func(c *ldaplogin.Config) { *c = ldaplogin.Config{} }, []string{"URL: ", "BaseDN: "}},
		{"every mistake is named", func(c *ldaplogin.Config) {
			*c = ldaplogin.Config{URL: "http://x", BindDN: "x", BaseDN: "x", Filter: "(", Groups: map[string][]string{"x": {"a b"}}, Type: "A", Timeout: -1, PoolSize: -1}
		}, []string{"URL: ", "BindDN: ", "BindPassword: ", "BaseDN: ", "Filter: ", `Groups["x"]: `, "(RFC 6749, section 3.3)", "Type: ", "Timeout: ", "PoolSize: "}},
		{"a URL that cannot be parsed", func(c *ldaplogin.Config) { c.URL = "ldap://\x00secret" }, []string{"URL: cannot be parsed"}},
		{"a URL without a host", func(c *ldaplogin.Config) { c.URL = "ldaps://:636" }, []string{"URL: "}},
		{"a URL with a path", func(c *ldaplogin.Config) { c.URL += "/dc=example" }, []string{"URL: "}},
		{"a URL with a user", func(c *ldaplogin.Config) { c.URL = "ldaps://u:secret@ldap.example.com" }, []string{"URL: "}},
		{"a socket", func(c *ldaplogin.Config) { c.URL = "ldapi://socket" }, []string{"URL: "}},
		{"TLS that is plain", func(c *ldaplogin.Config) { c.InsecurePlain = true }, []string{"URL: ldaps:// and InsecurePlain"}},
		{"a password without a DN", func(c *ldaplogin.Config) { c.BindPassword = "secret" }, []string{"BindPassword: "}},
		{"a service without a password, which would bind anonymously", func(c *ldaplogin.Config) { c.BindDN = "cn=x" }, []string{"BindPassword: "}},
		{"a filter without a name, which would find every user", func(c *ldaplogin.Config) { c.Filter = "(objectClass=person)" }, []string{"Filter: "}},
		{"a filter with a part of a value", func(c *ldaplogin.Config) { c.Filter = "(uid=*%s*)" }, []string{"Filter: "}},
		{"a filter with one name whole and one in part", func(c *ldaplogin.Config) { c.Filter = "(|(uid=%s)(cn=%s*))" }, []string{"Filter: "}},
		{"a filter with another %", func(c *ldaplogin.Config) { c.Filter = "(|(uid=%s)(cn=%d))" }, []string{"Filter: "}},
		{"an invalid filter", func(c *ldaplogin.Config) { c.Filter = "uid=%s" }, []string{"Filter: "}},
		{"a filter that does not end", func(c *ldaplogin.Config) { c.Filter = "(&(uid=%s)" }, []string{"Filter: "}},
		{"a pool without end", func(c *ldaplogin.Config) { c.PoolSize = 1001 }, []string{"PoolSize: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good()
			c.change(&cfg)
			_, err := ldaplogin.New(cfg)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "secret")
		})
	}
	for _, c := range []struct {
		name   string
		change func(*ldaplogin.Config)
	}{
		{"the least", func(*ldaplogin.Config) {}},
		{"a port", func(c *ldaplogin.Config) { c.URL += ":1636" }},
		{"an address", func(c *ldaplogin.Config) { c.URL = "ldap://[::1]:389" }},
		{"plain, by name", func(c *ldaplogin.Config) { c.URL, c.InsecurePlain = "ldap://127.0.0.1", true }},
		{"two attributes", func(c *ldaplogin.Config) { c.Filter = "(|(uid=%s)(mail=%s))" }},
		{"an attribute by its number", func(c *ldaplogin.Config) { c.Filter = "(0.9.2342.19200300.100.1.1=%s)" }},
		{"all of it", func(c *ldaplogin.Config) {
			c.BindDN, c.BindPassword, c.ID, c.Display, c.Type = "cn=x", "secret", "uid", "displayName", "staff"
			c.Timeout, c.PoolSize, c.Groups = time.Second, 1, map[string][]string{"cn=a": {"b"}, "cn=c": nil}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good()
			c.change(&cfg)
			d, err := ldaplogin.New(cfg)
			require.NoError(t, err)
			require.NoError(t, d.Close(), "nothing was connected")
		})
	}
}
