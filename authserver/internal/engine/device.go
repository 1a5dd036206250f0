package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// The device authorization grant (RFC 8628). The ID of the record of a waiting device is the digest of its user code, so that no
// two devices show the same one. Its key is the digest of its device code.

const (
	kindDevice    = "device"
	keyDeviceCode = "device_code"

	pollEvery    = 5 // seconds between requests: section 3.5
	pollSlack    = time.Second
	deviceLinger = 10 * time.Minute // how long after expiry a device gets the error that its code has expired
)

// The states of a device.
const (
	waits   = "waits"
	denied  = "denied"
	allowed = "allowed"
	served  = "served" // it has its tokens
)

// A device is the stored state of a device.
type device struct {
	State    string        `json:"state"`
	Client   string        `json:"client"`
	Resource string        `json:"resource"`
	Scopes   string        `json:"scopes"`
	Details  []flow.Detail `json:"authorization_details,omitempty"`
	Ends     time.Time     `json:"ends"`
	Grant    string        `json:"grant,omitempty"` // granted by the user
	By       string        `json:"by,omitempty"`    // the subject of the user who has decided; empty: not logged in
	Said     string        `json:"said,omitempty"`  // Decision.Said

	record store.Record
}

// DeviceAuthorization is the device authorization endpoint (RFC 8628, section 3.1), for POST.
func (e *Engine) DeviceAuthorization(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	said, err := e.startDevice(w, c)
	e.respond(w, c, http.StatusOK, said, err)
}

func (e *Engine) startDevice(w http.ResponseWriter, c *call) (map[string]any, error) {
	if err := c.readForm(w); err != nil {
		return nil, err
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.Device); err != nil {
		return nil, err
	}
	if err := e.pushes.Allow(c.writer()); err != nil {
		return nil, tooMany(err)
	}
	if !slices.Contains(c.client.GrantTypes, deviceGrant) {
		return nil, errNotTheClients
	}
	details, err := flow.ReadDetails(c.form.Get("authorization_details"))
	if err != nil {
		return nil, errDetails
	}
	if isLong(c.form) {
		return nil, invalidRequest("the parameters are too long")
	}
	api, scopes, err := e.offered(c.client, c.form["resource"], c.form.Get("scope"), details)
	if err != nil {
		return nil, err
	}
	code := secret()
	d := &device{
		State: waits, Client: c.client.ID, Resource: api.Audience, Scopes: scopes.String(), Details: details,
		Ends: c.at.Add(e.cfg.DeviceLifetime),
	}
	d.record = store.Record{
		Kind: kindDevice, Keys: []store.Key{{Name: keyDeviceCode, Value: store.Digest(code)}}, Expires: d.Ends.Add(deviceLinger),
		MayDrop: true, Owner: d.Client,
	}
	var userCode string
	for err = store.ErrConflict; errors.Is(err, store.ErrConflict); err = e.saveDevice(c.r.Context(), d) {
		userCode = newUserCode()
		d.record.ID = store.Digest(userCode)
	}
	if err != nil {
		return nil, err
	}
	page, shown := e.cfg.base()+e.cfg.DevicePage, showUserCode(userCode)
	return map[string]any{ // section 3.2
		"device_code": code, "user_code": shown, "verification_uri": page,
		"verification_uri_complete": page + "?" + url.Values{"user_code": {shown}}.Encode(),
		"expires_in":                int(e.cfg.DeviceLifetime / time.Second), "interval": pollEvery,
	}, nil
}

// userLetters contain no vowels, so that codes form no words, and no letter that resembles another one (section 6.1). Eight of
// them have 34 bits: a limited number of guesses finds nothing within the lifetime of a code (section 5.1).
const (
	userLetters    = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength = 8
)

func newUserCode() string {
	var code []byte
	for random := make([]byte, 1); len(code) < userCodeLength; {
		rand.Read(random) // never fails
		if n := int(random[0]); n < 256/len(userLetters)*len(userLetters) {
			code = append(code, userLetters[n%len(userLetters)])
		}
	}
	return string(code)
}

func showUserCode(code string) string { return code[:4] + "-" + code[4:] }

