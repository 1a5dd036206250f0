package soak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	introspectionTarget = "introspection"
	redisTarget         = "Redis"
	replicaTarget       = "a replica"

	starts = 30 * time.Second // a process that takes longer to start than that does not start
)

// An issuer signs JWTs with keys that change.
type issuer struct {
	*valetkeytest.Issuer
	target string // of faults: its key set

	mu    sync.RWMutex // held for reading while a token is made
	keys  map[string]*key
	next  string // ID of a key that is announced; "": none
	turns int
}

// A key is one of an issuer, and what happened to it.
type key struct {
	published time.Time // zero: before the replicas started
	replaced  time.Time
	withdrawn change
}

func newIssuer(t *testing.T, n int) *issuer {
	iss := &issuer{Issuer: valetkeytest.NewIssuer(t), target: fmt.Sprint("key set ", n)}
	iss.keys = map[string]*key{iss.KeyID(): {}}
	return iss
}

// turn announces the next key, or rotates to it, or to one that was not announced. It withdraws keys that were replaced a while ago.
func (iss *issuer) turn(count func(string)) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	now := time.Now()
	iss.turns++
	if iss.turns%3 == 0 {
		iss.next = iss.PublishNextKey()
		iss.keys[iss.next] = &key{published: time.Now()}
		count("keys announced")
		return
	}
	iss.keys[iss.KeyID()].replaced = now
	id := iss.Rotate()
	if id != iss.next {
		iss.keys[id] = &key{published: time.Now()}
	}
	iss.next = ""
	count("rotations")
	for id, k := range iss.keys {
		switch {
		case k.withdrawn.happened() && now.Sub(k.withdrawn.done) > remembered:
			delete(iss.keys, id)
		case k.withdrawn.begun.IsZero() && !k.replaced.IsZero() && now.Sub(k.replaced) > 15*time.Second:
			k.withdrawn.begun = now
			iss.Withdraw(id)
			k.withdrawn.done = time.Now()
			count("keys withdrawn")
		}
	}
}

// A redisServer is a real redis-server. It writes each change to the disk before it responds, so that a restart loses nothing.
type redisServer struct {
	addr, dir string
	cmd       *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	s := &redisServer{addr: freeAddr(t), dir: t.TempDir()}
	require.NoError(t, s.start())
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) start() error {
	_, port, _ := net.SplitHostPort(s.addr)
	s.cmd = exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--dir", s.dir)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		client := redis.NewClient(&redis.Options{Addr: s.addr, DialerRetries: 1, MaxRetries: -1})
		err := client.Ping(context.Background()).Err()
		client.Close()
		if err == nil || time.Since(begun) > starts {
			return err
		}
	}
}

func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// freeAddr returns an address on which nothing listens. Its port is below those that the system gives to outgoing connections
// and to listeners that ask for any port, so that none of them takes it before its user does.
func freeAddr(t *testing.T) string {
	t.Helper()
	for {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
}

// A replica is a process that serves the guarded API.
type replica struct {
	name string
	settings
	client *http.Client // to its API

	mu      sync.Mutex
	cmd     *exec.Cmd
	output  *bytes.Buffer
	ended   chan error
	life    int // number of the process
	started time.Time
}

func (r *replica) start() error {
	text, err := json.Marshal(r.settings)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), replicaEnv+"="+string(text), "GORACE=halt_on_error=1")
	output := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = output, output
	if _, err := cmd.StdinPipe(); err != nil { // ends with this process
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.mu.Lock()
	r.cmd, r.output, r.ended = cmd, output, ended
	r.life++
	r.started = time.Now()
	r.mu.Unlock()
	return nil
}

// awaitReady waits until the replica has caught up with the revocations.
func (r *replica) awaitReady(within time.Duration) error {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + r.Admin + "/ready")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		if time.Since(begun) > within {
			return fmt.Errorf("replica %s is not ready: %w", r.name, err)
		}
	}
}

// stop ends the process. If it is not killed, it must end without an error: a data race is one.
func (r *replica) stop(kill bool) error {
	if kill {
		_ = r.cmd.Process.Kill()
		<-r.ended
		if strings.Contains(r.output.String(), "DATA RACE") {
			return fmt.Errorf("replica %s: %s", r.name, r.output)
		}
		return nil
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			return fmt.Errorf("replica %s: %w: %s", r.name, err, r.output)
		}
		return nil
	case <-time.After(starts):
		_ = r.cmd.Process.Kill()
		return fmt.Errorf("replica %s does not stop", r.name)
	}
}

