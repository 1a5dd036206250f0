package browser_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
)

func (s *site) employ(t *testing.T, v *tab) {
	v.visit(s.app.url + "/login")
	v.sees(http.StatusOK, "Log in", "to continue to Fruit shop")
	v.shoot("login-application")
	v.press("Cancel") // before she has seen the destination: the application is a developer's
	host := strings.TrimPrefix(s.app.url, "http://")
	v.sees(http.StatusBadRequest, "Do you want to leave this site?", "an application on this device, at "+host)
	v.shoot("leave")
	v.press("Continue to " + host)
	v.sees(http.StatusOK, "You did not let us in", "access_denied")

	v.visit(s.app.url + "/login")
	v.logIn("Employee", slapdtest.Carol, "a wrong one")
	v.sees(http.StatusUnprocessableEntity, "The name or the password is wrong.")
	v.logIn("Employee", slapdtest.Carol, slapdtest.CarolPassword)
	v.sees(http.StatusOK, "A developer registered “Fruit shop”", "It leads back to an application on this device.")
	v.shoot("stranger")
	v.know("Fruit shop")
	v.sees(http.StatusOK, "Allow Fruit shop?", "You are logged in as Carol Jones")
	v.press("Deny")
	v.sees(http.StatusOK, "You did not let us in", "access_denied")

	v.visit(s.app.url + "/login") // she is still logged in
	v.know("Fruit shop")
	v.tick("Place and change orders for you")
	v.press("Allow")
	v.sees(http.StatusOK, "Welcome", "You may: orders:read")
	v.visit(s.app.url + "/orders")
	v.sees(http.StatusOK, "The API says 200 OK", "pears")
	v.visit(s.app.url + "/login")
	v.sees(http.StatusOK, "Allow Fruit shop?", "Place and change orders for you") // which she has not allowed
	v.press("Not you?")
	v.sees(http.StatusOK, "Log in", "to continue to Fruit shop")
	v.logIn("Employee", strings.ToUpper(slapdtest.Carol), slapdtest.CarolPassword)
	v.tick("See your orders")
	v.enter("See your orders") // this decides nothing, and leaves the page unchanged
	v.sees(http.StatusOK, "Allow Fruit shop?")
	v.shoot("consent-entered")
	v.tick("See your orders")
	consent := v.at()
	v.press("Allow")
	v.sees(http.StatusOK, "Welcome", "You may: orders:read orders:write")
	v.visit(consent)
	v.sees(http.StatusBadRequest, "This request has been answered", "Fruit shop has your answer", "Go to "+host)
	v.shoot("ended-answered")
	v.visit(s.url + "/oauth2/authorize/" + strings.Repeat("A", 52))
	v.sees(http.StatusBadRequest, "This request has expired", "Start page")
	v.shoot("ended-expired")
	v.visit(s.app.url + "/login") // all of it is allowed now
	v.sees(http.StatusOK, "Welcome")

	v.visit(s.url + "/account/applications")
	v.sees(http.StatusOK, "Carol Jones", "Fruit shop", "Place and change orders for you")
	v.press("Revoke")
	v.sees(http.StatusOK, "Revoke the access of “Fruit shop”?")
	v.shoot("revoke")
	v.press("Revoke the access")
	v.sees(http.StatusOK, "None yet.")
	v.visit(s.app.url + "/orders")
	v.sees(http.StatusOK, "The API says 401 Unauthorized", "invalid_token")
	code, err := s.app.renew(t.Context())
	must(t, err)
	if code != "invalid_grant" {
		t.Errorf("the refresh token is refused with %q", code)
	}

	v.visit(s.url + "/developer") // which is for customers
	v.sees(http.StatusForbidden, "No access")
	v.shoot("error-forbidden")
	v.press("Example accounts")
	v.sees(http.StatusOK, "Connect a device")
	v.seesNot("Register an application")
	v.press("Log out")
	v.seesNot("Carol Jones")
	v.visit(s.url + "/account/applications")
	v.sees(http.StatusOK, "Log in")
}

func (s *site) restrict(t *testing.T, v *tab) {
	v.visit(s.app.url + "/login")
	v.logIn("Customer", "bob", bobPassword)
	v.know("Fruit shop")
	v.sees(http.StatusOK, "See your orders", "which your account is not permitted to allow", "Place and change orders for you")
	v.shoot("consent-withheld")
	v.press("Not you?")
	v.logIn("Employee", slapdtest.Dave, slapdtest.DavePassword) // in no group
	v.know("Fruit shop")
	v.sees(http.StatusOK, "Your account is not permitted to allow anything that it requested:")
	v.shoot("consent-nothing")
	v.press("Deny")
	v.sees(http.StatusOK, "You did not let us in", "access_denied")
}