// readUserCode returns the code that the user has entered, in its original form. Letter case, spaces and punctuation are ignored
// (section 6.1). It returns "" if the input cannot be a code.
func readUserCode(typed string) string {
	code := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return -1
		}
	}, typed)
	if len(code) != userCodeLength || strings.Trim(code, userLetters) != "" {
		return ""
	}
	return code
}

// Device returns the request of the device with this code, in any form that the user may enter it. The error wraps
// [store.ErrNotFound] if the code is unknown, expired or decided, and is an outage otherwise. The caller must limit guesses
// (section 5.1).
func (e *Engine) Device(ctx context.Context, userCode string) (*flow.Interaction, error) {
	d, err := e.waiting(ctx, userCode)
	if err != nil {
		return nil, err
	}
	client, err := e.cfg.Clients.Get(ctx, d.Client)
	if err != nil {
		return nil, fmt.Errorf("find the client of a device: %w", err)
	}
	api, scopes, err := e.offered(client, []string{d.Resource}, d.Scopes, d.Details)
	if err != nil { // the client, or the configuration, has changed since
		return nil, fmt.Errorf("read a device: %w: %w", store.ErrNotFound, err)
	}
	return &flow.Interaction{
		ID: d.id(), Client: client, API: api, Scopes: scopes, Details: d.Details, UserCode: showUserCode(readUserCode(userCode)), MaxAge: -1,
	}, nil
}

// DecideDevice applies the user's decision to the device of an interaction. Its errors are those of [Engine.Device], also if the
// device has been decided meanwhile.
func (e *Engine) DecideDevice(ctx context.Context, in *flow.Interaction, d *flow.Decision) error {
	code := refusalOf(d, in, 0)
	if code != "" {
		if err := e.decideDevice(ctx, in, func(dev *device) { dev.State, dev.By, dev.Said = denied, decider(d), d.Said }); err != nil {
			return err
		}
		e.cfg.Audit(ctx, Event{Name: Refused, Path: e.cfg.Paths.Device, Client: in.Client.ID, Error: code})
		return nil
	}
	dev, err := e.waiting(ctx, in.UserCode)
	if err != nil {
		return err
	}
	g := newGrant(in.Client, in.API, grantedBy(d, in))
	g.identity, g.Details = identityOf(d), detailsBy(d, in)
	if err := e.saveGrant(ctx, g, dev.Ends.Add(time.Second)); err != nil {
		return err
	}
	if err := e.decideDevice(ctx, in, func(dev *device) {
		dev.State, dev.Grant, dev.By, dev.Said = allowed, g.ID, decider(d), d.Said
	}); err != nil {
		_, lost := e.revoke(ctx, g)
		return errors.Join(err, lost)
	}
	if err := e.cfg.Clients.Keep(ctx, in.Client); err != nil {
		return fmt.Errorf("keep the client of a device: %w", err)
	}
	e.cfg.Audit(ctx, Event{
		Name: Granted, Path: e.cfg.Paths.Device, Client: g.Client, Subject: g.Subject, Audience: in.API.Audience,
		Scope: g.Scopes, Grant: g.ID,
	})
	return nil
}

// decider returns the subject of the user who has decided, or "".
func decider(d *flow.Decision) string {
	if d.User == nil {
		return ""
	}
	return d.User.Subject
}

// DecidedDevice reports whether the user with this subject, or a user who has not logged in, has submitted the same decision
// about the device with this code before, as in the second of two equal forms. If so, allows is the outcome. The error is an
// outage.
func (e *Engine) DecidedDevice(ctx context.Context, userCode, subject, said string) (same, allows bool, err error) {
	d, err := e.device(ctx, userCode)
	if errors.Is(err, store.ErrNotFound) {
		return false, false, nil
	}
	if err != nil || d.State == waits || d.By != subject || d.Said != said || !time.Now().Before(d.Ends) {
		return false, false, err
	}
	return true, d.State != denied, nil
}

// decideDevice changes the device of an interaction, if it still waits.
func (e *Engine) decideDevice(ctx context.Context, in *flow.Interaction, change func(*device)) error {
	for {
		d, err := e.waiting(ctx, in.UserCode)
		if err != nil {
			return err
		}
		if d.id() != in.ID { // another device has got the code since
			return fmt.Errorf("decide about a device: %w", store.ErrNotFound)
		}
		change(d)
		if err := e.saveDevice(ctx, d); !errors.Is(err, store.ErrConflict) {
			return err
		} // else it has been decided meanwhile
	}
}

