package tokencache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// FuzzCache runs a program of two-byte steps against a cache and a model of it that remembers everything. What the cache
// returns is either the verifier's answer of now, or the last one for that very token, and then one that may still be
// relied on. The bounds hold after every step.
func FuzzCache(f *testing.F) {
	f.Add(uint8(3), uint16(2000), []byte("\x00a\x00b\x00c\x00d\x00a\x01\x3c\x00a\x02a\x00a\x03\x00\x00a\x04\x00\x00b"))
	f.Add(uint8(1), uint16(9999), []byte("\x00\x01\x00\x01\x00\x02\x00\x01\x05\x01\x00\x05\x02\x00\x00\x09"))
	f.Fuzz(func(t *testing.T, entries uint8, bytes uint16, program []byte) {
		type answer struct {
			token  *valetkey.Token
			until  time.Time
			while  *condition
			purged bool
		}
		const maxAge = 90 * time.Second
		var (
			cfg   = tokencache.Config{Entries: int(entries) + 1, Bytes: int64(bytes) + 1, MaxAge: maxAge}
			now   = time.Unix(1_000_000, 0)
			model = map[string]*answer{}
			calls int
			deny  bool
		)
		cfg.Now = func() time.Time { return now }
		memory := tokencache.New(cfg, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			calls++
			if deny {
				return nil, &valetkey.Error{Code: valetkey.InvalidToken}
			}
			a := &answer{while: new(condition)}
			a.token = valetkey.NewToken(valetkey.TokenFields{
				Subject:   raw,
				ID:        fmt.Sprint(calls),
				Raw:       string(make([]byte, int(raw[0])*5)),
				Freshness: valetkey.Freshness{Until: now.Add(time.Duration(raw[0]%8) * 20 * time.Second), While: a.while},
			})
			a.until = a.token.Freshness().Until
			if limit := now.Add(maxAge); limit.Before(a.until) {
				a.until = limit
			}
			model[raw] = a
			return a.token, nil
		}))

		for ; len(program) >= 2; program = program[2:] {
			op, arg := program[0]%6, program[1]
			raw := string([]byte{arg % 32, 't'})
			deny = op == 1
			switch op {
			case 0, 1:
				before := calls
				e, _, err := memory.Verify(t.Context(), raw)
				asked := calls > before
				if (err != nil) != (deny && asked) {
					t.Fatalf("%q: error %v, asked %v", raw, err, asked)
				}
				if err != nil {
					break
				}
				a := model[raw]
				if e.Token.Subject() != raw || e.Token.ID() != a.token.ID() || len(e.Token.Raw()) != len(a.token.Raw()) || !e.In(memory) {
					t.Fatalf("%q: got %q of call %s, want call %s", raw, e.Token.Subject(), e.Token.ID(), a.token.ID())
				}
				if !asked && (!now.Before(a.until) || a.while.gone.Load() || a.purged) {
					t.Fatalf("%q: a dead answer from memory: %+v at %v", raw, a, now)
				}
			case 2:
				now = now.Add(time.Duration(arg) * time.Second / 4)
			case 3:
				if a := model[raw]; a != nil {
					a.while.gone.Store(true)
				}
			case 4:
				memory.Purge(func(token *valetkey.Token) bool { return token.Subject()[0]%4 == arg%4 })
				for raw, a := range model {
					a.purged = a.purged || raw[0]%4 == arg%4
				}
			case 5:
				held := memory.Stats().Entries
				if n := memory.Purge(nil); n != held {
					t.Fatalf("%d entries counted, %d purged", held, n)
				}
				for _, a := range model {
					a.purged = true
				}
			}
			s := memory.Stats()
			if s.Entries > cfg.Entries || s.Bytes > cfg.Bytes || (s.Entries == 0) != (s.Bytes == 0) {
				t.Fatalf("%+v breaks %+v", s, cfg)
			}
		}
	})
}
