package cli

import (
	"bytes"
	"io"
	"os"
	"runtime"
)

// colors maps the words with which lines of verdicts begin to the parameters of SGR (ECMA-48).
var colors = map[string]string{
	"ok": "32", "PASSED": "32",
	"NO": "31;1", "FAIL": "31;1", "FAILED": "31;1", "malformed,": "31;1", "fail": "31;1",
	"warn": "33", "WARN": "33", "differs": "33", "skipped:": "33", "-": "2",
}

// A painter colors the first word of a line if it is a verdict. Text of others can be colored too if it begins a line, which does no harm:
// everything passes through [terminal] first.
type painter struct {
	to     io.Writer
	middle bool // of a line
}

// Write returns len(p) once all of p is written.
func (c *painter) Write(p []byte) (int, error) {
	var out []byte
	for line := range bytes.Lines(p) {
		if !c.middle {
			word := line[:len(line)-len(bytes.TrimLeft(line, " "))]
			rest := line[len(word):]
			end := bytes.IndexAny(rest, " \n")
			if end < 0 {
				end = len(rest)
			}
			if color := colors[string(rest[:end])]; color != "" {
				out = append(append(append(append(out, word...), "\x1b["+color+"m"...), rest[:end]...), "\x1b[0m"...)
				line = rest[end:]
			}
		}
		out = append(out, line...)
		c.middle = !bytes.HasSuffix(line, []byte("\n"))
	}
	if _, err := c.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// painted returns w, with colors if it is a terminal that has them and NO_COLOR does not turn them off (https://no-color.org).
func painted(w *os.File) io.Writer {
	info, err := w.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" {
		return w
	}
	return &painter{to: w}
}
