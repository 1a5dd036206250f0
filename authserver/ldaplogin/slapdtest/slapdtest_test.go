package slapdtest_test

import (
	"testing"

	"github.com/go-ldap/ldap/v3"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
)

func TestServer(t *testing.T) {
	s := slapdtest.Start(t)
	for range 2 {
		c, err := ldap.DialURL(s.URL)
		require.NoError(t, err)
		err = c.Bind(slapdtest.BindDN, slapdtest.BindPassword)
		require.True(t, ldap.IsErrorWithCode(err, ldap.LDAPResultConfidentialityRequired), "a bind without TLS: %v", err)
		require.NoError(t, c.Close())

		s.Kill()
		_, err = ldap.DialURL(s.URL)
		require.Error(t, err)
		s.Restart(t)
	}
}
