package middleware_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestFindCertificate(t *testing.T) {
	own := valetkeytest.ClientCertificate(t).Certificate[0]
	proxies := middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}} // as httptest.NewRequest has it
	told := httptest.NewRequest("POST", "/", nil)
	told.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(own)+":")
	shown := httptest.NewRequest("POST", "/", nil)
	shown.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: own}}}

	der, err := middleware.ClientCertHeader().Find(told, middleware.Proxies{})
	require.NoError(t, err)
	assert.Nil(t, der, "nobody is trusted")
	der, err = middleware.ClientCertHeader().Find(shown, proxies)
	require.NoError(t, err)
	assert.Nil(t, der, "the certificate is that of the proxy")
	der, err = middleware.ClientCertHeader().Find(told, proxies)
	require.NoError(t, err)
	assert.Equal(t, own, der)
	der, err = middleware.TLSCertificate().Find(shown, middleware.Proxies{})
	require.NoError(t, err)
	assert.Equal(t, own, der)

	told.Header.Set("Client-Cert", "x")
	_, err = middleware.ClientCertHeader().Find(told, proxies)
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
}
