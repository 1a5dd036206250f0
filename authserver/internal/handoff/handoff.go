// Package handoff hands log-ins to another party's page and takes its signed answers back.
//
// [Door.Begin] creates a challenge and returns the URL of the page with the ID of the challenge, for the browser. The page reads the
// challenge and answers it over the back channel ([Door.Routes]), with JWTs that it signs. The response to an answer is a URL of
// this server with a new secret, which the page sends to the browser that has logged in there. [Door.Return] redeems the two.
//
// Who can make a browser log in as whom:
//
//   - The challenge belongs to the browser in which it began, by a secret in a cookie. If another browser returns with it, the
//     answer is not used. Thus a link cannot log a user in as another one (RFC 6749, section 10.12).
//   - The secret in the URL of the return reaches only the browser that has logged in at the page. No one can have another
//     person answer a challenge that began in their own browser, as in phishing for device codes (RFC 8628, section 5.4).
//   - An answer names its challenge and this server, expires within minutes, and is accepted once. A challenge ends with the first
//     return, in one write that only one request wins.
//
// A challenge is stored under the digest of its ID, sealed with a key derived from the ID. A reader of the store learns neither who
// logs in nor where, and cannot answer.
package handoff

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// Config configures a [Door]. Package authserver has validated the URLs. All fields are required unless their comments state otherwise.
type Config struct {
	_ struct{} // keyed literals only

	Issuer   string
	Redirect string // the page
	Logout   string // where it logs out; empty: nowhere
	Keys     []*jose.Key
	UserType string   // of all users: the part of subjects before the colon
	ACRs     []string // that answers may have. Empty: none

	// Lifetime is how long a challenge waits for its answer and the return of its browser.
	Lifetime time.Duration

	// Limit bounds the challenges that are begun from one network and not answered with a user.
	Limit *login.Limiter

	Store  store.Store  // kinds challenge and jti are used
	Logger *slog.Logger // of answers and failures
}

// A Door hands log-ins off. It is safe for concurrent use, runs no goroutines and needs no closing.
type Door struct{ cfg Config }

// New returns a Door.
func New(cfg Config) *Door { return &Door{cfg} }

// maxKeys is the number of keys that an answer may be verified with: the present ones, and the next ones during a change.
const maxKeys = 8

// ParseKeys reads the public keys of a page: one or more PEM blocks, or a JWK Set.
func ParseKeys(text string) (keys []*jose.Key, err error) {
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		keys, _, err = keyset.Parse([]byte(text), maxKeys)
		return keys, err
	}
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		block, after := pem.Decode(rest)
		if block == nil {
			return nil, errors.New("neither PEM nor a JWK Set")
		}
		k, err := jose.ParsePEM("", pem.EncodeToMemory(block))
		if err != nil {
			return nil, err
		}
		keys, rest = append(keys, k), after
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("has no key")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("has %d keys, at most %d are allowed", len(keys), maxKeys)
	}
	return keys, nil
}

// A Request describes a log-in for the page. Everything but the names of the client is what the client has sent.
type Request struct {
	Client    *Client  `json:"client,omitempty"` // nil: the user wants to log in to this server's own pages
	Resource  string   `json:"resource,omitempty"`
	Scope     string   `json:"scope,omitempty"`
	ACRValues []string `json:"acr_values,omitempty"`
	MaxAge    *int     `json:"max_age,omitempty"` // seconds
	Prompt    string   `json:"prompt,omitempty"`
	LoginHint string   `json:"login_hint,omitempty"`
	UILocales string   `json:"ui_locales,omitempty"`
	Subject   string   `json:"subject,omitempty"` // of the last answer in this browser, if that user is still logged in
}

// A Client is the application that requests a log-in.
type Client struct {
	ID       string `json:"client_id"`
	Name     string `json:"client_name,omitempty"`
	URI      string `json:"client_uri,omitempty"`
	Approved bool   `json:"approved"` // by the operator; otherwise its name may be invented
}

// A Then is what happens after the return.
type Then struct {
	For      string `json:"for,omitempty"` // the ID of an interaction, or ""
	Location string `json:"location"`      // a path of this server
}

// An Answer is what the page answers.
type Answer struct {
	User     login.User `json:"user"`
	ACR      string     `json:"acr,omitempty"`
	AuthTime time.Time  `json:"auth_time"`
	Error    string     `json:"error,omitempty"` // not empty: no user has logged in, and the other fields are zero
	At       time.Time  `json:"at,omitzero"`     // when this server accepted the answer
}

// kindChallenge is the kind of the records. A full store may drop a challenge: its user then has to start again.
const kindChallenge = "challenge"

// A challenge is the content of a record.
type challenge struct {
	Made     time.Time `json:"made"`
	Browser  string    `json:"browser"` // digest of the secret in its cookie
	Network  string    `json:"network"` // whose budget it has used
	Request  Request   `json:"request"`
	Then     Then      `json:"then"`
	Answer   *Answer   `json:"answer,omitempty"`
	Verifier string    `json:"verifier,omitempty"` // digest of the secret in the URL of the return
	Used     bool      `json:"used,omitempty"`     // the browser has returned

	record store.Record
}

// secret returns 260 random bits.
func secret() string { return rand.Text() + rand.Text() }

