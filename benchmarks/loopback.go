package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// serve serves h on loopback and returns its address.
func serve(h http.Handler) (addr string, end func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	return l.Addr().String(), func() { s.Close() }, nil
}

const (
	connections = 4
	shift       = 40 * time.Millisecond // of one handler under load
)

// loopback asks what of it is left over HTTP. The generator writes prepared requests and reads answers of known length,
// so most of the machine's time is the server's.
func loopback(b *bench) error {
	t := b.table("loopback", "Over loopback HTTP, warm, RS256",
		fmt.Sprintf("%d keep-alive connections, closed loop, a handler that answers 6 bytes. The generator shares the cores with the server, "+
			"and does no more than write prepared requests and compare lengths. Handlers take turns of %v. All requests carry a token, also to the bare "+
			"handler. The time is of the machine a request; the ratio is of requests per second to the bare handler: more is better.", connections, shift),
		"handler", "requests/s")
	iss, tokens, err := b.issuer("RS256")
	if err != nil {
		return err
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") })
	all, err := candidates(iss)
	if err != nil {
		return err
	}
	names := []string{"bare"}
	handlers := []http.Handler{hello}
	for _, c := range all {
		if c.guard == nil {
			continue
		}
		h, err := c.guard(hello)
		if err != nil {
			return err
		}
		names, handlers = append(names, c.name), append(handlers, h)
	}
	loads := make([]*load, len(handlers))
	for i, h := range handlers {
		addr, end, err := serve(h)
		if err != nil {
			return err
		}
		defer end()
		if loads[i], err = newLoad(addr, orders(addr, tokens[:fewTokens]), http.StatusOK, "hello\n"); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		defer loads[i].close()
	}
	rates := make([][]float64, len(loads))
	for start, round := time.Now(), 0; round < 5 || time.Since(start) < 2*b.budget; round++ {
		for i := range loads {
			i = (round + i) % len(loads)
			got, err := loads[i].run(shift)
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			if round > 0 { // the first warms up
				rates[i] = append(rates[i], got.rate)
			}
		}
	}
	for i, name := range names {
		ratios := make([]float64, len(rates[i]))
		times := make([]float64, len(rates[i]))
		for j, rate := range rates[i] {
			ratios[j], times[j] = rate/rates[0][j], 1e9/rate
		}
		r := result{name, quartilesOf(times), quartilesOf(ratios)}
		t.add(r, "", number(1e9/r.ns.median))
		if name == ours {
			b.goalAtLeast("loopback HTTP: guarded / bare requests per second", r.ratio, 0.95)
		}
	}
	return nil
}

// A load is a number of connections to one server.
type load struct {
	conns    []net.Conn
	requests [][]byte
	length   int    // of an answer
	status   string // the line with which it begins
}

// orders returns a request with each token.
func orders(addr string, tokens []*token) (requests [][]byte) {
	for _, t := range tokens {
		requests = append(requests, fmt.Appendf(nil, "GET /orders HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\n\r\n", addr, t.raw))
	}
	return requests
}

// newLoad connects to a server, and proves that the first of the requests gets the status and the body.
func newLoad(addr string, requests [][]byte, status int, body string) (*load, error) {
	l := &load{requests: requests}
	for range connections {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		l.conns = append(l.conns, c)
	}
	if _, err := l.conns[0].Write(l.requests[0]); err != nil {
		return nil, err
	}
	// The first answer is read with care; the others are as long.
	var seen bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.TeeReader(l.conns[0], &seen), 1), nil)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != status || string(got) != body {
		return nil, fmt.Errorf("the answer is %d", resp.StatusCode)
	}
	l.length, l.status = seen.Len(), fmt.Sprintf("%s %s\r\n", resp.Proto, resp.Status)
	return l, nil
}

func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// run loads the server for some time.
func (l *load) run(d time.Duration) (turn, error) {
	var (
		group sync.WaitGroup
		waits = make([][]time.Duration, len(l.conns))
		errs  = make([]error, len(l.conns))
		start = time.Now()
	)
	for i, c := range l.conns {
		group.Go(func() {
			answer := make([]byte, l.length)
			n := i
			for at := time.Duration(0); at < d; n += len(l.conns) {
				if _, errs[i] = c.Write(l.requests[n%len(l.requests)]); errs[i] != nil {
					return
				}
				if _, errs[i] = io.ReadFull(c, answer); errs[i] != nil {
					return
				}
				if !bytes.HasPrefix(answer, []byte(l.status)) {
					errs[i] = errors.New("refused")
					return
				}
				now := time.Since(start)
				waits[i] = append(waits[i], now-at)
				at = now
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	all := slices.Concat(waits...)
	return turn{rate: float64(len(all)) / took.Seconds(), all: all}, errors.Join(errs...)
}
