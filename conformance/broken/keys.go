package broken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // for ES384
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// A publicKey is a key of a key set or of a proof.
type publicKey struct {
	kid, alg   string
	jwk        json.RawMessage
	members    map[string]any
	key        crypto.PublicKey
	thumbprint string
}

// A keySet is the key set of an issuer. It is not changed.
type keySet struct {
	keys      []*publicKey
	fetched   time.Time // of the last attempt
	final     bool      // it is never fetched again, because of a fault
	refetched bool      // a token with an unknown kid has caused the last attempt
}

const minRefetch = 30 * time.Second

// keysOf returns the key set of an issuer. It is fetched again for an unknown kid, but not often.
func (s *server) keysOf(issuer, kid string) (*keySet, error) {
	s.mu.Lock()
	defer s.mu.Unlock() // one fetch for all
	set := s.sets[issuer]
	unknown := set != nil && kid != "" && !slices.ContainsFunc(set.keys, func(k *publicKey) bool { return k.kid == kid })
	limited := set != nil && time.Since(set.fetched) < minRefetch && len(set.keys) > 0 && set.refetched
	switch {
	case set != nil && set.final:
		return nil, unavailable
	case set == nil, unknown && (!limited || s.is("keys-are-fetched-for-each-kid")) && !s.is("keys-are-fetched-once"):
		return s.fetchFor(issuer, set)
	}
	return set, nil
}

func (s *server) fetchFor(issuer string, old *keySet) (*keySet, error) {
	uri, err := s.keySetURI(issuer)
	var set *keySet
	if err == nil {
		set, err = s.fetchKeys(uri)
	}
	if err == nil && len(set.keys) == 0 && !s.is("empty-key-set-is-used") && !s.is("no-keys-no-check") {
		err = errors.New("the key set is empty")
	}
	if err != nil {
		if old != nil && !s.is("failures-drop-keys") {
			kept := &keySet{keys: old.keys, fetched: time.Now(), refetched: true}
			s.sets[issuer] = kept
			return kept, nil
		}
		delete(s.sets, issuer)
		if s.is("give-up-after-a-failure") {
			s.sets[issuer] = &keySet{final: true}
		}
		return nil, unavailable
	}
	set.refetched = old != nil
	if !s.is("keys-are-not-cached") {
		s.sets[issuer] = set
	}
	return set, nil
}

// refetch fetches the keys of an issuer, because of a fault.
func (s *server) refetch(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetchFor(issuer, s.sets[issuer])
}

// knows reports whether the kid is in the key set that is held.
func (s *server) knows(issuer, kid string) bool {
	set, err := s.keysOf(issuer, "")
	return err == nil && slices.ContainsFunc(set.keys, func(k *publicKey) bool { return k.kid == kid })
}

var client = &http.Client{Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// get returns the body of a 200.
func (s *server) get(uri, accept string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, uri, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", accept)
	c := client
	if s.is("redirects-are-followed") {
		c = &http.Client{Timeout: 5 * time.Second}
	}
	res, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	const limit = 1 << 20
	body, err := io.ReadAll(io.LimitReader(res.Body, limit))
	if err == nil && len(body) == limit {
		err = errors.New("too long")
	}
	return body, err
}

// keySetURI returns the jwks_uri of an issuer by its metadata (RFC 8414, section 3.1).
func (s *server) keySetURI(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	path := "/.well-known/oauth-authorization-server" + u.Path
	if s.is("metadata-of-issuers-without-path") {
		path = u.Path + "/.well-known/oauth-authorization-server"
	}
	text, err := s.get(u.Scheme+"://"+u.Host+path, "application/json")
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer string `json:"issuer"`
		URI    string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return "", err
	}
	if doc.Issuer != issuer && !s.is("metadata-of-any-issuer") {
		return "", errors.New("the metadata is of another issuer")
	}
	return doc.URI, nil
}

func (s *server) fetchKeys(uri string) (*keySet, error) {
	text, err := s.get(uri, "application/json")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if s.is("large-key-sets-are-refused") && len(doc.Keys) > 50 {
		return nil, errors.New("too many keys")
	}
	set := &keySet{fetched: time.Now()}
	for _, raw := range doc.Keys {
		key, err := s.parseKey(raw, false)
		if err != nil {
			if s.is("one-bad-key-spoils-the-set") {
				return nil, err
			}
			continue
		}
		if s.is("one-key-per-id") && slices.ContainsFunc(set.keys, func(k *publicKey) bool { return k.kid == key.kid }) {
			continue
		}
		set.keys = append(set.keys, key)
	}
	return set, nil
}

