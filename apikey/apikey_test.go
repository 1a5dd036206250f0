package apikey_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
)

const issuer = "https://api.example.com/keys"

func verify(v valetkey.Verifier, key string) (*valetkey.Token, error) {
	return v.Verify(context.Background(), apikey.Text(key))
}

func reasonOf(err error) valetkey.Reason {
	if refusal, ok := errors.AsType[*valetkey.Error](err); ok {
		return refusal.Reason
	}
	return ""
}

func TestVerifier(t *testing.T) {
	good, digest := apikey.Generate("orders_")
	expired, expiredDigest := apikey.Generate("")
	now := time.Unix(1_800_000_000, 0)
	v, err := apikey.New(apikey.Config{Issuer: issuer, Now: func() time.Time { return now }, Keys: []apikey.Key{
		{Digest: digest, Subject: "billing", ClientID: "nightly", ID: "k1", Scopes: "orders:read  orders:write", Expiry: now.Add(time.Second),
			Claims: map[string]any{"tenant": "acme", "sub": "root", "iss": "https://as.example.com", "exp": 1e12}},
		{Digest: expiredDigest, Subject: "billing", Expiry: now},
	}})
	require.NoError(t, err)

	for name, raw := range map[string]string{
		"a JWT":                         "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
		"the key itself":                good,
		"the digest itself":             apikeyText(t, digest),
		"the prefix alone":              apikey.Text(""),
		"an encoding that is not exact": apikey.Text("ab") + "=",
		"nothing":                       "",
	} {
		t.Run(name+" is not an API key", func(t *testing.T) {
			_, err := v.Verify(t.Context(), raw)
			assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
			assert.NotContains(t, err.Error(), good)
		})
	}
	for name, c := range map[string]struct {
		key  string
		want valetkey.Reason
	}{
		"an unknown key":           {good + "x", "unknown_api_key"},
		"a key in other letters":   {strings.ToUpper(good), "unknown_api_key"},
		"the digest as a key":      {string(digest[:]), "unknown_api_key"},
		"the digest as a key, hex": {apikeyText(t, digest), "unknown_api_key"},
		"an expired key":           {expired, valetkey.ReasonExpired},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(v, c.key)
			assert.Equal(t, c.want, reasonOf(err))
			assert.NotErrorIs(t, err, valetkey.ErrNotApplicable)
		})
	}
	t.Run("a good key", func(t *testing.T) {
		token, err := verify(v, good)
		require.NoError(t, err)
		assert.Equal(t, issuer, token.Issuer())
		assert.Equal(t, "billing", token.Subject())
		assert.Equal(t, "nightly", token.ClientID())
		assert.Equal(t, "k1", token.ID())
		assert.Equal(t, "orders:read orders:write", token.Scopes().String())
		assert.Equal(t, now.Add(time.Second), token.Deadline())
		var claims map[string]any
		require.NoError(t, json.Unmarshal([]byte(token.Raw()), &claims))
		assert.Equal(t, map[string]any{"iss": issuer, "sub": "billing", "client_id": "nightly", "jti": "k1", "scope": "orders:read  orders:write",
			"tenant": "acme", "exp": float64(now.Unix() + 1)}, claims, "a claim cannot replace a field")
	})
}

func apikeyText(t testing.TB, d apikey.Digest) string {
	t.Helper()
	text, err := d.MarshalText()
	require.NoError(t, err)
	return string(text)
}

func TestLookup(t *testing.T) {
	key, digest := apikey.Generate("")
	down := errors.New("the database is down")
	for _, c := range []struct {
		name  string
		found *apikey.Key
		err   error
		want  valetkey.Reason
		fails bool
	}{
		{"no key", nil, nil, "unknown_api_key", false},
		{"the key of another digest", &apikey.Key{Digest: apikey.DigestOf("x"), Subject: "s"}, nil, "unknown_api_key", false},
		{"an error", nil, down, "", true},
		{"a key without a subject", &apikey.Key{Digest: digest}, nil, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := apikey.New(apikey.Config{Issuer: issuer, Lookup: func(context.Context, apikey.Digest) (*apikey.Key, error) { return c.found, c.err }})
			require.NoError(t, err)
			_, err = verify(v, key)
			require.Error(t, err)
			assert.Equal(t, c.want, reasonOf(err))
		})
	}
	t.Run("the result is fresh for CacheTTL", func(t *testing.T) {
		now := time.Unix(1_800_000_000, 0)
		for ttl, want := range map[time.Duration]time.Duration{0: time.Minute, time.Hour: time.Hour, -1: 0} {
			v, err := apikey.New(apikey.Config{Issuer: issuer, CacheTTL: ttl, Now: func() time.Time { return now },
				Lookup: func(_ context.Context, d apikey.Digest) (*apikey.Key, error) {
					return &apikey.Key{Digest: d, Subject: "s"}, nil
				}})
			require.NoError(t, err)
			token, err := verify(v, key)
			require.NoError(t, err)
			assert.Equal(t, want, token.Freshness().Until.Sub(now))
		}
	})
}

