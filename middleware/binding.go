package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// takesBearer reports whether any token may come with the scheme Bearer: one that is bound to nothing, or to a certificate.
func (cfg *Config) takesBearer() bool {
	return !cfg.SenderConstrained || !cfg.ClientCertificate.IsZero()
}

// checkBinding adds what is wrong with the fields that are about bound tokens.
func (cfg *Config) checkBinding(wrong *mistakes.List) {
	if cfg.SenderConstrained && cfg.DPoP == nil && cfg.ClientCertificate.IsZero() {
		wrong.Add("SenderConstrained", "no kind of binding can be proven: enable DPoP or client certificates")
	}
	if !cfg.takesBearer() && len(cfg.Methods) > 0 {
		wrong.Add("Methods", "with SenderConstrained and DPoP alone, no token is accepted from there")
	}
	if cfg.ClientCertificate.decode != nil && cfg.ClientCertificate.header == "" {
		wrong.Add("ClientCertificate", "the name of the header is empty")
	}
	if cfg.DPoP != nil && cfg.URL == nil && cfg.Proxies.Forwarded == "" && cfg.Resource.ID == "" {
		wrong.Add("URL", "required with DPoP, or Resource.ID or Proxies.Forwarded, since the client determines the Host header")
	}
	if cfg.URL != nil && cfg.Proxies.Forwarded != "" {
		wrong.Add("URL", "Proxies.Forwarded is not looked at where it is set")
	}
	cfg.Proxies.check(wrong, cfg.ClientCertificate.decode != nil)
}

// prove reports whether the sender of c holds everything that t is bound to, and returns the nonce that the answer should
// carry, or "". It is asked on every request: what was proven once is no fact about the token.
//
// A binding that nobody checks would make a stolen token as good as its owner's, so it is refused; and so is a scheme that
// says other than the token, or an attacker could leave the proof off.
func (g *Guard) prove(ctx context.Context, c credentials, t *valetkey.Token) (nonce string, err error) {
	b, r, isDPoP := t.Binding(), c.request, c.scheme == authheader.DPoP
	switch {
	case isDPoP && g.dpop == nil:
		return "", unproven(valetkey.ReasonDPoPNotAccepted)
	case isDPoP && b.JWKThumbprint == "": // RFC 9449, section 7.1
		return "", unproven(valetkey.ReasonDPoPNotBound)
	case b.IsZero():
		return "", unproven(valetkey.ReasonNotBound)
	case b.Unknown.Len() > 0 || r == nil: // RFC 7800, section 3.1
		return "", unproven(valetkey.ReasonUnknownBinding)
	case !isDPoP && b.JWKThumbprint != "": // RFC 9449, section 7.2
		return "", unproven(valetkey.ReasonNoProof)
	}
	if b.CertificateThumbprint != "" { // and the key, too, if there are both
		if err := g.proveCertificate(r, b.CertificateThumbprint); err != nil {
			return "", err
		}
	}
	if b.JWKThumbprint == "" {
		return "", nil
	}
	url, err := g.urlOf(r)
	if err != nil {
		return "", err
	}
	proof, err := g.dpop.Verify(ctx, dpop.Request{Proofs: r.Header["Dpop"], Method: r.Method, URL: url, Token: c.token, Thumbprint: b.JWKThumbprint,
		Issuer: t.Issuer(), Client: t.ClientID(), Subject: t.Subject()})
	return proof.NextNonce(), err
}

// proveCertificate looks for the certificate with this thumbprint (RFC 8705, section 3). The chain does not matter: whom it
// belongs to, the issuer of the token has found out (section 6.2).
func (g *Guard) proveCertificate(r *http.Request, thumbprint string) error {
	der, err := g.clientCertificate.of(r, &g.proxies)
	if err != nil {
		return err
	}
	if der == nil {
		return unproven(valetkey.ReasonNoCertificate)
	}
	sum := sha256.Sum256(der)
	if base64.RawURLEncoding.EncodeToString(sum[:]) != thumbprint { // section 3.1
		return unproven(valetkey.ReasonCertificate)
	}
	return nil
}

func unproven(reason valetkey.Reason) error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason}
}
