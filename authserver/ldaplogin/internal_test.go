package ldaplogin

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
)

// TestKeptConnections is in the package to age a connection and to break one.
func TestKeptConnections(t *testing.T) {
	s := slapdtest.Start(t)
	d, err := New(Config{
		URL: s.TLSURL, RootCAs: s.CAs, BindDN: slapdtest.BindDN, BindPassword: slapdtest.BindPassword,
		BaseDN: slapdtest.BaseDN, PoolSize: 1,
	})
	require.NoError(t, err)
	defer d.Close()
	kept := func(change func(*conn)) *conn {
		_, err := d.Login(t.Context(), slapdtest.Carol, slapdtest.CarolPassword)
		require.NoError(t, err)
		c := <-d.pool.slots
		change(c)
		d.pool.slots <- c
		return c
	}
	nothing := func(*conn) {}
	first := kept(nothing)
	second := kept(func(c *conn) { c.used = time.Now().Add(-maxIdle) })
	assert.Same(t, first, second, "a connection is kept")
	third := kept(func(c *conn) { c.net.SetDeadline(time.Unix(1, 0)) })
	assert.NotSame(t, second, third, "one that has rested for long is replaced")
	assert.True(t, second.ldap.IsClosing(), "and closed")
	fourth := kept(func(c *conn) { c.ldap.Close() })
	assert.NotSame(t, third, fourth, "one that turns out to be broken is replaced")
	assert.NotSame(t, fourth, kept(nothing), "one that is closed is replaced")
}
