package authheader_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
)

// b64token is the syntax of RFC 6750, section 2.1; credentials are its scheme, at least one space, and what follows.
var (
	b64token    = regexp.MustCompile(`^[A-Za-z0-9\-._~+/]+=*$`)
	credentials = regexp.MustCompile(`(?is)^(bearer|dpop)(?: +(.*))?$`)
)

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", "Bearer", "bearer a.b.c", "BEARER  a==", "DPoP a", "dpop\ta", "Bearer\ta", "Bearer a b", "Basic YTpi", "Bearer a, Bearer b", "\u212Aearer a", " Bearer a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		scheme, token, sent, err := authheader.Read([]string{line})
		assert.NoError(t, err)
		want := credentials.FindStringSubmatch(line)
		assert.Equal(t, want != nil, sent)
		if sent {
			assert.True(t, strings.EqualFold(want[1], scheme))
			assert.Equal(t, want[2], token)
			again, same, _, _ := authheader.Read([]string{scheme + " " + token})
			assert.Equal(t, []string{scheme, token}, []string{again, same}, "read again")
		} else {
			assert.Equal(t, []string{authheader.Bearer, ""}, []string{scheme, token})
		}
		assert.Equal(t, b64token.MatchString(token), authheader.IsToken(token))
		assert.Equal(t, b64token.MatchString(line), authheader.IsToken(line))

		_, token, sent, err = authheader.Read([]string{line, "Bearer a"})
		refused := new(valetkey.Error)
		assert.ErrorAs(t, err, &refused, "two lines")
		assert.Equal(t, valetkey.InvalidRequest, refused.Code)
		assert.False(t, sent || token != "")
	})
}
