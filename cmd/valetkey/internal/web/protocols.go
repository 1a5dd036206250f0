package web

import "net/http"

// protocols returns HTTP/1.1 and HTTP/2, which also comes without TLS as clients of gRPC send it (RFC 9113, section 3.3). The upgrade
// of a connection from HTTP/1.1, which RFC 9113 has removed, is ignored.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
