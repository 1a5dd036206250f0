package conformance

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"time"
)

// statusList returns the status list token of the issuer (draft-ietf-oauth-status-list, section 5.1). flaw names what is wrong with
// it: typ, sub, signature, iat, no-list, expired, bits, hostile or bomb. With one-bit and two-bits it has the statuses of an example in
// the standard. Empty: nothing.
func (iss *issuer) statusList(flaw string) (string, error) {
	iss.mu.Lock()
	bits, size := bytes.Clone(iss.statuses), 2
	iss.mu.Unlock()
	switch flaw {
	case "bomb":
		bits = make([]byte, 64<<20)
	case "one-bit": // the examples of section 4.1
		bits, size = []byte{0xb9, 0xa3}, 1
	case "two-bits":
		bits = []byte{0xc9, 0x44, 0xf9}
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	z.Write(bits)
	if err := z.Close(); err != nil {
		return "", err
	}
	owner, now := "main", iss.now()
	header := map[string]any{"typ": "statuslist+jwt"}
	list := map[string]any{"bits": size, "lst": encode(packed.Bytes())}
	claims := map[string]any{"iss": iss.url, "sub": iss.url + "/statuses", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "status_list": list}
	switch flaw {
	case "", "bomb", "one-bit", "two-bits", "signature":
	case "typ":
		header["typ"] = "JWT"
	case "sub":
		claims["sub"] = iss.url + "/other"
	case "iat":
		delete(claims, "iat")
	case "no-list":
		delete(claims, "status_list")
	case "expired":
		claims["iat"], claims["exp"] = now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix()
	case "bits":
		list["bits"] = 3
	case "hostile":
		owner = "hostile"
	default:
		return "", fmt.Errorf("unknown flaw of a status list: %q", flaw)
	}
	k, err := findKey(owner, "es256")
	if err != nil {
		return "", err
	}
	header["alg"], header["kid"] = k.alg, "main-es256"
	raw, err := compact(k, k.alg, "", header, claims)
	if err == nil && flaw == "signature" {
		return edited(raw, "flip signature")
	}
	return raw, err
}

// compact signs claims as a JWT, in one of the ways of [signature].
func compact(k *key, alg, way string, header, claims map[string]any) (string, error) {
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := encode(head) + "." + encode(payload)
	sig, err := signature(k, alg, way, input)
	return input + "." + encode(sig), err
}
