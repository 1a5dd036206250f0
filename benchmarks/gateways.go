package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// gateways asks what the command costs as a gateway, and as the service that a gateway asks. All programs are processes.
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
	valetkey, err := command(dir, filepath.Join("..", "cmd", "valetkey"))
	if err != nil {
		return err
	}
	tokens = tokens[:fewTokens]
	if err := proxies(b, dir, valetkey, tokens); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if err := forwards(b, dir, valetkey, keys(iss), tokens); err != nil {
		return fmt.Errorf("forward authentication: %w", err)
	}
	if err := checks(b, dir, tokens); err != nil {
		return fmt.Errorf("ext_authz over gRPC: %w", err)
	}
	return nil
}

// verifiersYAML are the parts of a configuration that state whose tokens are accepted. The keys are in keys.json beside it.
var verifiersYAML = fmt.Sprintf("resource: %s\nverifiers: [jwks: {issuer: %q, file: keys.json}]\nroutes: {\"GET /orders\": %q}\n", audience, issuerURL, needed)

// command builds a program of this repository into dir and returns its path.
func command(dir, folder string) (string, error) {
	path := filepath.Join(dir, filepath.Base(folder))
	_, _, err := build(folder, path, "-ldflags=-s -w")
	return path, err
}

// startCommand runs a command of valetkey with the configuration text, as a file in dir.
func startCommand(dir, addr, path, name, text string) (*process, error) {
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, []byte(text+verifiersYAML), 0o600); err != nil {
		return nil, err
	}
	return startProcess(addr, path, nil, name, "--config", file)
}

// A contender is a program that competes with others as a process.
type contender struct {
	name  string
	start func(addr string) (*process, error)
	load  func(addr string) (generator, error) // proves its answers
}

// A generator loads a program for some time.
type generator interface {
	run(d time.Duration) (turn, error)
	close()
}

// contest starts the contenders and compares them, see [bench.compare].
func (b *bench) contest(t *table, contenders ...contender) ([]outcome, error) {
	var sides []*side
	for _, c := range contenders {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		p, err := c.start(addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		defer p.stop()
		idle, err := p.resident()
		if err != nil {
			return nil, err
		}
		g, err := c.load(addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", c.name, err, p.log)
		}
		defer g.close()
		sides = append(sides, &side{name: c.name, process: p, run: g.run, idle: idle})
	}
	return b.compare(t, sides...)
}

// note describes what the tables of gateways have in common.
func (b *bench) note(tokens []*token) string {
	load := sustained
	if b.quick {
		load /= 10
	}
	return fmt.Sprintf("The load is a closed loop in turns of %v, with ES256 and %d tokens seen before. The ratio is of requests per second to the first program: "+
		"more is better. Processor is the time that the process itself uses for a request, which other work of the machine hardly changes. "+
		"Memory is the resident memory, before the first request and after %v under full load.", shift, len(tokens), load)
}

// refuses reports as an error if a request without a token is not refused.
func refuses(url string, header http.Header) error {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
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
func proxies(b *bench, dir, valetkey string, tokens []*token) error {
	t := b.table("gateways-proxy", "valetkey proxy",
		fmt.Sprintf("Each proxy is a process; the upstream, which answers 6 bytes, and the generator share one more on the same cores, over %d keep-alive connections. "+
			"The bare one is httputil.ReverseProxy with the same transport and server, which checks nothing. ", connections)+b.note(tokens), sideColumns...)
	upstream, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") }))
	if err != nil {
		return err
	}
	defer end()
	bare, err := command(dir, filepath.Join("programs", "reverseproxy"))
	if err != nil {
		return err
	}
	outcomes, err := b.contest(t,
		contender{"httputil.ReverseProxy", func(addr string) (*process, error) {
			return startProcess(addr, bare, []string{"ADDR=" + addr, "UPSTREAM=http://" + upstream})
		}, func(addr string) (generator, error) {
			return newLoad(addr, orders(addr, tokens), http.StatusOK, "hello\n")
		}},
		contender{ours + " proxy", func(addr string) (*process, error) {
			return startCommand(dir, addr, valetkey, "proxy", fmt.Sprintf("listen: %s\nupstream: http://%s\n", addr, upstream))
		}, func(addr string) (generator, error) {
			if err := refuses("http://"+addr+"/orders", nil); err != nil {
				return nil, err
			}
			return newLoad(addr, orders(addr, tokens), http.StatusOK, "hello\n")
		}},
	)
	if err != nil {
		return err
	}
	b.goalAtLeast("proxy / bare httputil.ReverseProxy, requests per second", outcomes[1].rate.ratio, 0.95)
	return nil
}
