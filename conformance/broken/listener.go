package broken

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

// A rewritingListener repairs the first request of each connection, as lenient HTTP servers do, or answers it with 200.
type rewritingListener struct {
	net.Listener
	answers bool
}

func (l rewritingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &rewritingConn{Conn: conn, answers: l.answers}, nil
}

type rewritingConn struct {
	net.Conn
	answers bool
	once    sync.Once
	head    io.Reader
}

func (c *rewritingConn) Read(p []byte) (int, error) {
	c.once.Do(func() { c.head = bytes.NewReader(c.repaired()) })
	if n, err := c.head.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	return c.Conn.Read(p)
}

// repaired reads the head of the request and returns it as the server then sees it.
func (c *rewritingConn) repaired() []byte {
	var head []byte
	buffer := make([]byte, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < 1<<17 {
		n, err := c.Conn.Read(buffer)
		head = append(head, buffer[:n]...)
		if err != nil {
			break
		}
	}
	if c.answers {
		// Two responses, for a connection that carries two requests.
		const response = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
		io.WriteString(c.Conn, response+response)
		return nil
	}
	head = bytes.ReplaceAll(head, []byte("\r\n "), []byte("\r\n")) // a folded line becomes a separate line
	head = bytes.ReplaceAll(head, []byte("\r\n\t"), []byte(" "))
	head = bytes.ReplaceAll(head, []byte("b\rA"), []byte("b\r\nA"))
	head = bytes.ReplaceAll(head, []byte("Authorization :"), []byte("Authorization:"))
	head = bytes.ReplaceAll(head, []byte{0}, nil)
	head = bytes.Replace(head, []byte("Host: evil.example.com\r\n"), nil, 1)
	if !bytes.Contains(head, []byte("Host:")) {
		head = bytes.Replace(head, []byte("\r\n"), []byte("\r\nHost: x\r\n"), 1)
	}
	return head
}

var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broken"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// secured serves TLS, with a client certificate of any issuer.
func secured(l net.Listener) (net.Listener, error) {
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"http/1.1"}}), nil
}
