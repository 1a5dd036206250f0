package statuslist

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// A snapshot is the content of a list at one time. It is immutable.
type snapshot struct {
	data   []byte
	bits   int           // of each status: 1, 2, 4 or 8
	ttl    time.Duration // zero: none
	expiry time.Time     // zero: none
	key    *keyset.Key   // that signed the list
}

// len returns the number of tokens whose status the list contains.
func (s *snapshot) len() int { return len(s.data) * (8 / s.bits) }

// status returns the status at index, which is not negative, counted from the least significant bits of each byte (section
// 4.1).
func (s *snapshot) status(index int) (status uint8, ok bool) {
	perByte := 8 / s.bits
	if index/perByte >= len(s.data) {
		return 0, false
	}
	return s.data[index/perByte] >> (index % perByte * s.bits) & (1<<s.bits - 1), true
}

// mediaType is the media type of a list in JWT form, in the request (section 8.1) and as its typ (section 5.1).
const mediaType = "application/statuslist+jwt"

// read fetches a list.
func (v *Verifier) read(ctx context.Context, uri string) (*snapshot, error) {
	get := v.fetch
	get.Accept = mediaType
	get.MaxBody = v.maxToken()
	answer, err := get.Get(ctx, uri, "")
	if err != nil {
		return nil, err
	}
	s, err := v.decode(ctx, string(answer.Body), uri)
	if err != nil {
		return nil, fmt.Errorf("the status list is not good: %w", err)
	}
	return s, nil
}

// maxToken returns the length of the longest list as a token: incompressible bits, encoded twice in base64url, and its
// claims.
func (v *Verifier) maxToken() int { return v.cfg.MaxBytes*2 + 16<<10 }

// decode verifies a list token (sections 5.1 and 8.3, step 4). It decompresses the list last, since that is the most
// expensive step.
func (v *Verifier) decode(ctx context.Context, raw, uri string) (*snapshot, error) {
	c, err := jose.ParseWith(raw, jose.Options{Limit: v.maxToken()})
	switch {
	case err != nil:
		return nil, err
	case !jose.SameType(c.Header.Type, "statuslist+jwt"):
		return nil, fmt.Errorf("it has typ %.50q", c.Header.Type)
	case !slices.Contains(v.cfg.Algorithms, c.Header.Algorithm):
		return nil, fmt.Errorf("it is signed with %.20q, which is not allowed", c.Header.Algorithm)
	}
	var iss, sub, iat, exp, ttl, packed strictjson.Value
	err = strictjson.Object(c.Payload, func(name string, value strictjson.Value) error {
		switch name {
		case "iss":
			iss = value
		case "sub":
			sub = value
		case "iat":
			iat = value
		case "exp":
			exp = value
		case "ttl":
			ttl = value
		case "status_list":
			packed = value
		}
		return nil
	}, "iss", "sub", "iat", "exp", "ttl", "status_list")
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	var s snapshot
	var issuer, subject string
	var issued time.Time
	if err := errors.Join(
		tokenclaims.Text(&issuer, "iss", iss, true),
		tokenclaims.Text(&subject, "sub", sub, false),
		tokenclaims.Date(&issued, "iat", iat, false),
		tokenclaims.Date(&s.expiry, "exp", exp, true),
		lifetime(&s.ttl, ttl),
	); err != nil {
		return nil, err
	}
	switch {
	case issuer != "" && issuer != v.cfg.Issuer:
		return nil, fmt.Errorf("it is of the issuer %.200q", issuer)
	case subject != uri: // step 4a
		return nil, fmt.Errorf("its sub is %.200q and not where it was fetched", subject)
	case !s.expiry.IsZero() && !time.Now().Before(s.expiry): // step 4c
		return nil, errors.New("it has expired")
	}
	if s.key, err = v.keys.Verify(ctx, c, keyset.Terms{Issuer: v.cfg.Issuer}); err != nil {
		return nil, err
	}
	if err := s.unpack(packed, v.cfg.MaxBytes); err != nil {
		return nil, fmt.Errorf("status_list: %w", err)
	}
	return &s, nil
}

// lifetime decodes ttl, a positive number of seconds (section 5.1).
func lifetime(dst *time.Duration, v strictjson.Value) error {
	if v.IsEmpty() {
		return nil
	}
	n, _ := v.Number() // 0 for anything else
	if n <= 0 {
		return errors.New("ttl is not a positive number")
	}
	*dst = time.Duration(min(n, math.MaxInt32) * float64(time.Second))
	return nil
}

// unpack decodes the member status_list (section 4.2), whose list may have at most limit bytes.
func (s *snapshot) unpack(packed strictjson.Value, limit int) error {
	if packed == nil {
		return errors.New("is missing")
	}
	bits, err := member(packed, "bits")
	if err != nil {
		return err
	}
	n, _ := bits.Number() // 0 for anything else
	if !slices.Contains([]float64{1, 2, 4, 8}, n) {
		return errors.New("bits is none of 1, 2, 4 and 8")
	}
	s.bits = int(n)
	lst, err := member(packed, "lst")
	if err != nil {
		return err
	}
	text, ok := lst.Text()
	if !ok {
		return errors.New("lst is missing or not a string")
	}
	compressed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return errors.New("lst is not base64url")
	}
	from := bytes.NewReader(compressed)
	inflater, err := zlib.NewReader(from)
	if err != nil {
		return fmt.Errorf("lst: %w", err)
	}
	s.data, err = io.ReadAll(io.LimitReader(inflater, int64(limit)+1))
	switch {
	case err != nil:
		return fmt.Errorf("lst: %w", err)
	case len(s.data) > limit:
		return fmt.Errorf("lst has more than %d bytes", limit)
	case from.Len() > 0:
		return errors.New("lst has something behind its end")
	}
	s.data = bytes.Clone(s.data) // the buffer that it grew in may be twice as large
	return nil
}
