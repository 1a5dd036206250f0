package ldaplogin_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jimlambrt/gldap"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/authserver/login"
)

// A fake is a directory in this process that can misbehave.
type fake struct {
	url     string
	entries map[string][]map[string][]string // by filter; "dn" among the attributes
	entry   func() map[string][]string       // of all filters; nil: entries
	search  int                              // result code of searches
	bind    int                              // result code of binds as a user, if the password is right
	stall   chan struct{}                    // searches and binds wait for it; nil: they do not

	mu   sync.Mutex
	said []string // the requests, and their connections
}

const (
	service  = "cn=valetkey,dc=example"
	carolDN  = "uid=carol,dc=example"
	password = "nine carols in the snow"
)

func carol(more map[string][]string) map[string][]string {
	entry := map[string][]string{"dn": {carolDN}, "uid": {"carol"}, "cn": {"Carol"}, "entryUUID": {"c-1"}}
	for k, v := range more {
		entry[k] = v
	}
	return entry
}

func filterOf(name string) string { return "(&(objectClass=person)(uid=" + name + "))" }

func startFake(t testing.TB, f *fake) *fake {
	t.Helper()
	if f.entries == nil {
		f.entries = map[string][]map[string][]string{filterOf("carol"): {carol(nil)}}
	}
	mux, err := gldap.NewMux()
	require.NoError(t, err)
	require.NoError(t, mux.Bind(func(w *gldap.ResponseWriter, r *gldap.Request) {
		m, err := r.GetSimpleBindMessage()
		if err != nil {
			return
		}
		f.say(r, "bind "+m.UserName)
		code := gldap.ResultInvalidCredentials
		switch {
		case m.UserName == service && m.Password == "right":
			code = gldap.ResultSuccess
		case m.UserName == carolDN && m.Password == password:
			f.wait()
			code = f.bind
		}
		w.Write(r.NewBindResponse(gldap.WithResponseCode(code)))
	}))
	require.NoError(t, mux.Search(func(w *gldap.ResponseWriter, r *gldap.Request) {
		m, err := r.GetSearchMessage()
		if err != nil {
			return
		}
		f.say(r, "search "+m.Filter)
		f.wait()
		found := f.entries[m.Filter]
		if f.entry != nil {
			found = []map[string][]string{f.entry()}
		}
		for _, entry := range found {
			w.Write(r.NewSearchResponseEntry(entry["dn"][0], gldap.WithAttributes(entry)))
		}
		w.Write(r.NewSearchDoneResponse(gldap.WithResponseCode(f.search)))
	}))
	server, err := gldap.NewServer()
	require.NoError(t, err)
	require.NoError(t, server.Router(mux))
	address := freeAddress(t)
	f.url = "ldap://" + address
	ended := make(chan error, 1)
	go func() { ended <- server.Run(address) }()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	require.Eventually(t, server.Ready, soon, time.Millisecond)
	return f
}

const soon = time.Minute // for what takes a moment, on a machine with other work

func (f *fake) say(r *gldap.Request, what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fmt.Sprintf("%d: %s", r.ConnectionID(), what))
}

func (f *fake) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.said)
}

func (f *fake) wait() {
	if f.stall != nil {
		<-f.stall
	}
}

func (f *fake) config() ldaplogin.Config {
	return ldaplogin.Config{URL: f.url, InsecurePlain: true, BindDN: service, BindPassword: "right", BaseDN: "dc=example"}
}

// ports prevents fakes from getting the same ports.
var ports atomic.Int32

// freeAddress returns an unused address on loopback. Its port is below the ephemeral ports, which any process may get at any time.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := 20000 + (os.Getpid()*37+5000+int(ports.Add(1)))%10000
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	require.Fail(t, "no port is free")
	return ""
}

func TestResultsOfTheDirectory(t *testing.T) {
	for _, c := range []struct {
		name         string
		search, bind int
		want         string // refused, or part of an outage's text
	}{
		{"a wrong password, or a locked account", 0, gldap.ResultInvalidCredentials, "refused"},
		{"an account without a password", 0, gldap.ResultInappropriateAuthentication, "refused"},
		{"an account locked after too many attempts", 0, gldap.ResultConstraintViolation, "refused"},
		{"an inactive account", 0, gldap.ResultUnwillingToPerform, "refused"},
		{"an account removed since", 0, gldap.ResultNoSuchObject, "refused"},
		{"more entries than asked for", gldap.ResultSizeLimitExceeded, 0, "refused"},
		{"a busy directory", 0, gldap.ResultBusy, "Busy"},
		{"an unavailable directory", 0, gldap.ResultUnavailable, "Unavailable"},
		{"an error of the directory's own", 0, gldap.ResultOther, "Other"},
		{"a bind that is referred elsewhere", 0, gldap.ResultReferral, "Referral"},
		{"a search that is referred elsewhere", gldap.ResultReferral, 0, "Referral"},
		{"a search that is not allowed", gldap.ResultInsufficientAccessRights, 0, "Insufficient Access"},
		{"a search that ran out of time", gldap.ResultTimeLimitExceeded, 0, "Time Limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t, &fake{search: c.search, bind: c.bind})
			_, err := directory(t, f.config()).Login(t.Context(), "carol", password)
			if c.want == "refused" {
				assert.Equal(t, login.ErrRefused, err)
				return
			}
			requireOutage(t, err)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), password)
		})
	}
}

