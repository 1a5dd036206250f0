package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// guarded returns a configuration with more fields, and an upstream that is written down.
func guarded(t *testing.T, iss *valetkeytest.Issuer, more string) (config string, upstream *recorder) {
	t.Helper()
	upstream = &recorder{}
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	return fmt.Sprintf("listen: 127.0.0.1:0\nupstream: %s\nresource: %s\nverifiers: [jwks: {issuer: %q}]\nroutes: {\"GET /orders\": orders:read}\n%s\n",
		server.URL, valetkeytest.DefaultAudience, iss.URL, more), upstream
}

// do sends a request and returns the answer, whose body is read.
func do(t *testing.T, client *http.Client, r *http.Request) *http.Response {
	t.Helper()
	res, err := client.Do(r)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	res.Body.Close()
	return res
}

func newRequest(t *testing.T, url string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func challengeError(t *testing.T, res *http.Response, scheme string) string {
	t.Helper()
	return valetkeytest.Challenge(t, res.Header, scheme)["error"]
}

func TestDPoP(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	bound := iss.Token(valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read"))
	client := http.DefaultClient
	named := valetkeytest.Claim("htu", "https://api.example.com/orders") // as clients call it

	t.Run("DPOP-35 without dpop, a bound token is refused in any way", func(t *testing.T) {
		config, upstream := guarded(t, iss, "")
		at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
		assert.Equal(t, 401, do(t, client, newRequest(t, at, "Authorization", "Bearer "+bound)).StatusCode)
		r := newRequest(t, at)
		key.Authorize(r, bound)
		assert.Equal(t, 401, do(t, client, r).StatusCode)
		assert.Nil(t, upstream.take())
	})
	t.Run("with its defaults", func(t *testing.T) {
		config, upstream := guarded(t, iss, "dpop: {}")
		at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
		res := do(t, client, newRequest(t, at, "Authorization", "Bearer "+bound))
		assert.Equal(t, 401, res.StatusCode, "DPOP-34")
		assert.Equal(t, "invalid_token", challengeError(t, res, "Bearer"))
		assert.Equal(t, "ES256 ES384 PS256 EdDSA Ed25519", valetkeytest.Challenge(t, res.Header, "DPoP")["algs"])

		r := newRequest(t, at)
		key.Authorize(r, bound, named)
		assert.Equal(t, 200, do(t, client, r).StatusCode)
		assert.NotNil(t, upstream.take())
		res = do(t, client, r)
		assert.Equal(t, 401, res.StatusCode, "DPOP-37")
		assert.Equal(t, "invalid_dpop_proof", challengeError(t, res, "DPoP"))
		assert.Nil(t, upstream.take())
	})
	for _, forwards := range []string{"false", "true"} {
		t.Run("AUD-10 proofs and certificates go no further, forward_token: "+forwards, func(t *testing.T) {
			config, upstream := guarded(t, iss, "dpop: {}\nforward_token: "+forwards+"\nmtls: {header: X-SSL-Cert}\ntrusted_proxies: [10.0.0.0/8]")
			at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
			r := newRequest(t, at, "Client-Cert", ":AA==:", "Client-Cert-Chain", ":AA==:", "X-Ssl-Cert", "x", "x_ssl_cert", "x", "D-PoP", "kept", "Connection", "DPoP")
			key.Authorize(r, bound, named)
			r.Header["client_cert"] = []string{"x"}
			require.Equal(t, 200, do(t, client, r).StatusCode)
			got := upstream.take()
			for name := range got.Header {
				switch plain := strings.ToUpper(strings.ReplaceAll(name, "_", "-")); plain {
				case "DPOP", "CLIENT-CERT", "CLIENT-CERT-CHAIN", "X-SSL-CERT":
					t.Errorf("the upstream got %s", name)
				}
			}
			assert.Equal(t, forwards == "true", got.Header.Get("Authorization") != "")
			assert.Equal(t, "kept", got.Header.Get("D-Pop"))
		})
	}
	t.Run("DPOP-25 with nonces, in one header", func(t *testing.T) {
		config, _ := guarded(t, iss, "dpop: {nonce: on, key: "+key32+"}")
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("DPoP-Nonce", "of the upstream") }))
		defer upstream.Close()
		config = strings.Replace(config, "upstream: ", "upstream: "+upstream.URL+" # ", 1)
		one, two := start(t, config, slog.New(slog.DiscardHandler)), start(t, config, slog.New(slog.DiscardHandler))
		r := newRequest(t, "http://"+one+"/orders")
		key.Authorize(r, bound, named)
		res := do(t, client, r)
		require.Equal(t, 401, res.StatusCode)
		assert.Equal(t, "use_dpop_nonce", challengeError(t, res, "DPoP"))
		nonce := res.Header.Get("DPoP-Nonce")
		for _, at := range []string{one, two} { // DPOP-24: a key is all that they share
			r := newRequest(t, "http://"+at+"/orders")
			key.Authorize(r, bound, named, valetkeytest.Claim("nonce", nonce))
			res := do(t, client, r)
			assert.Equal(t, 200, res.StatusCode)
			assert.NotContains(t, res.Header.Values("DPoP-Nonce"), "of the upstream")
		}
	})
	for _, c := range []struct {
		name, trusted string
		status        int
	}{
		{"DPOP-20 what a client sends about the URL is ignored", "10.0.0.0/8", 401},
		{"DPOP-20 the URL is the one that a trusted proxy reports", "127.0.0.0/8", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _ := guarded(t, iss, "dpop: {}\nforwarded_header: X-Forwarded\ntrusted_proxies: ["+c.trusted+"]")
			at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
			r := newRequest(t, at, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "www.example.com")
			r.Header.Set("Authorization", "DPoP "+bound)
			r.Header.Set("DPoP", key.Proof("GET", "https://www.example.com/orders", bound))
			assert.Equal(t, c.status, do(t, client, r).StatusCode)
		})
	}
	t.Run("DPOP-20 a port and a prefix, where they are enabled, of two proxies", func(t *testing.T) {
		for more, status := range map[string]int{"": 401, "forwarded_port: true": 401, "forwarded_port: true\nforwarded_prefix: true": 200} {
			config, _ := guarded(t, iss, "dpop: {}\nforwarded_header: X-Forwarded\ntrusted_proxies: [127.0.0.0/8, 10.0.0.1]\n"+more)
			r := newRequest(t, "http://"+start(t, config, slog.New(slog.DiscardHandler))+"/orders", "X-Forwarded-For", "192.0.2.1, 10.0.0.1", "X-Forwarded-Proto", "https,http",
				"X-Forwarded-Host", "www.example.com", "X-Forwarded-Port", "8443", "X-Forwarded-Prefix", "/v1", "Authorization", "DPoP "+bound)
			r.Header.Set("DPoP", key.Proof("GET", "https://www.example.com:8443/v1/orders", bound))
			assert.Equal(t, status, do(t, client, r).StatusCode, more)
		}
	})
	for _, c := range []struct {
		name, resource, dpop, htu string
		status                    int
	}{
		{"DPOP-20 a proof for the host that the client names", "https://api.example.com", "{}", "https://evil.test/orders", 401},
		{"DPOP-20 the same, with an origin", "orders", `{origin: "https://www.example.com:8443"}`, "http://evil.test/orders", 401},
		{"DPOP-20 a proof for the resource, where there is another origin", "https://api.example.com", `{origin: "https://www.example.com"}`, "https://api.example.com/orders", 401},
		{"DPOP-20 a proof for the resource", "https://api.example.com", "{}", "https://api.example.com/orders", 200},
		{"DPOP-20 a proof for the origin", "orders", `{origin: "https://www.example.com:8443"}`, "https://www.example.com:8443/orders", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _ := guarded(t, iss, "dpop: "+c.dpop)
			config = strings.Replace(config, "resource: "+valetkeytest.DefaultAudience, "resource: "+c.resource, 1)
			r := newRequest(t, "http://"+start(t, config, slog.New(slog.DiscardHandler))+"/orders?page=2")
			r.Host = "evil.test"
			token := iss.Token(valetkeytest.Audience(c.resource), valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read"))
			key.Authorize(r, token, valetkeytest.Claim("htu", c.htu))
			assert.Equal(t, c.status, do(t, client, r).StatusCode)
		})
	}
	t.Run("DPOP-56 with sender_constrained, a token that is bound to nothing is refused", func(t *testing.T) {
		config, _ := guarded(t, iss, "dpop: {}\nsender_constrained: true")
		at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
		res := do(t, client, newRequest(t, at, "Authorization", "Bearer "+iss.Token(valetkeytest.Scopes("orders:read"))))
		assert.Equal(t, 401, res.StatusCode)
		assert.Len(t, res.Header.Values("WWW-Authenticate"), 1)
		assert.Equal(t, "invalid_token", challengeError(t, res, "DPoP"))
	})
}

