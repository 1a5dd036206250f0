package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A response is what came back for one request.
type response struct {
	status int
	header http.Header
	body   []byte
	raw    []byte // as received
	took   time.Duration
	err    error // why there is none
}

// accepted reports whether the handler of the route ran. Only a 2xx shows that.
func (r *response) accepted() bool { return r.err == nil && r.status/100 == 2 }

func (r *response) text() string { return string(r.raw) }

const (
	maxResponse     = 1 << 20
	responseTimeout = 15 * time.Second
)

// exchange sends the bytes of a request on a new connection, and reads one response. It does not correct the request, as a client
// library would. method is that of the request. If second is set, the bytes are two requests, and the second response is returned.
func exchange(ctx context.Context, origin, method string, request []byte, certificate *tls.Certificate, second bool) *response {
	start := time.Now()
	r := receive(ctx, origin, method, request, certificate, second)
	r.took = time.Since(start)
	return r
}

func receive(ctx context.Context, origin, method string, request []byte, certificate *tls.Certificate, second bool) *response {
	ctx, cancel := context.WithTimeout(ctx, responseTimeout)
	defer cancel()
	conn, err := dial(ctx, origin, certificate)
	if err != nil {
		return &response{err: err}
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	written := make(chan struct{}) // a server may respond, and close, before it has read all
	go func() {
		defer close(written)
		conn.Write(request)
	}()
	defer func() { conn.Close(); <-written }()

	return read(conn, method, second)
}

// read reads the response to a request with the method; the second one, if second is set.
func read(from io.Reader, method string, second bool) *response {
	var seen bytes.Buffer
	in := bufio.NewReader(io.TeeReader(io.LimitReader(from, maxResponse), &seen))
	for {
		got, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return &response{err: fmt.Errorf("reading the response: %w", err), raw: seen.Bytes()}
		}
		if got.StatusCode == http.StatusSwitchingProtocols || got.StatusCode >= 200 {
			body, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				return &response{err: fmt.Errorf("reading the body: %w", err), raw: seen.Bytes()}
			}
			if second {
				second = false
				continue
			}
			return &response{status: got.StatusCode, header: got.Header, body: body, raw: seen.Bytes()}
		}
	}
}

// connect opens a connection to origin, without TLS.
func connect(ctx context.Context, origin string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addressOf(origin))
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
	return conn, err
}

// addressOf returns the host and the port of an origin.
func addressOf(origin string) string {
	scheme, host, _ := strings.Cut(origin, "://")
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(host, map[string]string{"http": "80", "https": "443"}[scheme])
}

func dial(ctx context.Context, origin string, certificate *tls.Certificate) (net.Conn, error) {
	conn, err := connect(ctx, origin)
	if err != nil || !strings.HasPrefix(origin, "https:") {
		return conn, err
	}
	name, _, _ := net.SplitHostPort(addressOf(origin))
	// The server under test presents whatever certificate it has, and the requests contain nothing but test tokens.
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	if certificate != nil {
		// In place of Certificates, so that it is sent even if the server names other authorities.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// errEnded reports that a server does not accept connections, which no case may take for a refusal.
var errEnded = errors.New("the server does not accept connections")
