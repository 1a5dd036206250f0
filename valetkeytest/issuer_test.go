package valetkeytest_test

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMetadataIsThatOfRFC8414(t *testing.T) {
	for name, set := range map[string][]valetkeytest.Setting{
		"http":          nil,
		"https":         {valetkeytest.TLS()},
		"memory":        {valetkeytest.InMemory()},
		"memory, https": {valetkeytest.InMemory(), valetkeytest.TLS()},
	} {
		t.Run(name, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, set...)
			assert.Equal(t, strings.Contains(name, "https"), strings.HasPrefix(iss.URL, "https://127."))
			for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
				var doc map[string]any
				require.NoError(t, json.Unmarshal(get(t, iss, iss.URL+path), &doc))
				assert.Equal(t, iss.URL, doc["issuer"])
				assert.Equal(t, iss.KeySet.URL, doc["jwks_uri"])
				assert.Equal(t, iss.Introspection.URL, doc["introspection_endpoint"])
				assert.NotEmpty(t, doc["response_types_supported"])
			}
			assert.Equal(t, iss.JWKS(), get(t, iss, iss.KeySet.URL))
			assert.Equal(t, 2, iss.Metadata.Hits())
			assert.Equal(t, 1, iss.KeySet.Hits())
		})
	}
}

func TestStrangersDoNotTrustTheCertificate(t *testing.T) {
	_, _ = x509.SystemCertPool() // read once by the process, and not within the time limit of a handshake
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	_, err := new(http.Client).Get(iss.KeySet.URL)
	assert.ErrorContains(t, err, "certificate")
}

func TestMemoryHasOneServer(t *testing.T) {
	a, b := valetkeytest.NewIssuer(t, valetkeytest.InMemory()), valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	assert.NotEqual(t, a.URL, b.URL)
	_, err := a.Client().Get(b.URL)
	assert.ErrorContains(t, err, "not in this memory")
}

func TestKeysRotate(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	first := iss.KeyID()
	old := parse(t, iss.Token())

	second := iss.Rotate()
	assert.NotEqual(t, first, second)
	assert.Equal(t, second, iss.KeyID())
	assert.Equal(t, second, parse(t, iss.Token()).kid())
	assert.True(t, old.verified(t, published(t, iss)[first]), "the old key stays published")

	third := iss.PublishNextKey()
	assert.Equal(t, third, iss.PublishNextKey(), "there is one next key")
	assert.Equal(t, second, iss.KeyID(), "an announced key does not sign")
	assert.Contains(t, published(t, iss), third)
	assert.Equal(t, third, iss.Rotate())
	assert.NotEqual(t, third, iss.Rotate(), "an announced key is taken once")

	iss.Withdraw(first)
	assert.NotContains(t, published(t, iss), first)
	assert.Len(t, published(t, iss), 3)
}

func TestReplaceKeepsTheKeyID(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	kid := iss.KeyID()
	old := parse(t, iss.Token())
	iss.Replace()
	fresh := parse(t, iss.Token())
	require.Len(t, published(t, iss), 1)
	assert.Equal(t, kid, fresh.kid())
	assert.True(t, fresh.verified(t, published(t, iss)[kid]))
	assert.False(t, old.verified(t, published(t, iss)[kid]))
}

func TestWithdrawnKeySignsOn(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.Withdraw(iss.KeyID())
	assert.Empty(t, published(t, iss))
	assert.JSONEq(t, `{"keys":[]}`, string(iss.JWKS()))
	assert.Equal(t, iss.KeyID(), parse(t, iss.Token()).kid())
}

func TestWithdrawOfNoKeyFailsTheTest(t *testing.T) {
	rec := &recorder{TB: t}
	valetkeytest.NewIssuer(rec).Withdraw("nobody's")
	assert.Len(t, rec.errors, 1)
}

func TestSignWithPublishesFromTheStart(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256", "ES384"))
	algs := map[string]bool{}
	for _, k := range published(t, iss) {
		algs[k.Alg] = true
	}
	assert.Equal(t, map[string]bool{"RS256": true, "ES384": true}, algs)
	assert.Equal(t, "RS256", parse(t, iss.Token()).header["alg"])
}

func TestIssuersShareNoKey(t *testing.T) {
	rsa := valetkeytest.SignWith("RS256")
	var left string
	t.Run("at the same time", func(t *testing.T) {
		a, b := valetkeytest.NewIssuer(t, rsa), valetkeytest.NewIssuer(t, rsa)
		assert.NotEqual(t, a.KeyID(), b.KeyID())
		left = b.KeyID() + a.KeyID()
	})
	t.Run("but one after the other do, since RSA is slow", func(t *testing.T) {
		assert.Contains(t, left, valetkeytest.NewIssuer(t, rsa).KeyID())
	})
}

func TestClockAdvances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		before := parse(t, iss.Token()).claims["iat"].(float64)
		iss.Advance(time.Hour)
		assert.Equal(t, before+3600, parse(t, iss.Token()).claims["iat"])
		assert.Equal(t, time.Now().Add(time.Hour), iss.Now())
	})
}

// A real socket in a bubble would keep its time from passing: this test would hang.
func TestIssuerLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		start := time.Now()
		get(t, iss, iss.KeySet.URL)
		time.Sleep(time.Hour)
		assert.Equal(t, start.Add(time.Hour).Unix(), int64(parse(t, iss.Token()).claims["iat"].(float64)))

		iss.KeySet.Slow(time.Minute)
		get(t, iss, iss.KeySet.URL)
		assert.Equal(t, start.Add(time.Hour+time.Minute), time.Now())

		client := *iss.Client()
		client.Timeout = 5 * time.Second
		_, err := client.Get(iss.KeySet.URL)
		assert.Error(t, err)
		assert.Equal(t, start.Add(time.Hour+time.Minute+5*time.Second), time.Now())
	})
}

func TestIssuerIsSafeForConcurrentUse(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			token := iss.Token(valetkeytest.Scopes("a"))
			iss.Opaque()
			iss.Rotate()
			iss.Replace()
			iss.Revoke(token)
			iss.Advance(time.Second)
			iss.KeySet.Fail(503).Times(1)
			iss.KeySet.Slow(0)
			iss.KeySet.Restore()
			if res, err := iss.Client().Get(iss.KeySet.URL); err == nil {
				res.Body.Close()
			}
			for range iss.Forgeries() {
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 8, iss.KeySet.Hits())
}
