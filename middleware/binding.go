package middleware

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// takesBearer reports whether any token is accepted with the scheme Bearer: a token that is not bound, or is bound to a
// certificate.
func (cfg *Config) takesBearer() bool {
	return !cfg.SenderConstrained || !cfg.ClientCertificate.IsZero()
}

// checkBinding adds the mistakes in the fields that concern bound tokens.
func (cfg *Config) checkBinding(wrong *mistakes.List) {
	if cfg.SenderConstrained && cfg.DPoP == nil && cfg.ClientCertificate.IsZero() {
		wrong.Add("SenderConstrained", "no kind of binding can be proven: enable DPoP or client certificates")
	}
	if !cfg.takesBearer() && len(cfg.Methods) > 0 {
		wrong.Add("Methods", "no effect: with SenderConstrained and DPoP alone, a token is accepted only in the Authorization header")
	}
	if cfg.ClientCertificate.decode != nil && cfg.ClientCertificate.header == "" {
		wrong.Add("ClientCertificate", "the header name is empty")
	}
	if cfg.DPoP != nil && cfg.URL == nil && cfg.Proxies.Forwarded == "" && cfg.Resource.ID == "" {
		wrong.Add("URL", "required with DPoP, unless Resource.ID or Proxies.Forwarded is set, because the client controls the Host header")
	}
	if cfg.URL != nil && cfg.Proxies.Forwarded != "" {
		wrong.Add("URL", "conflicts with Proxies.Forwarded, which is ignored if URL is set: set one of them")
	}
	cfg.Proxies.check(wrong, cfg.ClientCertificate.decode != nil)
}

// prove returns nil if the sender of c proves possession of every key that t is bound to. It also returns the nonce that the
// response should carry, or "". It runs on every request, because a proof is not a fact about the token.
//
// It refuses a binding that it cannot check, because a stolen token would otherwise be as good as its owner's. It also refuses a
// scheme that does not match the binding, because an attacker could otherwise omit the proof.
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
	if b.CertificateThumbprint != "" { // a token bound to both must prove both
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
		Issuer: t.Issuer(), ClientID: t.ClientID(), Subject: t.Subject()})
	return proof.NextNonce(), err
}

// proveCertificate returns nil if the client's certificate has this thumbprint (RFC 8705, section 3). It ignores the certificate
// chain, because the issuer of the token has authenticated the client (section 6.2).
func (g *Guard) proveCertificate(r *http.Request, thumbprint string) error {
	c, found, err := g.clientCertificate.of(r, &g.proxies)
	if err != nil {
		return err
	}
	if !found {
		return unproven(valetkey.ReasonNoCertificate)
	}
	if base64.RawURLEncoding.EncodeToString(c.sum[:]) != thumbprint { // section 3.1
		return unproven(valetkey.ReasonCertificate)
	}
	return nil
}

func unproven(reason valetkey.Reason) error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason}
}
