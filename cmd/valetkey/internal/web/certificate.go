package web

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Certificate is the pair of a certificate and its key in two files, which may change while the process runs. It is safe for
// concurrent use.
type Certificate struct {
	cert, key string
	log       *slog.Logger
	held      atomic.Pointer[tls.Certificate]
	next      atomic.Int64 // when the files may be looked at again, in Unix nanoseconds

	mu    sync.Mutex // guards what follows
	stamp [2]stamp   // of the files that were read last, whether or not they are a pair
}

// A stamp changes when a file does.
type stamp struct {
	modified time.Time
	size     int64
}

const certificateInterval = time.Minute

// ReadCertificate reads the pair.
func ReadCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{cert: cert, key: key, log: log}
	c.stamp = c.look() // before reading: a change in between is noticed later
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	c.held.Store(&pair)
	c.next.Store(time.Now().Add(certificateInterval).UnixNano())
	return c, nil
}

// Get returns the pair for [tls.Config].GetCertificate. At most once a minute, it looks whether a file has changed, and reads both.
// If they are not a pair, it logs that once and keeps the old one: a tool that replaces two files does so one after the other.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if now := time.Now(); now.UnixNano() >= c.next.Load() && c.mu.TryLock() {
		c.renew(now)
		c.mu.Unlock()
	}
	return c.held.Load(), nil
}

// renew is called with the lock held.
func (c *Certificate) renew(now time.Time) {
	c.next.Store(now.Add(certificateInterval).UnixNano())
	stamp := c.look()
	if stamp == c.stamp {
		return
	}
	c.stamp = stamp
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		c.log.Error("certificate not replaced: the old one is still in use", "file", c.cert, "err", err)
		return
	}
	c.held.Store(&pair)
	c.log.Info("certificate replaced", "file", c.cert, "expires", pair.Leaf.NotAfter)
}

func (c *Certificate) look() (all [2]stamp) {
	for i, file := range []string{c.cert, c.key} {
		if info, err := os.Stat(file); err == nil {
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}
