package statuslist_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
	"github.com/valetkey/valetkey/valetkeytest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// open returns a verifier of iss's tokens and lists, changed by the functions.
func open(t testing.TB, iss *valetkeytest.Issuer, change ...func(*statuslist.Config)) *statuslist.Verifier {
	t.Helper()
	keys, err := jwks.New(jwks.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Logger: quiet,
	})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	cfg := statuslist.Config{Verifier: keys, Issuer: iss.URL, Client: iss.Client(), Logger: quiet}
	for _, f := range change {
		f(&cfg)
	}
	v, err := statuslist.New(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

// refused requires a refusal with this description.
func refused(t *testing.T, err error, description string) {
	t.Helper()
	var e *valetkey.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, valetkey.InvalidToken, e.Code)
	assert.Equal(t, description, e.Reason.Description())
}

// failed requires a failure of ours, which is not a refusal.
func failed(t *testing.T, err error, text string) {
	t.Helper()
	var e *valetkey.Error
	require.Error(t, err)
	require.NotErrorAs(t, err, &e)
	var u *valetkey.Unavailable
	require.ErrorAs(t, err, &u)
	assert.ErrorContains(t, err, text)
}

func TestConfigMistakes(t *testing.T) {
	_, err := statuslist.New(statuslist.Config{
		Algorithms: []string{"HS256"}, Origins: []string{"https://a.example.com/lists", "http://b.example.com", "x", "https://%zz"},
		RefreshInterval: -1, MinTTL: 2 * time.Hour, MaxLists: -1, JWKSURL: "https://a.example.com/keys", JWKS: []byte("{}"),
	})
	for _, want := range []string{
		"Verifier: required", "Issuer: required", `Algorithms[0]: "HS256"`, "Origins[0]: not an origin", "Origins[1]: not https",
		"Origins[2]: not a URL", "Origins[3]: not a URL", "RefreshInterval: -1ns is negative", "MinTTL: 2h0m0s is more than the maximum TTL, 1h0m0s", "MaxLists: -1", "JWKSURL, JWKS: set at most one",
	} {
		assert.ErrorContains(t, err, want)
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		assert.True(t, strings.HasPrefix(line, "statuslist: "), line)
	}
	_, err = statuslist.New(statuslist.Config{Verifier: valetkey.First(), Issuer: "urn:example:issuer", JWKS: []byte(`{"keys":[]}`)})
	assert.ErrorContains(t, err, "Origins: required")
	_, err = statuslist.New(statuslist.Config{Verifier: valetkey.First()})
	assert.EqualError(t, err, "statuslist: Issuer: required", "and nothing that follows from it")
	_, err = statuslist.New(statuslist.Config{Verifier: valetkey.First(), JWKSURL: "http://as.example.com/keys"})
	assert.ErrorContains(t, err, "statuslist: JWKSURL: not https", "all at once")
	_, err = statuslist.New(statuslist.Config{Verifier: valetkey.First(), Issuer: "https://as.example.com", JWKS: []byte("{}")})
	assert.ErrorContains(t, err, "statuslist: JWKS: ")
}

func TestConfigLimits(t *testing.T) {
	v, err := statuslist.New(statuslist.Config{
		Verifier: valetkey.First(), Issuer: "https://as.example.com", JWKSURL: "https://keys.example.com", Algorithms: []string{"ES256"},
		MinTTL: time.Minute, MaxTTL: time.Minute,
	})
	require.NoError(t, err, "one TTL for all lists")
	v.Close()
}

func TestRefusedTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.SetStatus(1, 1)
	iss.SetStatus(2, 2)
	iss.SetStatus(3, 3)
	v := open(t, iss)
	status := func(idx any, uri string) valetkeytest.Option {
		return valetkeytest.Claim("status", map[string]any{"status_list": map[string]any{"idx": idx, "uri": uri}})
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer elsewhere.Close()

	t.Run("TSL-01 an expired token, whose list is not fetched", func(t *testing.T) {
		_, err := v.Verify(t.Context(), iss.Token(iss.Status(0), valetkeytest.Expired()))
		refused(t, err, "the token has expired")
		assert.Zero(t, iss.StatusList.Hits())
	})
	for _, c := range []struct {
		name, description string
		option            valetkeytest.Option
	}{
		{"TSL-03 a negative idx", "the status of the token is malformed", status(-1, iss.StatusList.URL)},
		{"TSL-03 an idx with a fraction", "the status of the token is malformed", status(1.5, iss.StatusList.URL)},
		{"TSL-03 an idx that is a string", "the status of the token is malformed", status("1", iss.StatusList.URL)},
		{"TSL-03 an idx beyond 2^53", "the status of the token is malformed", status(uint64(1)<<53, iss.StatusList.URL)},
		{"TSL-13 the largest idx that JSON has", "the token has no place in its status list", status(uint64(1)<<53-1, iss.StatusList.URL)},
		{"TSL-03 no idx", "the status of the token is malformed", status(nil, iss.StatusList.URL)},
		{"TSL-03 no uri", "the status of the token is malformed",
			valetkeytest.Claim("status", map[string]any{"status_list": map[string]any{"idx": 0}})},
		{"a uri with a fragment", "the status of the token is malformed", status(0, iss.StatusList.URL+"#a")},
		{"a uri that is not a URL", "the status of the token is malformed", status(0, "http://[::1")},
		{"a status_list that is not an object", "the status of the token is malformed",
			valetkeytest.Claim("status", map[string]any{"status_list": "0"})},
		{"a status of another mechanism alone", "the status of the token is malformed",
			valetkeytest.Claim("status", map[string]any{"other": true})},
		{"a status_list that is null", "the status of the token is malformed",
			valetkeytest.Claim("status", map[string]any{"status_list": nil})},
		{"TSL-22 a list on another host", "the status list of the token is not one of its issuer's", status(0, elsewhere.URL+"/statuses")},
		{"TSL-22 a list whose host has the issuer's in front", "the status list of the token is not one of its issuer's",
			status(0, "http://127.0.0.1.example.com/statuses")},
		{"TSL-22 a list with a user name", "the status list of the token is not one of its issuer's",
			status(0, strings.Replace(iss.StatusList.URL, "http://", "http://127.0.0.1@", 1))},
		{"TSL-13 an idx out of bounds", "the token has no place in its status list", iss.Status(16)},
		{"TSL-15 the status invalid", "the token has been revoked", iss.Status(1)},
		{"TSL-16 the status suspended", "the token is suspended", iss.Status(2)},
		{"TSL-16 a status of an application", "the status of the token is not accepted", iss.Status(3)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), iss.Token(c.option))
			refused(t, err, c.description)
		})
	}
	t.Run("no status, where one is required", func(t *testing.T) {
		v := open(t, iss, func(cfg *statuslist.Config) { cfg.Required = true })
		_, err := v.Verify(t.Context(), iss.Token())
		refused(t, err, "the token names no status list")
		_, err = v.Verify(t.Context(), iss.Token(iss.Status(0)))
		require.NoError(t, err, "this one names its list")
	})
	for name, claims := range map[string]string{
		"status":      `{"status":{"status_list":LIST},"Status":{"status_list":LIST}}`,
		"status_list": `{"status":{"status_list":LIST,"Status_List":LIST}}`,
		"idx":         `{"status":{"status_list":{"idx":0,"IDX":0,"uri":"URL"}}}`,
		"uri":         `{"status":{"status_list":{"idx":0,"uri":"URL","URI":"URL"}}}`,
	} {
		t.Run("TSL-03 a member in two letter cases: "+name, func(t *testing.T) {
			claims = strings.ReplaceAll(claims, "LIST", `{"idx":0,"uri":"URL"}`)
			v := open(t, iss, opaque(strings.ReplaceAll(claims, "URL", iss.StatusList.URL)))
			_, err := v.Verify(t.Context(), "opaque")
			refused(t, err, "the status of the token is malformed")
		})
	}
	t.Run("the reason for a status of another mechanism alone", func(t *testing.T) {
		_, err := v.Verify(t.Context(), iss.Token(valetkeytest.Claim("status", map[string]any{"other": true})))
		assert.ErrorContains(t, err, "status has no status_list")
	})
	t.Run("a verifier that accepts nothing, without an error", func(t *testing.T) {
		v := open(t, iss, func(cfg *statuslist.Config) {
			cfg.Verifier = valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, nil })
		})
		tok, _ := v.Verify(t.Context(), "opaque")
		assert.Nil(t, tok)
	})
	t.Run("a verifier that refuses, with a token", func(t *testing.T) {
		v := open(t, iss, func(cfg *statuslist.Config) {
			cfg.Verifier = valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
				return valetkey.NewToken(valetkey.TokenFields{}), io.ErrUnexpectedEOF
			})
		})
		tok, err := v.Verify(t.Context(), "opaque")
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Nil(t, tok)
	})
}

// opaque makes a verifier accept every token, as one with these claims.
func opaque(claims string) func(*statuslist.Config) {
	return func(cfg *statuslist.Config) {
		cfg.Verifier = valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Raw: claims}), nil
		})
	}
}

func TestAcceptedTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	v := open(t, iss)
	t.Run("TSL-02 TSL-14 the status valid", func(t *testing.T) {
		tok, err := v.Verify(t.Context(), iss.Token(iss.Status(7)))
		require.NoError(t, err)
		assert.True(t, tok.Freshness().While.Holds())
		assert.False(t, tok.Freshness().Until.IsZero())
	})
	t.Run("no status", func(t *testing.T) {
		hits := iss.StatusList.Hits()
		_, err := v.Verify(t.Context(), iss.Token())
		require.NoError(t, err)
		assert.Equal(t, hits, iss.StatusList.Hits())
	})
	t.Run("TSL-16 a status that the application allows", func(t *testing.T) {
		iss.SetStatus(5, 3)
		iss.SetStatus(6, 1)
		v := open(t, iss, func(cfg *statuslist.Config) { cfg.Allow = func(uint8) bool { return true } })
		_, err := v.Verify(t.Context(), iss.Token(iss.Status(5)))
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), iss.Token(iss.Status(6)))
		refused(t, err, "the token has been revoked")
	})
	t.Run("TSL-18 the list is asked for by its media type", func(t *testing.T) {
		var accept string
		defer iss.StatusList.Restore()
		iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
			accept = r.Method + " " + r.Header.Get("Accept")
			io.WriteString(w, iss.StatusListToken())
		})
		_, err := open(t, iss).Verify(t.Context(), iss.Token(iss.Status(0)))
		require.NoError(t, err)
		assert.Equal(t, "GET application/statuslist+jwt", accept)
	})
	t.Run("an opaque token's introspection answer has a status as well", func(t *testing.T) {
		claims := `{"active":true,"status":{"status_list":{"idx":1,"uri":"` + iss.StatusList.URL + `"}}}`
		iss.SetStatus(1, 1)
		v := open(t, iss, opaque(claims))
		_, err := v.Verify(t.Context(), "opaque")
		refused(t, err, "the token has been revoked")
	})
	t.Run("a token without claims", func(t *testing.T) {
		_, err := open(t, iss, opaque("")).Verify(t.Context(), "opaque")
		require.NoError(t, err)
	})
	t.Run("keys from a URL", func(t *testing.T) {
		v := open(t, iss, func(cfg *statuslist.Config) { cfg.JWKSURL = iss.KeySet.URL })
		_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
		require.NoError(t, err)
	})
}

