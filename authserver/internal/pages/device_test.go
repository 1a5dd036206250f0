package pages_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A device waits for its user.
type device struct {
	h            *house
	code, secret string
}

func (h *house) plug() device {
	h.t.Helper()
	status, body := h.tell("/oauth2/device_authorization", "lamp", url.Values{})
	require.Equal(h.t, 200, status, body)
	return device{h, body["user_code"].(string), body["device_code"].(string)}
}

// ask returns the response to the device: an error, or the granted scope.
func (d device) ask() string {
	d.h.t.Helper()
	_, body := d.h.tell("/oauth2/token", "lamp", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.secret}})
	if why, refused := body["error"]; refused {
		return why.(string)
	}
	return body["scope"].(string)
}

func TestDevice(t *testing.T) {
	code := func(s string) url.Values { return url.Values{"user_code": {s}} }

	t.Run("AS-DEVICE-08 guesses are limited, and wrong ones are reported", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		b := h.browser().get("/device")
		for range 5 {
			require.Equal(t, 422, b.press("Continue", code("AAAA-AAAA")).resp.StatusCode)
			require.Contains(t, b.text(), "No device is waiting with this code.")
		}
		require.Equal(t, 429, b.press("Continue", code(d.code)).resp.StatusCode)
		require.NotEmpty(t, b.resp.Header.Get("Retry-After"))
		require.Equal(t, 429, h.browser().get("/device").press("Continue", code(d.code)).resp.StatusCode, "another browser at the same address")
		require.Equal(t, "Connect a device", b.get("/device/confirm?user_code="+d.code).h1(), "there is no way around it")
	})
	t.Run("AS-DEVICE-08 case and punctuation are ignored", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		a, b, _ := strings.Cut(d.code, "-")
		for _, typed := range []string{strings.ToLower(a + " " + b), " " + a + "—" + b + ".", strings.ToLower(a + b)} {
			require.Equal(t, "Log in", h.browser().get("/device").press("Continue", code(typed)).h1(), typed)
		}
	})
	t.Run("no code is none", func(t *testing.T) {
		b := newHouse(t).browser()
		require.Contains(t, b.get("/device").press("Continue", code(" ")).text(), "Enter the code that your device shows.")
		require.NotContains(t, b.get("/device?user_code="+strings.Repeat("B", 41)).body, strings.Repeat("B", 10))
	})
	t.Run("a code that another user decides on meanwhile connects nothing", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		b := h.loggedIn("alice").get("/device").press("Continue", code(d.code))
		h.loggedIn("bob").get("/device").press("Continue", code(d.code)).press("Deny", nil)
		require.Contains(t, b.press("Allow", nil).text(), "The code is no longer valid: it has been used or has expired.")
		require.Equal(t, "access_denied", d.ask())
	})
	t.Run("a double click gets the answer of the first, and another answer does not", func(t *testing.T) {
		for _, c := range []struct{ do, other, end string }{
			{"allow", "deny", "Your device is connected"}, {"deny", "allow", "Your device is not connected"},
		} {
			h := newHouse(t)
			d := h.plug()
			b := h.loggedIn("alice").get("/device").press("Continue", code(d.code))
			at, form := b.formOf(c.do)
			for range 3 {
				require.Equal(t, c.end, b.post(at, form).h1())
			}
			form.Set("do", c.other)
			require.Contains(t, b.post(at, form).text(), "The code is no longer valid: it has been used or has expired.")
			require.Equal(t, map[string]string{"allow": "orders:read", "deny": "access_denied"}[c.do], d.ask())
		}
	})
	t.Run("the answer of another user is not this user's", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		b := h.loggedIn("alice").get("/device").press("Continue", code(d.code))
		h.loggedIn("bob").get("/device").press("Continue", code(d.code)).press("Allow", nil)
		require.Contains(t, b.press("Allow", nil).text(), "The code is no longer valid")
	})
	t.Run("a denial is reported to the user and to the device", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		b := h.browser().get("/device").press("Continue", code(d.code)).press("Log in", as("alice")).press("Deny", nil)
		require.Equal(t, "Your device is not connected", b.h1())
		require.Equal(t, "access_denied", d.ask())
		require.Equal(t, 404, b.get("/device/other").resp.StatusCode)
	})
	t.Run("AS-DEVICE-09 a code in the URL is shown and confirmed, twice, even for a trusted client with a consent", func(t *testing.T) {
		h := newHouse(t)
		b := h.loggedIn("alice")
		for range 2 {
			d := h.plug()
			b.get("/device?user_code=" + strings.ToLower(d.code))
			require.Contains(t, b.body, `value="`+d.code+`"`)
			require.Contains(t, b.text(), "Continue only if your device shows this exact code.")
			b.press("Continue", nil)
			require.Equal(t, "Allow The Lamp?", b.h1())
			require.Contains(t, b.text(), d.code)
			require.Equal(t, "Your device is connected", b.press("Allow", nil).h1())
			require.Equal(t, "orders:read", d.ask())
			require.Equal(t, "Connect a device", b.get("/device/confirm").h1(), "it is decided")
		}
	})
	t.Run("another user need not type the code again", func(t *testing.T) {
		h := newHouse(t)
		d := h.plug()
		b := h.loggedIn("alice").get("/device").press("Continue", code(d.code)).press("Not you?", nil).press("Log in", as("bob")).press("Allow", nil)
		require.Equal(t, "Your device is connected", b.h1())
		require.Equal(t, "orders:read", d.ask())
		require.Contains(t, h.log.String(), `msg="consent given" subject=customer:bob client=lamp`)
	})
}
