// Command proxy runs valetkey proxy, and an upstream behind it, for the conformance suite:
//
//	valetkey conform --start "proxy --valetkey /usr/local/bin/valetkey" --target /any ...
//
// With --caddy, it runs Caddy before the upstream instead, which asks valetkey authorize. It takes the rest from its environment.
package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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

//go:embed Caddyfile
var caddyfile string

func main() {
	command := flag.String("valetkey", "valetkey", "path of the command")
	caddy := flag.String("caddy", "", "path of Caddy; empty: valetkey proxy")
	flag.Parse()
	if err := run(*command, *caddy, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func run(command, caddy string, env func(string) string) error {
	// The runner ends all programs with one signal. This one then ends after them, and removes the folder.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
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

	file := filepath.Join(folder, "valetkey.yaml")
	if caddy == "" {
		head := "listen: " + env("CONFORM_LISTEN") + "\nupstream: http://" + listener.Addr().String() + "\n"
		if err := os.WriteFile(file, []byte(head+config(template, env)), 0o600); err != nil {
			return err
		}
		return program(command, "proxy", "--config", file).Run()
	}
	asked, err := freeAddress()
	if err != nil {
		return err
	}
	head := "listen_http: " + asked + "\ndialect: caddy\ncallers: [127.0.0.1]\n"
	if err := os.WriteFile(file, []byte(head+config(template, env)), 0o600); err != nil {
		return err
	}
	authorize := program(command, "authorize", "--config", file)
	if err := authorize.Start(); err != nil {
		return err
	}
	defer authorize.Wait()
	defer authorize.Process.Kill()
	if err := listening(asked); err != nil {
		return err
	}
	gateway := filepath.Join(folder, "Caddyfile")
	text := strings.NewReplacer("{port}", env("PORT"), "{authorize}", asked, "{upstream}", listener.Addr().String()).Replace(caddyfile)
	if err := os.WriteFile(gateway, []byte(text), 0o600); err != nil {
		return err
	}
	cmd := program(caddy, "run", "--adapter", "caddyfile", "--config", gateway)
	cmd.Env = append(os.Environ(), "HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	return cmd.Run()
}

func program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// freeAddress returns an address at which nothing listens at the moment. Its port is below the ephemeral ones, so that no connection takes it.
func freeAddress() (string, error) {
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", errors.New("no port is free")
}

// listening waits until valetkey authorize can be asked, so that no answer is one of Caddy alone.
func listening(address string) error {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("valetkey authorize does not listen: %w", err)
}

// config fills in the template.
func config(template string, env func(string) string) string {
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
	pairs := []string{"{algorithms}", algorithms, "{proof_algorithms}", proofs, "{sender_constrained}", bound,
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