// key32 is a key for nonces.
const key32 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

// TestDPoPAcrossProxies uses a proof at one proxy and then at another one with the same redis.
func TestDPoPAcrossProxies(t *testing.T) {
	store, _ := startRedis(t)
	iss := valetkeytest.NewIssuer(t)
	owner := iss.ProofKey("ES256")
	bound := iss.Token(valetkeytest.BoundTo(owner), valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name, dpop string
		second     int
	}{
		{"by default", "{}", 401},
		{"each by itself, if configured", "{replay_store: memory}", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _ := guarded(t, iss, fmt.Sprintf("dpop: %s\nprobe: 127.0.0.1:0\nredis: {address: %q, password: %q, key: %s, timeout: 2s}", c.dpop, store, redisPassword, key))
			var got []int
			proof := owner.Proof("GET", "https://api.example.com/orders", bound)
			for range 2 {
				addr, probe := serve(t, config)
				caughtUp(t, probe)
				r := newRequest(t, "http://"+addr+"/orders", "Authorization", "DPoP "+bound, "DPoP", proof)
				r.Host = "api.example.com"
				got = append(got, do(t, http.DefaultClient, r).StatusCode)
			}
			assert.Equal(t, []int{200, c.second}, got)
		})
	}
}

// besides writes files into the folder of a configuration and returns it, for fields that name files.
func besides(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// tlsClient trusts what TestMain makes this process trust, and has client certificates.
func tlsClient(t *testing.T, own ...tls.Certificate) *http.Client {
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{Certificates: own}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestMTLS(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	own, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	bound := "Bearer " + iss.Token(valetkeytest.BoundToCertificate(own), valetkeytest.Scopes("orders:read"))

	t.Run("of the TLS connection", func(t *testing.T) {
		dir := besides(t, map[string]string{"crt": certificatePEM, "key": keyPEM})
		config, upstream := guarded(t, iss, fmt.Sprintf("tls: {cert_file: %s/crt, key_file: %[1]s/key}\nmtls: {}", dir))
		addr, _ := serve(t, config)
		at := "https://" + addr + "/orders"
		for _, c := range []struct {
			name   string
			own    []tls.Certificate
			status int
		}{
			{"MTLS-03 none", nil, 401},
			{"MTLS-02 another one", []tls.Certificate{other}, 401},
			{"MTLS-01 MTLS-07 the one of the token, signed by itself", []tls.Certificate{own}, 200},
		} {
			t.Run(c.name, func(t *testing.T) {
				res := do(t, tlsClient(t, c.own...), newRequest(t, at, "Authorization", bound))
				assert.Equal(t, c.status, res.StatusCode)
				assert.Equal(t, "HTTP/2.0", res.Proto)
				assert.Equal(t, c.status == 200, upstream.take() != nil)
			})
		}
	})
	sequence := ":" + base64.StdEncoding.EncodeToString(own.Certificate[0]) + ":"
	escaped := url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})))
	for _, c := range []struct {
		name, header, trusted, value string
		status                       int
	}{
		{"MTLS-10 a header of an untrusted peer", "Client-Cert", "10.0.0.0/8", sequence, 401},
		{"MTLS-11 a header in another form", "Client-Cert", "127.0.0.1", escaped, 400},
		{"the header of RFC 9440", "client-cert", "127.0.0.1", sequence, 200},
		{"the header of nginx", "X-SSL-Cert", "127.0.0.1", escaped, 200},
		{"the header of Envoy", "X-Forwarded-Client-Cert", "127.0.0.1", `By=spiffe://x;Cert="` + escaped + `"`, 200},
		{"the header of Envoy in the format of another product", "X-Forwarded-Client-Cert, format: der", "127.0.0.1", strings.Trim(sequence, ":"), 200},
		{"the header of Traefik", "X-Forwarded-Tls-Client-Cert", "127.0.0.1", strings.Trim(sequence, ":"), 200},
		{"the header of Azure", "X-ARR-ClientCert", "127.0.0.1", strings.Trim(sequence, ":"), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, upstream := guarded(t, iss, fmt.Sprintf("mtls: {header: %s}\ntrusted_proxies: [%s]", c.header, c.trusted))
			at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
			res := do(t, http.DefaultClient, newRequest(t, at, "Authorization", bound, strings.TrimSuffix(c.header, ", format: der"), c.value))
			assert.Equal(t, c.status, res.StatusCode)
			assert.Equal(t, c.status == 200, upstream.take() != nil)
		})
	}
}

