package dpop

import (
	"errors"
	"time"

	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// A proof is the payload of a DPoP proof (RFC 9449, section 4.2).
type proof struct {
	id        string    // jti
	method    string    // htm
	url       string    // htu
	issued    time.Time // iat
	tokenHash string    // ath; "" if there is none
	nonce     string    // "" if there is none
}

// readProof decodes the claims. All except ath and nonce are required (RFC 9449, section 4.3, check 3).
func readProof(payload []byte) (*proof, error) {
	var jti, htm, htu, iat, ath, nonce strictjson.Value
	err := strictjson.Object(payload, func(name string, v strictjson.Value) error {
		switch name {
		case "jti":
			jti = v
		case "htm":
			htm = v
		case "htu":
			htu = v
		case "iat":
			iat = v
		case "ath":
			ath = v
		case "nonce":
			nonce = v
		}
		return nil
	}, "jti", "htm", "htu", "iat", "ath", "nonce")
	if err != nil {
		return nil, err
	}
	p := new(proof)
	return p, errors.Join(
		tokenclaims.Text(&p.id, "jti", jti, false),
		tokenclaims.Text(&p.method, "htm", htm, false),
		tokenclaims.Text(&p.url, "htu", htu, false),
		tokenclaims.Date(&p.issued, "iat", iat, false),
		tokenclaims.Text(&p.tokenHash, "ath", ath, true),
		tokenclaims.Text(&p.nonce, "nonce", nonce, true),
	)
}
