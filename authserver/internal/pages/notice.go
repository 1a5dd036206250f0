package pages

// A notice reports the result of a form on the page that follows. It is kept in the session as the key of a message and its
// arguments.
type notice struct {
	Key  string
	Args []string
}

const noticeKey = "notice"

// notify lets the next page report a message: its key, names of placeholders and their values, alternating.
func (v *visit) notify(key string, args ...string) error { return v.put(noticeKey, notice{key, args}) }

// notice returns the message to report, once, or nil.
func (v *visit) notice() *message {
	var n notice
	if !v.get(noticeKey, &n) {
		return nil
	}
	v.drop(noticeKey)
	m := msg(n.Key)
	for _, a := range n.Args {
		m.args = append(m.args, a)
	}
	if !v.locale.has(m) { // of another release
		return nil
	}
	return &m
}