func TestBadLists(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	other := valetkeytest.NewIssuer(t)
	list := func(bits any, lst any) valetkeytest.Option {
		return valetkeytest.Claim("status_list", map[string]any{"bits": bits, "lst": lst})
	}
	good := pack(make([]byte, 8))
	for _, c := range []struct{ name, list, text string }{
		{"TSL-04 typ is another", iss.StatusListToken(valetkeytest.Type("at+jwt")), "typ"},
		{"TSL-04 typ is missing", iss.StatusListToken(valetkeytest.Type("")), "typ"},
		{"TSL-05 sub is another list", iss.StatusListToken(valetkeytest.Subject(iss.StatusList.URL + "/2")), "sub"},
		{"TSL-05 sub is missing", iss.StatusListToken(valetkeytest.Claim("sub", nil)), "sub is missing"},
		{"TSL-06 iat is missing", iss.StatusListToken(valetkeytest.Claim("iat", nil)), "iat is missing"},
		{"TSL-06 status_list is missing", iss.StatusListToken(valetkeytest.Claim("status_list", nil)), "status_list: is missing"},
		{"TSL-06 the signature is wrong", iss.StatusListToken(valetkeytest.TamperedSignature()), "signature"},
		{"TSL-06 unsigned", iss.StatusListToken(valetkeytest.Unsigned()), ""},
		{"TSL-23 the key is another's", iss.StatusListToken(valetkeytest.UnknownKey()), "no key that fits"},
		{"TSL-23 the key is in the header", iss.StatusListToken(valetkeytest.UnknownKey(), valetkeytest.Header("jwk", map[string]any{"kty": "EC"})), "no key that fits"},
		{"the issuer is another", other.StatusListToken(valetkeytest.Subject(iss.StatusList.URL)), "of the issuer"},
		{"TSL-07 exp has passed", iss.StatusListToken(valetkeytest.ExpiresIn(-time.Second)), "expired"},
		{"the ttl is zero", iss.StatusListToken(valetkeytest.Claim("ttl", 0)), "ttl"},
		{"TSL-12 bits is 3", iss.StatusListToken(list(3, good)), "bits is none"},
		{"TSL-12 bits is 16", iss.StatusListToken(list(16, good)), "bits is none"},
		{"TSL-12 bits is a string", iss.StatusListToken(list("1", good)), "bits is none"},
		{"TSL-12 bits is missing", iss.StatusListToken(list(nil, good)), "bits is none"},
		{"lst is missing", iss.StatusListToken(list(1, nil)), "lst is missing or not a string"},
		{"lst is a number", iss.StatusListToken(list(1, 0)), "lst is missing or not a string"},
		{"a claim is there twice", iss.StatusListToken(valetkeytest.Payload(`{"sub":"a","sub":"b"}`)), "claims: "},
		{"bits is there in two letter cases", iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": 1, "Bits": 1, "lst": good})), "status_list: "},
		{"lst is there in two letter cases", iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": 1, "lst": good, "LST": good})), "status_list: "},
		{"the ttl is a string", iss.StatusListToken(valetkeytest.Claim("ttl", "60")), "ttl"},
		{"lst is not base64url", iss.StatusListToken(list(1, "###")), "base64url"},
		{"lst is not zlib", iss.StatusListToken(list(1, "AAAA")), "zlib"},
		{"lst is cut off", iss.StatusListToken(list(1, good[:8])), "lst"},
		{"lst has something behind", iss.StatusListToken(list(1, good+"AAAA")), "behind"},
		{"TSL-21 lst unpacks to more than is allowed", iss.StatusListToken(list(1, pack(make([]byte, 1<<20+1)))), "more than 1048576 bytes"},
		{"the answer is a web page", "<!DOCTYPE html>", ""},
		{"the answer is longer than any list", strings.Repeat("A", 3<<20), "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.list) })
			v := open(t, iss, func(cfg *statuslist.Config) { cfg.MaxBytes = 1 << 20 })
			_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
			failed(t, err, c.text)
		})
	}
	for _, name := range []string{"ttl", "exp", "iss"} {
		t.Run("an optional "+name+" that is null is as if it were missing", func(t *testing.T) {
			token := iss.StatusListToken(valetkeytest.Claim(name, []byte(nil)))
			iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, token) })
			_, err := open(t, iss).Verify(t.Context(), iss.Token(iss.Status(0)))
			require.NoError(t, err)
			_, err = open(t, iss).Verify(t.Context(), iss.Token(valetkeytest.Claim("status", []byte(nil))))
			require.NoError(t, err)
		})
	}
	for _, name := range []string{"iat", "sub", "status_list"} {
		t.Run("a required "+name+" that is null is missing", func(t *testing.T) {
			token := iss.StatusListToken(valetkeytest.Claim(name, []byte(nil)))
			iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, token) })
			_, err := open(t, iss).Verify(t.Context(), iss.Token(iss.Status(0)))
			require.Error(t, err)
		})
	}
	t.Run("TSL-06 it is signed with an algorithm that is not allowed", func(t *testing.T) {
		iss.StatusList.Restore()
		v := open(t, iss, func(cfg *statuslist.Config) { cfg.Algorithms = []string{"ES384"} })
		_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
		failed(t, err, "not allowed")
	})
	t.Run("TSL-19 a redirect is not followed", func(t *testing.T) {
		iss.StatusList.Redirect(iss.StatusList.URL)
		_, err := open(t, iss).Verify(t.Context(), iss.Token(iss.Status(0)))
		failed(t, err, "redirects are not followed")
	})
	t.Run("TSL-17 the list cannot be had: 503 at a guard", func(t *testing.T) {
		iss.StatusList.Fail(500)
		guard, err := middleware.New(middleware.Config{Verifier: open(t, iss), Logger: quiet})
		require.NoError(t, err)
		w := httptest.NewRecorder()
		guard.Handler(http.NotFoundHandler()).ServeHTTP(w, valetkeytest.Request("GET", "/", iss.Token(iss.Status(0))))
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
	})
	iss.StatusList.Restore()
	t.Run("an issuer that is not a URL, with separate keys", func(t *testing.T) {
		v := open(t, iss, func(cfg *statuslist.Config) {
			cfg.Issuer, cfg.JWKS, cfg.Origins = "urn:example:issuer", iss.JWKS(), []string{iss.URL}
		})
		_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
		failed(t, err, "of the issuer")
	})
}

// The vectors of the draft, section 4.1.
func TestVectors(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	for _, c := range []struct {
		name, packed string
		bits         int
		statuses     []int
	}{
		{"TSL-10 one bit", "78dadbb918000217015d", 1, []int{1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1}},
		{"TSL-11 two bits", "78da3be9f2130003df0207", 2, []int{1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			packed, err := hex.DecodeString(c.packed)
			require.NoError(t, err)
			raw := iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": c.bits, "lst": base64.RawURLEncoding.EncodeToString(packed)}))
			iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, raw) })
			seen := -1
			v := open(t, iss, func(cfg *statuslist.Config) { cfg.Allow = func(s uint8) bool { seen = int(s); return true } })
			for i, want := range c.statuses {
				_, err := v.Verify(t.Context(), iss.Token(iss.Status(i)))
				switch want {
				case 0:
					assert.NoError(t, err, "index %d", i)
				case 1:
					refused(t, err, "the token has been revoked")
				default:
					assert.NoError(t, err, "index %d", i)
					assert.Equal(t, want, seen, "index %d", i)
				}
			}
			_, err = v.Verify(t.Context(), iss.Token(iss.Status(len(c.statuses))))
			refused(t, err, "the token has no place in its status list")
		})
	}
}

// bubble runs f where time passes by itself, with an issuer and a guard of its tokens.
func bubble(t *testing.T, name string, cfg func(*statuslist.Config), f func(t *testing.T, iss *valetkeytest.Issuer, get func(token string) int)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := open(t, iss, cfg)
			guard, err := middleware.New(middleware.Config{Verifier: v, Logger: quiet, Cache: middleware.Cache{MaxAge: 24 * time.Hour}})
			require.NoError(t, err)
			api := guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			f(t, iss, func(token string) int {
				w := httptest.NewRecorder()
				api.ServeHTTP(w, valetkeytest.Request("GET", "/", token))
				return w.Code
			})
			v.Close()
		})
	})
}

