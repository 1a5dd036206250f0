package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// ParsePEM parses a PEM document with a certificate or a public key (RFC 7468, sections 5 and 13) as the key with this ID. Only
// the first block counts. What [ParseKey] requires of a key applies, and its rules about certificates.
func ParsePEM(id string, data []byte) (*Key, error) {
	if !validKeyID(id) {
		return nil, fmt.Errorf("%w: its kid has more than %d bytes or a control character", ErrUnsupported, maxKeyID)
	}
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: it is not PEM", ErrUnsupported)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, ErrPrivate
	}
	k := &Key{id: id}
	var (
		public any
		err    error
	)
	switch block.Type {
	case "CERTIFICATE":
		public, err = certifiedKey(block.Bytes)
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: it is PEM, but neither a certificate nor a public key", ErrForeign)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: it is PEM of something malformed", ErrUnsupported)
	}
	canonical, err := k.known(public)
	if err == nil {
		err = k.load(canonical)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return k, nil
}

// certified sets the kind of k to that of the key in a certificate in base64, and returns that key in canonical form.
func (k *Key) certified(certificate string) (string, error) {
	der, err := base64.StdEncoding.DecodeString(certificate) // RFC 7517, section 4.7: not base64url
	if err != nil {
		return "", errors.New("its x5c is not base64")
	}
	public, err := certifiedKey(der)
	if err != nil {
		return "", errors.New("its x5c does not begin with a certificate")
	}
	return k.known(public)
}

func certifiedKey(der []byte) (any, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return certificate.PublicKey, nil
}

// known sets the kind of k to that of public, and returns public in canonical form.
func (k *Key) known(public any) (string, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return k.setRSA(public.N, big.NewInt(int64(public.E)))
	case *ecdsa.PublicKey:
		crv := public.Curve.Params().Name
		point, err := public.Bytes() // RFC 5480, section 2.2: 4, x and y
		if err != nil || curves[crv] == nil {
			return "", errors.New("its curve is unknown")
		}
		size := coordinateSize(public.Curve)
		return k.setEC(crv, point[1:1+size], point[1+size:])
	case ed25519.PublicKey:
		return k.setEd25519(public), nil
	default:
		return "", errors.New("it is of an unknown kind")
	}
}
