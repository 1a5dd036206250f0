package pages

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/valetkey/valetkey/authserver/store"
)

// aboutKey is the key of the description of a session in the session. It is not sealed, because a list of sessions is made by
// another session of the same user. It names neither the user nor anything secret.
const aboutKey = "about"

// An about describes a session to its user.
type about struct {
	Session string    `json:"session"` // person.Session
	Began   time.Time `json:"began"`
	Used    time.Time `json:"used"`
	Agent   string    `json:"agent"` // the browser and the system, such as "Firefox, Linux"; empty: unknown
}

const (
	touchEvery  = 5 * time.Minute // how exact About.Used is: a write for each request would be too many
	maxSessions = 100             // of one user that are listed
)

// describeSession adds the description to a session that begins.
func (v *visit) describeSession() error {
	text, err := json.Marshal(about{v.user.Session, v.user.At, v.user.At, agent(v.r.UserAgent())})
	if err != nil {
		return fmt.Errorf("describe the session: %w", err)
	}
	v.sessions.Put(v.r.Context(), aboutKey, text)
	return nil
}

// touch records that the session is in use. It replaces only the stored version that it has read, so it never brings a session back
// that has ended meanwhile, and it does not replace what another request has stored. A failure costs only the time.
func (v *visit) touch() {
	ctx := v.r.Context()
	var a about
	if json.Unmarshal(v.sessions.GetBytes(ctx, aboutKey), &a) != nil || time.Since(a.Used) < touchEvery {
		return
	}
	rec, err := v.cfg.Store.Get(ctx, webKind, store.Digest(v.sessions.Token(ctx)))
	if err != nil {
		return
	}
	deadline, values, err := scs.GobCodec{}.Decode(rec.Value)
	if err != nil {
		return
	}
	a.Used = time.Now()
	if values[aboutKey], err = json.Marshal(a); err != nil {
		return
	}
	if rec.Value, err = (scs.GobCodec{}).Encode(deadline, values); err != nil {
		return
	}
	rec.MayDrop, rec.Owner = true, store.Digest(v.user.Subject)
	if _, err := v.cfg.Store.Put(ctx, rec); err != nil && !errors.Is(err, store.ErrConflict) {
		v.cfg.Logger.WarnContext(ctx, "use of a session not recorded", "error", err)
	}
}

// A listedSession is a session of the user, on the page of sessions.
type listedSession struct {
	about
	Here   bool // the one that shows the page
	record string
}

// BeganAt and UsedAt are the times of the session for messages.
func (s listedSession) BeganAt() instant { return instant(s.Began) }
func (s listedSession) UsedAt() instant  { return instant(s.Used) }

// sessionList returns the sessions of the user, the present one first and then the last used. Those of an earlier release have no
// description, and only end with all others.
func (v *visit) sessionList() (list []listedSession, err error) {
	const page = 100
	for after := ""; ; {
		found, err := v.cfg.Store.Find(v.r.Context(), webKind, store.Key{Name: webSubject, Value: store.Digest(v.user.Subject)}, after, page)
		if err != nil {
			return nil, fmt.Errorf("find the sessions of a user: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			s := listedSession{record: rec.ID}
			_, values, err := scs.GobCodec{}.Decode(rec.Value)
			if err != nil {
				continue
			}
			text, _ := values[aboutKey].([]byte)
			if json.Unmarshal(text, &s.about) != nil || s.Session == "" {
				continue
			}
			s.Here = s.Session == v.user.Session
			list = append(list, s)
		}
		if len(found) < page {
			break
		}
	}
	slices.SortFunc(list, func(a, b listedSession) int {
		switch {
		case a.Here != b.Here && a.Here:
			return -1
		case a.Here != b.Here:
			return 1
		}
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Session, b.Session))
	})
	return list, nil
}

// ownSessions shows the sessions of the user.
func (v *visit) ownSessions() (*reply, error) {
	list, err := v.sessionList()
	if err != nil {
		return nil, err
	}
	return &reply{page: "sessions", title: msg("sessions.title"), data: list[:min(len(list), maxSessions)]}, nil
}

// endSession ends one session of the user: another one, because the present one ends by logging out.
func (v *visit) endSession() (*reply, error) {
	ctx, id := v.r.Context(), v.r.PostForm.Get("session")
	if id == "" || id == v.user.Session {
		return nil, errNotFound
	}
	list, err := v.sessionList()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Session != id {
			continue
		}
		if err := v.markEnded(ctx, v.user.Subject, id); err != nil { // a request in progress may store the session again
			return nil, err
		}
		if err := v.cfg.Store.Delete(ctx, webKind, s.record); err != nil {
			return nil, fmt.Errorf("end a session of a user: %w", err)
		}
		if v.cfg.EndSession != nil {
			if err := v.cfg.EndSession(ctx, id); err != nil {
				return nil, fmt.Errorf("end the grants of a session: %w", err)
			}
		}
		v.cfg.Logger.InfoContext(ctx, "session ended", "subject", v.user.Subject, "session", id)
	}
	return v.see("/account/sessions"), nil // also if it has ended meanwhile
}

// askEverywhere asks before everything of the user ends.
func (v *visit) askEverywhere() (*reply, error) {
	return &reply{page: "everywhere", title: msg("everywhere.title"), quiet: true}, nil
}

