// Package proof creates DPoP proofs (RFC 9449) with a key in a file.
package proof

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/jose"
)

const (
	algorithm = "ES256" // supported by every server
	maxKey    = 64 << 10
	maxError  = 64 << 10 // bytes of an error response that requests a nonce
)

// A Key signs proofs. It is safe for concurrent use.
type Key struct {
	private *jose.PrivateKey
	public  map[string]any // as it appears in a proof
}

// Open reads the key in a file. If the file does not exist, Open creates it with a new key.
func Open(path string) (*Key, error) {
	key, err := Read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	private, err := jose.GenerateKey(algorithm, "")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(append(bytes.Clone(private.PrivateJWK()), '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return newKey(private)
}

// Read reads the key in a file: a private JWK. Outside Windows, a file that others can access is an error.
func Read(path string) (*Key, error) {
	text, err := config.Content(path, maxKey)
	if err != nil {
		return nil, err
	}
	if about, err := os.Stat(path); err != nil {
		return nil, err
	} else if about.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s: other users can access it (mode %04o): run chmod 600", path, about.Mode().Perm())
	}
	private, err := jose.ParsePrivateKey(text, "")
	if err != nil {
		return nil, fmt.Errorf("%s: is not a private JWK with an alg: %w", path, err)
	}
	return newKey(private)
}

func newKey(private *jose.PrivateKey) (*Key, error) {
	k := &Key{private: private}
	if err := json.Unmarshal(private.PublicJWK(), &k.public); err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	for _, name := range []string{"kid", "alg", "use"} { // not needed in a proof
		delete(k.public, name)
	}
	return k, nil
}

// Thumbprint returns the JWK thumbprint of the key, which is the jkt of tokens that are bound to it.
func (k *Key) Thumbprint() string { return k.private.Public().Thumbprint() }

// A Request holds the data for a proof (RFC 9449, section 4.2).
type Request struct {
	Method string
	URL    string // with or without its query
	Token  string // access token of the request; "" at a token endpoint
	Nonce  string // from the server; "": none
}

// Proof returns a new proof for r. A server accepts it once.
func (k *Key) Proof(r Request) (string, error) {
	claims := map[string]any{"jti": rand.Text(), "htm": r.Method, "htu": bare(r.URL), "iat": time.Now().Unix()}
	if r.Token != "" {
		hash := sha256.Sum256([]byte(r.Token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(hash[:])
	}
	if r.Nonce != "" {
		claims["nonce"] = r.Nonce
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write a proof: %w", err)
	}
	return k.private.Sign(map[string]any{"typ": "dpop+jwt", "jwk": k.public, "kid": nil}, payload)
}

// bare returns url without query and fragment, as htu requires.
func bare(url string) string {
	if i := strings.IndexAny(url, "?#"); i >= 0 {
		return url[:i]
	}
	return url
}

// A Transport adds a proof to each request to a token endpoint. If the server requires a nonce (RFC 9449, section 8), it sends
// the request once more with the nonce.
type Transport struct {
	Key  *Key
	Base http.RoundTripper
}

// RoundTrip implements [http.RoundTripper]. Without GetBody, a request is not sent again.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.send(r, r.Body, "")
	if err != nil {
		return nil, err
	}
	nonce := res.Header.Get("DPoP-Nonce")
	if res.StatusCode != http.StatusBadRequest || nonce == "" || r.GetBody == nil {
		return res, nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxError))
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &answer) != nil || answer.Error != "use_dpop_nonce" {
		res.Body = io.NopCloser(bytes.NewReader(text))
		return res, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	return t.send(r, body, nonce)
}

func (t Transport) send(r *http.Request, body io.ReadCloser, nonce string) (*http.Response, error) {
	made, err := t.Key.Proof(Request{Method: r.Method, URL: r.URL.String(), Nonce: nonce})
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context()) // a RoundTripper must not modify the request
	r.Body = body
	r.Header.Set("DPoP", made)
	return t.Base.RoundTrip(r)
}
