// Command proxy runs valetkey proxy, and an upstream behind it, for the conformance suite:
//
//	valetkey conform --start "proxy --valetkey /usr/local/bin/valetkey" --target /any ...
//
// It takes the rest from its environment.
package main

import (
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed proxy.yaml
var template string

func main() {
	command := flag.String("valetkey", "valetkey", "path of the command")
	flag.Parse()
	if err := run(*command, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func run(command string, env func(string) string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	upstream := &http.Server{Handler: http.HandlerFunc(identity), ReadHeaderTimeout: 10 * time.Second}
	go upstream.Serve(listener)
	defer upstream.Close()

	folder, err := os.MkdirTemp("", "conform-proxy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "proxy.yaml")
	if err := os.WriteFile(file, []byte(config(template, "http://"+listener.Addr().String(), env)), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(command, "proxy", "--config", file)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// The runner ends both programs with one signal. This one then ends after the proxy, and removes the file.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
	return cmd.Run()
}

// config fills in the template.
func config(template, upstream string, env func(string) string) string {
	algorithms, proofs, bound := "[RS256, PS256, ES256, ES384, EdDSA, Ed25519]", "[ES256, ES384, PS256, EdDSA, Ed25519]", "false"
	if env("CONFORM_PROFILE") == "fapi2" {
		algorithms, bound = "[PS256, ES256, EdDSA, Ed25519]", "true"
		proofs = algorithms
	}
	signed, nonce := "# no signed responses", "off"
	if env("CONFORM_SIGNED") == "true" {
		signed = "signed: {algorithm: ES256}"
	}
	if env("CONFORM_NONCE") == "true" {
		nonce = "on"
	}
	pairs := []string{"{upstream}", upstream, "{algorithms}", algorithms, "{proof_algorithms}", proofs, "{sender_constrained}", bound,
		"{signed}", signed, "{nonce}", nonce}
	for _, name := range []string{"issuer", "second_issuer", "audience", "listen", "introspection", "client_id", "client_secret"} {
		pairs = append(pairs, "{"+name+"}", env("CONFORM_"+strings.ToUpper(name)))
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// identity responds with the caller that the proxy has reported.
func identity(w http.ResponseWriter, r *http.Request) {
	caller := map[string]any{}
	for member, header := range map[string]string{"sub": "X-Valetkey-Subject", "client_id": "X-Valetkey-Client", "scope": "X-Valetkey-Scope"} {
		if value, err := url.PathUnescape(r.Header.Get(header)); err == nil && value != "" {
			caller[member] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(caller)
}
