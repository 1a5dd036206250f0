package introspect

type Status = status

// Status shows what [Verifier.Health] is made of.
func (v *Verifier) Status() Status { return v.status() }
