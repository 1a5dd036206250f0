package ldaplogin_test

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/authserver/login"
)

// isID is an identifier that may become part of a subject.
var isID = regexp.MustCompile(`^[!-~]{1,200}$`)

// FuzzEntry holds that an entry of a directory logs in only under its name, with its own identifier as the subject, and only while it is not
// disabled; that it gets the scopes of a group only if it names that group; that the time of its password is the one of the attribute; and
// that a lookup of the subject finds the same, and a lookup of any other subject nothing. Anything else is a refusal or an outage.
func FuzzEntry(f *testing.F) {
	const admins = "cn=admins,dc=example"
	year2050 := int64(141_672_672_000_000_000)
	f.Add("c-1", "carol", "c-1", admins, int64(512), int64(0), "", "", "20240102030405Z")
	f.Add("c-1", "CAROL", "C-1", " CN = Admins , dc=example", int64(514), year2050, "FALSE", "20240102030405Z", "")
	f.Add("a b", "c\u00e1rol", "*", `cn=\61dmins,dc=example`, int64(-1), int64(1), "true", "000001010000Z", "20240102030405.5+0100")
	f.Add("", "carol ", ")(uid=*", "cn=admins+x=y,dc=example", int64(66048), int64(1<<63-1), " TRUE", "", "2024")
	f.Add("c\x00", "carol\u200b", "", "#04,", int64(0), int64(-1), "x", " 000001010000Z", "20241302030405Z")
	const set = "20240102030405Z"
	f.Add("", "carol", "c-2", admins, int64(512), int64(0), "", "", set)
	f.Add("c-1", "c\u00e1rol", "c-2", admins, int64(512), int64(0), "", "", set)
	f.Add("c-1", "carol", "C-1", admins, int64(512), int64(0), "", "", set)
	f.Add("c-1", "carol", "c-2", "cn=x,"+admins, int64(512), int64(0), "", "", set)
	f.Add("c-1", "carol", "c-2", admins, int64(512), int64(133_000_000_000_000_000), "", "", set) // 2022
	f.Add("c-1", "carol", "c-2", admins, int64(512), int64(0), "true", "", set)
	f.Add("c-1", "carol", "c-2", admins, int64(512), int64(0), "", "000001010000Z", set)
	f.Add("c-1", "carol", "c-2", admins, int64(512), int64(0), "", "20240102030405Z", set) // after wrong passwords
	var (
		mu    sync.Mutex
		entry map[string][]string
	)
	server := startFake(f, &fake{entry: func() map[string][]string {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(entry)
	}})
	cfg := server.config()
	cfg.Groups, cfg.Timeout = map[string][]string{admins: {"admin"}, "cn=others,dc=example": {"other"}}, soon
	d, err := ldaplogin.New(cfg)
	require.NoError(f, err)
	f.Cleanup(func() { d.Close() })
	f.Fuzz(func(t *testing.T, id, uid, other, group string, control, expires int64, lock, locked, changed string) {
		mu.Lock()
		entry = map[string][]string{
			"dn": {carolDN}, "uid": {uid}, "entryUUID": {id}, "memberOf": {group}, "userAccountControl": {strconv.FormatInt(control, 10)},
			"accountExpires": {strconv.FormatInt(expires, 10)}, "nsAccountLock": {lock}, "pwdAccountLockedTime": {locked}, "pwdChangedTime": {changed},
		}
		mu.Unlock()
		u, err := d.Login(t.Context(), "carol", password)
		subject := "employee:" + id
		if err == nil {
			assert.Equal(t, subject, u.Subject)
			assert.Equal(t, uid, u.Name)
			assert.Equal(t, login.Fold("carol"), login.Fold(uid))
		} else {
			assert.Nil(t, u)
			assert.NotContains(t, err.Error(), password)
		}
		if uid == "carol" && isID.MatchString(id) && control&2 == 0 && expires == 0 && lock == "" && changed == set && strings.TrimSpace(locked) != "000001010000Z" {
			require.NoError(t, err)
		}
		a, lookup := d.Lookup(t.Context(), subject)
		if other != "" && other != id {
			none, err := d.Lookup(t.Context(), "employee:"+other)
			requireNoUser(t, none, err)
		}
		if lookup != nil {
			assert.Nil(t, a)
			assert.Error(t, err, "no user by its subject, and logs in")
			return
		}
		if err != nil { // it has another name
			assert.NotEqual(t, "carol", uid)
			assert.Equal(t, login.ErrRefused, err)
		} else {
			assert.Equal(t, a.Scopes, u.Scopes)
			assert.Equal(t, a.Since, u.Since)
		}

		assert.Regexp(t, isID, id)
		assert.Zero(t, control&2, "ACCOUNTDISABLE")
		if expires > 0 && expires < 1<<63-1 { // 100 ns since 1601
			assert.Less(t, time.Now().Unix(), time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC).Unix()+expires/10_000_000+1)
		}
		assert.NotEqual(t, "TRUE", strings.ToUpper(strings.TrimSpace(lock)))
		assert.NotEqual(t, "000001010000Z", strings.TrimSpace(locked), "locked by an administrator")
		assert.NotNil(t, a.Scopes, "nil would be all")
		assert.Subset(t, []string{"admin", "other"}, a.Scopes)
		if plain := strings.NewReplacer(" ", "", "\n", "", "\r", "").Replace(strings.ToLower(group)); !strings.ContainsAny(group, `\\#"`) {
			assert.Equal(t, plain == admins, slices.Contains(a.Scopes, "admin"), "%q", group)
		}
		switch {
		case changed == "":
			assert.Zero(t, a.Since)
		case strings.HasSuffix(changed, "Z"):
			assert.Equal(t, changed[:14], a.Since.UTC().Format("20060102150405"))
		default:
			at, err := time.Parse("20060102150405", changed[:14])
			require.NoError(t, err)
			assert.Less(t, a.Since.Sub(at).Abs(), 25*time.Hour)
		}
	})
}
