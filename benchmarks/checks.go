package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	gatewayThreads = 2 // connections of a gateway to the service that it asks
	inProgress     = 8 // checks on each of them
)

// checks asks what the answers to a gateway cost that asks with ext_authz over gRPC.
func checks(b *bench, dir string, tokens []*token) error {
	t := b.table("gateways-grpc", "valetkey authorize, ext_authz over gRPC",
		fmt.Sprintf("The checks are those of Envoy with encode_raw_headers, for a request with 15 headers, over %d connections with %d checks in progress each. "+
			"The generator writes prepared messages and compares the beginning of the responses, so that most of the machine's time is the server's. "+
			"The stub is a grpc.Server with the generated service, which allows every request. ", gatewayThreads, inProgress)+b.note(tokens), sideColumns...)
	stub, err := command(dir, filepath.Join("programs", "extauthz"))
	if err != nil {
		return err
	}
	gateway, err := command(dir, filepath.Join("..", "cmd", "valetkey", "full", "gateway"))
	if err != nil {
		return err
	}
	outcomes, err := b.contest(t,
		contender{"a stub of Check", func(addr string) (*process, error) { return startProcess(addr, stub, []string{"ADDR=" + addr}) },
			func(addr string) (generator, error) { return newChecker(addr, tokens) }},
		contender{ours + " authorize", func(addr string) (*process, error) {
			return startCommand(dir, addr, gateway, "authorize", fmt.Sprintf("listen_grpc: %s\ncallers: [127.0.0.1]\n", addr))
		}, func(addr string) (generator, error) {
			g, err := newChecker(addr, tokens)
			if err != nil {
				return nil, err
			}
			const unauthenticated = 16
			if code, err := g.conns[0].check(checkMessage("")); err != nil || code != unauthenticated {
				return nil, fmt.Errorf("a check without a token got the code %d: %w", code, err)
			}
			return g, nil
		}},
	)
	if err != nil {
		return err
	}
	b.goalAtLeast("ext_authz over gRPC / a stub that allows everything, checks per second", outcomes[1].rate.ratio, 0.90)
	b.goalAtMost("ext_authz over gRPC / a stub that allows everything, p99", outcomes[1].p99, 1.25)
	return nil
}

// checkMessage returns an encoded envoy.service.auth.v3.CheckRequest for a client with a token, or without one if it is empty.
func checkMessage(token string) []byte {
	field := func(b []byte, number protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content)
	}
	headers := [][2]string{
		{":authority", "api.example.com"}, {":method", "GET"}, {":path", "/orders?page=2&limit=50"}, {":scheme", "https"}, {"accept", "application/json"},
		{"accept-encoding", "gzip, deflate, br"}, {"accept-language", "en"}, {"cache-control", "no-cache"}, {"content-type", "application/json"},
		{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"user-agent", "orders/1.2"}, {"x-forwarded-for", "192.0.2.7"},
		{"x-forwarded-proto", "https"}, {"x-envoy-internal", "true"}, {"x-request-id", "8d0f1f0a-5e5a-4a1c-9d2f-0e8a4c1b7a53"},
	}
	if token != "" {
		headers = append(headers, [2]string{"authorization", "Bearer " + token})
	}
	var lines []byte
	for _, h := range headers {
		lines = field(lines, 1, field(field(nil, 1, []byte(h[0])), 3, []byte(h[1]))) // HeaderMap.headers: key, raw_value
	}
	request := field(nil, 2, []byte("GET"))
	request = field(request, 4, []byte("/orders?page=2&limit=50"))
	request = field(request, 5, []byte("api.example.com"))
	request = field(request, 6, []byte("https"))
	request = field(request, 10, []byte("HTTP/1.1"))
	request = field(request, 13, lines)
	return field(nil, 1, field(nil, 4, field(nil, 2, request))) // attributes.request.http
}

// A checker is a gateway that asks as fast as it gets responses.
type checker struct {
	conns    []*checkConn
	messages [][]byte
}

// newChecker connects to a service and proves that it allows a request with a token.
func newChecker(addr string, tokens []*token) (*checker, error) {
	g := new(checker)
	for _, t := range tokens {
		g.messages = append(g.messages, checkMessage(t.raw))
	}
	for range gatewayThreads {
		c, err := dialChecks(addr)
		if err != nil {
			return nil, errors.Join(err, g.end())
		}
		g.conns = append(g.conns, c)
	}
	if code, err := g.conns[0].check(g.messages[0]); err != nil || code != 0 {
		return nil, errors.Join(fmt.Errorf("a check with a token got the code %d", code), err, g.end())
	}
	return g, nil
}

func (g *checker) end() error {
	for _, c := range g.conns {
		c.conn.Close()
	}
	return nil
}

func (g *checker) close() { g.end() }

