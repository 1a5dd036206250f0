package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	form  = "application/x-www-form-urlencoded"
	bare  = `Bearer realm="api", scope="orders:read"`
	twice = `Bearer realm="api", error="invalid_request", error_description="the request carries more than one access token"`
	empty = `Bearer realm="api", error="invalid_request", error_description="the access token is empty"`
	odd   = `Bearer realm="api", error="invalid_request", error_description="the access token contains a character that is not allowed"`
)

func TestHeader(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := serve(t, newGuard(t, iss).Handler(hello, scopes.All("orders:read")))
	token := iss.Token(valetkeytest.Scopes("orders:read"))

	for _, c := range []struct {
		name          string
		authorization []string
		status        int
		challenge     string
	}{
		{"BT-06, BT-08, BT-09 no credentials: a challenge without an error", nil, 401, bare},
		{"BT-07 another scheme counts as no credentials", []string{"Basic YWxpY2U6c2VjcmV0"}, 401, bare},
		{"BT-07 a scheme that begins as ours does", []string{"Bearer" + token}, 401, bare},
		{"the token alone, without a scheme", []string{token}, 401, bare},
		{"BT-05 the scheme alone", []string{"Bearer"}, 400, empty},
		{"BT-05 the scheme and spaces", []string{"Bearer   "}, 400, empty},
		{"BT-05 padding alone is not a token", []string{"Bearer =="}, 400, odd},
		{"BT-04 a comma", []string{"Bearer " + token + ",x"}, 400, odd},
		{"BT-04 two tokens in a line", []string{"Bearer " + token + ", Bearer " + token}, 400, odd},
		{"BT-04 a quote", []string{`Bearer "` + token + `"`}, 400, odd},
		{"BT-04 a space within", []string{"Bearer " + token[:9] + " " + token[9:]}, 400, odd},
		{"BT-04 a tab before the token", []string{"Bearer \t" + token}, 400, odd},
		{"BT-04 padding in the middle", []string{"Bearer a=b"}, 400, odd},
		{"BT-04 a letter beyond ASCII", []string{"Bearer é" + token}, 400, odd},
		{"BT-16 two headers, both good", []string{"Bearer " + token, "Bearer " + token}, 400,
			`Bearer realm="api", error="invalid_request", error_description="the request carries more than one Authorization header"`},
		{"BT-16 two headers, one of another scheme", []string{"Basic eDp5", "Bearer " + token}, 400,
			`Bearer realm="api", error="invalid_request", error_description="the request carries more than one Authorization header"`},
		{"JWS-26 a token of 900 kB", []string{"Bearer " + strings.Repeat("a", 900_000)}, 401,
			`Bearer realm="api", error="invalid_token", error_description="the token is too long"`},
		{"BT-01 a good token", []string{"Bearer " + token}, 200, ""},
		{"BT-02 the scheme in small letters", []string{"bearer " + token}, 200, ""},
		{"BT-02 the scheme in capitals", []string{"BEARER " + token}, 200, ""},
		{"BT-02 the scheme in mixed letters", []string{"BeArEr " + token}, 200, ""},
		{"BT-03 several spaces", []string{"Bearer    " + token}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, "GET", api, "", func(r *http.Request) {
				if c.authorization != nil {
					r.Header["Authorization"] = c.authorization
				}
			})
			assert.Equal(t, c.status, got.status)
			assert.Equal(t, c.challenge, got.challenge())
			assert.Equal(t, c.status == 200, strings.HasPrefix(got.body, "hello "), got.body)
		})
	}

	t.Run("BT-04 malformed credentials reach neither the key set nor the verifier", func(t *testing.T) {
		guard := guardWith(t, valetkey.First()) // would refuse with another code
		r := httptest.NewRequest("GET", "/", nil)
		for _, bad := range []string{"Bearer a\x00b", "Bearer a\r\nb", "Bearer a\x7f", "Bearer \xff"} {
			r.Header.Set("Authorization", bad)
			err := guard.Decide(r).Err()
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal, "%q", bad)
			assert.Equal(t, valetkey.InvalidRequest, refusal.Code, "%q", bad)
		}
	})
}

