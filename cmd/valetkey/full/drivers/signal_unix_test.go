//go:build unix

package drivers_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

func TestRotationBySignal(t *testing.T) {
	s := serve(t, server.Settings{Addr: "127.0.0.1:0", Store: "memory"})
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	require.Eventually(t, func() bool { return strings.Contains(s.log.String(), `msg="key rotation requested" algorithm=ES256`) }, soon, time.Millisecond)
}