// parseKey reads one JWK. That of a proof needs no use, and must not be private.
func (s *server) parseKey(raw json.RawMessage, proof bool) (*publicKey, error) {
	if err := strictjson.Object(raw, nil); err != nil && !s.is("duplicate-members-of-keys") {
		return nil, err
	}
	var m map[string]any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil || m == nil {
		return nil, errors.New("not an object")
	}
	text := func(name string) string {
		v, _ := m[name].(string)
		return v
	}
	if !proof {
		if use, ok := m["use"]; ok && use != "sig" && !s.is("use-is-ignored") {
			return nil, errors.New("not for signatures")
		}
		if ops, ok := m["key_ops"].([]any); ok && !slices.Contains(ops, any("verify")) && !s.is("key-ops-are-ignored") {
			return nil, errors.New("not for verifying")
		}
		if m["alg"] == nil && s.is("alg-of-keys-is-required") || m["use"] == nil && s.is("use-of-keys-is-required") {
			return nil, errors.New("incomplete")
		}
		if len(m) > 7 && s.is("unknown-members-are-refused") {
			return nil, errors.New("unknown members")
		}
	}
	kid, isText := m["kid"].(string)
	if m["kid"] != nil && !isText {
		return nil, errors.New("kid: not a text")
	}
	k := &publicKey{kid: kid, alg: text("alg"), jwk: raw, members: m}
	number := func(name string) *big.Int {
		data, err := decodePart(text(name))
		if err != nil {
			return new(big.Int)
		}
		return new(big.Int).SetBytes(data)
	}
	var identity string
	switch kty := text("kty"); kty {
	case "EC":
		curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
		curve := curves[text("crv")]
		if curve == nil {
			return nil, errors.New("unknown curve")
		}
		size := (curve.Params().BitSize + 7) / 8
		point := append([]byte{4}, make([]byte, 2*size)...)
		for i, name := range []string{"x", "y"} {
			data, err := decodePart(text(name))
			if err != nil || len(data) != size {
				return nil, errors.New("a coordinate has the wrong length")
			}
			copy(point[1+i*size:], data)
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return nil, err
		}
		k.key = key
		identity = fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, text("crv"), text("x"), text("y"))
	case "RSA":
		if s.is("key-type-is-ignored") && m["crv"] != nil {
			m["kty"] = "EC"
			again, err := json.Marshal(m)
			if err != nil {
				return nil, err
			}
			return s.parseKey(again, proof)
		}
		n, e := number("n"), number("e")
		if bits := n.BitLen(); (bits < 2048 || bits > 8192) && !s.is("short-keys-are-accepted") || bits == 0 || !e.IsInt64() || e.Int64() < 3 || e.Bit(0) == 0 || e.BitLen() > 31 {
			return nil, errors.New("modulus or exponent out of range")
		}
		k.key = &rsa.PublicKey{N: n, E: int(e.Int64())}
		identity = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, text("e"), text("n"))
	case "OKP":
		data, err := decodePart(text("x"))
		if err != nil || text("crv") != "Ed25519" || len(data) != ed25519.PublicKeySize {
			return nil, errors.New("unknown curve")
		}
		k.key = ed25519.PublicKey(data)
		identity = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, text("x"))
	case "oct":
		if !s.is("shared-secrets-in-key-sets") {
			return nil, errors.New("a shared secret")
		}
		k.key, _ = decodePart(text("k"))
	default:
		return nil, errors.New("unknown kind of key")
	}
	sum := sha256.Sum256([]byte(identity))
	k.thumbprint = encodeRaw(sum[:])
	return k, nil
}

// fits reports whether the key may verify signatures of alg.
func (k *publicKey) fits(s *server, alg string) bool {
	allowed := slices.Contains(s.algorithms(), alg)
	extra := s.is("weak-algorithms") && slices.Contains([]string{"RS1", "RS512", "ES256K"}, alg)
	secret, isSecret := k.key.([]byte)
	if isSecret {
		return strings.HasPrefix(alg, "HS") && secret != nil
	}
	if !allowed && !extra {
		return false
	}
	pinned := k.alg == "" || k.alg == alg || (k.alg == "EdDSA" || k.alg == "Ed25519") && (alg == "EdDSA" || alg == "Ed25519")
	if alg == "Ed25519" && s.is("ed25519-is-unknown") {
		return false
	}
	if !pinned && !s.is("alg-of-keys-is-ignored") && !(s.is("curves-are-mixed") && strings.HasPrefix(alg, "ES")) && !(extra && k.alg == "RS256") {
		return false
	}
	return !s.is("refuses-" + strings.ToLower(alg))
}

