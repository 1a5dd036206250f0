package cli

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A terminal is a writer that escapes characters that could control a terminal or hide text: control characters including C1 ones
// such as U+009B, bidirectional and other format characters, and bytes that are not UTF-8. Line breaks and tabs pass. All output
// of the command goes through it, so no token or remote party can control the user's terminal. The escapes are those of JSON
// strings, so JSON output remains equivalent.
//
// It has no state: a character split between two writes is escaped byte by byte. It is safe for concurrent use if to is.
type terminal struct{ to io.Writer }

// Write returns len(p) once all of p is written.
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
