package adaptertest

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// boundExchanges returns exchanges with tokens that are bound to a key or to a certificate. They show that an adapter passes
// on the method, the URL, the address of the sender and every line of a header, and that it sends everything that the guard
// sends.
func boundExchanges(t testing.TB, iss *valetkeytest.Issuer, gs *adapterGuards) []exchange {
	const api = "https://api.example.com"
	key, certificate := iss.ProofKey("ES256"), valetkeytest.ClientCertificate(t)
	token, weak := iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read")), iss.Token(valetkeytest.BoundTo(key))
	certified := iss.Token(valetkeytest.BoundToCertificate(certificate), valetkeytest.Scopes("orders:read"))
	fresh, older := valetkeytest.Claim("nonce", gs.nonce), valetkeytest.Claim("nonce", gs.olderNonce)
	proof := func(method, path string, opts ...valetkeytest.Option) string {
		return "DPoP: " + key.Proof(method, api+path, token, opts...)
	}
	sent := func(lines ...string) []string {
		return append([]string{"Authorization: DPoP " + token, "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com"}, lines...)
	}
	shown := func(lines ...string) []string {
		return append([]string{"Authorization: Bearer " + certified}, lines...)
	}
	item := "Client-Cert: :" + base64.StdEncoding.EncodeToString(certificate.Certificate[0]) + ":"
	other := "Client-Cert: :" + base64.StdEncoding.EncodeToString(valetkeytest.ClientCertificate(t).Certificate[0]) + ":"
	return []exchange{
		{"bound, no credentials", "GET", "/bound", nil, "", 401},
		{"bound, two schemes", "GET", "/bound", sent("Authorization: Bearer "+token, proof("GET", "/bound", fresh)), "", 400},
		{"bound, no proof", "GET", "/bound", sent(), "", 401},
		{"bound, two proofs", "GET", "/bound", sent(proof("GET", "/bound", fresh), proof("GET", "/bound", fresh)), "", 401},
		{"bound, a proof without the nonce", "GET", "/bound", sent(proof("GET", "/bound")), "", 401},
		{"bound, a proof without the nonce, HEAD", "HEAD", "/bound", sent(proof("HEAD", "/bound")), "", 401},
		{"bound, a proof for another method", "POST", "/bound", sent(proof("GET", "/bound", fresh)), "a body", 401},
		{"bound, a proof for another path", "GET", "/bound", sent(proof("GET", "/bound/group", fresh)), "", 401},
		{"bound, a proof for another scheme", "GET", "/bound", sent(proof("GET", "/bound", fresh))[:1], "", 401},
		{"bound, two schemes of URLs told", "GET", "/bound", sent("X-Forwarded-Proto: https", proof("GET", "/bound", fresh)), "", 400},
		{"bound, without the scope", "GET", "/bound", []string{
			"Authorization: DPoP " + weak, "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example.com", "DPoP: " + key.Proof("GET", api+"/bound", weak, fresh)}, "", 403},
		{"bound, as a bearer token", "GET", "/bound", []string{"Authorization: Bearer " + token}, "", 401},
		{"bound, optional, no proof", "GET", "/bound/optional", sent(), "", 401},
		{"bound, no certificate", "GET", "/bound", shown(), "", 401},
		{"bound, another certificate", "GET", "/bound", shown(other), "", 401},
		{"bound, a certificate twice", "GET", "/bound", shown(item, item), "", 400},

		{"bound, a good proof", "GET", "/bound", sent(proof("GET", "/bound", fresh)), "", 200},
		{"bound, a good proof, POST with a query", "POST", "/bound?page=2", sent(proof("POST", "/bound", fresh)), "a body", 200},
		{"bound, a good proof with an older nonce", "GET", "/bound", sent(proof("GET", "/bound", older)), "", 200},
		{"bound, a good proof, a group", "GET", "/bound/group", sent(proof("GET", "/bound/group", fresh)), "", 200},
		{"bound, a good proof, optional", "GET", "/bound/optional", sent(proof("GET", "/bound/optional", older)), "", 200},
		{"bound, the certificate", "GET", "/bound", shown(item), "", 200},
	}
}

// forwarded names the exchanges in which headers of a proxy decide.
var forwarded = []string{
	"bound, a proof for another scheme", "bound, two schemes of URLs told", "bound, another certificate", "bound, a certificate twice",
	"bound, the certificate",
}

// certified sends a token over TLS with and without the certificate that it is bound to.
func certified(t testing.TB, iss *valetkeytest.Issuer, a Adapter) error {
	quiet := slog.New(slog.DiscardHandler)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet})
	if err != nil {
		return err
	}
	t.Cleanup(keys.Close)
	if err := keys.Ready(t.Context()); err != nil {
		return err
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys, Now: iss.Now, Logger: quiet, ClientCertificate: middleware.TLSCertificate()})
	if err != nil {
		return err
	}
	mine := valetkeytest.ClientCertificate(t)
	url := a.ServeTLS(t, []Route{{
		Path: "/certified", Guard: guard, Require: [][]valetkey.Requirement{nil}, Handler: http.HandlerFunc(hello),
	}}, &tls.Config{Certificates: []tls.Certificate{valetkeytest.ClientCertificate(t)}, ClientAuth: tls.RequestClientCert})
	token := iss.Token(valetkeytest.BoundToCertificate(mine))
	for _, c := range []struct {
		certificates []tls.Certificate
		status       int
	}{{nil, 401}, {[]tls.Certificate{valetkeytest.ClientCertificate(t)}, 401}, {[]tls.Certificate{mine}, 200}} {
		client := &http.Client{Timeout: limit, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{Certificates: c.certificates, InsecureSkipVerify: true}, // the server's certificate is also made for the test
		}}
		r, err := http.NewRequest("GET", url+"/certified", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != c.status {
			return fmt.Errorf("with %d certificates it answers %s, not %d", len(c.certificates), resp.Status, c.status)
		}
	}
	return nil
}
