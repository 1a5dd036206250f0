package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// hashes maps the ends of names of algorithms to their hashes. RS1 is SHA-1, which no JWT may use.
var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512, "1": crypto.SHA1}

func hashOf(alg string) (crypto.Hash, error) {
	if len(alg) > 2 {
		if h, ok := hashes[alg[2:]]; ok {
			return h, nil
		}
	}
	return 0, fmt.Errorf("unknown algorithm %q", alg)
}

// signature signs input as alg specifies (RFC 7518, section 3; RFC 8037, section 3.1), or in a way that no library offers:
//
//	none         no signature
//	hmac TEXT    HMAC with a public text as the secret: pem, pkcs1, der, jwk, set, modulus, thumbprint, kid, empty
//	der          ECDSA in the encoding of X.509
//	zero, zero-r, zero-s, order    ECDSA with r and s, or one of them, that are 0 or the order of the curve
//	short, long  without the last byte, with one more
//	swapped      ECDSA with r and s exchanged
//	high-s       ECDSA with n-s in place of s
func signature(k *key, alg, way, input string) ([]byte, error) {
	way, argument, _ := strings.Cut(way, " ")
	switch way {
	case "none":
		return nil, nil
	case "hmac":
		return hmacWith(k, alg, argument, input)
	case "zero", "zero-r", "zero-s", "order", "swapped", "high-s", "der":
		return oddECDSA(k, alg, way, input)
	}
	good, err := sign(k.signer, alg, input)
	if err != nil {
		return nil, err
	}
	switch way {
	case "":
		return good, nil
	case "short":
		return good[:len(good)-1], nil
	case "long":
		return append(good, 0), nil
	}
	return nil, fmt.Errorf("unknown way to sign %q", way)
}

func sign(signer crypto.Signer, alg, input string) ([]byte, error) {
	if private, ok := signer.(ed25519.PrivateKey); ok {
		return ed25519.Sign(private, []byte(input)), nil
	}
	h, err := hashOf(alg)
	if err != nil {
		return nil, err
	}
	digest := h.New()
	digest.Write([]byte(input))
	sum := digest.Sum(nil)
	switch private := signer.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, sum)
		if err != nil {
			return nil, err
		}
		return fixed(private, r, s), nil
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			return rsa.SignPSS(rand.Reader, private, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h})
		}
		return rsa.SignPKCS1v15(rand.Reader, private, h, sum)
	}
	return nil, errors.New("unknown kind of key")
}

// fixed encodes a signature as RFC 7518, section 3.4, requires.
func fixed(private *ecdsa.PrivateKey, r, s *big.Int) []byte {
	size := (private.Curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out
}

func oddECDSA(k *key, alg, way, input string) ([]byte, error) {
	private, ok := k.signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %s is not a key for ECDSA", way, k.id)
	}
	good, err := sign(private, alg, input)
	if err != nil {
		return nil, err
	}
	n := private.Curve.Params().N
	r, s := new(big.Int).SetBytes(good[:len(good)/2]), new(big.Int).SetBytes(good[len(good)/2:])
	switch way {
	case "der":
		h, err := hashOf(alg)
		if err != nil {
			return nil, err
		}
		digest := h.New()
		digest.Write([]byte(input))
		return ecdsa.SignASN1(rand.Reader, private, digest.Sum(nil))
	case "zero":
		r, s = new(big.Int), new(big.Int)
	case "zero-r":
		r = new(big.Int)
	case "zero-s":
		s = new(big.Int)
	case "order":
		r, s = n, n
	case "swapped":
		r, s = s, r
	case "high-s":
		s = new(big.Int).Sub(n, s)
	}
	return fixed(private, r, s), nil
}