func TestRefresh(t *testing.T) {
	none := func(*statuslist.Config) {}
	long := valetkeytest.ExpiresIn(12 * time.Hour)

	bubble(t, "VCACHE-15 TSL-08 a remembered token ends with the refresh that revokes it", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Minute)
		token := iss.Token(iss.Status(4), long)
		assert.Equal(t, 200, get(token))
		iss.SetStatus(4, 1)
		assert.Equal(t, 200, get(token), "the list has not been fetched again")
		time.Sleep(50 * time.Second) // it is fetched ahead of its ttl
		assert.Equal(t, 401, get(token))
		assert.Equal(t, 2, iss.StatusList.Hits(), "in the background")
		iss.SetStatus(4, 0)
		time.Sleep(50 * time.Second)
		assert.Equal(t, 200, get(token))
	})
	bubble(t, "TSL-20 a ttl of a second does not make us fetch every second", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Second)
		token := iss.Token(iss.Status(0), long)
		for range 600 {
			assert.Equal(t, 200, get(token))
			time.Sleep(time.Second)
		}
		assert.LessOrEqual(t, iss.StatusList.Hits(), 600/15+1)
		assert.Greater(t, iss.StatusList.Hits(), 600/30)
	})
	bubble(t, "TSL-20 a ttl of ten years does not keep us from fetching", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * 365 * 24 * time.Hour)
		token := iss.Token(iss.Status(0), long)
		for range 10 {
			assert.Equal(t, 200, get(token))
			time.Sleep(15 * time.Minute)
		}
		assert.GreaterOrEqual(t, iss.StatusList.Hits(), 3)
	})
	bubble(t, "TSL-09 the max-age of HTTP does not count", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Minute)
		iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=86400")
			io.WriteString(w, iss.StatusListToken())
		})
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		iss.SetStatus(0, 1)
		time.Sleep(50 * time.Second)
		assert.Equal(t, 401, get(token))
	})
	bubble(t, "TSL-08 without a ttl, the configured interval counts", func(cfg *statuslist.Config) { cfg.RefreshInterval = 20 * time.Minute }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		iss.SetStatus(0, 1)
		for range 9 {
			time.Sleep(time.Minute)
			assert.Equal(t, 200, get(token))
		}
		time.Sleep(11 * time.Minute)
		assert.Equal(t, 401, get(token))
	})
	bubble(t, "TSL-08 no request of a remembered token waits for a list, as long as the token is in use", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Minute)
		iss.StatusList.Slow(time.Second)
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		for range 60 {
			time.Sleep(10 * time.Second)
			start := time.Now()
			assert.Equal(t, 200, get(token))
			assert.Equal(t, start, time.Now())
		}
	})
	bubble(t, "TSL-13 a remembered token ends with its place in the list", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Minute)
		token := iss.Token(iss.Status(9), long)
		assert.Equal(t, 200, get(token))
		iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": 1, "lst": pack([]byte{0})})))
		})
		time.Sleep(50 * time.Second)
		assert.Equal(t, 401, get(token))
	})
	bubble(t, "TSL-17 an outage: what is held is relied on until its ttl, then 503", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * time.Minute)
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		iss.StatusList.Down()
		time.Sleep(10*time.Minute - time.Second)
		assert.Equal(t, 200, get(token))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 503, get(token))
		hits := iss.StatusList.Hits()
		for range 100 {
			assert.Equal(t, 503, get(token))
		}
		assert.LessOrEqual(t, iss.StatusList.Hits(), hits+1, "a flood of requests does not fetch")
		iss.StatusList.Restore()
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 200, get(token))
	})
	bubble(t, "TSL-17 an outage with a StaleIfError: longer", func(cfg *statuslist.Config) { cfg.StaleIfError = time.Hour }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * time.Minute)
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		iss.StatusList.Down()
		time.Sleep(69 * time.Minute)
		assert.Equal(t, 200, get(token))
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 503, get(token))
	})
	bubble(t, "TSL-08 TSL-17 a StaleIfError does not cover a list that was not asked for", func(cfg *statuslist.Config) { cfg.StaleIfError = 2 * time.Hour }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * time.Minute)
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		time.Sleep(20 * time.Minute) // unused, it is no longer fetched
		iss.SetStatus(0, 1)
		time.Sleep(20 * time.Minute)
		assert.Equal(t, 401, get(token), "the issuer answers, so its list is asked for")
	})
	bubble(t, "TSL-17 a StaleIfError covers it once the issuer does not answer", func(cfg *statuslist.Config) { cfg.StaleIfError = 2 * time.Hour }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * time.Minute)
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		time.Sleep(20 * time.Minute)
		iss.StatusList.Down()
		time.Sleep(20 * time.Minute)
		assert.Equal(t, 200, get(token))
		time.Sleep(2 * time.Hour)
		assert.Equal(t, 503, get(token))
	})
	bubble(t, "TSL-07 TSL-17 never past its exp", func(cfg *statuslist.Config) { cfg.StaleIfError = time.Hour }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(10 * time.Minute)
		iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, iss.StatusListToken(valetkeytest.ExpiresIn(2*time.Minute)))
		})
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 200, get(token))
		iss.StatusList.Down()
		time.Sleep(2*time.Minute + time.Second)
		assert.Equal(t, 503, get(token))
	})
	bubble(t, "an unused list is not fetched", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		assert.Equal(t, 200, get(iss.Token(iss.Status(0), long)))
		time.Sleep(5 * time.Hour)
		assert.Equal(t, 2, iss.StatusList.Hits(), "once more than was needed")
	})
	bubble(t, "TSL-08 a thousand requests at once make one fetch", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusList.Slow(time.Second)
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() { assert.Equal(t, 200, get(iss.Token(iss.Status(i%16), long))) })
		}
		all.Wait()
		assert.Equal(t, 1, iss.StatusList.Hits())
	})
	bubble(t, "a request waits no longer than two seconds", none, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusList.Slow(4 * time.Second)
		start := time.Now()
		token := iss.Token(iss.Status(0), long)
		assert.Equal(t, 503, get(token))
		assert.Equal(t, 2*time.Second, time.Since(start))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 200, get(token), "the fetch went on without it")
	})
}

