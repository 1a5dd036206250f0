package jwks

import "github.com/valetkey/valetkey/internal/keyset"

// Status shows what [Verifier.Health] is made of.
func (v *Verifier) Status() keyset.Status { return v.keys.(*keyset.Set).Status() }