func TestStatusList(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.SetStatus(1, 1)
	iss.SetStatus(2, 2)
	send := func(t *testing.T, status string, opts ...valetkeytest.Option) int {
		t.Helper()
		config, _ := guarded(t, iss, "")
		config = strings.Replace(config, `"}]`, `", status_list: `+status+`}]`, 1)
		at := "http://" + start(t, config, slog.New(slog.DiscardHandler)) + "/orders"
		code, _ := get(t, at, iss.Token(append(opts, valetkeytest.Scopes("orders:read"))...))
		return code
	}
	assert.Equal(t, 401, send(t, "{}", iss.Status(1)), "TSL-15 revoked")
	assert.Equal(t, 401, send(t, "{}", iss.Status(2)), "TSL-16 suspended")
	assert.Equal(t, 401, send(t, "{required: true}"), "in no list")
	assert.Equal(t, 401, send(t, `{origins: ["https://other.example.com"]}`, iss.Status(0)), "TSL-22 another place")
	assert.Equal(t, 200, send(t, "{}"), "in no list, and need not be")
	assert.Equal(t, 200, send(t, "{}", iss.Status(0)), "TSL-14 valid")
	assert.Equal(t, 200, send(t, "{allow: [2]}", iss.Status(2)), "suspended, which is allowed")
}

