package valetforward_test

import (
	"net/http"
	"testing"

	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A blank is a response that is thrown away.
type blank struct{ header http.Header }

func (b blank) Header() http.Header       { return b.header }
func (blank) Write(p []byte) (int, error) { return len(p), nil }
func (blank) WriteHeader(int)             {}

func BenchmarkQuestion(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	h := newHandler(b, newGuard(b, iss), valetforward.Nginx)
	r, err := http.NewRequest("GET", "/", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:1234"
	for name, value := range map[string]string{
		"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders/1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example.com",
		"Authorization": "Bearer " + iss.Token(valetkeytest.Scopes("orders:read")), "User-Agent": "curl", "Accept": "*/*", "Accept-Encoding": "gzip", "Cookie": "a=b",
		"Accept-Language": "en", "Cache-Control": "no-cache",
	} {
		r.Header.Set(name, value)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(blank{http.Header{}}, r)
	}
}
