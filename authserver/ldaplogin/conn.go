package ldaplogin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A server is the address of the directory, and the protection of connections to it.
type server struct {
	address  string
	tls      *tls.Config // nil: none
	startTLS bool
}

// A conn is a connection whose operations end with their context.
type conn struct {
	ldap *ldap.Conn
	net  *bounded
	used time.Time // when it last worked
}

// connect returns an anonymous connection, protected as configured.
func (s *server) connect(ctx context.Context) (*conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	c := &conn{net: &bounded{Conn: nc}}
	c.net.left.Store(maxAnswer)
	nc = c.net
	if s.tls != nil && !s.startTLS {
		secure := tls.Client(nc, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		nc = secure
	}
	c.ldap = ldap.NewConn(nc, s.tls != nil && !s.startTLS)
	c.ldap.Start()
	if s.startTLS { // RFC 4513, section 3
		if err := c.do(ctx, func(l *ldap.Conn) error { return l.StartTLS(s.tls) }); err != nil {
			c.close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	return c, nil
}

// do calls f, whose reads and writes end when ctx ends. After an error that is not a result from the directory, and after the
// end of ctx, the connection must not be used again.
func (c *conn) do(ctx context.Context, f func(*ldap.Conn) error) error {
	c.net.left.Store(maxAnswer)
	stop := context.AfterFunc(ctx, func() { c.net.SetDeadline(time.Unix(1, 0)) })
	err := f(c.ldap)
	if !stop() {
		return context.Cause(ctx)
	}
	c.used = time.Now()
	return err
}

func (c *conn) close() { c.ldap.Close() }

// answered reports whether err is nil or a result from the directory, so that the connection can be used again.
func answered(err error) bool {
	var result *ldap.Error
	return err == nil || errors.As(err, &result) && result.ResultCode < ldap.ErrorNetwork
}

// maxAnswer is the maximum size of one response in bytes: enough for an entry that is in ten thousand groups.
const maxAnswer = 1 << 20

// bounded is a connection that reads at most left bytes.
type bounded struct {
	net.Conn
	left atomic.Int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left.Load() <= 0 {
		return 0, errors.New("the answer is too long")
	}
	n, err := b.Conn.Read(p)
	b.left.Add(int64(-n))
	return n, err
}
