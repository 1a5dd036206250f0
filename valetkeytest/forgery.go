package valetkeytest

import (
	"iter"
	"time"
)

// Forgeries returns tokens that every resource server must refuse, whether strict or lenient, each with a name for its
// defect. The options apply to each token, which would be valid without that one defect. The resource server must know the
// issuer by its public keys; the option [Secret] is therefore not supported.
//
//	for name, token := range iss.Forgeries(valetkeytest.Scopes("orders:read")) {
//		t.Run(name, func(t *testing.T) { /* 401 */ })
//	}
func (iss *Issuer) Forgeries(opts ...Option) iter.Seq2[string, string] {
	iss.t.Helper()
	return func(yield func(name, token string) bool) {
		for _, f := range iss.forgeries() {
			if !yield(f.name, iss.Token(append(opts[:len(opts):len(opts)], f.opts...)...)) {
				return
			}
		}
	}
}

type forgery struct {
	name string
	opts []Option
}

func (iss *Issuer) forgeries() []forgery {
	day := iss.Now().Add(24 * time.Hour).Unix()
	with := func(opts ...Option) []Option { return opts }
	return []forgery{
		{"the algorithm none", with(Unsigned())},
		{"the algorithm nOnE", with(Unsigned(), Header("alg", "nOnE"))},
		{"no signature", with(spoil(dropSignature))},
		{"a signature with a bit flipped", with(TamperedSignature())},
		{"claims changed after signing", with(TamperedPayload())},
		{"an unknown key", with(UnknownKey())},
		{"an unknown key under the ID of the issuer's key", with(UnknownKey(), KeyID(iss.KeyID()))},
		{"a key that the header brings along", with(UnknownKey(), iss.ownKeyInHeader())},
		{"a key set that the header points to", with(UnknownKey(), Header("jku", "http://127.0.0.1:1/jwks"))},
		{"the public key as a shared secret", with(Secret(iss.JWKS()), KeyID(iss.KeyID()))},
		{"another algorithm in the header than the key's", with(Header("alg", "HS256"))},
		{"an unknown critical extension", with(Header("crit", []string{"exp2"}), Header("exp2", day))},
		{"the type of a logout token", with(Type("logout+jwt"))},
		{"expired", with(Expired())},
		{"not yet valid", with(NotYetValid())},
		{"no expiry", with(Claim("exp", nil))},
		{"another issuer", with(WrongIssuer())},
		{"another audience", with(WrongAudience())},
		{"no audience", with(Claim("aud", nil))},
		{"claims that are not an object", with(Payload(`[]`))},
	}
}

func dropSignature(parts []string) error {
	parts[2] = ""
	return nil
}

// ownKeyInHeader puts the unpublished key into the header, as jwk (RFC 7515, section 4.1.3).
func (iss *Issuer) ownKeyInHeader() Option {
	return func(d *draft) {
		k, err := iss.foreignKey(d.algorithm)
		if err != nil {
			return // signing will fail and report the error
		}
		d.header["jwk"] = k.PublicJWK()
	}
}
