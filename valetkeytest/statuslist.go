package valetkeytest

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"net/http"
	"time"
)

// statusList is the status list of one issuer: two bits for each token, so that a token can be suspended.
type statusList struct {
	bits []byte
	ttl  time.Duration
}

const statusBits = 2

// Status refers the token to index in the issuer's status list (draft-ietf-oauth-status-list, section 6.2). Its status is
// valid until [Issuer.SetStatus] changes it.
func (iss *Issuer) Status(index int) Option {
	return Claim("status", map[string]any{"status_list": map[string]any{"idx": index, "uri": iss.StatusList.URL}})
}

// SetStatus sets the status at index: 0 valid, 1 invalid, 2 suspended, 3 application-specific.
func (iss *Issuer) SetStatus(index int, status uint8) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	at, shift := index*statusBits/8, index*statusBits%8
	for len(iss.list.bits) <= at {
		iss.list.bits = append(iss.list.bits, 0)
	}
	iss.list.bits[at] = iss.list.bits[at]&^(3<<shift) | status&3<<shift
}

// StatusTTL sets the ttl of the list. Zero: none, as initially.
func (iss *Issuer) StatusTTL(ttl time.Duration) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.list.ttl = ttl
}

// StatusListToken returns the list as served, with at least 16 entries. It takes the options of [Issuer.Token].
func (iss *Issuer) StatusListToken(opts ...Option) string {
	iss.t.Helper()
	iss.mu.Lock()
	bits, ttl := bytes.Clone(iss.list.bits), iss.list.ttl
	iss.mu.Unlock()
	if missing := 16*statusBits/8 - len(bits); missing > 0 {
		bits = append(bits, make([]byte, missing)...)
	}
	all := []Option{Type("statuslist+jwt"), func(d *draft) {
		d.claims = map[string]any{
			"iss": iss.URL, "sub": iss.StatusList.URL, "iat": d.now.Unix(),
			"status_list": map[string]any{"bits": statusBits, "lst": packStatuses(bits)},
		}
		if ttl > 0 {
			d.claims["ttl"] = int(ttl.Seconds())
		}
	}}
	return iss.Token(append(all, opts...)...)
}

// packStatuses compresses the bytes of a list for its member lst (section 4.2).
func packStatuses(list []byte) string {
	var packed bytes.Buffer
	z, err := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	if err == nil {
		_, err = z.Write(list)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic("valetkeytest: " + err.Error()) // a bytes.Buffer accepts every write
	}
	return base64.RawURLEncoding.EncodeToString(packed.Bytes())
}

func (iss *Issuer) serveStatusList(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/statuslist+jwt")
	w.Write([]byte(iss.StatusListToken()))
}