func (r *replica) currentLife() (int, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life, r.started
}

func (r *replica) revoke(issuer, id string) error {
	res, err := http.PostForm("http://"+r.Admin+"/revoke", url.Values{"issuer": {issuer}, "id": {id}})
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("revoking at replica %s: status %d", r.name, res.StatusCode)
	}
	return nil
}

// stats returns the least of several measurements, since connections take a moment to end.
func (r *replica) stats() (least stats, err error) {
	for i := range 6 {
		res, err := http.Get("http://" + r.Admin + "/stats")
		if err != nil {
			return least, err
		}
		var s stats
		err = json.NewDecoder(res.Body).Decode(&s)
		res.Body.Close()
		if err != nil {
			return least, err
		}
		if i == 0 {
			least = s
		}
		least.Heap, least.Resident = min(least.Heap, s.Heap), min(least.Resident, s.Resident)
		least.Goroutines, least.Descriptors = min(least.Goroutines, s.Goroutines), min(least.Descriptors, s.Descriptors)
		time.Sleep(300 * time.Millisecond)
	}
	return least, nil
}

// A token is what clients send, and the truth about it.
type token struct {
	kind  string
	raw   string
	id    string // jti and subject
	iss   *issuer
	key   *key                   // of a JWT
	proof *valetkeytest.ProofKey // nil: a bearer token
	facts                        // without those of its key

	mu      sync.Mutex // guards what follows, and the changes in facts
	revoked bool       // or about to be
	where   *replica   // of the change guard
	life    int        // of where
}

// factsAt returns the truth about the token for a request to a replica that was the same process all the time.
func (tok *token) factsAt(r *replica, life int) facts {
	tok.mu.Lock()
	f := tok.facts
	if tok.where != r {
		f.guard = change{}
	} else if tok.life != life {
		f.guard.done = time.Time{} // a restarted replica has forgotten it
	}
	tok.mu.Unlock()
	if tok.key != nil {
		tok.iss.mu.RLock()
		f.published, f.withdrawn = tok.key.published, tok.key.withdrawn
		tok.iss.mu.RUnlock()
	}
	return f
}

// revoke does what how does, once for a token.
func (tok *token) revoke(which func(*token) *change, how func() error) error {
	tok.mu.Lock()
	which(tok).begun = time.Now()
	tok.mu.Unlock()
	err := how()
	if err == nil {
		tok.mu.Lock()
		which(tok).done = time.Now()
		tok.mu.Unlock()
	}
	return err
}

// newToken makes a good token.
func (w *world) newToken(life time.Duration) *token {
	w.mu.Lock()
	w.made++
	tok := &token{id: fmt.Sprint("t", w.made)}
	w.mu.Unlock()
	tok.kind, tok.iss = "JWT", w.issuers[rand.IntN(len(w.issuers))]
	exp := time.Now().Add(life).Truncate(time.Second)
	tok.exp = exp
	opts := []valetkeytest.Option{
		valetkeytest.Claim("jti", tok.id), valetkeytest.Subject(tok.id), valetkeytest.Claim("exp", exp.Unix()),
	}
	if rand.IntN(3) == 0 {
		tok.kind, tok.iss, tok.opaque = "opaque", w.issuers[0], true
	}
	if rand.IntN(3) == 0 {
		tok.kind += ", DPoP"
		tok.proof, tok.bound = w.proofs[rand.IntN(len(w.proofs))], true
		opts = append(opts, valetkeytest.BoundTo(tok.proof))
	}
	if tok.opaque {
		tok.raw = tok.iss.Opaque(opts...)
		return tok
	}
	tok.keySet = tok.iss.target
	tok.iss.mu.RLock()
	defer tok.iss.mu.RUnlock()
	tok.key, tok.raw = tok.iss.keys[tok.iss.KeyID()], tok.iss.Token(opts...)
	return tok
}

