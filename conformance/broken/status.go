package broken

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"io"
	"math"
	"strings"
)

// A statusList is the content of a status list token.
type statusList struct {
	bits int
	data []byte
}

// status checks the status of a token in its list (draft-ietf-oauth-status-list, section 8.3).
func (s *server) status(claims map[string]any, issuer string) error {
	claim, there := claims["status"]
	if !there || s.is("status-is-ignored") {
		return nil
	}
	object, _ := claim.(map[string]any)
	ref, _ := object["status_list"].(map[string]any)
	uri, _ := ref["uri"].(string)
	literal, ok := ref["idx"].(json.Number)
	index, err := literal.Float64()
	if !ok || err != nil || index < 0 || index != math.Trunc(index) || index > 1<<53 || uri == "" {
		if s.is("odd-status-is-ignored") {
			return nil
		}
		return invalidToken("status: malformed")
	}
	if !strings.HasPrefix(uri, issuer+"/") && !s.is("status-lists-of-any-host") {
		return invalidToken("status: a list of another host")
	}
	list, err := s.listAt(uri, issuer)
	if err != nil {
		if s.is("unknown-status-is-valid") {
			return nil
		}
		return unavailable
	}
	per := 8 / list.bits
	at := int(index) / per
	if at >= len(list.data) {
		if s.is("status-beyond-the-list-is-valid") {
			return nil
		}
		return invalidToken("status: beyond the list")
	}
	shift := int(index) % per * list.bits
	if s.is("status-bits-in-reverse") {
		shift = 8 - list.bits - shift
	}
	value := int(list.data[at]) >> shift & (1<<list.bits - 1)
	switch {
	case value == 0 && !s.is("status-valid-is-refused"), value == 1 && s.is("status-invalid-is-accepted"), value > 1 && s.is("status-suspended-is-accepted"):
		return nil
	}
	return invalidToken("status: %d", value)
}

func (s *server) listAt(uri, issuer string) (*statusList, error) {
	accept := "application/statuslist+jwt"
	if s.is("status-list-of-any-type") {
		accept = "*/*"
	}
	text, err := s.get(uri, accept)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 {
		return nil, unavailable
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return nil, err
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return nil, err
	}
	var header struct{ Typ, Alg, Kid string }
	var claims struct {
		Sub  string
		Iat  *float64
		Exp  *float64
		List *struct {
			Bits int
			Lst  string
		} `json:"status_list"`
	}
	if err := json.Unmarshal(head, &header); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, err
	}
	now := s.seconds()
	switch {
	case header.Typ != "statuslist+jwt" && !s.is("typ-of-status-lists-is-ignored"),
		claims.Sub != uri && !s.is("sub-of-status-lists-is-ignored"),
		claims.Iat == nil && !s.is("iat-of-status-lists-is-ignored"),
		claims.Exp != nil && *claims.Exp < now && !s.is("exp-of-status-lists-is-ignored"):
		return nil, unavailable
	}
	if !s.is("signatures-of-status-lists-are-not-checked") {
		set, err := s.keysOf(issuer, header.Kid)
		if err != nil {
			return nil, err
		}
		sig, err := decodePart(parts[2])
		if err != nil {
			return nil, err
		}
		good := false
		for _, key := range set.keys {
			good = good || key.kid == header.Kid && key.verify(s, header.Alg, parts[0]+"."+parts[1], sig)
		}
		if !good {
			return nil, unavailable
		}
	}
	if claims.List == nil {
		if s.is("status-lists-may-be-empty") {
			return &statusList{1, make([]byte, 1000)}, nil
		}
		return nil, unavailable
	}
	bits := claims.List.Bits
	if bits != 1 && bits != 2 && bits != 4 && bits != 8 {
		if !s.is("bits-of-status-lists-are-ignored") {
			return nil, unavailable
		}
		bits = 2
	}
	packed, err := decodePart(claims.List.Lst)
	if err != nil {
		return nil, err
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	limit := int64(4 << 20)
	if s.is("status-lists-have-no-limit") {
		limit = 1 << 40
	}
	data, err := io.ReadAll(io.LimitReader(z, limit))
	if err == nil && int64(len(data)) == limit {
		err = unavailable
	}
	return &statusList{bits, data}, err
}
