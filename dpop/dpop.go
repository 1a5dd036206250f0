// Package dpop verifies proofs of possession (RFC 9449). With a proof, the sender of a request shows that it holds the key
// that its access token is bound to.
//
//	proofs, err := dpop.New(dpop.Config{})
//	...
//	guard, err := middleware.New(middleware.Config{Verifier: keys, DPoP: proofs})
//
// A guard of package middleware calls the verifier. For other uses of proofs, such as a token endpoint (section 5), call
// [Verifier.Verify] directly.
//
// Each proof is valid for one request. [ReplayStore] enforces that: by default in the memory of this process, and for several
// replicas in storage that they share. [Nonces] also bind proofs to the clock of the server, so that a client can neither
// make proofs in advance nor depends on a correct clock.
//
// # What a proof does not cover
//
// A proof covers the method of a request, its URL without the query, and the access token. It does not cover the query, the
// other header fields or the body: anyone who can change those on the way can also do so with DPoP (section 11.7). Of the
// proof's header, only typ, alg, jwk and crit are evaluated. exp and nbf in a proof have no effect, since section 4.2 does
// not define them.
package dpop

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Config configures a [Verifier]. The zero value is suitable for a single process.
type Config struct {
	_ struct{} // keyed literals only

	// Algorithms lists the accepted signature algorithms of proofs. Challenges announce them. Only asymmetric ones are
	// allowed (RFC 9449, section 11.6). Nil: ES256, ES384, PS256, EdDSA and Ed25519, which are those of FAPI 2.0 and ES384.
	Algorithms []string

	// Window is the maximum age of a proof, measured from its iat. With Nonces, the lifetime of the nonce applies instead.
	// Zero: 60 s; at most 10 min (RFC 9449, section 11.1).
	Window time.Duration

	// Leeway is how far in the future the iat of a proof may be, and how far the clocks of replicas may differ. Zero: 10 s;
	// negative: none; at most 10 min.
	Leeway time.Duration

	// ReplayStore records used proofs. Processes that serve the same URLs must share it; otherwise each of them accepts a
	// proof once. [InsecureAllowReplays] accepts a proof any number of times. Nil: [NewReplayStore] with its default size.
	//
	// Each client has a share of the space; see [MemoryReplayStore] and [Request]. To enforce that for any other store, the
	// Verifier puts a MemoryReplayStore of the default size before it, as [MemoryReplayStore.Before] describes.
	ReplayStore ReplayStore

	// Nonces requires proofs to contain a nonce of the server (RFC 9449, sections 8 and 9). Nil: no nonce is required.
	Nonces *Nonces

	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

const (
	defaultWindow = 60 * time.Second
	maxWindow     = 10 * time.Minute
	defaultLeeway = 10 * time.Second
)

var defaultAlgorithms = []string{"ES256", "ES384", "PS256", "EdDSA", "Ed25519"}

// Verifier verifies proofs. It is safe for concurrent use and need not be closed.
type Verifier struct {
	algorithms     []string // at least one
	window, leeway time.Duration
	replays        sharing
	nonces         *Nonces // nil: no nonce is required
	now            func() time.Time
}

// New returns a Verifier. The error lists every mistake in cfg.
func New(cfg Config) (*Verifier, error) {
	wrong := mistakes.List{Package: "dpop"}
	for i, alg := range cfg.Algorithms {
		if !slices.Contains(jose.Algorithms(), alg) {
			wrong.Add(fmt.Sprintf("Algorithms[%d]", i), "%q is not a supported asymmetric signature algorithm", alg)
		}
	}
	if cfg.Window < 0 || cfg.Window > maxWindow {
		wrong.Add("Window", "%v is not between 0 and %v", cfg.Window, maxWindow)
	}
	if cfg.Leeway > maxWindow {
		wrong.Add("Leeway", "%v is more than %v", cfg.Leeway, maxWindow)
	}
	if cfg.Nonces != nil && len(cfg.Nonces.keys) == 0 {
		wrong.Add("Nonces", "must be created with NewNonces")
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	v := &Verifier{
		algorithms: slices.Clone(cfg.Algorithms),
		window:     cfg.Window,
		leeway:     max(cfg.Leeway, 0),
		replays:    sharingOf(cfg.ReplayStore),
		nonces:     cfg.Nonces,
		now:        cfg.Now,
	}
	if len(v.algorithms) == 0 {
		v.algorithms = defaultAlgorithms
	}
	if v.window == 0 {
		v.window = defaultWindow
	}
	if cfg.Leeway == 0 {
		v.leeway = defaultLeeway
	}
	if v.now == nil {
		v.now = time.Now
	}
	return v, nil
}

// Algorithms returns the accepted signature algorithms, for the algs parameter of a challenge (RFC 9449, section 7.1) and for
// dpop_signing_alg_values_supported (section 5.1; RFC 9728, section 2).
func (v *Verifier) Algorithms() []string { return slices.Clone(v.algorithms) }

// Nonce returns the current nonce, for the DPoP-Nonce header of a refusal with [valetkey.UseNonce]. It returns "" if no nonce
// is required.
func (v *Verifier) Nonce() string {
	if v.nonces == nil {
		return ""
	}
	return v.nonces.at(v.now()).current
}

// Request describes the request that carried a proof.
type Request struct {
	Proofs     []string // the values of the DPoP header lines; exactly one is required
	Method     string   // as sent
	URL        string   // absolute, as the client saw it; a query is ignored
	Token      string   // the access token that the proof is for; "" at a token endpoint, where there is none
	Thumbprint string   // of the required key of the proof: jkt of cnf; "": any key

	// Issuer, Client and Subject come from the access token (iss, client_id and sub) or from the request at a token endpoint.
	// They determine whose share of the memory of used proofs this proof takes: that of Client at Issuer and, within it, that
	// of Subject. Without Client, Subject has both shares; without Subject, the key of the proof takes its place. Client and
	// Subject must be verified.
	Issuer, ClientID, Subject string
}

// Verify checks the proof of r and marks it as used: a second time it is refused.
//
// A refusal is a [*valetkey.Error] with the code [valetkey.UseNonce], [valetkey.InvalidToken] if the proof is made with a key
// other than r.Thumbprint, or [valetkey.InvalidProof] in all other cases. Any other error is a failure of
// [Config.ReplayStore].
//
// Verify the token first or, at a token endpoint, authenticate the client: an accepted proof takes space in the memory of
// used proofs. If the key must be known before that, call [Verifier.Check] and then [Proof.Use].
func (v *Verifier) Verify(ctx context.Context, r Request) (Proof, error) {
	p, err := v.Check(r)
	if err != nil {
		return Proof{}, err
	}
	if err := p.Use(ctx); err != nil {
		return Proof{}, err
	}
	return p, nil
}

// Proof is a proof that [Verifier.Check] has accepted. The zero value cannot be used.
type Proof struct {
	replays    sharing
	thumbprint string
	next       string
	use        use
}

// Thumbprint returns the thumbprint of the proof's key (RFC 7638, SHA-256, base64url).
func (p Proof) Thumbprint() string { return p.thumbprint }

// NextNonce returns the nonce that the response must carry in its DPoP-Nonce header because the proof contains an older one
// (RFC 9449, section 8.2). It returns "" if no new nonce is needed. A response with this header must not be cached.
func (p Proof) NextNonce() string { return p.next }

// Use marks the proof as used. A refusal with [valetkey.InvalidProof] means that it was used before; any other error is a
// failure of [Config.ReplayStore].
func (p Proof) Use(ctx context.Context) error {
	if p.replays == nil {
		return errors.New("dpop: the proof was not checked")
	}
	// RFC 9449, section 11.1. A store uses the real time.
	fresh, err := p.replays.useShared(ctx, p.use)
	switch {
	case err != nil:
		return fmt.Errorf("dpop: looking up whether a proof was used: %w", err)
	case !fresh:
		return refuse(valetkey.ReasonProofUsed, nil)
	}
	return nil
}

// Check does the same as [Verifier.Verify] but does not mark the proof as used. It writes nothing, so it is safe to call for
// unauthenticated requests. Do not act on the proof before [Proof.Use] has returned nil.
func (v *Verifier) Check(r Request) (Proof, error) {
	// RFC 9449, section 4.3. The checks are in the order of their cost.
	if len(r.Proofs) != 1 { // check 1
		return Proof{}, refuse(valetkey.ReasonProofCount, nil)
	}
	c, err := jose.ParseProof(r.Proofs[0]) // checks 2 and 7
	if err != nil {
		return Proof{}, refuse(valetkey.ReasonProofMalformed, err)
	}
	if !jose.SameType(c.Header.Type, "dpop+jwt") { // check 4
		return Proof{}, refuse(valetkey.ReasonProofType, nil)
	}
	if !slices.Contains(v.algorithms, c.Header.Algorithm) { // check 5
		return Proof{}, refuse(valetkey.ReasonProofAlgorithm, tokenclaims.Mismatch("alg", "proof", []string{c.Header.Algorithm}, func() []string { return v.algorithms }))
	}
	p, err := readProof(c.Payload) // check 3
	if err != nil {
		return Proof{}, refuse(valetkey.ReasonProofClaim, err)
	}
	if p.method != r.Method { // check 8; letter case counts (RFC 9110, section 9.1)
		return Proof{}, refuse(valetkey.ReasonProofMethod, nil)
	}
	target, ok := sameURL(p.url, r.URL) // check 9
	if !ok {
		return Proof{}, refuse(valetkey.ReasonProofURL, fmt.Errorf("htu: %.200q in the proof, %.200q requested", withoutQuery(p.url), withoutQuery(r.URL)))
	}
	if r.Token != "" && !p.isFor(r.Token) { // check 12a
		return Proof{}, refuse(valetkey.ReasonProofToken, nil)
	}
	key := c.Header.Key
	if r.Thumbprint != "" && key.Thumbprint() != r.Thumbprint { // check 12b; section 7.1 specifies the code
		return Proof{}, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonProofKey}
	}
	now := v.now()
	end, next, err := v.end(p, now) // checks 10 and 11
	if err != nil {
		return Proof{}, err
	}
	if err := key.Verify(c); err != nil { // check 6
		return Proof{}, refuse(valetkey.ReasonProofSignature, err)
	}
	// Last, so that only the holder of the key can use up a proof.
	return Proof{
		replays: v.replays, thumbprint: key.Thumbprint(), next: next,
		use: use{
			key:    p.identity(key.Thumbprint(), target),
			issuer: r.Issuer,
			client: cmp.Or(r.ClientID, r.Subject, key.Thumbprint()),
			user:   cmp.Or(r.Subject, key.Thumbprint()),
			until:  time.Now().Add(end.Sub(now)),
		},
	}, nil
}

// end returns the time after which no replica accepts p, and the nonce that replaces its nonce. The error is the reason why p
// is not accepted now.
func (v *Verifier) end(p *proof, now time.Time) (end time.Time, next string, err error) {
	if v.nonces != nil { // sections 4.3, check 10, and 9
		nonces := v.nonces.at(now)
		end, ok := nonces.end(p.nonce, now)
		if !ok {
			return end, "", &valetkey.Error{Code: valetkey.UseNonce, Reason: valetkey.ReasonProofNonce}
		}
		if p.nonce != nonces.current { // section 8.2
			next = nonces.current
		}
		return end.Add(v.leeway), next, nil // section 11.1: the time is that of the nonce, not the client's
	}
	switch {
	case now.Sub(p.issued) > v.window:
		return time.Time{}, "", refuse(valetkey.ReasonProofTooOld, nil)
	case p.issued.Sub(now) > v.leeway:
		return time.Time{}, "", refuse(valetkey.ReasonProofFromFuture, nil)
	}
	return p.issued.Add(v.window + v.leeway), "", nil
}

// isFor reports whether p has the hash of token (RFC 9449, section 4.2: ath).
func (p *proof) isFor(token string) bool {
	var text [43]byte
	sum := sha256.Sum256([]byte(token))
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return string(text[:]) == p.tokenHash
}

// identity returns the key under which a use of the proof is recorded. A jti is unique only within a key and a target;
// otherwise one client could use up the proofs of another.
func (p *proof) identity(thumbprint, target string) [32]byte {
	var room [512]byte
	text := room[:0]
	for _, part := range [...]string{thumbprint, p.method, target, p.id} {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	return sha256.Sum256(text)
}

func refuse(reason valetkey.Reason, cause error) error {
	return &valetkey.Error{Code: valetkey.InvalidProof, Reason: reason, Err: cause}
}