func (s *site) connect(t *testing.T, alice, v *tab) {
	alice.t = t
	alice.visit(s.url + "/developer/applications/new")
	alice.fill("Name", "Television")
	alice.fill("Redirect URIs", "com.example.tv:/callback")
	alice.tick("Native application")
	alice.tick("See your orders")
	alice.press("Register")
	id := alice.value("Client id")

	v.visit(s.url + "/device")
	v.sees(http.StatusOK, "The code on your device")
	v.shoot("device")
	v.fill("The code on your device", "BCDF-GHJK")
	v.press("Continue")
	v.sees(http.StatusUnprocessableEntity, "No device is waiting with this code.")
	v.shoot("device-problem")

	code := s.device(t, id)
	v.visit(code.VerificationURI)
	v.fill("The code on your device", strings.ToLower(strings.ReplaceAll(code.UserCode, "-", " ")))
	v.press("Continue")
	v.logIn("Employee", slapdtest.Carol, slapdtest.CarolPassword)
	v.know("Television")
	v.sees(http.StatusOK, "Allow Television?", "Does your device show this code?", code.UserCode)
	v.shoot("device-consent")
	v.press("Allow")
	v.sees(http.StatusOK, "Your device is connected")
	v.shoot("device-connected")
	token, refused := s.poll(t, id, code.DeviceCode)
	if token == "" {
		t.Fatalf("the device is refused with %s", refused)
	}
	s.secrets = append(s.secrets, token)

	code = s.device(t, id)
	v.visit(code.VerificationURIComplete)
	v.sees(http.StatusOK, "Continue only if your device shows this exact code.")
	v.shoot("device-filled-in")
	v.press("Continue")
	v.press("Deny")
	v.sees(http.StatusOK, "Your device is not connected")
	v.shoot("device-denied")
	if _, refused := s.poll(t, id, code.DeviceCode); refused != "access_denied" {
		t.Errorf("the device gets %q", refused)
	}
}

func (s *site) fail(t *testing.T, v *tab) {
	v.visit(s.url + "/oauth2/authorize?response_type=code&client_id=nobody&redirect_uri=https://evil.example.com/")
	v.sees(http.StatusBadRequest, "Something went wrong")
	v.shoot("error-client")
	v.visit(s.app.url + "/login")
	for range attempts { // a log-in that succeeds does not count
		v.logIn("Customer", "bob", "a wrong one")
		v.sees(http.StatusUnprocessableEntity, "The name or the password is wrong.")
	}
	v.logIn("Customer", "bob", bobPassword)
	v.sees(http.StatusTooManyRequests, "There have been too many attempts.")
	v.shoot("login-slowed-down")
	s.directory.Kill()
	v.logIn("Employee", slapdtest.Carol, slapdtest.CarolPassword)
	v.sees(http.StatusServiceUnavailable, "cannot be checked at the moment")
	v.shoot("login-outage")
	s.directory.Restart(t)
	v.logIn("Employee", slapdtest.Carol, slapdtest.CarolPassword)
	v.know("Fruit shop")
	v.sees(http.StatusOK, "Allow Fruit shop?")
}

// know continues from the page that introduces an application that the operator has not checked.
func (v *tab) know(application string) {
	v.t.Helper()
	v.sees(http.StatusOK, "Do you know “"+application+"”?")
	v.press("Continue")
}

func (s *site) remove(t *testing.T, v *tab) {
	v.t = t
	v.visit(s.page)
	v.press("Delete")
	v.sees(http.StatusOK, "Delete Fruit shop?")
	v.shoot("delete")
	v.press("Delete the application")
	v.sees(http.StatusOK, "Your applications", "“Fruit shop” has been deleted.")
	v.shoot("deleted")
	v.visit(s.url + "/developer")
	v.seesNot("Fruit shop")
	v.visit(s.page)
	v.sees(http.StatusNotFound, "Page not found")
	v.shoot("error-missing")
	v.visit(s.app.url + "/login")
	v.sees(http.StatusBadRequest, "Something went wrong")
}
