package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"

	"github.com/valetkey/valetkey/internal/config"
)

const maxCA = 1 << 20 // bytes of a file with certificates of authorities

// clientTLS returns the TLS configuration for connections to a server: the files of its authorities, and of the certificate of the
// proxy and its key. An empty name means none; without authorities, those of the system count. The fields in the file are ca_file,
// cert_file and key_file behind prefix.
func (f *file) clientTLS(prefix, authorities, certificate, key string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities != "" {
		text, err := config.Content(f.Path(authorities), maxCA)
		cfg.RootCAs = x509.NewCertPool()
		if err == nil && !cfg.RootCAs.AppendCertsFromPEM(text) {
			err = errors.New("has no certificate in PEM")
		}
		if err != nil {
			f.Mistake(prefix+"ca_file", "%w", err)
		}
	}
	switch own, key := f.Path(certificate), f.Path(key); {
	case own != "" && key == "":
		f.Mistake(prefix+"key_file", "required with %scert_file", prefix[strings.LastIndex(prefix, ".")+1:])
	case own == "" && key != "":
		f.Mistake(prefix+"cert_file", "required with %skey_file", prefix[strings.LastIndex(prefix, ".")+1:])
	case own != "":
		if _, err := tls.LoadX509KeyPair(own, key); err != nil {
			f.Mistake(prefix+"cert_file", "%w", err)
		}
		// Each connection reads the files, so that a renewed certificate applies without a restart.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(own, key)
			return &pair, err
		}
	}
	return cfg
}