func TestFile(t *testing.T) {
	one, oneDigest := apikey.Generate("")
	two, twoDigest := apikey.Generate("")
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	entry := func(d apikey.Digest) string { return `{"digest":"` + apikeyText(t, d) + `","subject":"s"}` }

	for name, c := range map[string]struct{ text, want string }{
		"not JSON":            {"keys", "invalid character"},
		"not an array":        {"{}", "cannot unmarshal object"},
		"a misspelled member": {`[{"digest":"` + apikeyText(t, oneDigest) + `","subject":"s","expiry":"2027-01-01T00:00:00Z"}]`, `unknown field "expiry"`},
		"a short digest":      {`[{"digest":"00","subject":"s"}]`, "is not a SHA-256 digest in hex"},
		"a long digest":       {`[{"digest":"` + apikeyText(t, oneDigest) + `00","subject":"s"}]`, "is not a SHA-256 digest in hex"},
		"no digest":           {`[{"subject":"s"}]`, "key 0: digest: required"},
		"no subject":          {`[` + entry(oneDigest) + `,{"digest":"` + apikeyText(t, twoDigest) + `"}]`, "key 1: subject: required"},
		"the empty key":       {`[` + entry(apikey.DigestOf("")) + `]`, "is that of an empty key"},
		"two of one digest":   {`[` + entry(oneDigest) + `,` + entry(oneDigest) + `]`, "key 1: another key has the same digest"},
		"two values":          {`[][]`, "more than one JSON value"},
		"null":                {`null`, "not an array of keys"},
		"a key that is null":  {`[null]`, "key 0: JSON: an object is expected"},
		"a member twice":      {`[{"digest":"` + apikeyText(t, oneDigest) + `","subject":"s","expires":"2020-01-01T00:00:00Z","expires":null}]`, "key 0: JSON: "},
		"a member in capitals": {`[{"digest":"` + apikeyText(t, oneDigest) + `","subject":"s","expires":"2020-01-01T00:00:00Z","Expires":"2099-01-01T00:00:00Z"}]`,
			`key 0: unknown field "Expires": use lower case`},
		"a member in capitals that is null": {`[{"digest":"` + apikeyText(t, oneDigest) + `","subject":"s","claims":{"tenant":"a"},"Claims":null}]`,
			`key 0: unknown field "Claims": use lower case`},
		"an expiry that would be none": {`[{"digest":"` + apikeyText(t, oneDigest) + `","subject":"s","expires":"0001-01-01T00:00:00Z"}]`, "key 0: expires: "},
	} {
		t.Run(name, func(t *testing.T) {
			write(c.text)
			_, err := apikey.New(apikey.Config{Issuer: issuer, File: path})
			assert.ErrorContains(t, err, "apikey: File: ")
			assert.ErrorContains(t, err, c.want)
		})
	}
	t.Run("a change applies after ten seconds, and a mistake in it does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			write(`[` + entry(oneDigest) + `]`)
			v, err := apikey.New(apikey.Config{Issuer: issuer, File: path})
			require.NoError(t, err)
			accepted := func(key string) bool {
				_, err := verify(v, key)
				return err == nil
			}
			token, err := verify(v, one)
			require.NoError(t, err)
			assert.Equal(t, time.Now().Add(10*time.Second), token.Freshness().Until, "a cached key is looked up again then")
			assert.False(t, accepted(two))

			write(`[` + entry(twoDigest) + `] `)
			assert.True(t, accepted(one))
			time.Sleep(10 * time.Second)
			assert.False(t, accepted(one))
			assert.True(t, accepted(two))

			write(`[`)
			time.Sleep(10 * time.Second)
			assert.True(t, accepted(two))
			assert.Equal(t, valetkey.Degraded, v.Health()[0].State)
			time.Sleep(time.Hour)
			assert.True(t, accepted(two))
			time.Sleep(10 * time.Second)
			_, err = verify(v, two)
			require.Error(t, err)
			assert.Empty(t, reasonOf(err), "a failure")
			assert.Equal(t, valetkey.Down, v.Health()[0].State)
			assert.Error(t, v.Ready(t.Context()))

			write(`[` + entry(oneDigest) + `]`)
			time.Sleep(10 * time.Second)
			assert.True(t, accepted(one))
			assert.Equal(t, valetkey.Ready, v.Health()[0].State)
			assert.NoError(t, v.Ready(t.Context()))
			require.NoError(t, os.Remove(path))
			time.Sleep(10 * time.Second)
			assert.True(t, accepted(one))
			assert.Equal(t, valetkey.Degraded, v.Health()[0].State)
		})
	})
}

func TestMistakes(t *testing.T) {
	_, err := apikey.New(apikey.Config{})
	assert.ErrorContains(t, err, "Issuer: required")
	assert.ErrorContains(t, err, "Lookup: exactly one of Lookup, Keys and File is required, got 0")
	_, err = apikey.New(apikey.Config{Issuer: issuer, Keys: []apikey.Key{{}}, File: "x"})
	assert.ErrorContains(t, err, "got 2")
	assert.Panics(t, func() { apikey.Generate("a b") })
	key, digest := apikey.Generate("orders_")
	assert.True(t, strings.HasPrefix(key, "orders_"))
	assert.Equal(t, digest, apikey.DigestOf(key))
}

// A file may be written with encoding/json from keys, of which some do not expire.
func TestFileOfMarshaledKeys(t *testing.T) {
	_, first := apikey.Generate("orders_")
	text, second := apikey.Generate("orders_")
	file := filepath.Join(t.TempDir(), "keys.json")
	written, err := json.Marshal([]apikey.Key{
		{Digest: first, Subject: "billing", Expiry: time.Now().Add(time.Hour)},
		{Digest: second, Subject: "shipping"},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, written, 0o600))
	v, err := apikey.New(apikey.Config{Issuer: issuer, File: file})
	require.NoError(t, err)
	token, err := v.Verify(t.Context(), apikey.Text(text))
	require.NoError(t, err)
	assert.Equal(t, "shipping", token.Subject())
	assert.True(t, token.Expiry().IsZero())
}
