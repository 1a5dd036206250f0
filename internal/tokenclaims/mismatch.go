package tokenclaims

import (
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
)

const (
	maxValues = 6   // that an error quotes: as many as there are algorithms by default
	maxValue  = 200 // bytes of each of them
)

// Mismatch returns an error that gives both values of a setting: got, those in the token or whatever else in names, and those
// configured. It quotes at most the first five of each, and of each 200 bytes, so it is safe to log. It calls configured only
// when the text is needed, so that an attacker cannot make a refusal costly.
//
//	issuer: "https://as.example.com/" in the token, "https://as.example.com" configured
func Mismatch(setting, in string, got []string, configured func() []string) error {
	return &mismatch{setting, in, quoted(got), configured}
}

type mismatch struct {
	setting, in string
	got         string // quoted: it must not keep the memory of a token
	configured  func() []string
}

func (m *mismatch) Error() string {
	return fmt.Sprintf("%s: %s in the %s, %s configured", m.setting, m.got, m.in, quoted(m.configured()))
}

func quoted(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	var text []string
	for _, v := range values[:min(len(values), maxValues)] {
		text = append(text, fmt.Sprintf("%q", v[:min(len(v), maxValue)]))
	}
	if more := len(values) - maxValues; more > 0 {
		text = append(text, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(text, ", ")
}

// NotApplicable returns err as a cause that wraps [valetkey.ErrNotApplicable], with the text of err.
func NotApplicable(err error) error { return notApplicable{err} }

type notApplicable struct{ error }

func (n notApplicable) Unwrap() []error { return []error{valetkey.ErrNotApplicable, n.error} }