func TestOtherSources(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	api := func(also ...middleware.BearerMethod) string {
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Methods = also })
		return serve(t, guard.Handler(hello, scopes.All("orders:read")))
	}
	var (
		headerAlone = api()
		withForm    = api(middleware.Form(2000))
		withQuery   = api(middleware.Query())
		withBoth    = api(middleware.Form(0), middleware.Query())
		withAll     = api(middleware.Query(), middleware.Form(0), middleware.WebSocketProtocol("bearer."))
		inForm      = body(form, "access_token="+token+"&item=book")
		inHeader    = header("Authorization", "Bearer "+token)
	)
	const tooLong = `Bearer realm="api", error="invalid_request", error_description="the form body is too long"`

	for _, c := range []struct {
		name, method, url string
		change            []func(*http.Request)
		status            int
		challenge         string
	}{
		{"BT-25 by default a token in the query is ignored", "GET", headerAlone + "?access_token=" + token, nil, 401, bare},
		{"BT-21 by default a token in the form is ignored", "POST", headerAlone, []func(*http.Request){inForm}, 401, bare},
		{"a token in the query, and no form", "GET", withAll + "?access_token=" + token, nil, 200, ""},
		{"a form is not a query", "GET", withForm + "?access_token=" + token, nil, 401, bare},
		{"a query is not a form", "POST", withQuery, []func(*http.Request){inForm}, 401, bare},
		{"BT-22 a form in GET", "GET", withForm, []func(*http.Request){inForm}, 401, bare},
		{"BT-22 a form in HEAD", "HEAD", withForm, []func(*http.Request){inForm}, 401, bare},
		{"BT-22 a form in DELETE", "DELETE", withForm, []func(*http.Request){inForm}, 401, bare},
		{"BT-23 JSON", "POST", withForm, []func(*http.Request){body("application/json", `{"access_token":"`+token+`"}`)}, 401, bare},
		{"BT-23 multipart", "POST", withForm, []func(*http.Request){body("multipart/form-data; boundary=x",
			"--x\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\n"+token+"\r\n--x--\r\n")}, 401, bare},
		{"BT-23 a content type with a malformed parameter", "POST", withForm, []func(*http.Request){inForm, header("Content-Type", form+"; x")}, 401, bare},
		{"BT-23 two content types", "POST", withForm, []func(*http.Request){inForm, header("Content-Type", form, "application/json")}, 401, bare},
		{"BT-14 header and form", "POST", withForm, []func(*http.Request){inForm, inHeader}, 400, twice},
		{"BT-14 header and query", "GET", withQuery + "?access_token=" + token, []func(*http.Request){inHeader}, 400, twice},
		{"BT-14 header and query, where the query is off", "GET", headerAlone + "?access_token=" + token, []func(*http.Request){inHeader}, 400, twice},
		{"BT-14 header and query, where the query is off, spelled otherwise", "GET", headerAlone + "?x=1&access%5Ftoken=", []func(*http.Request){inHeader}, 400, twice},
		{"BT-14 form and query, where the query is off", "POST", withForm + "?access_token=" + token, []func(*http.Request){inForm}, 400, twice},
		{"BT-14 form and query", "POST", withBoth + "?access_token=" + token, []func(*http.Request){inForm}, 400, twice},
		{"BT-14 a header without a token and a form", "POST", withForm, []func(*http.Request){inForm, header("Authorization", "Bearer ")}, 400, twice},
		{"BT-15 twice in the form", "POST", withForm, []func(*http.Request){body(form, "access_token="+token+"&access_token="+token)}, 400, twice},
		{"BT-15 twice in the query", "GET", withQuery + "?access_token=" + token + "&access_token=", nil, 400, twice},
		{"an empty token in the query", "GET", withQuery + "?access_token=", nil, 400, empty},
		{"a malformed query", "GET", withQuery + "?%zz&access_token=" + token, nil, 400,
			`Bearer realm="api", error="invalid_request", error_description="the query is malformed"`},
		{"a malformed form", "POST", withForm, []func(*http.Request){body(form, "%zz&access_token="+token)}, 400,
			`Bearer realm="api", error="invalid_request", error_description="the form body is malformed"`},
		{"BT-24 a form above the limit", "POST", withForm, []func(*http.Request){body(form, "access_token="+token+"&x="+strings.Repeat("y", 2000))}, 400, tooLong},
		{"a bad token in the form", "POST", withForm, []func(*http.Request){body(form, "access_token=a,b")}, 400, odd},
		{"BT-21 in the form", "POST", withForm, []func(*http.Request){inForm}, 200, ""},
		{"in the form, with a charset", "PUT", withForm, []func(*http.Request){body(form+"; charset=UTF-8", "access_token="+token)}, 200, ""},
		{"BT-14 header and form, where the form is off and not read", "POST", headerAlone, []func(*http.Request){inForm, inHeader}, 200, ""},
		{"a header and a query with names alike", "GET", headerAlone + "?access_token2=x&x=access_token&access=token&%zz", []func(*http.Request){inHeader}, 200, ""},
		{"in the query", "GET", withQuery + "?x=1&access_token=" + token, nil, 200, ""},
		{"in the query, beside another scheme", "GET", withQuery + "?access_token=" + token, []func(*http.Request){header("Authorization", "Basic eDp5")}, 200, ""},
		{"in the header, where all may be", "POST", withBoth, []func(*http.Request){inHeader}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, c.method, c.url, "", c.change...)
			assert.Equal(t, c.status, got.status, got.body)
			assert.Equal(t, c.challenge, got.challenge())
		})
	}

	t.Run("BT-24 the handler finds the form unread", func(t *testing.T) {
		got := do(t, "POST", withForm, "", inForm)
		require.Equal(t, 200, got.status)
		assert.True(t, strings.HasSuffix(got.body, "access_token="+token+"&item=book"), got.body)
	})
	t.Run("BT-24 a form of the longest length, and one that is longer", func(t *testing.T) {
		text := "access_token=" + token
		for limit, status := range map[int]int{len(text): 200, len(text) - 1: 400} {
			assert.Equal(t, status, do(t, "POST", api(middleware.Form(int64(limit))), "", body(form, text)).status)
		}
	})
	t.Run("a form without a body, and a request without a URL", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Methods = []middleware.BearerMethod{middleware.Form(0)} })
		r := &http.Request{Method: "POST", URL: &url.URL{Path: "/"}, Header: http.Header{"Content-Type": {form}}}
		assert.Equal(t, 401, guard.Decide(r).Status())
		r = &http.Request{Method: "GET", Header: http.Header{"Authorization": {"Bearer " + token}}}
		assert.Equal(t, 200, guard.Decide(r).Status())
	})
	t.Run("BT-24 a form that breaks off", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(withForm, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nacces\r\nzz\r\n", form)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		defer resp.Body.Close()
		assert.Equal(t, 400, resp.StatusCode)
		assert.Contains(t, resp.Header.Get("WWW-Authenticate"), "the request body cannot be read")
	})
	t.Run("BT-26 the response to a token in the query is private", func(t *testing.T) {
		assert.Equal(t, "private", do(t, "GET", withQuery+"?access_token="+token, "").header.Get("Cache-Control"))
	})
	t.Run("HTTP-10 other responses are left alone", func(t *testing.T) {
		got := do(t, "GET", withQuery, "Bearer "+token)
		require.Equal(t, 200, got.status)
		assert.NotContains(t, got.header, "Cache-Control")
		assert.NotContains(t, got.header, "Vary")
	})
	t.Run("BT-27 a query that cannot be parsed does not come back in the error", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Methods = []middleware.BearerMethod{middleware.Query()} })
		err := guard.Decide(&http.Request{URL: &url.URL{RawQuery: "access_token=secret;%zz"}}).Err()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "secret")
	})
}