func TestLargestList(t *testing.T) {
	bits := make([]byte, 320<<10) // in base64url twice, more than other documents may have
	rand.NewChaCha8([32]byte{}).Read(bits)
	bits[0] = 0
	bubble(t, "TSL-21 as many bytes as are allowed, which do not compress", func(cfg *statuslist.Config) { cfg.MaxBytes = len(bits) }, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		raw := iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": 1, "lst": pack(bits)}))
		iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, raw) })
		assert.Equal(t, 200, get(iss.Token(iss.Status(0))))
	})
}

func TestAListEndsWithItsKey(t *testing.T) {
	bubble(t, "JWKS-22 a list is not relied on once its key is withdrawn", func(*statuslist.Config) {}, func(t *testing.T, iss *valetkeytest.Issuer, get func(string) int) {
		iss.StatusTTL(time.Hour)
		require.Equal(t, 200, get(iss.Token(iss.Status(4))))
		iss.Replace()
		iss.SetStatus(4, 1)
		time.Sleep(8*time.Minute + time.Second) // the key set is refreshed after 8 min at most
		assert.Equal(t, 401, get(iss.Token(iss.Status(4))))
		assert.Equal(t, 2, iss.StatusList.Hits())
	})
}

func TestManyLists(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, iss.StatusListToken(valetkeytest.Subject(iss.URL+r.URL.String())))
	})
	at := func(n string) string {
		return iss.Token(valetkeytest.Claim("status", map[string]any{"status_list": map[string]any{"idx": 0, "uri": iss.StatusList.URL + "?" + n}}))
	}
	v := open(t, iss, func(cfg *statuslist.Config) { cfg.MaxLists = 2 })
	first, err := v.Verify(t.Context(), at("1"))
	require.NoError(t, err)
	second, err := v.Verify(t.Context(), at("2"))
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), at("1"))
	require.NoError(t, err)
	assert.Equal(t, 2, iss.StatusList.Hits())
	_, err = v.Verify(t.Context(), at("3"))
	require.NoError(t, err)
	assert.True(t, first.Freshness().While.Holds())
	assert.False(t, second.Freshness().While.Holds(), "the least recently used list has given way")
}

func TestForgetAndHealth(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	v := open(t, iss)
	require.NoError(t, v.Ready(t.Context()))
	state := func() valetkey.State {
		all := v.Health()
		require.Len(t, all, 2, "the verifier within, and the lists")
		assert.Equal(t, iss.URL+" (status lists)", all[1].Name)
		return all[1].State
	}
	assert.Equal(t, valetkey.Ready, state())
	tok, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
	require.NoError(t, err)
	iss.StatusList.Down()
	v.Purge()
	assert.False(t, tok.Freshness().While.Holds())
	_, err = v.Verify(t.Context(), iss.Token(iss.Status(0)))
	failed(t, err, "cannot be had")
	assert.Equal(t, valetkey.Down, state())
	v.Close()
	_, err = v.Verify(t.Context(), iss.Token(iss.Status(0)))
	require.Error(t, err)
	iss.KeySet.Down()
	assert.Error(t, open(t, iss).Ready(t.Context()))
}