// everywhere logs the user out everywhere, here too.
func (v *visit) everywhere() (*reply, error) {
	subject := v.user.Subject
	if err := v.cfg.EndUser(v.r.Context(), subject); err != nil {
		return nil, fmt.Errorf("log a user out everywhere: %w", err)
	}
	v.cfg.Logger.InfoContext(v.r.Context(), "logged out everywhere", "subject", subject)
	v.user = nil
	return v.afterLogout("/logged-out"), v.renew()
}

func (v *visit) loggedOut() (*reply, error) {
	return &reply{page: "loggedout", title: msg("everywhere.done")}, nil
}

// agent returns the browser and the system of a User-Agent, or "". The header is long, and anyone can send anything in it, so it is
// reduced to words of this list. The names do not depend on the language.
func agent(header string) string {
	first := func(names ...string) string {
		for i := 0; i < len(names); i += 2 {
			if strings.Contains(header, names[i]) {
				return names[i+1]
			}
		}
		return ""
	}
	// Most browsers claim to be others, too: the order matters.
	browser := first("Edg", "Edge", "OPR/", "Opera", "SamsungBrowser", "Samsung Internet", "Vivaldi", "Vivaldi", "FxiOS", "Firefox", "Firefox/", "Firefox",
		"CriOS", "Chrome", "Chrome/", "Chrome", "Safari/", "Safari", "curl/", "curl")
	system := first("iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "CrOS", "ChromeOS", "Macintosh", "macOS", "Linux", "Linux")
	switch {
	case browser == "":
		return system
	case system == "":
		return browser
	default:
		return browser + ", " + system
	}
}

// An end is the value of a record of kind ended.
type end struct {
	At       time.Time            `json:"at,omitzero"`        // all sessions that began until then have ended
	Sessions map[string]time.Time `json:"sessions,omitempty"` // single sessions, and when they were ended
}

const (
	// markedSession is how long the end of a single session is recorded: longer than any request takes. Its record is gone, so only a
	// request in progress could store it again.
	markedSession = time.Hour

	// maxMarked limits the single sessions of one user that are recorded. Only that user can fill it; the oldest are dropped.
	maxMarked = 1000
)

func readEnd(value []byte) (e end, err error) {
	if len(value) > 0 && value[0] != '{' { // of an earlier release
		return e, e.At.UnmarshalText(value)
	}
	return e, json.Unmarshal(value, &e)
}

// markEnded records that a session of a user has ended, or all of them if session is empty.
func (p *Pages) markEnded(ctx context.Context, subject, session string) error {
	now := time.Now().UTC()
	id := store.Digest(subject)
	err := retry(func() error {
		rec, err := p.cfg.Store.Get(ctx, endedKind, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var e end
		if err == nil {
			if e, err = readEnd(rec.Value); err != nil {
				return err
			}
		}
		expires := rec.Expires
		if session == "" {
			e = end{At: now}
			expires = now.Add(max(p.cfg.SessionLifetime, markedFor) + time.Minute) // the minute for clocks
		} else {
			e.mark(session, now)
			if until := now.Add(markedSession); expires.Before(until) {
				expires = until
			}
		}
		value, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = p.cfg.Store.Put(ctx, store.Record{Kind: endedKind, ID: id, Version: rec.Version, Expires: expires, Value: value})
		return err
	})
	if err != nil {
		return fmt.Errorf("end the sessions of a user: %w", err)
	}
	return nil
}

func (e *end) mark(session string, now time.Time) {
	if e.Sessions == nil {
		e.Sessions = map[string]time.Time{}
	}
	for s, at := range e.Sessions {
		if now.Sub(at) > markedSession {
			delete(e.Sessions, s)
		}
	}
	for len(e.Sessions) >= maxMarked {
		oldest := session
		for s, at := range e.Sessions {
			if oldest == session || at.Before(e.Sessions[oldest]) {
				oldest = s
			}
		}
		delete(e.Sessions, oldest)
	}
	e.Sessions[session] = now
}

// ended reports whether the session has been ended, alone or with all of its user.
func (p *Pages) ended(ctx context.Context, who *person) (bool, error) {
	rec, err := p.cfg.Store.Get(ctx, endedKind, store.Digest(who.Subject))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	var e end
	if err == nil {
		e, err = readEnd(rec.Value)
	}
	if err != nil {
		return false, fmt.Errorf("read whether a session has ended: %w", err)
	}
	_, marked := e.Sessions[who.Session]
	return marked && who.Session != "" || !who.At.After(e.At), nil
}

// accountPages registers the pages of the user's own account.
func (p *Pages) accountPages(route func(pattern string, h handler), form func(path string, show, do handler)) {
	if p.cfg.EndUser != nil {
		form("/account/sessions", signedIn((*visit).ownSessions), signedIn((*visit).endSession))
		form("/account/everywhere", signedIn((*visit).askEverywhere), signedIn((*visit).everywhere))
		route("GET /logged-out", (*visit).loggedOut)
	}
	if p.cfg.ChangePassword != nil {
		form("/account/password", signedIn((*visit).askPassword), signedIn((*visit).changePassword))
	}
}