func TestFAPI2(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.TLS(), valetkeytest.SignWith("ES256", "RS256"))
	key := iss.ProofKey("ES256")
	own := valetkeytest.ClientCertificate(t)
	dir := besides(t, map[string]string{"crt": certificatePEM, "key": keyPEM, "jwks": string(iss.JWKS())})
	named := valetkeytest.Claim("htu", "https://api.example.com/orders")
	profile := fmt.Sprintf("profile: fapi2\ntls: {cert_file: %s/crt, key_file: %[1]s/key}\ndpop: {}\nmtls: {}", dir)
	bound := []valetkeytest.Option{valetkeytest.BoundTo(key), valetkeytest.Scopes("orders:read")}

	for name, jwks := range map[string]string{
		"a status list":       "status_list: {}",
		"a lifetime, offline": "max_lifetime: 6m, file: " + dir + "/jwks",
	} {
		t.Run(name, func(t *testing.T) {
			config, upstream := guarded(t, iss, profile)
			addr, _ := serve(t, strings.Replace(config, `"}]`, `", rules: "!test", `+jwks+`}]`, 1))
			client := tlsClient(t, own)
			send := func(opts ...valetkeytest.Option) int {
				r := newRequest(t, "https://"+addr+"/orders")
				key.Authorize(r, iss.Token(append(opts, iss.Status(3))...), named)
				return do(t, client, r).StatusCode
			}
			with := func(opts ...valetkeytest.Option) []valetkeytest.Option { return append(opts, bound...) }
			assert.Equal(t, 401, send(with(valetkeytest.Algorithm("RS256"))...), "FAPI-06")
			assert.Equal(t, 401, send(valetkeytest.Scopes("orders:read")), "FAPI-05")
			assert.Equal(t, 401, send(with(valetkeytest.Claim("test", true))...), "a rule of the file")
			assert.Equal(t, 401, do(t, client, newRequest(t, "https://"+addr+"/orders", "Authorization",
				"Bearer "+iss.Token(valetkeytest.Scopes("orders:read"), iss.Status(3)))).StatusCode, "FAPI-05")
			assert.Nil(t, upstream.take())
			assert.Equal(t, 200, send(with()...))
			assert.Equal(t, 200, do(t, client, newRequest(t, "https://"+addr+"/orders", "Authorization",
				"Bearer "+iss.Token(valetkeytest.BoundToCertificate(own), valetkeytest.Scopes("orders:read"), iss.Status(3)))).StatusCode)

			old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}}}
			_, err := old.Do(newRequest(t, "https://"+addr+"/orders"))
			assert.Error(t, err, "FAPI-12")
		})
	}
	t.Run("opaque tokens", func(t *testing.T) {
		config, _ := guarded(t, iss, profile)
		introspection := fmt.Sprintf("introspection: {issuer: %q, client_id: %s, client_secret: %s}", iss.URL, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret)
		addr, _ := serve(t, strings.Replace(config, fmt.Sprintf("jwks: {issuer: %q}", iss.URL), introspection, 1))
		r := newRequest(t, "https://"+addr+"/orders")
		key.Authorize(r, iss.Opaque(append(bound, valetkeytest.Claim("token_type", "DPoP"))...), named)
		assert.Equal(t, 200, do(t, tlsClient(t), r).StatusCode)
	})
}
