package fetch

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"sync"
)

// maxPEM is the maximum size of a file of certificates or a key, in bytes.
const maxPEM = 1 << 20

// A TLSFiles is a transport whose TLS settings are in files. It reads them again for each request, since certificates rotate, and
// uses new connections after a change. It is safe for concurrent use.
type TLSFiles struct {
	ca, cert, key string

	mu        sync.Mutex // guards what follows; held while files are read
	read      [3][]byte
	transport *http.Transport
}

// NewTLSFiles returns a transport that trusts the certificates in the file ca, or the system's roots if it is empty, and presents
// the certificate in cert with the private key in key, unless both are empty. It reads the files once, to report mistakes.
func NewTLSFiles(ca, cert, key string) (*TLSFiles, error) {
	f := &TLSFiles{ca: ca, cert: cert, key: key}
	_, err := f.current()
	return f, err
}

// RoundTrip implements [http.RoundTripper].
func (f *TLSFiles) RoundTrip(req *http.Request) (*http.Response, error) {
	t, err := f.current()
	if err != nil {
		return nil, err
	}
	return t.RoundTrip(req)
}

// CloseIdleConnections closes the connections that no request uses.
func (f *TLSFiles) CloseIdleConnections() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.transport != nil {
		f.transport.CloseIdleConnections()
	}
}

// current returns the transport with the settings that the files contain now.
func (f *TLSFiles) current() (*http.Transport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var read [3][]byte
	for i, file := range []string{f.ca, f.cert, f.key} {
		if file == "" {
			continue
		}
		var err error
		if read[i], err = readFile(file, maxPEM); err != nil {
			return nil, err
		}
	}
	if f.transport != nil && bytes.Equal(read[0], f.read[0]) && bytes.Equal(read[1], f.read[1]) && bytes.Equal(read[2], f.read[2]) {
		return f.transport, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(read[0]) {
			return nil, fmt.Errorf("%s has no certificate in PEM", f.ca)
		}
	}
	if f.cert != "" {
		pair, err := tls.X509KeyPair(read[1], read[2])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", f.cert, f.key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if f.transport != nil {
		f.transport.CloseIdleConnections() // connections that were made with the files as they were
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: Timeout, IdleConnTimeout: idle}
	t.TLSClientConfig = cfg
	f.read, f.transport = read, t
	return t, nil
}
