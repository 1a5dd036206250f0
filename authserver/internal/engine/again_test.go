package engine_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// paging is page, whose decisions specify what the form does.
func paging(w http.ResponseWriter, r *http.Request, in *flow.Interaction) (*flow.Decision, error) {
	d, err := page(w, r, in)
	if d != nil {
		d.Said, err = saying(r)
	}
	return d, err
}

func saying(r *http.Request) (string, error) { return r.PostFormValue("do"), nil }

// An endings collects ended interactions.
type endings struct {
	mu  sync.Mutex
	all []flow.Ended
}

func (e *endings) show(w http.ResponseWriter, _ *http.Request, over *flow.Ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, *over)
	status := http.StatusGone
	if over.NoCookie || over.Elsewhere {
		status = http.StatusBadRequest
	}
	w.WriteHeader(status)
}

func (e *endings) last(t *testing.T) flow.Ended {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	require.NotEmpty(t, e.all)
	return e.all[len(e.all)-1]
}

func (e *endings) put(c *config) { c.Said, c.Ended = saying, e.show }

// A watched store calls put before each Put, and get after each Get.
type watched struct {
	store.Store
	mu       sync.Mutex
	put, get func(store.Record) error
}

func (s *watched) watch(put, get func(store.Record) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put, s.get = put, get
}

func (s *watched) call(of func() func(store.Record) error, r store.Record) error {
	s.mu.Lock()
	f := of()
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(r)
}

func (s *watched) Put(ctx context.Context, r store.Record) (int64, error) {
	if err := s.call(func() func(store.Record) error { return s.put }, r); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil { // as a database is
		return 0, err
	}
	return s.Store.Put(ctx, r)
}

func (s *watched) Get(ctx context.Context, kind, id string) (store.Record, error) {
	r, err := s.Store.Get(ctx, kind, id)
	if err == nil {
		err = s.call(func() func(store.Record) error { return s.get }, r)
	}
	return r, err
}