func TestHealth(t *testing.T) {
	health := func(v *statuslist.Verifier) valetkey.Health {
		all := v.Health()
		return all[len(all)-1]
	}
	in := func(name string, f func(t *testing.T, iss *valetkeytest.Issuer, v *statuslist.Verifier, use func(uri string) error)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
				iss.StatusTTL(10 * time.Minute)
				iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, iss.StatusListToken(valetkeytest.Subject(iss.URL+r.URL.String())))
				})
				uri := ""
				v := open(t, iss, func(cfg *statuslist.Config) {
					cfg.Verifier = valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
						return valetkey.NewToken(valetkey.TokenFields{Raw: fmt.Sprintf(`{"status":{"status_list":{"idx":0,"uri":%q}}}`, uri)}), nil
					})
				})
				f(t, iss, v, func(query string) error {
					uri = iss.StatusList.URL + query
					_, err := v.Verify(t.Context(), "opaque")
					return err
				})
				v.Close()
			})
		})
	}
	in("a list that could not be renewed: degraded, and down once it is needed and not held, until it no longer is", func(t *testing.T, iss *valetkeytest.Issuer, v *statuslist.Verifier, use func(string) error) {
		require.NoError(t, use(""))
		iss.StatusList.Down()
		time.Sleep(10*time.Minute - 10*time.Second)
		require.NoError(t, use(""))
		h := health(v)
		assert.Equal(t, valetkey.Degraded, h.State)
		assert.Error(t, h.Err)
		assert.WithinRange(t, h.Since, time.Now().Add(-5*time.Minute), time.Now(), "since the refresh ahead of the ttl")

		time.Sleep(11 * time.Second)
		require.Error(t, use(""))
		h = health(v)
		assert.Equal(t, valetkey.Down, h.State)
		assert.Error(t, h.Err)
		assert.Equal(t, time.Now().Add(-time.Second), h.Since, "since the end of the ttl")
		time.Sleep(5*time.Minute - time.Nanosecond)
		assert.Equal(t, valetkey.Down, health(v).State)
		time.Sleep(time.Nanosecond)
		h = health(v)
		assert.Equal(t, valetkey.Ready, h.State, "no token has needed it for five minutes")
		assert.NoError(t, h.Err)
	})
	in("one list is down and others are degraded: down", func(t *testing.T, iss *valetkeytest.Issuer, v *statuslist.Verifier, use func(string) error) {
		for i := range 9 {
			require.NoError(t, use(fmt.Sprintf("?%d", i)))
		}
		iss.StatusList.Down()
		time.Sleep(10*time.Minute - 10*time.Second)
		for i := range 9 {
			require.NoError(t, use(fmt.Sprintf("?%d", i)))
		}
		require.Equal(t, valetkey.Degraded, health(v).State)
		require.Error(t, use("?9"))
		require.Equal(t, valetkey.Down, health(v).State)
	})
	in("a list that ended because its tokens are no longer in use: ready", func(t *testing.T, iss *valetkeytest.Issuer, v *statuslist.Verifier, use func(string) error) {
		iss.StatusTTL(time.Minute)
		require.NoError(t, use(""))
		for range 8 {
			time.Sleep(30 * time.Second)
			assert.Equal(t, valetkey.Ready, health(v).State)
		}
	})
}

// A reporter is a verifier with a health that can be purged.
type reporter struct {
	valetkey.Verifier
	err    error
	purged int
}

func (r *reporter) Health() []valetkey.Health   { return []valetkey.Health{{Name: "within"}} }
func (r *reporter) Ready(context.Context) error { return r.err }
func (r *reporter) Purge()                      { r.purged++ }

func TestVerifierWithin(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	within := func(v valetkey.Verifier) func(*statuslist.Config) {
		return func(cfg *statuslist.Config) { cfg.Verifier = v }
	}
	t.Run("one that has a health and can be purged", func(t *testing.T) {
		r := &reporter{Verifier: valetkey.First()}
		v := open(t, iss, within(r))
		require.NoError(t, v.Ready(t.Context()))
		require.Len(t, v.Health(), 2)
		assert.Equal(t, "within", v.Health()[0].Name)
		v.Purge()
		assert.Equal(t, 1, r.purged)
		r.err = io.ErrUnexpectedEOF
		require.ErrorIs(t, v.Ready(t.Context()), io.ErrUnexpectedEOF)
	})
	t.Run("one that has none and cannot", func(t *testing.T) {
		v := open(t, iss, within(valetkey.VerifierFunc(valetkey.First().Verify)))
		require.NoError(t, v.Ready(t.Context()))
		assert.Len(t, v.Health(), 1)
		v.Purge()
	})
	t.Run("the keys of the lists cannot be had", func(t *testing.T) {
		iss.KeySet.Down()
		defer iss.KeySet.Restore()
		assert.ErrorContains(t, open(t, iss, within(&reporter{})).Ready(t.Context()), "statuslist: "+iss.URL)
	})
}

