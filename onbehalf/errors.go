package onbehalf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/heldtoken"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/middleware"
)

// Reasons of refusals.
var (
	// ReasonExchangeRefused means that the authorization server does not accept the token for an exchange: it has expired or was
	// revoked there. 401.
	ReasonExchangeRefused = valetkey.NewReason("exchange_refused", "the token is not accepted for a call to another service")

	// ReasonInteraction means that the authorization server requires something of the user, such as a login or consent. 401.
	ReasonInteraction = valetkey.NewReason("interaction_required", "the user must log in or consent before this service can call another one")

	// ReasonNotExchangeable means that the credentials are valid but not of the kind that is exchanged, such as an API key. 403.
	ReasonNotExchangeable = valetkey.NewReason("not_exchangeable", "these credentials cannot be used for a call to another service")
)

// An Error is a failure that neither the client nor a retry can fix: this service is not configured as the authorization server, or
// this package, requires.
type Error struct {
	// Code is the error of the token endpoint (RFC 6749, section 5.2), such as invalid_client or invalid_target. Empty: there is
	// none.
	Code string

	// Numbers are the error_codes of Microsoft Entra ID, which its documentation lists as AADSTS.
	Numbers []int

	// Err is the cause. It contains neither a token nor text of the authorization server.
	Err error
}

// Error returns the code and the cause, for the log.
func (e *Error) Error() string {
	s := "onbehalf: the token endpoint refuses"
	if e.Code == "" {
		return e.Err.Error()
	}
	s += ": " + strconv.Quote(e.Code)
	for _, n := range e.Numbers {
		s += fmt.Sprintf(" AADSTS%d", n)
	}
	return s
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

func notExchangeable(format string, args ...any) error {
	return &valetkey.Error{Code: valetkey.Forbidden, Reason: ReasonNotExchangeable, Err: fmt.Errorf("onbehalf: the token is not exchanged: "+format, args...)}
}

// WriteError writes the response to r that err calls for, an error of a [Client] or of a call with its Transport: a challenge if the
// client can do something about it, 503 with Retry-After if it can try again later, and 500 if neither helps. The client receives
// nothing that the authorization server wrote, except what it requires of the user.
func WriteError(w http.ResponseWriter, r *http.Request, guard *middleware.Guard, err error) {
	if own, ok := errors.AsType[*Error](err); ok && own != nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	guard.Reject(r, err).Apply(w, r)
}

// codeOf returns the error of a response, or "" if it has none that is well-formed.
func codeOf(body []byte) string { return readError(body).code }

// A said is what the token endpoint reports about an error.
type said struct {
	code    string
	claims  string
	numbers []int
}

// maxClaims is the maximum length of claims that become part of a header, in bytes.
const maxClaims = 4 << 10

func readError(body []byte) (s said) {
	err := strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "error":
			s.code, _ = v.Text()
		case "claims": // a JSON object as a string
			s.claims, _ = v.Text()
		case "error_codes":
			numbers, _ := v.Elements()
			for _, n := range numbers[:min(len(numbers), 8)] {
				if f, ok := n.Number(); ok {
					s.numbers = append(s.numbers, int(f))
				}
			}
		}
		return nil
	})
	if err != nil || len(s.code) > 64 || strings.ContainsFunc(s.code, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return said{}
	}
	if !isObject(s.claims) {
		s.claims = ""
	}
	return s
}

// isObject reports whether claims is a JSON object that fits into a header.
func isObject(claims string) bool {
	var object map[string]json.RawMessage
	return len(claims) <= maxClaims && json.Unmarshal([]byte(claims), &object) == nil && object != nil
}

// refused returns the error for a response that is not 200.
func (c *Client) refused(reply *fetch.Reply, held *heldtoken.Token) error {
	s := readError(reply.Body)
	if s.code == "" {
		return &fetch.Error{URL: "of the token endpoint", Status: reply.Status, Err: fmt.Errorf("status %d without an error in JSON", reply.Status)}
	}
	own := &Error{Code: s.code, Numbers: s.numbers}
	cause := errors.New(own.Error()) // of refusals, which must not wrap an Error
	if held == nil {                 // there is no user, and no token of the client's
		return own
	}
	switch s.code {
	case "interaction_required", "login_required", "consent_required", "account_selection_required", string(valetkey.InsufficientUserAuthentication), "unmet_authentication_requirements":
		return interaction(s, cause)
	case "invalid_grant": // RFC 7523, section 3.1; Entra adds claims if the user must do something
		if s.claims != "" {
			return interaction(s, cause)
		}
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: ReasonExchangeRefused, Err: cause}
	case "invalid_request": // RFC 8693, section 2.2.2: also for a bad subject_token
		if err := held.Still(); err != nil {
			return err
		}
	}
	return own
}

func interaction(s said, cause error) error {
	e := &valetkey.Error{Code: valetkey.InsufficientUserAuthentication, Reason: ReasonInteraction, Err: cause}
	if s.claims != "" {
		e.Code, e.Claims = valetkey.InsufficientClaims, s.claims
	}
	return e
}
