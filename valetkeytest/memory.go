package valetkeytest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// A memoryListener is a network with one server. All waits in it are on channels, which lets the clock of a synctest bubble
// advance.
type memoryListener struct {
	addr   memoryAddr
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// A memoryAddr looks like a loopback address, for which the test certificate is valid. It differs for each server.
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
