package clients

import (
	"crypto/tls"
	"net/http"
	"net/netip"

	"github.com/valetkey/valetkey/internal/fetch"
)

// KeySetClient returns an HTTP client to fetch the key sets and the metadata documents of clients, whose URLs are untrusted. It connects only to public
// addresses and those in allow, which it checks when it dials. It follows no redirect and waits at most 5 s. A nil config trusts
// the system's roots. The caller must limit how much of a response is read.
func KeySetClient(config *tls.Config, allow ...netip.Prefix) *http.Client {
	return &http.Client{
		Transport:     fetch.Guarded(config, allow...),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       fetch.Timeout,
	}
}
