package ldaplogin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A pool keeps connections that are bound as the service. It is safe for concurrent use.
type pool struct {
	server       server
	dn, password string
	slots        chan *conn // one element for each search that may start; nil: not yet connected
	closing      chan struct{}
	once         sync.Once
}

// maxIdle is how long a connection may be idle and still be trusted. Many firewalls drop idle connections silently after some
// minutes.
const maxIdle = time.Minute

func newPool(size int, s server, dn, password string) *pool {
	p := &pool{server: s, dn: dn, password: password, slots: make(chan *conn, size), closing: make(chan struct{})}
	for range size {
		p.slots <- nil
	}
	return p
}

// use calls f with a connection. If a kept connection turns out to be dead, which does not mean that the directory is down, use
// calls f again with a new one.
func (p *pool) use(ctx context.Context, f func(*ldap.Conn) error) error {
	var c *conn
	select {
	case <-p.closing:
		return errors.New("the directory has been closed")
	case <-ctx.Done():
		return fmt.Errorf("waiting for other searches: %w", context.Cause(ctx))
	case c = <-p.slots:
	}
	defer func() { p.slots <- c }()

	if c != nil && time.Since(c.used) < maxIdle {
		err := c.do(ctx, f)
		if answered(err) {
			return err
		}
	}
	if c != nil {
		c.close()
	}
	var err error
	if c, err = p.connect(ctx); err != nil {
		return err
	}
	if err = c.do(ctx, f); !answered(err) {
		c.close()
		c = nil
	}
	return err
}

func (p *pool) connect(ctx context.Context) (*conn, error) {
	c, err := p.server.connect(ctx)
	if err != nil || p.dn == "" {
		return c, err
	}
	if err := c.do(ctx, func(l *ldap.Conn) error { return l.Bind(p.dn, p.password) }); err != nil {
		c.close()
		return nil, fmt.Errorf("binding as the service, %q: %w", p.dn, err)
	}
	return c, nil
}

// close waits for searches in progress.
func (p *pool) close() {
	p.once.Do(func() {
		close(p.closing)
		for range cap(p.slots) {
			if c := <-p.slots; c != nil {
				c.close()
			}
		}
	})
}
