package pages

import (
	"errors"
	"net/http"
	"strings"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// deviceKey is the session key of the code that the visitor has entered, once it is known to be a device's. A visitor who has
// not passed [visit.enterCode] and its limit thus cannot try codes elsewhere.
const deviceKey = "device"

const maxCode = 40 // characters entered, including spaces and dashes

// showCode asks for the code. A code in the URL (RFC 8628, section 3.3.1) is filled in, for the user to compare and submit.
func (v *visit) showCode() (*reply, error) {
	re := codePage(v.r.URL.Query().Get("user_code"))
	if re.data == "" {
		re.self = v.base + "/device"
	}
	return re, nil
}

func codePage(code string, problems ...problem) *reply {
	if len(code) > maxCode {
		code = ""
	}
	return &reply{page: "code", title: msg("device.title"), data: strings.ToUpper(code), problems: problems}
}

func (v *visit) enterCode() (*reply, error) {
	code := strings.TrimSpace(v.r.PostForm.Get("user_code"))
	if code == "" {
		return codePage("", problem{"user_code", msg("device.empty")}), nil
	}
	// RFC 8628, section 5.1: a code is short, so guesses are limited.
	if tooMany, many := errors.AsType[*login.TooMany](v.cfg.Codes.Allow(login.Network(v.cfg.Address(v.r)))); many {
		why := tooSoon(tooMany)
		re := codePage(code, problem{"user_code", why.words})
		re.status, re.wait = why.status, why.wait
		return re, nil
	}
	in, err := v.cfg.Engine.Device(v.r.Context(), code)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return codePage(code, problem{"user_code", msg("device.unknown")}), nil
	case err != nil:
		return nil, err
	}
	return v.see("/device/confirm"), v.put(deviceKey, in.UserCode)
}

// confirmDevice is the interaction of a device.
func (v *visit) confirmDevice() (*reply, error) {
	var code string
	if !v.get(deviceKey, &code) {
		return v.see("/device"), nil
	}
	gone := func() (*reply, error) {
		if v.r.Method == http.MethodPost { // the second request of a double click
			same, allows, err := v.cfg.Engine.DecidedDevice(v.r.Context(), code, v.subject(), v.said())
			if same || err != nil {
				return v.deviceDecided(allows), err
			}
		}
		v.drop(deviceKey)
		return codePage("", problem{"user_code", msg("device.gone")}), nil
	}
	in, err := v.cfg.Engine.Device(v.r.Context(), code)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return gone()
	case err != nil:
		return nil, err
	}
	in.ContinueURL = v.base + "/device/confirm"
	d, re, err := v.interact(in, v.r.PostForm.Get("do"))
	if err != nil || d == nil {
		return re, err
	}
	err = v.cfg.Engine.DecideDevice(v.r.Context(), in, d)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict): // ended, or decided elsewhere
		return gone()
	case err != nil:
		return nil, err
	}
	return v.deviceDecided(!d.Denied), nil // the code remains, to be recognized if the form is submitted again
}

func (v *visit) deviceDecided(allowed bool) *reply {
	if !allowed {
		return v.see("/device/denied")
	}
	return v.see("/device/done")
}

// subject returns the subject of the user, or "".
func (v *visit) subject() string {
	if v.user == nil {
		return ""
	}
	return v.user.Subject
}

func (v *visit) deviceEnd() (*reply, error) {
	switch v.r.PathValue("end") {
	case "done":
		return &reply{page: "device", title: msg("device.done.title"), data: true}, nil
	case "denied":
		return &reply{page: "device", title: msg("device.denied.title"), data: false}, nil
	default:
		return nil, errNotFound
	}
}
