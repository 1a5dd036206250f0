package valetgrpc

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// No guard reads every part of a request yet, so only an internal test can show that request translates a call completely.
func TestRequest(t *testing.T) {
	ctx := peer.NewContext(t.Context(), &peer.Peer{
		Addr:     &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{ServerName: "orders.example.com"}},
	})
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(":authority", "orders.example.com", "dpop", "a", "dpop", "b"))
	r := request(ctx, "/orders.v1.Orders/List")
	assert.Equal(t, http.MethodPost, r.Method)
	assert.Equal(t, "/orders.v1.Orders/List", r.URL.Path)
	assert.Equal(t, "orders.example.com", r.Host)
	assert.Equal(t, []string{"a", "b"}, r.Header["Dpop"])
	assert.Equal(t, "127.0.0.1:7", r.RemoteAddr)
	assert.Equal(t, "orders.example.com", r.TLS.ServerName)
	assert.Equal(t, ctx, r.Context())

	bare := request(t.Context(), "/orders.v1.Orders/List")
	assert.Empty(t, bare.Header)
	assert.Nil(t, bare.TLS)
}
