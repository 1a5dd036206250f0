package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// attacks are the tokens that a candidate should refuse.
var attacks = []string{"bad signature", "swapped payload", "wrong issuer", "wrong audience", "expired"}

// forgery returns a token that is good but for one thing.
func (iss *issuer) forgery(attack string) (string, error) {
	claims := iss.claims()
	switch attack {
	case "wrong issuer":
		claims["iss"] = "https://evil.example.com"
	case "wrong audience":
		claims["aud"] = "https://other.example.com"
	case "expired":
		claims["iat"], claims["exp"] = time.Now().Add(2*longAgo).Unix(), time.Now().Add(longAgo).Unix()
	}
	raw, err := iss.sign(claims)
	if err != nil {
		return "", err
	}
	parts := strings.Split(raw, ".")
	switch attack {
	case "bad signature":
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			return "", err
		}
		signature[len(signature)/2] ^= 1
		parts[2] = base64.RawURLEncoding.EncodeToString(signature)
	case "swapped payload": // that of another good token
		other, err := iss.sign(iss.claims())
		if err != nil {
			return "", err
		}
		parts[1] = strings.Split(other, ".")[1]
	}
	return strings.Join(parts, "."), nil
}

// A proof is what a candidate was seen to do: refused[attack].
type proof map[string]bool

// prove sends a good token and one of each attack through all forms of c. The good one must be accepted, and a signature
// that is wrong refused: what else a candidate does not look at is for the table.
func prove(c candidate, iss *issuer) (proof, error) {
	forms, err := c.forms()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	seen := proof{}
	for form, accepts := range forms {
		good, err := iss.sign(iss.claims())
		if err != nil {
			return nil, err
		}
		for range 2 { // the second time it may be remembered
			if err := accepts(newToken(good)); err != nil {
				return nil, fmt.Errorf("%s, %s: a good token is refused: %w", c.name, form, err)
			}
		}
		for _, attack := range attacks {
			raw, err := iss.forgery(attack)
			if err != nil {
				return nil, err
			}
			refused := true
			for range 2 {
				refused = refused && accepts(newToken(raw)) != nil
			}
			before, known := seen[attack]
			seen[attack] = refused && (before || !known)
		}
		if !seen["bad signature"] || !seen["swapped payload"] {
			return nil, fmt.Errorf("%s, %s: a forged token is accepted", c.name, form)
		}
	}
	return seen, nil
}

// forms returns the verifier and the guard of c, whichever there are.
func (c candidate) forms() (map[string]func(*token) error, error) {
	forms := map[string]func(*token) error{}
	if c.verify != nil {
		forms["verifier"] = func(t *token) error { return c.verify(t.raw) }
	}
	if c.guard != nil {
		reached := false
		h, err := c.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
		if err != nil {
			return nil, err
		}
		forms["guard"] = func(t *token) error {
			reached = false
			err := t.serve(h)
			if err == nil && !reached {
				return fmt.Errorf("the handler was not reached, status %d", t.response.status)
			}
			if err != nil && reached {
				return nil // a refusal that comes after the handler has run is none
			}
			return err
		}
	}
	return forms, nil
}

// proofTable proves every candidate with every algorithm.
func proofTable() (*table, error) {
	t := &table{
		id: "proof", title: "What each candidate was seen to refuse",
		note: "Each candidate is given a good token, which it must accept, and one of each kind below, with RS256, ES256 and EdDSA. " +
			"Each is configured with all that its settings can check. \"**No**\": the token was accepted.",
		head: append([]string{"candidate", "version"}, attacks...),
	}
	rows := map[string]proof{}
	var order []candidate
	for _, algorithm := range algorithms {
		iss, err := newIssuer(algorithm)
		if err != nil {
			return nil, err
		}
		all, err := candidates(iss)
		if err != nil {
			return nil, err
		}
		order = all
		for _, c := range all {
			p, err := prove(c, iss)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", algorithm, err)
			}
			if rows[c.name] == nil {
				rows[c.name] = p
			}
			for attack, refused := range p {
				rows[c.name][attack] = rows[c.name][attack] && refused
			}
		}
	}
	for _, c := range order {
		row := []string{c.name, version(c.module)}
		for _, attack := range attacks {
			row = append(row, map[bool]string{true: "refused", false: "**no**"}[rows[c.name][attack]])
		}
		t.rows = append(t.rows, row)
	}
	return t, nil
}

// longAgo is older than the leeway of any candidate.
const longAgo = -time.Hour

var algorithms = []string{"RS256", "ES256", "EdDSA"}
