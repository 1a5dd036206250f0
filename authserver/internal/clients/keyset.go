package clients

import (
	"crypto/tls"
	"net/http"
	"net/netip"

	"github.com/valetkey/valetkey/internal/fetch"
)

// KeySetClient returns what the key sets of clients are fetched with: a stranger has named the URL. It connects to public
// addresses and those in allow only, which is looked at when they are dialled, follows no redirect and waits 5 s at most. A
// nil config trusts the system's roots. How much of an answer is read is for the caller to bound.
func KeySetClient(config *tls.Config, allow ...netip.Prefix) *http.Client {
	return &http.Client{
		Transport:     fetch.Guarded(config, allow...),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       fetch.Timeout,
	}
}
