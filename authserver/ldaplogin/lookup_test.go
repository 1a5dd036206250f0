package ldaplogin_test

import (
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
	"github.com/valetkey/valetkey/authserver/login"
)

const carolSubject, daveSubject = "employee:" + slapdtest.CarolID, "employee:" + slapdtest.DaveID

func requireNoUser(t testing.TB, a *login.Account, err error) {
	t.Helper()
	require.ErrorIs(t, err, login.ErrNoUser)
	require.Nil(t, a)
}

// change replaces an attribute of an entry; without values it is removed.
func change(t testing.TB, c *ldap.Conn, dn, attribute string, values ...string) {
	t.Helper()
	m := ldap.NewModifyRequest(dn, nil)
	m.Replace(attribute, values)
	require.NoError(t, c.Modify(m))
}

func TestLookupInSlapd(t *testing.T) {
	s := slapdtest.Start(t)
	admin := s.Admin(t)
	cfg := configOf(s)
	cfg.Groups = map[string][]string{slapdtest.Finance: {"invoices:read"}}
	d := directory(t, cfg)

	for name, subject := range map[string]string{
		"an id that no entry has":       "employee:0c0ffee0-9999-4999-8999-999999999999",
		"an id in capitals":             "employee:0C0FFEE0-1111-4111-8111-111111111111",
		"a filter in place of an id":    "employee:*)(uid=*",
		"a wildcard":                    "employee:*",
		"no id":                         "employee:",
		"a name":                        "employee:carol",
		"a type that only begins alike": "employees:" + slapdtest.CarolID,
		"the entry of another type":     "customer:" + slapdtest.CarolID,
		"an id without a type":          slapdtest.CarolID,
	} {
		t.Run(name+" is not a user", func(t *testing.T) {
			a, err := d.Lookup(t.Context(), subject)
			requireNoUser(t, a, err)
		})
	}
	t.Run("an account has the scopes of its groups", func(t *testing.T) {
		a, err := d.Lookup(t.Context(), carolSubject)
		require.NoError(t, err)
		assert.Equal(t, []string{"invoices:read"}, a.Scopes)
		a, err = d.Lookup(t.Context(), daveSubject)
		require.NoError(t, err)
		assert.Equal(t, []string{}, a.Scopes, "nil would be all")
		a, err = directory(t, configOf(s)).Lookup(t.Context(), daveSubject)
		require.NoError(t, err)
		assert.Nil(t, a.Scopes, "no groups are configured")
	})
	t.Run("a group that the entry has left gives no scopes", func(t *testing.T) {
		change(t, admin, slapdtest.Finance, "member", slapdtest.DaveDN)
		a, err := d.Lookup(t.Context(), carolSubject)
		require.NoError(t, err)
		assert.Equal(t, []string{}, a.Scopes)
		a, err = d.Lookup(t.Context(), daveSubject)
		require.NoError(t, err)
		assert.Equal(t, []string{"invoices:read"}, a.Scopes)
	})
	t.Run("a new password is a later credential, also for who logs in with it", func(t *testing.T) {
		change(t, admin, slapdtest.DaveDN, "userPassword", slapdtest.DavePassword)
		before, err := d.Lookup(t.Context(), daveSubject)
		require.NoError(t, err)
		require.False(t, before.Since.IsZero(), "slapd records when")
		u, err := d.Login(t.Context(), slapdtest.Dave, slapdtest.DavePassword)
		require.NoError(t, err)
		assert.Equal(t, before.Since, u.Since)
		require.Eventually(t, func() bool { // the directory counts in seconds
			change(t, admin, slapdtest.DaveDN, "userPassword", "another window")
			after, err := d.Lookup(t.Context(), daveSubject)
			return assert.NoError(t, err) && after.Since.After(before.Since)
		}, soon, 50*time.Millisecond)
	})
	t.Run("a lock after wrong passwords ends nothing, one by an administrator does", func(t *testing.T) {
		lock := func(at string) {
			m := ldap.NewModifyRequest(slapdtest.DaveDN, []ldap.Control{ldap.NewControlManageDsaIT(false), &relax{}})
			m.Replace("pwdAccountLockedTime", []string{at})
			require.NoError(t, admin.Modify(m))
		}
		lock("20200101000000Z")
		_, err := d.Lookup(t.Context(), daveSubject)
		require.NoError(t, err)
		lock("000001010000Z")
		a, err := d.Lookup(t.Context(), daveSubject)
		requireNoUser(t, a, err)
	})
	t.Run("an entry that the filter leaves out is gone", func(t *testing.T) {
		leavers := cfg
		leavers.Filter = "(&(objectClass=person)(!(employeeType=former))(|(uid=%s)(mail=%s)))"
		d := directory(t, leavers)
		_, err := d.Lookup(t.Context(), carolSubject)
		require.NoError(t, err)
		change(t, admin, slapdtest.CarolDN, "employeeType", "former")
		a, err := d.Lookup(t.Context(), carolSubject)
		requireNoUser(t, a, err)
		change(t, admin, slapdtest.CarolDN, "employeeType")
	})
	t.Run("a service that may not search has an outage", func(t *testing.T) {
		blind := configOf(s)
		blind.BindDN, blind.BindPassword = "", ""
		_, err := directory(t, blind).Lookup(t.Context(), carolSubject)
		requireOutage(t, err)
		require.NotErrorIs(t, err, login.ErrNoUser)
	})
	t.Run("a directory that is down ends nothing", func(t *testing.T) {
		s.Kill()
		for _, subject := range []string{carolSubject, "employee:nobody"} {
			_, err := d.Lookup(t.Context(), subject)
			requireOutage(t, err)
			require.NotErrorIs(t, err, login.ErrNoUser)
		}
		_, err := d.Lookup(t.Context(), "customer:alice")
		require.ErrorIs(t, err, login.ErrNoUser, "a subject of another type is not asked for")
		s.Restart(t)
		_, err = d.Lookup(t.Context(), carolSubject)
		require.NoError(t, err)
	})
	t.Run("an entry that was removed is gone", func(t *testing.T) {
		s.Delete(t, slapdtest.CarolDN)
		a, err := d.Lookup(t.Context(), carolSubject)
		requireNoUser(t, a, err)
	})
}

