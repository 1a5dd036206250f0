package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Explain describes a case for people: what it sends, what it expects and why.
func (c Case) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\n", c.ID, c.Title)
	fmt.Fprintf(&b, "level:     %s\nsource:    %s\n           %s\ngroup:     %s\nprofile:   %s\n", c.Strength, c.Source(), c.Reference, c.Group, c.Profile)
	if len(c.Features) > 0 {
		names := make([]string, len(c.Features))
		for i, f := range c.Features {
			names[i] = string(f)
		}
		fmt.Fprintf(&b, "needs:     %s\n", strings.Join(names, ", "))
	}
	if c.Fresh || c.Given != nil {
		fmt.Fprintf(&b, "needs:     a server that the runner starts for this case\n")
	}
	fmt.Fprintf(&b, "why:       %s\n", c.Reason)
	for _, id := range c.Items {
		if item, ok := Find(id); ok {
			fmt.Fprintf(&b, "%-10s %s %s %s\n", id+":", item.Given, item.When, item.Then)
		}
	}
	if c.Given != nil {
		fmt.Fprintf(&b, "\nbefore the server starts: %s\n", compactJSON(c.Given))
	}
	for i, s := range c.Steps {
		fmt.Fprintf(&b, "\nstep %d\n", i+1)
		if len(s.Do) > 0 {
			fmt.Fprintf(&b, "  first:   %s\n", compactJSON(s.Do))
		}
		if s.Expect == nil {
			continue
		}
		switch {
		case s.Token == nil:
			fmt.Fprintf(&b, "  token:   none\n")
		case compactJSON(s.Token) == "{}":
			fmt.Fprintf(&b, "  token:   good\n")
		default:
			fmt.Fprintf(&b, "  token:   good, except %s\n", compactJSON(s.Token))
		}
		if s.Request != nil {
			fmt.Fprintf(&b, "  request: %s\n", compactJSON(s.Request))
		}
		if s.Times > 1 {
			fmt.Fprintf(&b, "  times:   %d %s\n", s.Times, map[string]string{"once": "at once"}[s.At])
		}
		fmt.Fprintf(&b, "  expect:  %s\n", s.Expect)
	}
	return b.String()
}

func compactJSON(v any) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(out.String())
	if len(text) > 2000 {
		text = text[:2000] + "..."
	}
	return text
}

// Command returns a shell command that sends the request of an exchange to origin: curl, or printf and nc if curl would change the request.
// The token in it has a few minutes to live.
func (e Exchange) Command(origin string) string {
	head, body, _ := strings.Cut(e.Request, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	first := strings.Split(lines[0], " ")
	plain := len(first) == 3 && strings.HasPrefix(first[1], "/") && first[2] == "HTTP/1.1" && !strings.ContainsFunc(first[1], func(r rune) bool { return r <= ' ' || r > '~' })
	seen := map[string]bool{}
	args := []string{"curl", "-i", "--path-as-is", "-X", first[0]}
	if first[0] == "HEAD" {
		args = []string{"curl", "-I", "--path-as-is"}
	}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		key := strings.ToLower(name)
		switch {
		case !ok || seen[key] && key != "authorization" && key != "dpop" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(name) != name:
			plain = false
		case key == "host" && strings.HasSuffix(origin, "://"+strings.TrimSpace(value)), key == "connection" || key == "content-length":
		default:
			args = append(args, "-H", shellQuoted(line))
		}
		seen[key] = true
	}
	if !plain {
		_, host, _ := strings.Cut(origin, "://")
		name, port, _ := strings.Cut(host, ":")
		return fmt.Sprintf("printf '%s' | nc %s %s", printfText(e.Request), name, port)
	}
	if body != "" {
		args = append(args, "--data-binary", shellQuoted(body))
	}
	return strings.Join(append(args, shellQuoted(origin+first[1])), " ")
}

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// printfText writes bytes as the format of printf between single quotes.
func printfText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '%':
			b.WriteString("%%")
		case c < ' ' || c > '~' || c == '\\' || c == '\'':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