// The second of two equal submissions gets the response of the first one, so that a double click loses no code.
func TestAnsweredTwice(t *testing.T) {
	var over endings
	w := new(watched)
	s := start(t, over.put, func(c *config) { w.Store, c.Store, c.Implicit = c.Store, w, true })
	s.asks(paging)
	begin := func(t *testing.T, b *browser, pairs ...string) string {
		return b.get(t, s.authorizeURL(request(pairs...))).action(t, s)
	}
	allow, deny := form("do", "allow"), form("do", "deny")
	refusedAgain := func(t *testing.T, a answer) {
		t.Helper()
		assert.Equal(t, http.StatusGone, a.status, a.text)
		assert.Empty(t, a.header.Get("Location"))
		assert.True(t, over.last(t).Answered)
		assert.Equal(t, "web", over.last(t).Client.ID)
		assert.Equal(t, webURI, over.last(t).RedirectURI)
	}

	t.Run("another answer is refused", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		require.NotEmpty(t, b.post(t, at, allow).back.Get("code"))
		refusedAgain(t, b.post(t, at, deny))
		refusedAgain(t, b.get(t, at))
		at = begin(t, b)
		require.NotEmpty(t, b.post(t, at, deny).back.Get("error"))
		refusedAgain(t, b.post(t, at, allow))
	})
	t.Run("another browser learns nothing", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		require.NotEmpty(t, b.post(t, at, allow).back.Get("code"))
		other := newBrowser()
		begin(t, other)
		for _, a := range []answer{newBrowser().post(t, at, allow), other.post(t, at, allow)} {
			assert.Equal(t, 400, a.status)
			assert.Empty(t, a.header.Get("Location"))
		}
	})
	t.Run("a code that was redeemed is not sent again, or its grant would end", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		got := s.redeem(t, "web", b.post(t, at, allow).back.Get("code")).tokens(t)
		refusedAgain(t, b.post(t, at, allow))
		assert.True(t, s.active(t, got.access))
	})
	t.Run("nor is one whose grant was revoked", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		require.NotEmpty(t, b.post(t, at, allow).back.Get("code"))
		_, err := s.RevokeGrants(t.Context(), "employee:alice", "web")
		require.NoError(t, err)
		refusedAgain(t, b.post(t, at, allow))
	})
	t.Run("the store learns nothing of the redirect", func(t *testing.T) {
		b := newBrowser()
		code := b.post(t, begin(t, b), allow).back.Get("code")
		found, err := s.store.Find(t.Context(), "session", store.Key{}, "", 1000)
		require.NoError(t, err)
		kept := 0
		for _, rec := range found {
			kept += strings.Count(string(rec.Value), `"answer":"`)
			assert.NotContains(t, string(rec.Value), code)
		}
		assert.NotZero(t, kept)
	})

	t.Run("equal forms, one after the other", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		one := b.post(t, at, allow)
		granted := len(s.saw(engine.Granted))
		for range 2 {
			two := b.post(t, at, allow)
			require.Equal(t, 303, two.status, two.text)
			assert.Equal(t, one.header.Get("Location"), two.header.Get("Location"))
			assert.Equal(t, "no-store", two.header.Get("Cache-Control"))
		}
		assert.Len(t, s.saw(engine.Granted), granted, "of one grant")
		assert.Equal(t, 200, s.redeem(t, "web", one.back.Get("code")).status)
	})
	t.Run("equal forms that deny", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		one := b.post(t, at, deny)
		assert.Equal(t, "access_denied", one.back.Get("error"))
		assert.Equal(t, one.header.Get("Location"), b.post(t, at, deny).header.Get("Location"))
	})
	t.Run("equal forms for a token in the fragment", func(t *testing.T) {
		made, _, err := s.registry.Create(t.Context(), clients.Client{
			AuthMethod: "none", RedirectURIs: []string{spaURI}, GrantTypes: []string{"implicit"}, Scopes: []string{"orders:read"},
		}, false)
		require.NoError(t, err)
		b := newBrowser()
		at := begin(t, b, "client_id", made.ID, "redirect_uri", spaURI, "response_type", "token")
		one := b.post(t, at, allow)
		require.Contains(t, one.header.Get("Location"), "#access_token=")
		assert.Equal(t, one.header.Get("Location"), b.post(t, at, allow).header.Get("Location"))
	})
	t.Run("a page that decides at once, and is loaded twice", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		s.asks(nil)
		defer s.asks(paging)
		one := b.get(t, at)
		require.NotEmpty(t, one.back.Get("code"))
		assert.Equal(t, one.header.Get("Location"), b.get(t, at).header.Get("Location"))
	})
	t.Run("a pushed request that is decided at once, and is loaded twice", func(t *testing.T) {
		s.asks(nil)
		defer s.asks(paging)
		b := newBrowser()
		b.get(t, s.authorizeURL(request())) // which gives it a cookie
		at := s.authorizeURL(form("client_id", "web", "request_uri", s.push(t, "web", request())))
		one := b.get(t, at)
		require.NotEmpty(t, one.back.Get("code"))
		assert.Equal(t, one.header.Get("Location"), b.get(t, at).header.Get("Location"))
		assert.Equal(t, 400, newBrowser().get(t, at).status)
		require.Equal(t, 200, s.redeem(t, "web", one.back.Get("code")).status)
		refusedAgain(t, b.get(t, at))
	})

	// answers is whether a Put is that of a session which has been answered; the grant comes after it.
	answers := func(r store.Record) bool {
		return r.Kind == "session" && strings.Contains(string(r.Value), `"status":"success"`)
	}
	t.Run("equal forms at the same time: the second waits for the first", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		begun, looked := make(chan struct{}), make(chan struct{})
		var first, second sync.Once
		w.watch(func(r store.Record) error {
			if r.Kind == "grant" {
				first.Do(func() { close(begun); <-looked })
			}
			return nil
		}, func(r store.Record) error {
			if answers(r) {
				second.Do(func() { close(looked) })
			}
			return nil
		})
		defer w.watch(nil, nil)
		one := make(chan answer, 1)
		go func() { one <- b.post(t, at, allow) }()
		<-begun
		two := b.post(t, at, allow)
		require.NotEmpty(t, two.back.Get("code"), two.text)
		assert.Equal(t, (<-one).header.Get("Location"), two.header.Get("Location"))
	})
	t.Run("equal forms that both find it unanswered", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		var both sync.WaitGroup
		both.Add(2)
		s.asks(func(w http.ResponseWriter, r *http.Request, in *flow.Interaction) (*flow.Decision, error) {
			both.Done()
			both.Wait()
			return paging(w, r, in)
		})
		defer s.asks(paging)
		one := make(chan answer, 1)
		go func() { one <- b.post(t, at, allow) }()
		two := b.post(t, at, allow)
		require.NotEmpty(t, two.back.Get("code"), two.text)
		assert.Equal(t, (<-one).header.Get("Location"), two.header.Get("Location"))
	})
	t.Run("while the answer cannot be kept, it is sent all the same", func(t *testing.T) {
		b := newBrowser()
		at := begin(t, b)
		w.watch(func(r store.Record) error {
			if r.Kind == "session" && strings.Contains(string(r.Value), `"answer":`) {
				return errors.New("the store is full")
			}
			return nil
		}, nil)
		defer w.watch(nil, nil)
		assert.NotEmpty(t, b.post(t, at, allow).back.Get("code"))
		refusedAgain(t, b.post(t, at, allow)) // after two seconds
	})
}

