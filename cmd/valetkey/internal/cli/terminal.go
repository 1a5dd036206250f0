package cli

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A terminal escapes what may steer a terminal or hide text on it: control characters, C1 ones such as U+009B included,
// bidirectional and other format characters, and bytes that are not UTF-8. Line breaks and tabs pass. All output of the command
// goes through it, so tokens and remote parties cannot reach the terminal past it. The escapes are those of JSON strings, and
// what is JSON stays the same JSON.
//
// It has no state: a character split between two writes is escaped byte by byte. It is as safe for concurrent use as to is.
type terminal struct{ to io.Writer }

// Write reports len(p) once all of p is written.
func (t terminal) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for rest := p; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			out = fmt.Appendf(out, `\x%02x`, rest[0])
		case r == '\n', r == '\t', unicode.IsPrint(r):
			out = append(out, rest[:size]...)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
		rest = rest[size:]
	}
	if _, err := t.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