func isSecret(s string) bool {
	return len(s) == 52 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// Begin creates a challenge for the browser with that secret, and returns the URL of the page. network is the origin of the request.
// The error is a [*login.TooMany], or an outage.
//
// Who can fill the store: anyone, with one record for each request, as fast as Config.Limit allows for one network. What happens when
// it is full: the records of the client that has most of them are dropped. Whom that hurts: users who are logging in to that client.
func (d *Door) Begin(ctx context.Context, browser, network string, request Request, then Then) (location string, err error) {
	if err := d.cfg.Limit.Allow(network); err != nil {
		return "", err
	}
	id := secret()
	c := &challenge{Made: time.Now(), Browser: store.Digest(browser), Network: network, Request: request, Then: then}
	c.record = store.Record{Kind: kindChallenge, ID: store.Digest(id), Expires: c.Made.Add(d.cfg.Lifetime)}
	if err := d.save(ctx, id, c); err != nil {
		return "", err
	}
	u, err := url.Parse(d.cfg.Redirect)
	if err != nil {
		return "", fmt.Errorf("hand a log-in off: %w", err)
	}
	query := u.Query()
	query.Set("login_challenge", id)
	query.Set("iss", d.cfg.Issuer) // a page for several servers must not answer the wrong one
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// seal returns the seal of the challenge with this ID.
func seal(id string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(id), nil, "valetkey login challenge", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the seal of a challenge: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the seal of a challenge: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// save stores a new challenge, or replaces the version that was read.
func (d *Door) save(ctx context.Context, id string, c *challenge) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write a challenge: %w", err)
	}
	s, err := seal(id)
	if err != nil {
		return err
	}
	c.record.Value, c.record.MayDrop = s.Seal(nil, nil, text, []byte(kindChallenge)), true
	if c.Request.Client != nil {
		c.record.Owner = c.Request.Client.ID
	}
	if c.record.Version, err = d.cfg.Store.Put(ctx, c.record); err != nil {
		return fmt.Errorf("write a challenge: %w", err)
	}
	return nil
}

// load returns the challenge with this ID. The error is ErrExpired, or an outage.
func (d *Door) load(ctx context.Context, id string) (*challenge, error) {
	if !isSecret(id) {
		return nil, ErrExpired
	}
	r, err := d.cfg.Store.Get(ctx, kindChallenge, store.Digest(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrExpired
	}
	c := &challenge{}
	var s cipher.AEAD
	if err == nil {
		s, err = seal(id)
	}
	var text []byte
	if err == nil {
		text, err = s.Open(nil, nil, r.Value, []byte(kindChallenge))
	}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		return nil, fmt.Errorf("read a challenge: %w", err)
	}
	c.record = r
	return c, nil
}

// The reasons why a browser that returns is not logged in. They are shown to its user.
var (
	ErrExpired    = errors.New("the challenge has expired, or never existed")
	ErrBrowser    = errors.New("the challenge began in another browser, or the cookie is gone")
	ErrUsed       = errors.New("the browser has returned already")
	ErrUnanswered = errors.New("the challenge is not answered, or was answered again since")
)

// Return redeems an answer, once. browser is the secret in the browser's cookie, or "". The error is one of those above, or an outage.
// The Then is set with ErrUsed and ErrUnanswered, too: both happen only in the right browser, so its user can try again there.
func (d *Door) Return(ctx context.Context, browser, id, verifier string) (*Answer, Then, error) {
	for {
		c, err := d.load(ctx, id)
		switch {
		case err != nil:
			return nil, Then{}, err
		case browser == "" || !equal(store.Digest(browser), c.Browser):
			return nil, Then{}, ErrBrowser
		case c.Used:
			return nil, c.Then, ErrUsed
		case c.Answer == nil || !equal(store.Digest(verifier), c.Verifier):
			return nil, c.Then, ErrUnanswered
		}
		answer := c.Answer
		if answer.Error == "" && c.staleFor(answer.AuthTime) {
			d.cfg.Logger.WarnContext(ctx, "log-in answered without a new log-in", "prompt", c.Request.Prompt, "auth_time", answer.AuthTime)
			answer = &Answer{Error: "login_required"}
		}
		c.Used, c.Answer, c.Request = true, nil, Request{Client: c.Request.Client}
		err = d.save(ctx, id, c)
		if errors.Is(err, store.ErrConflict) { // another request of the browser, or another answer
			continue
		}
		if err != nil {
			return nil, Then{}, err
		}
		if answer.Error == "" { // as for log-ins by password, only those that fail count
			d.cfg.Limit.Restore(c.Network)
		}
		return answer, c.Then, nil
	}
}

// staleFor reports whether the client has requested a new log-in, and the user has logged in before (OpenID Connect Core 1.0,
// section 3.1.2.1, prompt=login). The engine checks max_age and acr_values.
func (c *challenge) staleFor(authTime time.Time) bool {
	return slices.Contains(strings.Fields(c.Request.Prompt), "login") && authTime.Before(c.Made.Add(-skew))
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// cookie returns the cookie of the browsers of challenges.
func (d *Door) cookie(value string) *http.Cookie {
	secure := strings.HasPrefix(d.cfg.Issuer, "https:")
	name := "login"
	if secure {
		name = "__Host-login"
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// Browser returns the secret in the browser's cookie, or "".
func (d *Door) Browser(r *http.Request) string {
	cookie, err := r.Cookie(d.cookie("").Name)
	if err != nil || !isSecret(cookie.Value) {
		return ""
	}
	return cookie.Value
}

// NewBrowser returns the secret of the browser and, if it has none yet, the cookie that gives it one.
func (d *Door) NewBrowser(r *http.Request) (browser string, cookie *http.Cookie) {
	if browser = d.Browser(r); browser != "" {
		return browser, nil
	}
	browser = secret()
	return browser, d.cookie(browser)
}

// Redirect returns the URL of the page, and Logout the one where it logs out, or "".
func (d *Door) Redirect() string { return d.cfg.Redirect }
func (d *Door) Logout() string   { return d.cfg.Logout }
