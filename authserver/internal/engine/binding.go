package engine

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/jose"
)

// Tokens are bound to the key of the DPoP proof that the client sends (RFC 9449), and to the certificate of a client that is
// registered for it (RFC 8705).

// A binding is what tokens are bound to, or what the sender of a request has proven to possess. It is the claim cnf.
type binding struct {
	Key         string `json:"jkt,omitempty"`      // RFC 7638 thumbprint
	Certificate string `json:"x5t#S256,omitempty"` // SHA-256 thumbprint
}

// bind determines the binding of the token that a client requests.
func (e *Engine) bind(w http.ResponseWriter, c *call) error {
	if err := e.readProof(w, c, e.cfg.base()+e.cfg.Paths.Token); err != nil {
		return err
	}
	if c.client.DPoPBound && c.holds.Key == "" { // RFC 9449, section 5.2
		return invalidRequest("the client is registered for DPoP, but sent no proof")
	}
	if !c.client.CertBound {
		return nil
	}
	der, err := e.certificate(c.r)
	if err != nil || der == nil { // RFC 8705, section 3.4
		return invalidRequest("the client is registered for certificate-bound tokens, but sent no certificate")
	}
	c.holds.Certificate = thumbprint(der)
	return nil
}

// readProof verifies the DPoP proof of a request to an endpoint, if there is one. It does not use up the proof; see useProof.
func (e *Engine) readProof(w http.ResponseWriter, c *call, endpoint string) error {
	proofs := c.r.Header["Dpop"]
	if e.cfg.DPoP == nil || len(proofs) == 0 {
		return nil
	}
	proof, err := e.cfg.DPoP.Check(dpop.Request{Proofs: proofs, Method: c.r.Method, URL: endpoint, ClientID: c.client.ID})
	if told, ok := errors.AsType[*valetkey.Error](err); ok {
		if told.Code == valetkey.UseNonce { // RFC 9449, section 8
			w.Header().Set("DPoP-Nonce", e.cfg.DPoP.Nonce())
		}
		return badRequest(string(told.Code), told.Reason.Description()) // section 5: 400
	}
	if err != nil {
		return fmt.Errorf("verify a proof: %w", err)
	}
	if next := proof.NextNonce(); next != "" { // section 8.2
		w.Header().Set("DPoP-Nonce", next)
	}
	c.holds.Key, c.proof = proof.Thumbprint(), &proof
	return nil
}

// useProof uses up the proof of a request, unless there is none or it has been used up. Call it once the request is known to be
// valid, immediately before its first record is written: remembering a proof is a write, which only a client that obtains
// something may cause.
func (c *call) useProof() error {
	if c.proof == nil {
		return nil
	}
	err := c.proof.Use(c.r.Context())
	if told, ok := errors.AsType[*valetkey.Error](err); ok {
		err = badRequest(string(told.Code), told.Reason.Description())
	} else if err != nil {
		err = fmt.Errorf("use a proof: %w", err)
	} else {
		c.proof = nil
	}
	return err
}

// pushKey binds the code of a pushed request to the key of its proof (RFC 9449, section 10.1).
func (e *Engine) pushKey(w http.ResponseWriter, c *call) error {
	if err := e.readProof(w, c, e.cfg.base()+e.cfg.Paths.PAR); err != nil || c.holds.Key == "" {
		return err
	}
	if named := c.form.Get("dpop_jkt"); named != "" && named != c.holds.Key {
		return invalidRequest("dpop_jkt is not the key of the DPoP proof")
	}
	c.form.Set("dpop_jkt", c.holds.Key)
	return nil
}

// bindAgain checks whether a grant may be refreshed with what the sender possesses. The refresh token of a public client is bound
// like its access tokens (RFC 9449, section 5; RFC 8705, section 4). A confidential client authenticates itself and may use
// another key, but a bound token does not become a bearer token.
func (c *call) bindAgain(g *grant) error {
	was, is := g.Bound, c.holds
	lost := was.Key != "" && is.Key == "" || was.Certificate != "" && is.Certificate == ""
	other := was.Key != "" && was.Key != is.Key || was.Certificate != "" && was.Certificate != is.Certificate
	if lost || other && c.client.Public() {
		return errGrant
	}
	return nil
}

func (e *Engine) certificate(r *http.Request) ([]byte, error) {
	if e.cfg.Certificate == nil {
		return nil, nil
	}
	return e.cfg.Certificate(r)
}

// TLSCertificate is a [Config.Certificate] that returns the certificate of the TLS connection. The tls.Config of the server must
// request one; RequestClientCert is sufficient, because the issuer of the certificate does not matter.
func TLSCertificate(r *http.Request) ([]byte, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil
	}
	return r.TLS.PeerCertificates[0].Raw, nil
}

// thumbprint returns the thumbprint of RFC 8705, section 3.1.
func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// issuedCertificate returns nil if the request has a certificate that one of the authorities has issued for the subject that the
// client has registered (RFC 8705, section 2.1: tls_client_auth). The connection has proven possession of the private key.
func (e *Engine) issuedCertificate(c *call) error {
	der, err := e.certificate(c.r)
	if err != nil || e.cfg.Authorities == nil {
		return errClient
	}
	shown, err := x509.ParseCertificate(der)
	if err != nil {
		return errClient
	}
	// Only the certificate itself is known here, without those of intermediate authorities.
	usage := x509.VerifyOptions{Roots: e.cfg.Authorities, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := shown.Verify(usage); err != nil || !clients.HasSubject(c.client, shown) {
		return errClient
	}
	return nil
}

// ownCertificate returns nil if the request has a certificate for one of the keys that the client has registered (RFC 8705,
// section 2.2: self_signed_tls_client_auth). The connection has proven possession of the private key.
func (e *Engine) ownCertificate(c *call) error {
	der, err := e.certificate(c.r)
	if err != nil {
		return errClient
	}
	shown, err := x509.ParseCertificate(der)
	if err != nil {
		return errClient
	}
	public, err := x509.MarshalPKIXPublicKey(shown.PublicKey)
	if err != nil {
		return errClient
	}
	key, err := jose.ParsePEM("", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	if err != nil {
		return errClient
	}
	has := func(keys []*jose.Key) error {
		if !slices.ContainsFunc(keys, func(k *jose.Key) bool { return k.Thumbprint() == key.Thumbprint() }) {
			return errClient
		}
		return nil
	}
	return e.keySets.ask(c.r.Context(), ownerOf(c.client), c.client.JWKSURL, []byte(c.client.JWKS), has)
}