// run loads the service for some time.
func (g *checker) run(d time.Duration) (turn, error) {
	var (
		group sync.WaitGroup
		waits = make([][]time.Duration, len(g.conns))
		errs  = make([]error, len(g.conns))
		start = time.Now()
	)
	for i, c := range g.conns {
		group.Go(func() {
			n := i
			next := func() []byte {
				if time.Since(start) >= d {
					return nil
				}
				n += len(g.conns)
				return g.messages[n%len(g.messages)]
			}
			errs[i] = c.converse(inProgress, next, func(data []byte, took time.Duration) error {
				if len(data) < 5 || !bytes.HasPrefix(data[5:], allowed) {
					return errors.New("refused")
				}
				waits[i] = append(waits[i], took)
				return nil
			})
		})
	}
	group.Wait()
	took := time.Since(start)
	all := slices.Concat(waits...)
	return turn{rate: float64(len(all)) / took.Seconds(), all: all}, errors.Join(errs...)
}

// allowed is the beginning of a CheckResponse that lets a request through: its status, whose code is 0.
var allowed = []byte{1<<3 | 2, 0}

// A checkConn is a connection of HTTP/2 for checks. It does no more than they need: it does not decode the headers of responses, because
// a call that failed has no message. At most inProgress messages are open, which the initial window of the server has space for.
type checkConn struct {
	conn     net.Conn
	in       *bufio.Reader
	out      *bufio.Writer
	framer   *http2.Framer
	block    bytes.Buffer // of headers
	encoder  *hpack.Encoder
	addr     string
	id       uint32 // of the next stream
	received uint32 // bytes since the window was last updated
	frame    []byte
}

// window is what the server may send before the client has read it.
const window = 1 << 24

func dialChecks(addr string) (*checkConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &checkConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10), addr: addr, id: 1}
	c.encoder, c.framer = hpack.NewEncoder(&c.block), http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.out.WriteString(http2.ClientPreface)
	return c, errors.Join(c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}), c.framer.WriteWindowUpdate(0, window), c.out.Flush())
}

// check sends a message and returns the status code of the response.
func (c *checkConn) check(message []byte) (code uint64, err error) {
	sent := false
	err = c.converse(1, func() []byte {
		if sent {
			return nil
		}
		sent = true
		return message
	}, func(data []byte, _ time.Duration) error {
		if len(data) < 5 {
			return errors.New("the call has failed")
		}
		number, kind, n := protowire.ConsumeTag(data[5:])
		if n < 0 || number != 1 || kind != protowire.BytesType {
			return errors.New("the response does not begin with a status")
		}
		status, n := protowire.ConsumeBytes(data[5+n:])
		if n < 0 {
			return protowire.ParseError(n)
		}
		if len(status) == 0 { // fields with their zero values are left out
			return nil
		}
		if number, kind, n = protowire.ConsumeTag(status); n < 0 || number != 1 || kind != protowire.VarintType {
			return errors.New("the status does not begin with a code")
		}
		if code, n = protowire.ConsumeVarint(status[n:]); n < 0 {
			return protowire.ParseError(n)
		}
		return nil
	})
	return code, err
}

// A call is a check in progress.
type call struct {
	begun time.Time
	data  []byte
}

// converse keeps n calls in progress until next returns nil. It calls done with the first frame of data of each response and its time.
func (c *checkConn) converse(n int, next func() []byte, done func(data []byte, took time.Duration) error) error {
	open := make(map[uint32]*call, n)
	for range n {
		if message := next(); message != nil {
			if err := c.begin(open, &call{}, message); err != nil {
				return err
			}
		}
	}
	for len(open) > 0 {
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		id, ended := f.Header().StreamID, false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if k := open[id]; k != nil && len(k.data) == 0 {
				k.data = append(k.data, f.Data()...)
			}
			if c.received += f.Length; c.received > window/2 {
				err = c.framer.WriteWindowUpdate(0, c.received)
				c.received = 0
			}
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			// After the response, grpc-go may still ask for the end of a message that it has read (RFC 9113, section 8.1).
			if open[id] != nil {
				err = fmt.Errorf("the server ends a call: %v", f.ErrCode)
			}
		case *http2.GoAwayFrame:
			err = errors.New("the server ends the connection")
		}
		if err != nil {
			return err
		}
		k := open[id]
		if !ended || k == nil {
			continue
		}
		delete(open, id)
		if err := done(k.data, time.Since(k.begun)); err != nil {
			return err
		}
		if message := next(); message != nil {
			if err := c.begin(open, k, message); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin writes a call.
func (c *checkConn) begin(open map[uint32]*call, k *call, message []byte) error {
	c.block.Reset()
	for _, h := range [...][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/envoy.service.auth.v3.Authorization/Check"}, {":authority", c.addr},
		{"te", "trailers"}, {"content-type", "application/grpc"}, {"user-agent", "bench"},
	} {
		c.encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: c.block.Bytes(), EndHeaders: true}); err != nil {
		return err
	}
	size := len(message)
	c.frame = append(c.frame[:0], 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size)) // not compressed, and the length
	c.frame = append(c.frame, message...)
	k.begun, k.data = time.Now(), k.data[:0]
	open[c.id] = k
	err := c.framer.WriteData(c.id, true, c.frame)
	c.id += 2
	return err
}
