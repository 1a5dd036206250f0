package keys

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A protected is a secret of another party in the store. Without a seal it is in clear text, like the keys.
type protected struct {
	SealID string `json:"seal_id,omitempty"`
	Text   []byte `json:"text"`
}

// Protect encrypts a secret for the store, as signing keys are. label is the record that the secret belongs to; it cannot be read
// under another label.
func (r *Ring) Protect(secret, label string) ([]byte, error) {
	p := protected{Text: []byte(secret)}
	if r.seal != nil {
		p.SealID, p.Text = r.seal.id, r.seal.aead.Seal(nil, nil, []byte(secret), []byte(label))
	}
	return json.Marshal(p)
}

// Reveal returns a secret that Protect has encrypted under the present or the preceding secret.
func (r *Ring) Reveal(text []byte, label string) (string, error) {
	var p protected
	if err := json.Unmarshal(text, &p); err != nil {
		return "", fmt.Errorf("read a protected secret: %w", err)
	}
	if p.SealID == "" {
		return string(p.Text), nil
	}
	for _, s := range []*seal{r.seal, r.before} {
		if s == nil || s.id != p.SealID {
			continue
		}
		secret, err := s.aead.Open(nil, nil, p.Text, []byte(label))
		if err != nil {
			return "", errors.New("the protected secret is damaged, or belongs to another record")
		}
		return string(secret), nil
	}
	return "", ErrSeal
}