// relax is the control with which OpenLDAP lets an administrator write operational attributes.
type relax struct{ ldap.ControlString }

func (*relax) GetControlType() string { return "1.3.6.1.4.1.4203.666.5.12" }

// Attributes that slapd does not have.
func TestLookupOfDisabledAccounts(t *testing.T) {
	const guid = "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
	account := map[string][]string{"objectGUID": {guid}}
	with := func(attribute, value string) map[string][]string {
		entry := carol(account)
		entry[attribute] = []string{value}
		return entry
	}
	lookup := func(t *testing.T, entry map[string][]string) (*login.Account, error) {
		f := startFake(t, &fake{entries: map[string][]map[string][]string{
			"(&(&(objectClass=person)(uid=*))(|(objectGUID=3\"\x11\\00UDwf\\88\\99\\aa\\bb\\cc\\dd\\ee\\ff)(objectGUID=00112233-4455-6677-8899-aabbccddeeff)))": {entry}, // as the fake writes the bytes
		}})
		cfg := f.config()
		cfg.ID = "objectGUID"
		return directory(t, cfg).Lookup(t.Context(), "employee:00112233-4455-6677-8899-aabbccddeeff")
	}
	for _, c := range []struct{ name, attribute, value string }{
		{"Active Directory has disabled", "userAccountControl", "514"},
		{"has expired in Active Directory", "accountExpires", "132223104000000000"},
		{"389 Directory Server has locked", "nsAccountLock", "true"},
		{"eDirectory has disabled", "loginDisabled", "TRUE"},
	} {
		t.Run("an account that "+c.name+" is not a user", func(t *testing.T) {
			a, err := lookup(t, with(c.attribute, c.value))
			requireNoUser(t, a, err)
		})
	}
	for _, c := range []struct{ name, attribute, value string }{
		{"is enabled", "userAccountControl", "512"},
		{"never expires", "accountExpires", "9223372036854775807"},
		{"never expires either", "accountExpires", "0"},
		{"expires in the year 2999", "accountExpires", "441481536000000000"},
		{"is not locked", "nsAccountLock", "FALSE"},
		{"must change its password", "pwdLastSet", "0"},
	} {
		t.Run("an account that "+c.name+" is a user", func(t *testing.T) {
			a, err := lookup(t, with(c.attribute, c.value))
			require.NoError(t, err)
			assert.Equal(t, &login.Account{}, a)
		})
	}
	t.Run("a password has the time of pwdLastSet", func(t *testing.T) {
		a, err := lookup(t, with("pwdLastSet", "132223104000000001"))
		require.NoError(t, err)
		assert.Equal(t, time.Date(2020, 1, 1, 0, 0, 0, 100, time.UTC), a.Since)
	})
	for name, attribute := range map[string]string{"pwdChangedTime": "pwdChangedTime", "pwdLastSet": "pwdLastSet"} {
		t.Run("a "+name+" that is not a time is an outage", func(t *testing.T) {
			_, err := lookup(t, with(attribute, "yesterday"))
			requireOutage(t, err)
			require.NotErrorIs(t, err, login.ErrNoUser)
		})
	}
	t.Run("a disabled account does not log in", func(t *testing.T) {
		f := startFake(t, &fake{entries: map[string][]map[string][]string{filterOf("carol"): {with("nsAccountLock", "TRUE")}}})
		_, err := directory(t, f.config()).Login(t.Context(), "carol", password)
		assert.Equal(t, login.ErrRefused, err)
	})
	t.Run("several entries with one id are an outage", func(t *testing.T) {
		f := startFake(t, &fake{entries: map[string][]map[string][]string{
			"(&(&(objectClass=person)(uid=*))(entryUUID=c-1))": {carol(nil), carol(nil)},
		}})
		_, err := directory(t, f.config()).Lookup(t.Context(), "employee:c-1")
		requireOutage(t, err)
		require.NotErrorIs(t, err, login.ErrNoUser)
	})
}