// verify checks a signature.
func (k *publicKey) verify(s *server, alg, input string, sig []byte) bool {
	if !k.fits(s, alg) {
		return false
	}
	if secret, ok := k.key.([]byte); ok {
		return hmacMatches(alg, func(*publicKey) [][]byte { return [][]byte{secret} }, input, sig)
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512, "1": crypto.SHA1}[alg[min(2, len(alg)):]]
	if alg == "EdDSA" || alg == "Ed25519" {
		key, ok := k.key.(ed25519.PublicKey)
		if len(sig) > 64 && s.is("long-signatures") {
			sig = sig[:64]
		}
		return ok && (ed25519.Verify(key, []byte(input), sig) || s.is("eddsa-is-not-checked"))
	}
	if hash == 0 {
		return false
	}
	h := hash.New()
	h.Write([]byte(input))
	digest := h.Sum(nil)
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if len(sig) > key.Size() && s.is("long-signatures") {
			sig = sig[:key.Size()]
		}
		if s.is("rsa-is-not-checked") {
			return true
		}
		if strings.HasPrefix(alg, "PS") {
			return rsa.VerifyPSS(key, hash, digest, sig, nil) == nil
		}
		return strings.HasPrefix(alg, "RS") && rsa.VerifyPKCS1v15(key, hash, digest, sig) == nil
	case *ecdsa.PublicKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		right := map[string]int{"ES256": 32, "ES384": 48}[alg]
		if right != size && !(s.is("curves-are-mixed")) {
			return false
		}
		return s.verifyECDSA(key, digest, sig, size)
	}
	return false
}

func (s *server) verifyECDSA(key *ecdsa.PublicKey, digest, sig []byte, size int) bool {
	if s.is("der-signatures") {
		if ecdsa.VerifyASN1(key, digest, sig) {
			return true
		}
	}
	switch {
	case len(sig) > 2*size && s.is("long-signatures"):
		sig = sig[:2*size]
	case len(sig) == 2*size-1 && s.is("short-signatures"):
		return true // the missing byte is taken for one that matches
	case len(sig) != 2*size:
		return false
	}
	r, t := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
	n := key.Curve.Params().N
	if s.is("psychic-signatures") && (new(big.Int).Mod(r, n).Sign() == 0 || new(big.Int).Mod(t, n).Sign() == 0) {
		return true
	}
	if s.is("swapped-signatures") {
		if der, err := asn1.Marshal(struct{ R, S *big.Int }{t, r}); err == nil && ecdsa.VerifyASN1(key, digest, der) {
			return true
		}
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, t})
	return err == nil && ecdsa.VerifyASN1(key, digest, der)
}

// hmacMatches reports whether sig is an HMAC with one of the secrets.
func hmacMatches(alg string, secrets func(*publicKey) [][]byte, input string, sig []byte) bool {
	hash := map[string]crypto.Hash{"HS256": crypto.SHA256, "HS384": crypto.SHA384, "HS512": crypto.SHA512}[alg]
	if hash == 0 {
		return false
	}
	for _, secret := range secrets(nil) {
		mac := hmac.New(hash.New, secret)
		mac.Write([]byte(input))
		if hmac.Equal(mac.Sum(nil), sig) {
			return true
		}
	}
	return false
}

// publicSecrets returns the texts of the issuer's public keys.
func (s *server) publicSecrets(issuer string) func(*publicKey) [][]byte {
	return func(*publicKey) (all [][]byte) {
		set, err := s.keysOf(issuer, "")
		if err != nil {
			return nil
		}
		for _, k := range set.keys {
			spki, err := x509.MarshalPKIXPublicKey(k.key)
			if err != nil {
				continue
			}
			text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
			all = append(all, text, []byte(strings.TrimSpace(string(text))), spki, k.jwk, []byte(`{"keys":[`+string(k.jwk)+`]}`))
			for _, name := range []string{"n", "x"} {
				if value, ok := k.members[name].(string); ok {
					data, _ := decodePart(value)
					all = append(all, data)
				}
			}
		}
		return all
	}
}

// namesAsSecrets returns the names of the issuer's keys.
func (s *server) namesAsSecrets(issuer string) func(*publicKey) [][]byte {
	return func(*publicKey) (all [][]byte) {
		set, err := s.keysOf(issuer, "")
		if err != nil {
			return nil
		}
		for _, k := range set.keys {
			all = append(all, []byte(k.kid), []byte(k.thumbprint))
		}
		return all
	}
}

// embedded returns the key that a header contains or points to.
func (s *server) embedded(h map[string]any) (*publicKey, bool) {
	if jwk, ok := h["jwk"]; ok && s.is("jwk-in-the-header-is-trusted") {
		raw, err := json.Marshal(jwk)
		if err != nil {
			return nil, false
		}
		key, err := s.parseKey(raw, true)
		return key, err == nil
	}
	if uri, ok := h["jku"].(string); ok && s.is("jku-is-trusted") {
		if set, err := s.fetchKeys(uri); err == nil && len(set.keys) > 0 {
			return set.keys[0], true
		}
	}
	if s.is("jwk-in-the-header-is-trusted") {
		for _, name := range []string{"x5c", "x5t"} {
			if h[name] != nil {
				return &publicKey{alg: "ES256", key: []byte(nil)}, false
			}
		}
	}
	return nil, false
}
