package fetch_test

import (
	"context"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

func TestPublic(t *testing.T) {
	for name, addresses := range map[string][]string{
		"JWT-33 loopback":                     {"127.0.0.1", "127.255.255.254", "::1"},
		"JWT-33 link-local":                   {"169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0"},
		"JWT-33 private":                      {"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fd00:ec2::254"},
		"JWT-33 behind a carrier's NAT":       {"100.64.0.1", "100.100.100.200", "100.127.255.255"},
		"JWT-33 unspecified":                  {"0.0.0.0", "0.1.2.3", "::"},
		"JWT-33 multicast and broadcast":      {"224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"},
		"JWT-33 reserved":                     {"240.0.0.1", "192.0.0.192", "198.18.0.1", "4000::1", "fec0::1", "100::1", "5f00::1"},
		"JWT-33 documentation":                {"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"},
		"JWT-33 the platform of a cloud":      {"168.63.129.16"},
		"JWT-33 IPv4 in IPv6":                 {"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"},
		"JWT-33 IPv4 behind NAT64":            {"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::a00:1"},
		"JWT-33 IPv4 in a tunnel's addresses": {"2002:7f00:1::", "2002:808:808::1", "2001:0:4136:e378::1"},
	} {
		t.Run(name+" is not public", func(t *testing.T) {
			for _, a := range addresses {
				assert.False(t, fetch.Public(netip.MustParseAddr(a)), a)
			}
		})
	}
	t.Run("no address is not public", func(t *testing.T) { assert.False(t, fetch.Public(netip.Addr{})) })
	t.Run("others are", func(t *testing.T) {
		for _, a := range []string{
			"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
			"192.169.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
		} {
			assert.True(t, fetch.Public(netip.MustParseAddr(a)), a)
		}
	})
}

func TestGuarded(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{}`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	trust := server.Client().Transport.(*http.Transport).TLSClientConfig

	// get asks for the server's port on host.
	get := func(t *testing.T, host string, allow ...netip.Prefix) error {
		transport := fetch.Guarded(trust, allow...)
		defer transport.CloseIdleConnections()
		c := fetch.Client{HTTP: &http.Client{Transport: transport}}
		_, err := c.Get(t.Context(), "https://"+net.JoinHostPort(host, at.Port())+"/keys", "")
		return err
	}
	nameServer(t, map[string]string{"rebound.example.": "127.0.0.1", "metadata.example.": "169.254.169.254", "intranet.example.": "10.1.2.3"})

	for name, host := range map[string]string{
		"JWT-33 loopback":                     "127.0.0.1",
		"JWT-33 loopback in IPv6 spelling":    "::ffff:127.0.0.1",
		"JWT-33 the unspecified address":      "0.0.0.0",
		"JWT-33 a cloud's metadata":           "169.254.169.254",
		"JWT-33 a private address":            "10.0.0.1",
		"JWT-33 the name localhost":           "localhost",
		"JWT-33 a name of loopback":           "rebound.example",
		"JWT-33 a name of a cloud's metadata": "metadata.example",
		"JWT-33 a name of a private address":  "intranet.example",
	} {
		t.Run(name+" is not connected to", func(t *testing.T) {
			err := get(t, host, netip.MustParsePrefix("192.168.0.0/16"))
			assert.ErrorIs(t, err, fetch.ErrAddress)
			assert.Zero(t, connections.Load())
		})
	}
	t.Run("JWT-33 no proxy does the dialling", func(t *testing.T) {
		assert.Nil(t, fetch.Guarded(nil).Proxy)
	})
	t.Run("JWT-33 an address that is allowed is connected to, by its name too", func(t *testing.T) {
		loopback := netip.MustParsePrefix("127.0.0.0/8")
		require.NoError(t, get(t, "127.0.0.1", netip.MustParsePrefix("10.0.0.0/8"), loopback))
		assert.ErrorIs(t, get(t, "metadata.example", loopback), fetch.ErrAddress)
		before := connections.Load()
		assert.ErrorContains(t, get(t, "rebound.example", loopback), "certificate", "it is another host's")
		assert.Equal(t, before+1, connections.Load())
	})
}

// nameServer makes a name server on loopback the resolver of this test. It knows the IPv4 addresses of names.
func nameServer(t *testing.T, names map[string]string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answer(buf[:n], names), from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = before; conn.Close() })
}

// answer returns the answer to a DNS query with one question (RFC 1035, section 4).
func answer(query []byte, names map[string]string) []byte {
	var name strings.Builder
	end := 12
	for query[end] != 0 {
		length := int(query[end])
		name.Write(query[end+1 : end+1+length])
		name.WriteByte('.')
		end += 1 + length
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 5
	reply := append([]byte(nil), query[:end]...)
	copy(reply[2:], []byte{0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // an authoritative answer, one question
	address, known := names[strings.ToLower(name.String())]
	switch {
	case !known:
		reply[3] |= 3 // no such name
	case kind == 1: // A
		reply[7] = 1
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, netip.MustParseAddr(address).AsSlice()...)
	}
	return reply
}
