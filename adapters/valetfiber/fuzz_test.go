package valetfiber_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetfiber"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A pipe is a connection in memory: the client has sent in, and reads out.
type pipe struct {
	in  io.Reader
	out strings.Builder
}

func (p *pipe) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p *pipe) Write(b []byte) (int, error)      { return p.out.Write(b) }
func (p *pipe) Close() error                     { return nil }
func (p *pipe) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (p *pipe) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (p *pipe) SetDeadline(time.Time) error      { return nil }
func (p *pipe) SetReadDeadline(time.Time) error  { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// FuzzRequest sends a request to fiber and to net/http, as bytes. If both can read it, fiber accepts no token that net/http would refuse, and
// finds the same caller. Each response of the guard has well-formed challenges and no token.
func FuzzRequest(f *testing.F) {
	for _, seed := range []struct{ target, lines, body string }{
		{"/", "Authorization: Bearer t-valet", ""}, {"/?access_token=t-valet", "", ""}, {"/", "Content-Type: application/x-www-form-urlencoded", "access_token=t-admin"},
		{"/?access_token=t-valet&access_token=t-admin", "authorization: Bearer t-valet\nAUTHORIZATION: Bearer t-admin", ""}, {"/%zz", "Authorization:\tBearer t-valet \nAuthorization: Bearer", ""},
		{"http://b/?access_token=%74-valet", "Cookie: session=t-valet\nCookie: session=t-admin; session=", "a"}, {"*", "Authorization: DPoP t-valet\nDPoP: x", ""},
		{"/", "Content-Type: application/x-www-form-urlencoded; charset=utf-8\nContent-Type: text/plain", "access_token=t-valet;a&b=%"}, {"//a", "Cookie: a=\"session=t-admin\"; session=\"t-valet\"", ""},
	} {
		f.Add("POST", seed.target, seed.lines, seed.body)
	}
	words := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		if subject, is := strings.CutPrefix(raw, "t-"); is && (subject == "valet" || subject == "admin") {
			return valetkey.NewToken(valetkey.TokenFields{Subject: subject}), nil
		}
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	})
	guard, err := middleware.New(middleware.Config{
		Verifier: words, Logger: slog.New(slog.DiscardHandler),
		Methods: []middleware.BearerMethod{middleware.Query(), middleware.Form(0), middleware.Cookie("session", http.NewCrossOriginProtection())},
	})
	require.NoError(f, err)
	app := fiber.New()
	app.All("/*", valetfiber.Require(guard), func(c fiber.Ctx) error {
		return c.SendString("caller " + valetkey.FromContext(c.Context()).Subject())
	})
	app.Handler() // builds the routes
	server := app.Server()
	server.Handler = app.Handler()
	plain := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "caller "+valetkey.FromContext(r.Context()).Subject())
	}), valetkey.AnyToken)

	f.Fuzz(func(t *testing.T, method, target, lines, body string) {
		if strings.ContainsAny(method+target, " \r\n") || strings.Contains(lines, "\n\n") || strings.HasPrefix(lines, "\n") {
			return // another request
		}
		head := method + " " + target + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n"
		if lines != "" {
			head += strings.ReplaceAll(lines, "\n", "\r\n") + "\r\n"
		}
		if body != "" {
			head += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
		}
		sent := head + "\r\n" + body
		p := &pipe{in: strings.NewReader(sent)}
		_ = server.ServeConn(p) // an error is of a request that fasthttp cannot read
		if p.out.Len() == 0 {
			return
		}
		got, err := http.ReadResponse(bufio.NewReader(strings.NewReader(p.out.String())), &http.Request{Method: method})
		require.NoError(t, err, p.out.String())
		if got.StatusCode == http.StatusBadRequest && got.Header.Get("Cache-Control") == "" {
			return // fasthttp cannot read the request, and quotes it to its sender
		}
		if strings.Contains(p.out.String(), "t-valet") || strings.Contains(p.out.String(), "t-admin") {
			t.Errorf("the token is in the response\n%s", p.out.String())
		}
		_, err = valetkeytest.Challenges(got.Header)
		require.NoError(t, err)
		if got.StatusCode != 200 {
			return
		}
		text, err := io.ReadAll(got.Body)
		require.NoError(t, err)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
		if err != nil {
			return // no other server reads it
		}
		w := httptest.NewRecorder()
		plain.ServeHTTP(w, r)
		if w.Code != 200 || method != "HEAD" && w.Body.String() != string(text) {
			t.Errorf("fiber answers %q, net/http %d %q, to\n%s", text, w.Code, w.Body, sent)
		}
	})
}