func TestBrowserSources(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token()
	guard := newGuard(t, iss, func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.Cookie("session", new(http.CrossOriginProtection)), middleware.WebSocketProtocol("bearer.")}
	})
	api := serve(t, guard.Handler(hello))
	plain := serve(t, newGuard(t, iss).Handler(hello))
	var (
		cookie    = header("Cookie", "other=1; session="+token)
		crossSite = header("Sec-Fetch-Site", "cross-site")
		upgrade   = header("Upgrade", "websocket")
		protocol  = header("Sec-Websocket-Protocol", "chat, bearer."+token)
	)
	for _, c := range []struct {
		name, method, url string
		change            []func(*http.Request)
		status            int
	}{
		{"by default a cookie is ignored", "GET", plain, []func(*http.Request){cookie}, 401},
		{"by default a sub-protocol is ignored", "GET", plain, []func(*http.Request){upgrade, protocol}, 401},
		{"a cookie that another site has sent", "POST", api, []func(*http.Request){cookie, crossSite}, 401},
		{"a cookie of another origin", "POST", api, []func(*http.Request){cookie, header("Origin", "https://evil.example.com")}, 401},
		{"two cookies of that name", "GET", api, []func(*http.Request){header("Cookie", "session="+token+"; session="+token)}, 400},
		{"a cookie and what a page finds in its own query", "GET", api + "?access_token=x", []func(*http.Request){cookie}, 200},
		{"a cookie and a header", "GET", api, []func(*http.Request){cookie, header("Authorization", "Bearer "+token)}, 400},
		{"a sub-protocol without a handshake", "GET", api, []func(*http.Request){protocol}, 401},
		{"two sub-protocols with a token", "GET", api, []func(*http.Request){upgrade, header("Sec-Websocket-Protocol", "bearer."+token, "bearer."+token)}, 400},
		{"a sub-protocol with an empty token", "GET", api, []func(*http.Request){upgrade, header("Sec-Websocket-Protocol", "bearer.")}, 400},
		{"a cookie", "GET", api, []func(*http.Request){cookie}, 200},
		{"a cookie of the same origin", "POST", api, []func(*http.Request){cookie, header("Sec-Fetch-Site", "same-origin")}, 200},
		{"a sub-protocol", "GET", api, []func(*http.Request){header("Connection", "Upgrade"), upgrade, protocol}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.status, do(t, c.method, c.url, "", c.change...).status)
		})
	}
	t.Run("sources made of nothing are a mistake", func(t *testing.T) {
		_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Methods: []middleware.BearerMethod{
			middleware.Cookie("", new(http.CrossOriginProtection)), middleware.Cookie("session", nil), middleware.WebSocketProtocol(""), middleware.WebSocketProtocolPair(""),
		}})
		for _, want := range []string{"Methods[0]", "Methods[1]", "Methods[2]", "Methods[3]"} {
			assert.ErrorContains(t, err, want+": is the zero BearerMethod")
		}
		assert.NotContains(t, err.Error(), "contains a character")
	})
}

func TestTrailersCarryNoToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token()
	api := serve(t, newGuard(t, iss).Handler(hello))
	t.Run("HTTP-13 a token in a trailer", func(t *testing.T) {
		got := do(t, "POST", api, "", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1
			r.Trailer = http.Header{"Authorization": {"Bearer " + token}}
		})
		assert.Equal(t, 401, got.status)
	})
}

// What reaches the verifier is one token, as sent, of the characters that RFC 6750 allows and no others.
func FuzzCredentials(f *testing.F) {
	f.Add("Bearer abc", "", "")
	f.Add("bearer  a.b-c_~+/==", "access_token=x", "access_token=y")
	f.Add("Basic x", "access_token=%41", "access_token")
	var asked string
	guard := guardWith(f, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		asked = raw
		return valetkey.NewToken(valetkey.TokenFields{}), nil
	}), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.Form(0), middleware.Query()}
	})
	f.Fuzz(func(t *testing.T, authorization, query, sent string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(sent))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", form)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		asked = ""
		err := guard.Decide(r).Err()
		var refusal *valetkey.Error
		if err != nil {
			if !errors.As(err, &refusal) {
				t.Fatalf("%v is not a refusal", err)
			}
			if asked != "" {
				t.Fatalf("the verifier was asked about %q, and then %v", asked, err)
			}
			return
		}
		if strings.Trim(asked, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=") != "" || asked == "" {
			t.Fatalf("accepted %q", asked)
		}
		q, _ := url.ParseQuery(query)
		b, _ := url.ParseQuery(sent)
		places := append(append([]string(nil), q["access_token"]...), b["access_token"]...)
		if len(authorization) > 6 && strings.EqualFold(authorization[:7], "Bearer ") {
			places = append(places, strings.TrimLeft(authorization[7:], " "))
		}
		if len(places) != 1 || places[0] != asked {
			t.Fatalf("%q was sent as %q", asked, places)
		}
	})
}