// redeemDevice returns the grant of a device whose user has allowed it (sections 3.4 and 3.5).
func (e *Engine) redeemDevice(c *call) (*grant, error) {
	code := c.form.Get("device_code")
	if code == "" {
		return nil, invalidRequest("device_code is missing")
	}
	for {
		g, err := e.pollDevice(c, code)
		if !errors.Is(err, store.ErrConflict) {
			return g, err
		} // else it has changed meanwhile
	}
}

func (e *Engine) pollDevice(c *call, code string) (*grant, error) {
	ctx := c.r.Context()
	d, err := e.deviceOf(ctx, code)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errGrant
	case err != nil:
		return nil, err
	case d.Client != c.client.ID, d.State == served:
		return nil, errGrant
	case !time.Now().Before(d.Ends):
		return nil, badRequest("expired_token", "the device code has expired: start again")
	case d.State == denied:
		return nil, badRequest("access_denied", "the user has denied the device")
	case d.State == waits:
		if e.polls.Allow(d.id()) != nil {
			return nil, badRequest("slow_down", "wait 5 s more between requests")
		}
		return nil, badRequest("authorization_pending", "the user has not decided yet")
	}
	g, err := e.grant(ctx, d.Grant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errGrant
	case err != nil:
		return nil, err
	case !g.live():
		return nil, errGrant
	}
	if err := e.renew(c, g); err != nil {
		return nil, err
	}
	if err := e.fit(c, g); err != nil {
		return nil, err
	}
	if err := c.narrow(g); err != nil {
		return nil, err
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	// Only the caller that changes the state may issue the tokens, whether or not that succeeds.
	d.State = served
	if err := e.saveDevice(ctx, d); err != nil {
		return nil, err
	}
	e.startFamily(c, g)
	return g, nil
}

// waiting returns the waiting device for a code that the user has entered.
func (e *Engine) waiting(ctx context.Context, userCode string) (*device, error) {
	d, err := e.device(ctx, userCode)
	if err == nil && (d.State != waits || !time.Now().Before(d.Ends)) {
		return nil, fmt.Errorf("find a device: %w", store.ErrNotFound)
	}
	return d, err
}

// device returns the device with this code, decided or not.
func (e *Engine) device(ctx context.Context, userCode string) (*device, error) {
	code := readUserCode(userCode)
	if code == "" {
		return nil, fmt.Errorf("find a device: %w", store.ErrNotFound)
	}
	rec, err := e.cfg.Store.Get(ctx, kindDevice, store.Digest(code))
	if err != nil {
		return nil, fmt.Errorf("find a device: %w", err)
	}
	return readDevice(rec)
}

// deviceOf returns the device with this device code.
func (e *Engine) deviceOf(ctx context.Context, code string) (*device, error) {
	if !isSecret(code) {
		return nil, store.ErrNotFound
	}
	found, err := e.cfg.Store.Find(ctx, kindDevice, store.Key{Name: keyDeviceCode, Value: store.Digest(code)}, "", 1)
	if err != nil {
		return nil, fmt.Errorf("find a device: %w", err)
	}
	if len(found) == 0 {
		return nil, store.ErrNotFound
	}
	return readDevice(found[0])
}

func readDevice(rec store.Record) (*device, error) {
	d := &device{record: rec}
	if err := json.Unmarshal(rec.Value, d); err != nil {
		return nil, fmt.Errorf("read a device: %w", err)
	}
	d.record.MayDrop, d.record.Owner = true, d.Client
	return d, nil
}

// saveDevice stores a new device, or replaces the version that was read.
func (e *Engine) saveDevice(ctx context.Context, d *device) (err error) {
	if d.record.Value, err = json.Marshal(d); err != nil {
		return fmt.Errorf("write a device: %w", err)
	}
	if d.record.Version, err = e.cfg.Store.Put(ctx, d.record); err != nil {
		return fmt.Errorf("write a device: %w", err)
	}
	return nil
}

// id returns the ID of its interaction. It cannot be guessed, and it is not a secret of the device.
func (d *device) id() string { return d.record.Keys[0].Value }
