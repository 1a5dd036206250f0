package valetkeytest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// A memoryListener is a network of one server. Everything that waits in it waits on a channel, which lets the time of a
// synctest bubble pass.
type memoryListener struct {
	addr   memoryAddr
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// A memoryAddr looks like a loopback address, which the test certificate is for, and is another for each server.
type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

var memoryPorts atomic.Uint32

func newMemoryListener() *memoryListener {
	l := &memoryListener{
		addr:   memoryAddr(fmt.Sprintf("127.0.0.1:%d", memoryPorts.Add(1)%65535+1)),
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
	}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.close()
	return nil
}

func (l *memoryListener) Addr() net.Addr { return l.addr }

func (l *memoryListener) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	op := &net.OpError{Op: "dial", Net: l.addr.Network(), Addr: l.addr}
	if addr != l.addr.String() {
		op.Err = fmt.Errorf("%s is not in this memory", addr)
		return nil, op
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		op.Err = net.ErrClosed
	case <-ctx.Done():
		op.Err = ctx.Err()
	}
	client.Close()
	return nil, op
}