// badToken makes a token that was never good, or a request that is not. proofURL and proof differ from the right ones in such a request.
func (w *world) badToken() (tok *token, authorize func(*http.Request)) {
	iss := w.issuers[rand.IntN(len(w.issuers))]
	iss.mu.RLock()
	defer iss.mu.RUnlock()
	life := valetkeytest.ExpiresIn(time.Minute)
	tok = &token{iss: iss, facts: facts{exp: time.Now().Add(time.Minute)}}
	bad := func(kind, why, raw string) { tok.kind, tok.bad, tok.raw = kind, why, raw }
	key, other := w.proofs[0], w.proofs[1]
	switch rand.IntN(10) {
	case 0, 1, 2:
		forgeries := w.forgeries(iss)
		f := forgeries[rand.IntN(len(forgeries))]
		bad("forged", f.name, f.raw)
	case 3:
		bad("expired", "expired before it was sent", iss.Token(valetkeytest.ExpiresIn(-expiredBound-time.Second)))
	case 4:
		bad("wrong audience", "for another audience", iss.Token(life, valetkeytest.WrongAudience()))
	case 5:
		tok.opaque = true
		bad("wrong audience", "for another audience, opaque", w.issuers[0].Opaque(life, valetkeytest.WrongAudience()))
	case 6:
		tok.opaque = true
		bad("forged", "made up", "made-up-"+fmt.Sprint(rand.Uint64()))
	case 7:
		raw := w.hostile.Token(life)
		if rand.IntN(2) == 0 {
			raw = w.hostile.Token(life, valetkeytest.Claim("iss", iss.URL))
		}
		bad("forged", "of an issuer that is not trusted", raw)
	case 8:
		bad("stolen, DPoP", "bound, sent as bearer", iss.Token(life, valetkeytest.BoundTo(key)))
	case 9:
		tok.bound = true
		bad("stolen, DPoP", "bound, with the proof of another key", iss.Token(life, valetkeytest.BoundTo(key)))
		proof, why := other.Proof("GET", publicURL+"/orders", tok.raw), tok.bad
		switch rand.IntN(3) {
		case 0:
			proof, why = key.Proof("GET", "https://elsewhere.example.com/orders", tok.raw), "bound, with the proof for another URL"
		case 1:
			proof, why = key.Proof("GET", publicURL+"/orders", tok.raw+"x"), "bound, with the proof for another token"
		}
		tok.bad = why
		return tok, func(r *http.Request) {
			r.Header.Set("Authorization", "DPoP "+tok.raw)
			r.Header.Set("DPoP", proof)
		}
	}
	return tok, bearer(tok.raw)
}

func bearer(raw string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+raw) }
}

// authorize returns what a client does for a request with the token. A second use of it repeats the proof.
func (tok *token) authorize(path string) func(*http.Request) {
	if tok.proof == nil {
		return bearer(tok.raw)
	}
	proof := tok.proof.Proof("GET", publicURL+path, tok.raw)
	return func(r *http.Request) {
		r.Header.Set("Authorization", "DPoP "+tok.raw)
		r.Header.Set("DPoP", proof)
	}
}

type forgery struct{ name, raw string }

// forgeries returns those of the issuer, made anew now and then, since signing each one takes a while. iss.mu is held.
func (w *world) forgeries(iss *issuer) []forgery {
	w.mu.Lock()
	defer w.mu.Unlock()
	if made := w.forged[iss]; made != nil && time.Since(w.forgedAt[iss]) < 30*time.Second {
		return made
	}
	var all []forgery
	for name, raw := range iss.Forgeries() {
		all = append(all, forgery{name, raw})
	}
	w.forged[iss], w.forgedAt[iss] = all, time.Now()
	return all
}

// pick returns a token that is in use, or was until a moment ago, which fit accepts. Nil: none.
func (w *world) pick(fit func(*token) bool) *token {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.pool = slices.DeleteFunc(w.pool, func(tok *token) bool { return now.Sub(tok.exp) > 10*time.Second })
	if len(w.pool) == 0 {
		return nil
	}
	for range 20 {
		if tok := w.pool[rand.IntN(len(w.pool))]; fit(tok) {
			return tok
		}
	}
	return nil
}

func (w *world) put(tok *token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pool = append(w.pool, tok)
}

// get sends a request for a path. The response to a stream is the caller's to close.
func (r *replica) get(ctx context.Context, path string, authorize func(*http.Request)) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.API+path, nil)
	if err != nil {
		return nil, err
	}
	authorize(req)
	res, err := r.client.Do(req)
	if err == nil && path != "/stream" {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return res, err
}
