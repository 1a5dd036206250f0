package valetredis_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

var _ dpop.ReplayStore = (*valetredis.Redis)(nil)

func TestReplays(t *testing.T) {
	var (
		s    = startServer(t)
		raw  = s.raw()
		ctx  = t.Context()
		a, _ = newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
		b, _ = newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
	)
	use := func(t *testing.T, r *valetredis.Redis, key [32]byte, life time.Duration) bool {
		t.Helper()
		fresh, err := r.Use(ctx, key, time.Now().Add(life))
		require.NoError(t, err)
		return fresh
	}
	t.Run("DPOP-37 a key is fresh once, in whichever process, and even while the sealing key changes", func(t *testing.T) {
		require.True(t, use(t, a, [32]byte{1}, time.Minute))
		require.False(t, use(t, a, [32]byte{1}, time.Minute))
		require.False(t, use(t, b, [32]byte{1}, time.Minute))
		require.True(t, use(t, b, [32]byte{2}, time.Minute))
	})
	t.Run("under another prefix it is another one", func(t *testing.T) {
		require.True(t, use(t, a, [32]byte{3}, time.Minute))
		other, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.Prefix = "other:" })
		require.True(t, use(t, other, [32]byte{3}, time.Minute))
	})
	t.Run("DPOP-43 redis remembers it until then, and its life does not slide", func(t *testing.T) {
		require.True(t, use(t, a, [32]byte{4}, time.Minute))
		require.False(t, use(t, a, [32]byte{4}, time.Hour))
		names, err := raw.Keys(ctx, "valetkey:proof:BA*").Result()
		require.NoError(t, err)
		require.Len(t, names, 1)
		left, err := raw.PTTL(ctx, names[0]).Result()
		require.NoError(t, err)
		assert.Greater(t, left, 30*time.Second)
		assert.LessOrEqual(t, left, time.Minute)
	})
	t.Run("DPOP-43 one whose time is over is remembered for a moment", func(t *testing.T) {
		begun := time.Now()
		require.True(t, use(t, a, [32]byte{5}, -time.Hour))
		again := use(t, a, [32]byte{5}, -time.Hour)
		require.True(t, !again || time.Since(begun) >= time.Second, "the moment is a second")
		eventually(t, "it is forgotten", func() bool { return use(t, a, [32]byte{5}, -time.Hour) })
	})
	t.Run("whoever writes to redis can make a proof used or unused", func(t *testing.T) {
		require.True(t, use(t, a, [32]byte{6}, time.Minute))
		names, err := raw.Keys(ctx, "valetkey:proof:Bg*").Result()
		require.NoError(t, err)
		require.Len(t, names, 1)
		require.NoError(t, raw.Del(ctx, names[0]).Err())
		require.True(t, use(t, a, [32]byte{6}, time.Minute), "unused")
		require.NoError(t, raw.Set(ctx, strings.Replace(names[0], ":Bg", ":Bw", 1), 1, time.Minute).Err())
		require.False(t, use(t, a, [32]byte{7}, time.Minute), "used")
	})
}

func TestReplaysWhenRedisIsGone(t *testing.T) {
	s := startServer(t)
	r, log := newRedis(t, newClient(t, s.addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.Timeout = 500 * time.Millisecond })
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client := iss.ProofKey("ES256")
	v, err := dpop.New(dpop.Config{ReplayStore: r, Now: iss.Now})
	require.NoError(t, err)
	verify := func() error {
		_, err := v.Verify(t.Context(), proofRequest(client.Proof("GET", proofURL, "")))
		return err
	}
	eventually(t, "a proof is accepted", func() bool { return verify() == nil })
	s.kill()
	t.Run("DPOP-42 no proof is accepted, and it is not called bad", func(t *testing.T) {
		for range 5 {
			err := verify()
			require.ErrorContains(t, err, "valetredis: remembering a proof: ")
			var refusal *valetkey.Error
			require.False(t, errors.As(err, &refusal))
		}
		require.Equal(t, valetkey.Degraded, r.Health()[0].State)
		require.Equal(t, 1, log.count("redis does not answer"), log)
	})
	t.Run("and once it is back they are again", func(t *testing.T) {
		s.start()
		eventually(t, "a proof is accepted", func() bool { return verify() == nil })
	})
}

const (
	proofURL = "https://api.example.com/orders"
	replayer = "VALETREDIS_TEST_REPLAYER" // in the environment of a second process: where redis is, and the proof
	replays  = 5_000                      // of each process
)

func proofRequest(proof string) dpop.Request {
	return dpop.Request{Proofs: []string{proof}, Method: "GET", URL: proofURL}
}

// A verdict is how the replays of one process ended.
type verdict struct{ Accepted, Refused, Failed int64 }

func TestReplaysByTwoProcesses(t *testing.T) {
	if settings := os.Getenv(replayer); settings != "" {
		addr, proof, _ := strings.Cut(settings, " ")
		replay(t, addr, proof)
		return
	}
	t.Run("DPOP-39 10,000 replays at once by two processes: exactly one passes", func(t *testing.T) {
		s := startServer(t)
		proof := valetkeytest.NewIssuer(t, valetkeytest.InMemory()).ProofKey("ES256").Proof("GET", proofURL, "")
		var total verdict
		var processes [2]struct {
			in  io.WriteCloser
			out *bufio.Reader
		}
		for i := range processes {
			p := &processes[i]
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReplaysByTwoProcesses$")
			cmd.Env = append(os.Environ(), replayer+"="+s.addr+" "+proof)
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			defer cmd.Wait()
			p.in, p.out = in, bufio.NewReader(out)
			line, err := p.out.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)
		}
		for _, p := range processes {
			require.NoError(t, p.in.Close()) // go
		}
		for _, p := range processes {
			var v verdict
			require.NoError(t, json.NewDecoder(p.out).Decode(&v))
			total.Accepted += v.Accepted
			total.Refused += v.Refused
			total.Failed += v.Failed
		}
		assert.Equal(t, verdict{Accepted: 1, Refused: 2*replays - 1}, total)
	})
}

// replay is the second process: it uses the proof many times at once when its input ends, and reports the results.
func replay(t *testing.T, addr, proof string) {
	r, _ := newRedis(t, newClient(t, addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.Timeout = soon })
	v, err := dpop.New(dpop.Config{ReplayStore: r})
	require.NoError(t, err)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	var accepted, refused, failed atomic.Int64
	var wg sync.WaitGroup
	for range replays {
		wg.Go(func() {
			_, err := v.Verify(context.Background(), proofRequest(proof))
			var refusal *valetkey.Error
			switch {
			case err == nil:
				accepted.Add(1)
			case errors.As(err, &refusal) && refusal.Code == valetkey.InvalidProof:
				refused.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(verdict{accepted.Load(), refused.Load(), failed.Load()}))
}