// hmacWith makes the signature of the attack of RFC 8725, section 2.1: a text that everyone knows is the secret.
func hmacWith(k *key, alg, text, input string) ([]byte, error) {
	jwk, err := json.Marshal(k.jwk)
	if err != nil {
		return nil, err
	}
	var secret []byte
	switch text {
	case "pem":
		secret = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki})
	case "pem-trimmed":
		secret = []byte(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki}))))
	case "der":
		secret = k.spki
	case "jwk":
		secret = jwk
	case "set":
		secret = []byte(`{"keys":[` + string(jwk) + `]}`)
	case "modulus", "coordinate":
		member := map[string]string{"modulus": "n", "coordinate": "x"}[text]
		value, _ := k.jwk[member].(string)
		if secret, err = base64.RawURLEncoding.DecodeString(value); err != nil {
			return nil, err
		}
	case "thumbprint":
		secret = []byte(k.thumbprint())
	case "kid":
		secret = []byte(k.id)
	case "empty":
	case "zeros":
		secret = make([]byte, 32)
	case "word":
		secret = []byte("secret")
	default:
		return nil, fmt.Errorf("hmac: unknown text %q", text)
	}
	h, err := hashOf(alg)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(h.New, secret)
	mac.Write([]byte(input))
	return mac.Sum(nil), nil
}

// edited changes the text of a token after it is signed. A change is a word, and often the name of a part and a text:
//
//	flip PART          changes one bit of the decoded part
//	pad PART           adds the padding of base64
//	standard PART      uses the alphabet of base64 that is not safe in URLs
//	insert PART TEXT   inserts TEXT in the middle of the part
//	spare PART         sets the unused bits of the last character
//	empty PART         removes the part, but not its dots
//	claim NAME VALUE   sets a claim to a text
//	cut N              removes the last N characters
//	append TEXT, prepend TEXT
//	json, json-general turns the token into the JSON serialization (RFC 7515, section 7.2)
func edited(token, change string) (string, error) {
	word, argument, _ := strings.Cut(change, " ")
	switch word {
	case "append":
		return token + argument, nil
	case "prepend":
		return argument + token, nil
	case "cut":
		n := 0
		if _, err := fmt.Sscan(argument, &n); err != nil || n > len(token) {
			return "", fmt.Errorf("cut: %q", argument)
		}
		return token[:len(token)-n], nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("%s: the token does not have three parts", word)
	}
	switch word {
	case "claim":
		name, value, _ := strings.Cut(argument, " ")
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			return "", err
		}
		var claims map[string]any
		if err := json.Unmarshal(payload, &claims); err != nil {
			return "", err
		}
		claims[name] = value
		if payload, err = json.Marshal(claims); err != nil {
			return "", err
		}
		parts[1] = encode(payload)
		return strings.Join(parts, "."), nil
	case "json":
		text, err := json.Marshal(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
		return string(text), err
	case "json-general":
		text, err := json.Marshal(map[string]any{"payload": parts[1],
			"signatures": []any{map[string]string{"protected": parts[0], "signature": parts[2]}}})
		return string(text), err
	}
	name, text, _ := strings.Cut(argument, " ")
	i, ok := map[string]int{"header": 0, "payload": 1, "signature": 2}[name]
	if !ok {
		return "", fmt.Errorf("%s: unknown part %q", word, name)
	}
	part := parts[i]
	raw, err := base64.RawURLEncoding.DecodeString(part)
	switch word {
	case "flip":
		if err != nil || len(raw) == 0 {
			return "", errors.New("flip: the part cannot be decoded")
		}
		raw[len(raw)/2] ^= 1
		part = encode(raw)
	case "pad":
		part += strings.Repeat("=", max(1, (4-len(part)%4)%4))
	case "standard":
		part = strings.NewReplacer("-", "+", "_", "/").Replace(part)
	case "insert":
		part = part[:len(part)/2] + text + part[len(part)/2:]
	case "spare":
		part, err = withSpareBits(part)
		if err != nil {
			return "", err
		}
	case "empty":
		part = ""
	default:
		return "", fmt.Errorf("unknown change %q", word)
	}
	parts[i] = part
	return strings.Join(parts, "."), nil
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// withSpareBits sets the lowest bit of the last character, which base64url leaves unused if the length is not a multiple of four.
func withSpareBits(part string) (string, error) {
	if len(part)%4 == 0 || part == "" {
		return "", errors.New("spare: the part has no unused bits")
	}
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + string(alphabet[last|1]), nil
}
