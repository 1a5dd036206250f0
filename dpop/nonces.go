package dpop

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// NoncesConfig configures [Nonces]. All replicas that serve the same URLs must have the same configuration.
type NoncesConfig struct {
	_ struct{} // keyed literals only

	// Key is the secret that generates the nonces: 32 random bytes from a secret store, used by this API only. Empty: a
	// random key of this process, which is suitable only for a single process.
	Key []byte

	// Previous lists keys whose nonces are also accepted. To change the key without refusing any request: first add the new
	// key here in every process; then make it Key in every process and move the old one here; remove the old one after Every
	// and Grace have passed.
	Previous [][]byte

	// Every is the interval between nonces. Zero: 2 min; at least 1 s, at most 1 h.
	Every time.Duration

	// Grace is how long a nonce is accepted after the next one has replaced it. Zero: 3 min, or 10 times Every if that is
	// less; at most 10 times Every, and at most 1 h.
	Grace time.Duration
}

const (
	nonceKeySize = 32
	nonceSize    = 16 // bytes, before the encoding
	defaultEvery = 2 * time.Minute
	defaultGrace = 3 * time.Minute
	maxGrace     = time.Hour
)

// Nonces generates the nonces of a server (RFC 9449, section 8) from a key and the time. It stores nothing: replicas with the
// same key generate the same nonces. At any time, all clients get the same nonce. It is safe for concurrent use. The zero
// value is invalid: use [NewNonces].
type Nonces struct {
	keys         [][]byte // the first generates the nonces that are handed out
	every, grace time.Duration
	latest       atomic.Pointer[epoch]
}

// An epoch is the interval between two nonces. It is immutable.
type epoch struct {
	number   int64
	current  string // the nonce to hand out
	accepted []nonce
}

type nonce struct {
	text string
	end  time.Time
}

// NewNonces returns a Nonces. The error lists every mistake in cfg.
func NewNonces(cfg NoncesConfig) (*Nonces, error) {
	wrong := mistakes.List{Package: "dpop: Nonces"}
	if len(cfg.Key) != nonceKeySize && len(cfg.Key) != 0 {
		wrong.Add("Key", "%d bytes, not %d", len(cfg.Key), nonceKeySize)
	}
	if len(cfg.Key) == 0 && len(cfg.Previous) > 0 {
		wrong.Add("Key", "required with Previous")
	}
	for i, key := range cfg.Previous {
		if len(key) != nonceKeySize {
			wrong.Add(fmt.Sprintf("Previous[%d]", i), "%d bytes, not %d", len(key), nonceKeySize)
		}
	}
	n := &Nonces{every: cfg.Every, grace: cfg.Grace}
	if n.every == 0 {
		n.every = defaultEvery
	}
	if n.grace == 0 {
		n.grace = min(defaultGrace, 10*n.every)
	}
	if n.every < time.Second || n.every > maxGrace {
		wrong.Add("Every", "%v is not between %v and %v", n.every, time.Second, maxGrace)
	}
	if n.grace < 0 || n.grace > min(10*n.every, maxGrace) {
		wrong.Add("Grace", "%v is not between 0 and 10 times Every, or is more than %v", n.grace, maxGrace)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	key := cfg.Key
	if len(key) == 0 {
		key = make([]byte, nonceKeySize)
		rand.Read(key)
	}
	for _, k := range append([][]byte{key}, cfg.Previous...) {
		n.keys = append(n.keys, append([]byte(nil), k...))
	}
	return n, nil
}

// at returns the epoch of now.
func (n *Nonces) at(now time.Time) *epoch {
	number := now.UnixNano() / int64(n.every)
	if e := n.latest.Load(); e != nil && e.number == number {
		return e
	}
	e := n.epoch(number)
	n.latest.Store(e)
	return e
}

func (n *Nonces) epoch(number int64) *epoch {
	e := &epoch{number: number, current: text(n.keys[0], number)}
	// The next nonce may come from a replica whose clock is ahead. Nonces before these had ended when this epoch began.
	for i := number + 1; i >= number-int64((n.grace+n.every-1)/n.every); i-- {
		end := time.Unix(0, (i+1)*int64(n.every)).Add(n.grace)
		for _, key := range n.keys {
			e.accepted = append(e.accepted, nonce{text(key, i), end})
		}
	}
	return e
}

// text returns a nonce: 22 characters of base64url, which are NQCHAR (RFC 9449, section 8.1). It cannot be predicted without
// the key.
func text(key []byte, number int64) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(binary.BigEndian.AppendUint64([]byte("valetkey DPoP nonce "), uint64(number)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:nonceSize])
}

// end returns the time until which the nonce is accepted, and whether it is accepted now.
func (e *epoch) end(text string, now time.Time) (time.Time, bool) {
	for _, n := range e.accepted {
		if subtle.ConstantTimeCompare([]byte(n.text), []byte(text)) == 1 {
			return n.end, now.Before(n.end)
		}
	}
	return time.Time{}, false
}
