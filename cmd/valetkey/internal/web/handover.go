package web

import (
	"context"
	"net"
	"sync"
)

// A Handover is a [Server] that hands the connections of one listener to the newest of several servers. It is for servers that cannot
// change their configuration. A replaced server asks its clients to reconnect, as HTTP/2 permits, and finishes its requests.
type Handover struct {
	mu      sync.Mutex // guards what follows
	newest  *receiver
	from    net.Listener // nil: not yet
	closed  bool
	running sync.WaitGroup
}

// A receiver is a server, and the listener on which it receives connections.
type receiver struct {
	server Server
	end    func() // ends the use of its configuration
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func (r *receiver) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

func (r *receiver) Close() error   { r.once.Do(func() { close(r.closed) }); return nil }
func (r *receiver) Addr() net.Addr { return r.addr }

// NewHandover returns a Handover to a server. It calls end when the server no longer serves anything.
func NewHandover(server Server, end func()) *Handover {
	return &Handover{newest: newReceiver(server, end)}
}

func newReceiver(server Server, end func()) *receiver {
	return &receiver{server: server, end: sync.OnceFunc(end), conns: make(chan net.Conn), closed: make(chan struct{}), addr: &net.TCPAddr{}}
}

// start serves on the receiver.
func (h *Handover) start(r *receiver) {
	h.running.Go(func() { _ = r.server.Serve(r) }) // it ends with Shutdown or Close
}

// Serve implements [Server].
func (h *Handover) Serve(l net.Listener) error {
	h.mu.Lock()
	h.from, h.newest.addr = l, l.Addr()
	h.start(h.newest)
	h.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		h.pass(c)
	}
}

// pass hands a connection to the newest server. A server that has just been replaced does not take it.
func (h *Handover) pass(c net.Conn) {
	for {
		h.mu.Lock()
		r, closed := h.newest, h.closed
		h.mu.Unlock()
		if closed {
			c.Close()
			return
		}
		select {
		case r.conns <- c:
			return
		case <-r.closed:
		}
	}
}

// Replace hands all later connections to another server. The replaced server has [DefaultGrace] to finish its requests.
func (h *Handover) Replace(server Server, end func()) {
	h.mu.Lock()
	old, next := h.newest, newReceiver(server, end)
	next.addr = old.addr
	h.newest = next
	h.start(next)
	h.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), DefaultGrace)
		defer cancel()
		old.shutdown(ctx)
		old.server.Close()
		old.end()
	}()
}

// shutdown is Shutdown of the server. It takes no further connections.
func (r *receiver) shutdown(ctx context.Context) error {
	r.Close()
	return r.server.Shutdown(ctx)
}

// Shutdown implements [Server].
func (h *Handover) Shutdown(ctx context.Context) error { return h.stop().shutdown(ctx) }

// SetServing sets the status of the health checks of the newest server, if it has any.
func (h *Handover) SetServing(serving bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if health, ok := h.newest.server.(servingSetter); ok {
		health.SetServing(serving)
	}
}

// Close implements [Server].
func (h *Handover) Close() error {
	r := h.stop()
	r.Close()
	err := r.server.Close()
	h.running.Wait()
	r.end()
	return err
}

// stop stops accepting connections, and returns the newest server.
func (h *Handover) stop() *receiver {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.from != nil {
		h.from.Close()
	}
	return h.newest
}