// The user decides each time whether an error is sent to an unapproved client.
func TestDepartureAgain(t *testing.T) {
	var asked int
	s := start(t, func(c *config) {
		c.Said = saying
		c.Leave = func(w http.ResponseWriter, _ *http.Request, _ *flow.Departure) (bool, error) {
			asked++
			w.WriteHeader(http.StatusTeapot)
			return false, nil
		}
	})
	s.asks(paging)
	made, _, err := s.registry.Create(t.Context(), clients.Client{
		AuthMethod: "none", RedirectURIs: []string{spaURI}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"orders:read"}, RegistrationDigest: "x",
	}, false)
	require.NoError(t, err)
	b := newBrowser()
	at := b.get(t, s.authorizeURL(request("client_id", made.ID, "redirect_uri", spaURI))).action(t, s)
	for range 2 {
		a := b.post(t, at, form("do", "deny"))
		assert.Equal(t, http.StatusTeapot, a.status)
		assert.Empty(t, a.header.Get("Location"))
	}
	assert.Equal(t, 2, asked)
}

func TestEndedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over endings
		h := inProcess(t, over.put, func(c *config) { c.CodeLifetime = time.Minute })
		h.asks(paging)
		begin := func() (at, cookie string) {
			a := h.do(t, "GET", "/oauth2/authorize?"+request().Encode(), nil, "")
			cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
			_, at, _ = strings.Cut(a.text, `action="`)
			at, _, _ = strings.Cut(at, `"`)
			return at, cookie
		}
		answer := func(at, cookie string) answer { return h.do(t, "POST", at, url.Values{"do": {"allow"}}, cookie) }

		t.Log("an answer is given again for as long as its code is of use")
		at, cookie := begin()
		first := answer(at, cookie)
		require.NotEmpty(t, first.back.Get("code"))
		time.Sleep(59 * time.Second)
		assert.Equal(t, first.header.Get("Location"), answer(at, cookie).header.Get("Location"))
		time.Sleep(time.Second)
		assert.Equal(t, http.StatusGone, answer(at, cookie).status)
		assert.True(t, over.last(t).Answered)

		t.Log("an expired request is reported with its client")
		at, cookie = begin()
		time.Sleep(15*time.Minute + time.Second)
		assert.Equal(t, http.StatusGone, answer(at, cookie).status)
		assert.False(t, over.last(t).Answered)
		assert.Equal(t, "web", over.last(t).Client.ID)
		for _, none := range []string{"x", strings.Repeat("A", 52), strings.Repeat("A", 52) + "?client_id=nobody", strings.Repeat("A", 52) + "?client_id=%00"} {
			assert.Equal(t, http.StatusGone, h.do(t, "GET", "/oauth2/authorize/"+none, nil, cookie).status)
			assert.Nil(t, over.last(t).Client)
		}
	})
}

// A browser aborts the first request of a double click, at any time.
func TestBrokenOffAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(watched)
		h := inProcess(t, func(c *config) { w.Store, c.Store, c.Said = c.Store, w, saying })
		h.asks(paging)
		a := h.do(t, "GET", "/oauth2/authorize?"+request().Encode(), nil, "")
		cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
		_, at, _ := strings.Cut(a.text, `action="`)
		at, _, _ = strings.Cut(at, `"`)
		post := func(ctx context.Context) answer {
			r := httptest.NewRequestWithContext(ctx, "POST", h.url+at, strings.NewReader("do=allow"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Cookie", cookie)
			return h.serve(t, r)
		}
		ctx, breakOff := context.WithCancel(t.Context())
		w.watch(func(r store.Record) error {
			if r.Kind == "session" { // which is answered now, and has no code yet
				breakOff()
				synctest.Wait()
			}
			return nil
		}, nil)
		first := post(ctx)
		require.Error(t, ctx.Err())
		w.watch(nil, nil)
		second := post(t.Context())
		require.NotEmpty(t, second.back.Get("code"), second.text)
		assert.Equal(t, first.header.Get("Location"), second.header.Get("Location"))
	})
}