func TestEntries(t *testing.T) {
	guid := string([]byte{0x78, 0x56, 0x34, 0x12, 0x34, 0x12, 0x78, 0x56, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0})
	for _, c := range []struct {
		name    string
		id      string
		entries []map[string][]string
		want    string // a subject, refused, or part of an outage's text
	}{
		{"two entries", "", []map[string][]string{carol(nil), carol(nil)}, "refused"},
		{"an entry that does not bear the name", "", []map[string][]string{carol(map[string][]string{"uid": {"cárol"}})}, "refused"},
		{"an entry whose name is not shown", "", []map[string][]string{carol(map[string][]string{"uid": {}})}, "refused"},
		{"an entry without a DN, which would bind anonymously", "", []map[string][]string{carol(map[string][]string{"dn": {""}})}, "no DN"},
		{"an entry without an ID", "", []map[string][]string{carol(map[string][]string{"entryUUID": {}})}, "entryUUID has 0 values"},
		{"an entry with two IDs", "", []map[string][]string{carol(map[string][]string{"entryUUID": {"a", "b"}})}, "entryUUID has 2 values"},
		{"an empty ID", "", []map[string][]string{carol(map[string][]string{"entryUUID": {""}})}, "not an identifier"},
		{"an ID with a space", "", []map[string][]string{carol(map[string][]string{"entryUUID": {"a b"}})}, "not an identifier"},
		{"an ID of bytes", "", []map[string][]string{carol(map[string][]string{"entryUUID": {guid}})}, "not an identifier"},
		{"an ID that is too long", "", []map[string][]string{carol(map[string][]string{"entryUUID": {strings.Repeat("x", 201)}})}, "not an identifier"},
		{"an answer that is too long", "", []map[string][]string{carol(map[string][]string{"cn": {strings.Repeat("x", 2<<20)}})}, "too long"},
		{"an objectGUID, as Active Directory shows it", "objectGUID", []map[string][]string{carol(map[string][]string{"objectGUID": {guid}})},
			"employee:12345678-1234-5678-1234-56789abcdef0"},
		{"attributes in other letters", "entryuuid", []map[string][]string{carol(nil)}, "employee:c-1"},
		{"several names, one of which it is", "", []map[string][]string{carol(map[string][]string{"uid": {"cj", "Carol"}})}, "employee:c-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t, &fake{entries: map[string][]map[string][]string{filterOf("carol"): c.entries}})
			cfg := f.config()
			cfg.ID = c.id
			u, err := directory(t, cfg).Login(t.Context(), "carol", password)
			switch {
			case c.want == "refused":
				assert.Equal(t, login.ErrRefused, err)
			case strings.HasPrefix(c.want, "employee:"):
				require.NoError(t, err)
				assert.Equal(t, c.want, u.Subject)
			default:
				requireOutage(t, err)
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestWhatTheDirectoryIsAsked(t *testing.T) {
	f := startFake(t, &fake{})
	var log bytes.Buffer
	cfg := f.config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.PoolSize = 1
	d := directory(t, cfg)

	for _, c := range []struct{ name, password string }{{"carol", ""}, {"", password}, {"carol", strings.Repeat("x", 1025)}, {"car\nol", password}} {
		_, err := d.Login(t.Context(), c.name, c.password)
		require.Equal(t, login.ErrRefused, err)
	}
	require.Empty(t, f.heard(), "what cannot be right is not asked")

	_, err := d.Login(t.Context(), "carol", password)
	require.NoError(t, err)
	_, err = d.Login(t.Context(), "carol", "wrong")
	require.Equal(t, login.ErrRefused, err)
	_, err = d.Login(t.Context(), "mallory", password)
	require.Equal(t, login.ErrRefused, err)
	_, err = d.Login(t.Context(), "(*)", password)
	require.Equal(t, login.ErrRefused, err)
	assert.Equal(t, []string{
		"1: bind " + service,
		"1: search " + filterOf("carol"),
		"2: bind " + carolDN,
		"1: search " + filterOf("carol"),
		"3: bind " + carolDN,
		"1: search " + filterOf("mallory"),
		"4: bind dc=example", // an unknown name costs a bind too
		"1: search " + filterOf(`\28\2a\29`),
		"5: bind dc=example",
	}, f.heard(), "the service's connection is kept, and no search runs as a user")
	assert.Empty(t, log.String())

	f.entries[filterOf("kim")] = []map[string][]string{carol(nil), carol(nil)}
	_, err = d.Login(t.Context(), "kim", password)
	require.Equal(t, login.ErrRefused, err)
	assert.Contains(t, log.String(), "several entries have the same name")
	assert.Contains(t, log.String(), "name=kim")
	assert.NotContains(t, log.String(), password)
}

func TestNoPasswordGoesToAServerWithoutStartTLS(t *testing.T) {
	f := startFake(t, &fake{})
	cfg := f.config()
	cfg.InsecurePlain = false
	_, err := directory(t, cfg).Login(t.Context(), "carol", password)
	requireOutage(t, err)
	require.ErrorContains(t, err, "StartTLS")
	assert.Empty(t, f.heard())
}

func TestWaitsEnd(t *testing.T) {
	const timeout = 200 * time.Millisecond
	silent := func(t *testing.T) string { // accepts and sends nothing
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	stalled := func(t *testing.T) *fake {
		f := startFake(t, &fake{stall: make(chan struct{})})
		t.Cleanup(func() { close(f.stall) })
		return f
	}
	for _, c := range []struct {
		name   string
		config func(t *testing.T) ldaplogin.Config
	}{
		{"for the TLS of a silent server", func(t *testing.T) ldaplogin.Config {
			return ldaplogin.Config{URL: "ldaps://" + silent(t), BaseDN: "dc=example"}
		}},
		{"for StartTLS of a silent server", func(t *testing.T) ldaplogin.Config {
			return ldaplogin.Config{URL: "ldap://" + silent(t), BaseDN: "dc=example"}
		}},
		{"for the service's bind at a silent server", func(t *testing.T) ldaplogin.Config {
			return ldaplogin.Config{URL: "ldap://" + silent(t), InsecurePlain: true, BaseDN: "dc=example", BindDN: service, BindPassword: "right"}
		}},
		{"for a search", func(t *testing.T) ldaplogin.Config { return stalled(t).config() }},
		{"for a bind", func(t *testing.T) ldaplogin.Config {
			f := startFake(t, &fake{stall: make(chan struct{}, 1)})
			f.stall <- struct{}{} // the search
			t.Cleanup(func() { close(f.stall) })
			return f.config()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := c.config(t)
			cfg.Timeout = timeout
			d := directory(t, cfg)
			start := time.Now()
			_, err := d.Login(t.Context(), "carol", password)
			requireOutage(t, err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Less(t, time.Since(start), soon)

			cfg.Timeout = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(timeout, cancel)
			_, err = directory(t, cfg).Login(ctx, "carol", password)
			requireOutage(t, err)
			require.ErrorIs(t, err, context.Canceled, "the user has left")
		})
	}
	t.Run("for a bind that its user leaves, after which the next login is as good as any", func(t *testing.T) {
		f := startFake(t, &fake{stall: make(chan struct{}, 10)})
		cfg := f.config()
		cfg.Timeout = soon
		d := directory(t, cfg)
		f.stall <- struct{}{} // the search
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first := make(chan error, 1)
		go func() {
			_, err := d.Login(ctx, "carol", password)
			first <- err
		}()
		require.Eventually(t, func() bool { return len(f.heard()) == 3 }, soon, time.Millisecond, "a bind, a search and a bind")
		cancel()
		err := <-first
		require.ErrorIs(t, err, context.Canceled)
		requireOutage(t, err)
		close(f.stall)
		_, err = d.Login(t.Context(), "carol", password)
		require.NoError(t, err)
	})
	t.Run("for the searches of others", func(t *testing.T) {
		f := stalled(t)
		cfg := f.config()
		cfg.PoolSize, cfg.Timeout = 1, time.Hour
		d := directory(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := d.Login(ctx, "carol", password)
			first <- err
		}()
		require.Eventually(t, func() bool { return len(f.heard()) == 2 }, soon, time.Millisecond, "a bind and a search")

		impatient, leave := context.WithTimeout(t.Context(), timeout)
		defer leave()
		_, err := d.Login(impatient, "carol", password)
		require.ErrorContains(t, err, "waiting for other searches")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Len(t, f.heard(), 2, "it asked nothing")
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
	})
}