func TestClose(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	v := open(t, iss)
	tok, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
	require.NoError(t, err)
	v.Close()
	assert.False(t, tok.Freshness().While.Holds())
	_, err = v.Verify(t.Context(), iss.Token(iss.Status(0)))
	failed(t, err, "cannot be had")
	v = open(t, iss, func(cfg *statuslist.Config) { cfg.Verifier = valetkey.VerifierFunc(valetkey.First().Verify) })
	v.Close()
	hits := iss.KeySet.Hits()
	assert.Error(t, v.Ready(t.Context()))
	assert.Equal(t, hits, iss.KeySet.Hits(), "nothing is fetched")
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		iss.StatusList.Fail(500)
		before := slog.Default()
		defer slog.SetDefault(before)
		var standard, given bytes.Buffer
		slog.SetDefault(slog.New(slog.NewTextHandler(&standard, nil)))
		for _, logger := range []*slog.Logger{nil, slog.New(slog.NewTextHandler(&given, nil))} {
			v := open(t, iss, func(cfg *statuslist.Config) { cfg.Logger = logger })
			_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
			require.Error(t, err)
			v.Close() // nothing is logged afterwards
		}
		assert.Equal(t, 1, strings.Count(standard.String(), "uri="+iss.StatusList.URL))
		assert.Equal(t, 1, strings.Count(given.String(), "uri="+iss.StatusList.URL))
	})
}

type observer struct {
	mu     sync.Mutex
	events []valetkey.Event
}

func (o *observer) Observe(_ context.Context, e valetkey.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Kind == valetkey.StatusListRead {
		o.events = append(o.events, e)
	}
}

func TestObserver(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var o observer
	v := open(t, iss, func(cfg *statuslist.Config) { cfg.Observer = &o })
	_, err := v.Verify(t.Context(), iss.Token(iss.Status(0)))
	require.NoError(t, err)
	iss.StatusList.Fail(429)
	v.Purge()
	_, err = v.Verify(t.Context(), iss.Token(iss.Status(0)))
	require.Error(t, err)
	require.Eventually(t, func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.events) == 2 }, time.Minute, time.Millisecond)
	assert.Equal(t, 200, o.events[0].Status)
	assert.Equal(t, 429, o.events[1].Status)
	assert.Equal(t, iss.URL, o.events[0].Issuer)
}

// FuzzStatuses holds the reader against one that counts bits, whatever the list.
func FuzzStatuses(f *testing.F) {
	f.Add([]byte{0xb9, 0xa3}, uint8(0))
	f.Add([]byte{0xc9, 0x44, 0xf9}, uint8(1))
	f.Add([]byte{}, uint8(3))
	key, err := jose.GenerateKey("EdDSA", "")
	require.NoError(f, err)
	var current string
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, current) }))
	f.Cleanup(lists.Close)
	var index, seen int
	v, err := statuslist.New(statuslist.Config{
		Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Raw: fmt.Sprintf(`{"status":{"status_list":{"idx":%d,"uri":%q}}}`, index, lists.URL)}), nil
		}),
		Issuer: lists.URL,
		JWKS:   fmt.Appendf(nil, `{"keys":[%s]}`, key.PublicJWK()),
		Allow:  func(s uint8) bool { seen = int(s); return true },
		Logger: quiet,
	})
	require.NoError(f, err)
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, list []byte, width uint8) {
		bits := 1 << (width % 4)
		list = list[:min(len(list), 32)]
		current, err = key.Sign(map[string]any{"typ": "statuslist+jwt"},
			fmt.Appendf(nil, `{"sub":%q,"iat":1,"status_list":{"bits":%d,"lst":%q}}`, lists.URL, bits, pack(list)))
		require.NoError(t, err)
		v.Purge()
		for index = range len(list)*8/bits + 1 {
			seen = 0
			_, err := v.Verify(t.Context(), "a token")
			for err != nil && strings.Contains(err.Error(), "no answer yet") { // a verifier does not wait as long as a busy machine takes
				_, err = v.Verify(t.Context(), "a token")
			}
			if index == len(list)*8/bits {
				refused(t, err, "the token has no place in its status list")
				continue
			}
			want := 0
			for b := range bits {
				at := index*bits + b
				want |= int(list[at/8]>>(at%8)&1) << b
			}
			if want == 1 {
				refused(t, err, "the token has been revoked")
				continue
			}
			require.NoError(t, err)
			assert.Equal(t, want, seen)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	raw := iss.StatusListToken(valetkeytest.Claim("status_list", map[string]any{"bits": 1, "lst": pack(bytes.Repeat([]byte{0}, 125_000))}))
	iss.StatusList.Serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, raw) })
	tok, err := open(b, iss).Verify(b.Context(), iss.Token(iss.Status(999_999)))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if !tok.Freshness().While.Holds() {
			b.Fatal("the list has gone")
		}
	}
}

// pack compresses the bytes of a list as its member lst does (section 4.2).
func pack(list []byte) string {
	var packed bytes.Buffer
	z, _ := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	z.Write(list)
	z.Close()
	return base64.RawURLEncoding.EncodeToString(packed.Bytes())
}
