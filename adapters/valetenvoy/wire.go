package valetenvoy

import (
	"sync"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A description holds the fields of a CheckRequest that decide.
type description struct {
	http                         bool // there is an HTTP request
	method, target, host, scheme string
	query, fragment              string
	joined                       []field // headers, each with its lines joined
	raw                          []field // headers, one for each line
	twoValues                    bool    // a line in raw has two different values
	certificate                  string
}

// A field is a header.
type field struct{ name, value string }

func (d *description) addRaw(name, value, rawValue string) {
	switch {
	case rawValue == "":
		rawValue = value
	case value != "" && value != rawValue:
		d.twoValues = true
	}
	d.raw = append(d.raw, field{name, rawValue})
}

// describe returns the description of a message.
func describe(in *authv3.CheckRequest) *description {
	a := in.GetAttributes()
	h := a.GetRequest().GetHttp()
	d := &description{
		http: h != nil, method: h.GetMethod(), target: h.GetPath(), host: h.GetHost(), scheme: h.GetScheme(),
		query: h.GetQuery(), fragment: h.GetFragment(), certificate: a.GetSource().GetCertificate(),
	}
	for name, value := range h.GetHeaders() {
		d.joined = append(d.joined, field{name, value})
	}
	for _, line := range h.GetHeaderMap().GetHeaders() {
		d.addRaw(line.GetKey(), line.GetValue(), string(line.GetRawValue()))
	}
	return d
}

// An encoded is a message that is not decoded yet. Its decoding by package proto copies it, and cannot fail: gRPC itself responds to a
// message that cannot be decoded, with an error.
type encoded struct {
	protoreflect.Message // of another type, for the methods that decoding does not call
	text                 string
}

func newEncoded() *encoded { return &encoded{Message: (*emptypb.Empty)(nil).ProtoReflect()} }

// ProtoReflect returns e.
func (e *encoded) ProtoReflect() protoreflect.Message { return e }

// Interface returns e.
func (e *encoded) Interface() protoreflect.ProtoMessage { return e }

// Reset empties e.
func (e *encoded) Reset() { e.text = "" }

// ProtoMethods returns how package proto decodes an encoded.
func (e *encoded) ProtoMethods() *protoiface.Methods { return &copying }

var copying = protoiface.Methods{
	Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		in.Message.(*encoded).text = string(in.Buf)
		return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, nil
	},
}

// descriptions holds unused descriptions, with their space for headers.
var descriptions = sync.Pool{New: func() any { return new(description) }}

// release makes d available again, without what it holds. A request with many headers takes its space with it.
func (d *description) release() {
	joined, raw := d.joined, d.raw
	clear(joined)
	clear(raw)
	*d = description{}
	if cap(joined) <= maxKept {
		d.joined = joined[:0]
	}
	if cap(raw) <= maxKept {
		d.raw = raw[:0]
	}
	descriptions.Put(d)
}

// maxKept is the number of headers for which an unused description keeps space.
const maxKept = 128

// decode reads the description of an encoded message. It does what describe and the generated code do, without an allocation for each
// header, and does not look at other fields: a message has some 50 strings, and a decision takes less time than decoding them. It
// returns false if the message is malformed, or if text that decides is not UTF-8.
func (d *description) decode(message string) bool {
	ok := eachField(message, func(number uint64, v string) bool {
		return number != 1 || eachField(v, d.attributesField) // attributes
	})
	return ok && valid(d.method) && valid(d.target) && valid(d.host) && valid(d.scheme) && valid(d.query) && valid(d.fragment) && valid(d.certificate)
}

var valid = utf8.ValidString

// attributesField reads a field of AttributeContext.
func (d *description) attributesField(number uint64, v string) bool {
	switch number {
	case 1: // source
		return eachField(v, func(number uint64, v string) bool {
			if number == 5 {
				d.certificate = v
			}
			return true
		})
	case 4: // request
		return eachField(v, func(number uint64, v string) bool {
			if number != 2 {
				return true
			}
			d.http = true
			return eachField(v, d.httpField)
		})
	}
	return true
}

// httpField reads a field of AttributeContext.HttpRequest.
func (d *description) httpField(number uint64, v string) bool {
	switch number {
	case 2:
		d.method = v
	case 3: // headers, a map, in which each name occurs once
		var f field
		ok := eachField(v, func(number uint64, v string) bool {
			switch number {
			case 1:
				f.name = v
			case 2:
				f.value = v
			}
			return true
		})
		d.joined = append(d.joined, f)
		return ok && valid(f.name) && valid(f.value)
	case 4:
		d.target = v
	case 5:
		d.host = v
	case 6:
		d.scheme = v
	case 7:
		d.query = v
	case 8:
		d.fragment = v
	case 13: // header_map
		return eachField(v, func(number uint64, v string) bool { return number != 1 || d.headerMapField(v) })
	}
	return true
}

// headerMapField reads a HeaderValue.
func (d *description) headerMapField(v string) bool {
	var name, value, raw string
	ok := eachField(v, func(number uint64, v string) bool {
		switch number {
		case 1:
			name = v
		case 2:
			value = v
		case 3:
			raw = v
		}
		return true
	})
	d.addRaw(name, value, raw)
	return ok && valid(name) && valid(value)
}

// eachField calls f with the number and the content of each field of an encoded message whose content has a length: text, bytes and
// messages. It returns false if the message is malformed, has a group, or f returns false.
func eachField(message string, f func(number uint64, content string) bool) bool {
	for message != "" {
		tag, n := uvarint(message)
		if n == 0 || tag>>3 == 0 {
			return false
		}
		message = message[n:]
		switch tag & 7 {
		case 0: // varint
			if _, n = uvarint(message); n == 0 {
				return false
			}
			message = message[n:]
		case 1, 5: // 8 or 4 bytes
			size := 8
			if tag&7 == 5 {
				size = 4
			}
			if len(message) < size {
				return false
			}
			message = message[size:]
		case 2: // a length and bytes
			length, n := uvarint(message)
			if n == 0 || length > uint64(len(message)-n) {
				return false
			}
			end := n + int(length)
			if !f(tag>>3, message[n:end]) {
				return false
			}
			message = message[end:]
		default:
			return false
		}
	}
	return true
}

// uvarint reads a number at the beginning of s. n is its length, or 0 if there is none.
func uvarint(s string) (v uint64, n int) {
	for i := range min(len(s), 10) {
		if i == 9 && s[i] > 1 {
			return 0, 0
		}
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
