package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// gateways asks what the command costs as a gateway, in processes of their own.
func gateways(b *bench) error {
	dir, err := os.MkdirTemp("", "gateways")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	iss, tokens, err := b.issuer("ES256")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), keys(iss), 0o600); err != nil {
		return err
	}
	return proxies(b, dir, tokens[:fewTokens])
}

// verifiersYAML are the parts of a configuration that state whose tokens are accepted. The keys are in keys.json beside it.
var verifiersYAML = fmt.Sprintf("resource: %s\nverifiers: [jwks: {issuer: %q, file: keys.json}]\nroutes: {\"GET /orders\": %q}\n", audience, issuerURL, needed)

// command builds a program of this repository into dir and returns its path.
func command(dir, folder string) (string, error) {
	path := filepath.Join(dir, filepath.Base(folder))
	_, _, err := build(folder, path, "-ldflags=-s -w")
	return path, err
}

// refuses reports as an error if a request without a token is not refused.
func refuses(url string) error {
	res, err := http.Get(url)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("a request without a token got %d", res.StatusCode)
	}
	return nil
}

// proxies asks what of a bare reverse proxy is left with a guard.
func proxies(b *bench, dir string, tokens []*token) error {
	t := b.table("gateways-proxy", "valetkey proxy",
		fmt.Sprintf("Each proxy is a process; the upstream, which answers 6 bytes, and the generator share one more on the same cores. %d keep-alive connections, "+
			"closed loop, turns of %v, ES256, %d tokens seen before. The bare one is httputil.ReverseProxy with the same transport and server, which checks nothing. "+
			"The ratio is of requests per second to the bare one: more is better. Processor is the time that the process itself uses for a request, "+
			"which other work of the machine hardly changes. Memory is what the system counts as resident, before the first request and after %v under full load.", connections, shift, len(tokens), sustained),
		sideColumns...)
	upstream, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") }))
	if err != nil {
		return err
	}
	defer end()
	bare, err := command(dir, filepath.Join("programs", "reverseproxy"))
	if err != nil {
		return err
	}
	valetkey, err := command(dir, filepath.Join("..", "cmd", "valetkey"))
	if err != nil {
		return err
	}
	var sides []*side
	for _, c := range []struct {
		name  string
		start func(addr string) (*process, error)
	}{
		{"httputil.ReverseProxy", func(addr string) (*process, error) {
			return startProcess(addr, bare, []string{"ADDR=" + addr, "UPSTREAM=http://" + upstream})
		}},
		{ours + " proxy", func(addr string) (*process, error) {
			file := filepath.Join(dir, "proxy.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, "listen: %s\nupstream: http://%s\n%s", addr, upstream, verifiersYAML), 0o600); err != nil {
				return nil, err
			}
			return startProcess(addr, valetkey, nil, "proxy", "--config", file)
		}},
	} {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		p, err := c.start(addr)
		if err != nil {
			return err
		}
		defer p.stop()
		idle, err := p.resident()
		if err != nil {
			return err
		}
		l, err := newLoad(addr, tokens)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		defer l.close()
		sides = append(sides, &side{name: c.name, process: p, run: l.run, idle: idle})
	}
	if err := refuses("http://" + sides[1].process.addr + "/orders"); err != nil {
		return fmt.Errorf("%s: %w", sides[1].name, err)
	}
	outcomes, err := b.compare(t, sides...)
	if err != nil {
		return err
	}
	b.goalAtLeast("proxy / bare httputil.ReverseProxy, requests per second", outcomes[1].rate.ratio, 0.95)
	return nil
}
