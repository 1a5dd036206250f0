package proxy_test

import (
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// TestConnectTimeout reaches an upstream whose queue of connections is full: Linux then ignores further ones.
func TestConnectTimeout(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	upstream := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for full := false; !full; {
		conn, err := net.DialTimeout("tcp", upstream, 200*time.Millisecond)
		if full = err != nil; !full {
			defer conn.Close()
		}
	}
	iss := valetkeytest.NewIssuer(t)
	addr := start(t, fmt.Sprintf("listen: 127.0.0.1:0\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nupstreams: [{url: 'http://%s', connect_timeout: 50ms}]\nroutes: {/: '@any'}\n",
		valetkeytest.DefaultAudience, iss.URL, upstream), slog.New(slog.DiscardHandler))
	assert.Equal(t, 504, send(t, addr, "GET /x", "Authorization: Bearer "+iss.Token()).StatusCode)
}
