package valetenvoy

import (
	"cmp"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// FuzzDecode compares decode with the generated code.
func FuzzDecode(f *testing.F) {
	for _, in := range []*authv3.CheckRequest{
		{},
		{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}},
		{Attributes: &authv3.AttributeContext{
			Source:            &authv3.AttributeContext_Peer{Certificate: "%20", Principal: "p", Labels: map[string]string{"a": "b"}, Address: &corev3.Address{}},
			Destination:       &authv3.AttributeContext_Peer{Certificate: "other"},
			ContextExtensions: map[string]string{"c": "d"},
			TlsSession:        &authv3.AttributeContext_TLSSession{Sni: "s"},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Id: "1", Method: "GET", Path: "/a?b", Host: "h", Scheme: "https", Query: "q", Fragment: "f", Size: -1, Protocol: "HTTP/2", Body: "b", RawBody: []byte{0xff},
				Headers: map[string]string{"a": "b", "": "c", "d": ""},
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
					{Key: "a", RawValue: []byte("b\xff")}, {Key: "a", Value: "c"}, {Key: "a", Value: "c", RawValue: []byte("d")}, {},
				}},
			}},
		}},
	} {
		message, err := proto.Marshal(in)
		require.NoError(f, err)
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		got := new(description)
		ok := got.decode(string(message))
		in := new(authv3.CheckRequest)
		if proto.Unmarshal(message, in) != nil {
			return // the generated code checks fields that do not decide, too
		}
		want := describe(in)
		byName := func(a, b field) int { return cmp.Compare(a.name, b.name) }
		slices.SortStableFunc(got.joined, byName)
		slices.SortFunc(want.joined, byName)
		if len(slices.CompactFunc(slices.Clone(got.joined), func(a, b field) bool { return a.name == b.name })) < len(got.joined) {
			return // no encoder of a map writes a name twice
		}
		if !ok {
			t.Skip("groups")
		}
		if len(got.joined) == 0 {
			got.joined = nil
		}
		if len(want.joined) == 0 {
			want.joined = nil
		}
		assert.Equal(t, want, got)
	})
}

func TestDecodeRefuses(t *testing.T) {
	for name, message := range map[string]string{
		"a length beyond the end":           "\x0a\x05abc",
		"a number that does not end":        "\x08\xff",
		"a number of eleven bytes":          "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"a number that is too large":        "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"four bytes of which one is there":  "\x0d\x01",
		"eight bytes of which one is there": "\x09\x01",
		"the field zero":                    "\x02\x00",
		"a group":                           "\x0b\x0c",
		"a path that is not UTF-8":          "\x0a\x07\x22\x05\x12\x03\x22\x01\xff",
		"a header that is not UTF-8":        "\x0a\x0c\x22\x0a\x12\x08\x1a\x06\x0a\x01a\x12\x01\xff",
	} {
		assert.False(t, new(description).decode(message), name)
	}
	d := new(description)
	ok := d.decode("\x0a\x0d\x22\x0b\x12\x09\x22\x02/a\x12\x03GET")
	assert.True(t, ok)
	assert.Equal(t, &description{http: true, method: "GET", target: "/a"}, d)
}
