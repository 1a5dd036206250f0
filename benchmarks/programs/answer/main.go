// Command answer is a bare net/http handler that answers every request with 200 and the headers of valetkey authorize, by the same server,
// and checks nothing.
package main

import (
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	subject, client, scope := os.Getenv("SUBJECT"), os.Getenv("CLIENT"), os.Getenv("SCOPE")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Valetkey-Subject"] = []string{subject}
		h["X-Valetkey-Client"] = []string{client}
		h["X-Valetkey-Scope"] = []string{scope}
		h["Cache-Control"] = []string{"no-store"}
		w.WriteHeader(http.StatusOK)
	})
	server := &http.Server{
		Addr: os.Getenv("ADDR"), Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Fatal(server.ListenAndServe())
}
