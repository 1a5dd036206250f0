package conformance_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
)

// FuzzChallenge holds that what a server writes as a challenge is read: an error in a well-formed challenge is found, whatever
// surrounds it in the description, and no text makes the strict check accept a character that RFC 6750 does not allow.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{"", `the token, "x"`, "a\\b", `", error="y`, "é", "\x00", "realm=a, b", "DPoP algs=\"a\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, description string) {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(description)
		h := http.Header{"Www-Authenticate": {`Bearer realm="a", error="invalid_token", error_description="` + quoted + `"`}}
		allowed := !strings.ContainsFunc(description, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })

		named := conformance.Expect{Challenge: &conformance.ExpectedChallenge{Errors: []string{"invalid_token"}}}
		if problems := named.Problems("Bearer", 401, h, ""); len(problems) > 0 && allowed {
			t.Errorf("%q: %q", description, problems)
		}
		strict := conformance.Expect{Challenge: &conformance.ExpectedChallenge{Strict: true}}
		if problems := strict.Problems("Bearer", 401, h, ""); (len(problems) == 0) != allowed {
			t.Errorf("%q is allowed: %t, and the problems are %q", description, allowed, problems)
		}
	})
}

// statusLine is the first line of a response, as net/http understands it.
var statusLine = regexp.MustCompile(`^HTTP/[0-9]\.[0-9] +([0-9]{3})(?: |\r?\n)`)

// finalStatus returns the status of the first response that is not informational, read line by line.
func finalStatus(sent string) int {
	for {
		m := statusLine.FindStringSubmatch(sent)
		if m == nil {
			return 0
		}
		if status, _ := strconv.Atoi(m[1]); status >= 200 || status == http.StatusSwitchingProtocols {
			return status
		}
		for {
			line, rest, _ := strings.Cut(sent, "\n")
			if sent = rest; strings.TrimSuffix(line, "\r") == "" {
				break
			}
		}
	}
}

// FuzzResponse holds that the verdict about what a server under test sends is the one that a second reading of its bytes gives: the status is
// that of the final response; a handler has run only if it is 2xx; a text is found anywhere in the bytes; a challenge is found or missing, and
// never both; its error and scheme are in a line of the response; and a member of the body is the one that encoding/json reads.
func FuzzResponse(f *testing.F) {
	for _, sent := range []string{
		"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\nhush", "HTTP/1.0 204\n\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
		"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=\"Bearer\", Bearer\r\nWWW-Authenticate: DPoP algs=\"ES256\"\r\n\r\n", "HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer error=invalid_token,, \"\r\n\r\n",
		"HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\n{\"error\":\"x\"}", "HTTP/1.1 101 Switching Protocols\r\n\r\nhush", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nX: a\r\n hush\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer\tx=y\r\n\r\n", "HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer, error=\"invalid_token\"\r\n\r\n",
	} {
		f.Add(sent)
	}
	yes, no := true, false
	f.Fuzz(func(t *testing.T, sent string) {
		got := conformance.ReadResponse(strings.NewReader(sent), http.MethodGet, false)
		good := func(e conformance.Expect) bool { return len(got.Wrong(e)) == 0 }
		if got.Err() != nil {
			assert.False(t, good(conformance.Expect{Status: []string{"401"}}), "no response is not a refusal")
			assert.False(t, good(conformance.Expect{Handler: &no}))
			assert.True(t, good(conformance.Expect{Status: []string{"401", "closed"}}))
			return
		}
		require.Equal(t, finalStatus(sent), got.Status())
		assert.Equal(t, got.Status()/100 == 2, good(conformance.Expect{Handler: &yes}))
		assert.Equal(t, got.Status()/100 != 2, good(conformance.Expect{Handler: &no}))
		assert.Equal(t, got.Status() == 401 || got.Status()/100 == 5, good(conformance.Expect{Status: []string{"401", "5xx"}}))
		assert.Equal(t, !strings.Contains(sent, "hush"), good(conformance.Expect{Lacks: []string{"hush"}}))

		lines := got.Header().Values("WWW-Authenticate")
		for _, scheme := range []string{"Bearer", "DPoP"} {
			present := good(conformance.Expect{Challenge: &conformance.ExpectedChallenge{Scheme: scheme}})
			assert.Equal(t, !present, good(conformance.Expect{Challenge: &conformance.ExpectedChallenge{Scheme: scheme, Missing: true}}))
			named := slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(strings.ToLower(line), strings.ToLower(scheme)) })
			assert.True(t, named || !present, "%q", lines)
			begins := slices.ContainsFunc(lines, func(line string) bool {
				return strings.EqualFold(regexp.MustCompile(`^[^ \t,]*`).FindString(line), scheme)
			})
			assert.True(t, present || !begins, "%q", lines)
		}
		if good(conformance.Expect{Challenge: &conformance.ExpectedChallenge{Errors: []string{"invalid_token"}}}) {
			unescaped := strings.ReplaceAll(strings.Join(lines, "\n"), `\`, "")
			assert.Contains(t, strings.ToLower(unescaped), "error")
			assert.Contains(t, unescaped, "invalid_token")
		}
		var body map[string]any
		readable := json.Unmarshal(got.Body(), &body) == nil
		assert.Equal(t, readable && body["error"] == "x", good(conformance.Expect{Body: map[string]any{"error": "x"}}))
		_, there := body["error"]
		assert.Equal(t, readable && !there, good(conformance.Expect{Body: map[string]any{"error": map[string]any{"$absent": true}}}))
		assert.Equal(t, readable && there, good(conformance.Expect{Body: map[string]any{"error": map[string]any{"$any": true}}}))
	})
}

// FuzzReport holds that whatever a server under test has sent, each report is well-formed and states the same verdicts: XML and JSON that
// decode, rows of a table with as many cells as its head, and text without control characters.
func FuzzReport(f *testing.F) {
	for _, sent := range []string{"", "HTTP/1.1 401\r\nX: \x1b]0;a\a\r\n\r\n]]>", "\ufffe\uffff", "\xff\x00", `\| a | <b>`, "`x`", "a\u2028b\u202e", "&amp;<![CDATA["} {
		f.Add(sent, sent)
	}
	must := slices.DeleteFunc(conformance.Cases(), func(c conformance.Case) bool { return c.Strength != conformance.CaseMust })[:3]
	f.Fuzz(func(t *testing.T, sent, problem string) {
		r := &conformance.Report{Target: "https://api.example.com"}
		for i, c := range must {
			verdict := []conformance.Verdict{conformance.Failed, conformance.Failed, conformance.Passed}[i]
			r.Results = append(r.Results, conformance.Result{
				Case: c, Verdict: verdict, Problems: []string{problem}, Sent: []conformance.Exchange{{Request: sent, Response: sent}},
			})
		}
		known := conformance.Baseline{must[1].ID}
		write := func(to func(io.Writer, conformance.Baseline) error) string {
			var out bytes.Buffer
			require.NoError(t, to(&out, known))
			return out.String()
		}

		var suite struct {
			Failures int `xml:"failures,attr"`
			Skipped  int `xml:"skipped,attr"`
			Cases    []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		}
		require.NoError(t, xml.Unmarshal([]byte(write(r.WriteJUnit)), &suite))
		require.Len(t, suite.Cases, 3)
		assert.Equal(t, [2]int{1, 1}, [2]int{suite.Failures, suite.Skipped})
		assert.True(t, suite.Cases[0].Failure != nil && suite.Cases[1].Skipped != nil && suite.Cases[2].Failure == nil)

		var log struct {
			Runs []struct{ Results []struct{ RuleID string } }
		}
		require.NoError(t, json.Unmarshal([]byte(write(r.WriteSARIF)), &log))
		require.Len(t, log.Runs, 1)
		assert.Len(t, log.Runs[0].Results, 2)
		var doc struct {
			Results []struct{ ID, Verdict string }
		}
		require.NoError(t, json.Unmarshal([]byte(write(r.WriteJSON)), &doc))
		require.Len(t, doc.Results, 3)
		assert.Equal(t, fmt.Sprint(conformance.Failed), doc.Results[0].Verdict)

		rows := 0
		for line := range strings.Lines(write(r.WriteMarkdown)) {
			if strings.HasPrefix(line, "| `") {
				rows++
				assert.Len(t, cellEnds.FindAllString(line, -1), 7, "%q", line)
			}
			assert.NotRegexp(t, `[^\\]<[a-zA-Z!/]`, line)
		}
		assert.Equal(t, 2, rows)
		assert.False(t, strings.ContainsFunc(write(r.WriteTable), func(r rune) bool { return r != '\n' && unicode.IsControl(r) }))
	})
}

// cellEnds finds the ends of cells as GitHub does: a backslash escapes the character behind it.
var cellEnds = regexp.MustCompile(`(?:\\.|[^|\\])*\|`)

// FuzzBaseline holds that a baseline has exactly the IDs on its lines, each of which is that of a case, and that every failure is new or
// known.
func FuzzBaseline(f *testing.F) {
	all := conformance.Cases()
	for _, text := range []string{"", "# none\n", all[0].ID + "\n" + all[1].ID + " # a reason\r\n", all[0].ID + " " + all[1].ID, all[0].ID + "\n" + all[0].ID, "no-such-case", "\ufeff" + all[0].ID, strings.ToUpper(all[0].ID), "#" + all[0].ID, all[0].ID + "\x00", strings.Repeat("x", 70000), all[0].ID + "\n#" + strings.Repeat("x", 70000)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		known, err := conformance.ReadBaseline(strings.NewReader(text))
		var want conformance.Baseline
		mistaken := false
		for line := range strings.SplitSeq(text, "\n") {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			mistaken = mistaken || !slices.ContainsFunc(all, func(c conformance.Case) bool { return c.ID == line })
			want = append(want, line)
		}
		if err != nil {
			assert.True(t, mistaken || len(text) > 60000, "%v", err)
			assert.LessOrEqual(t, len(err.Error()), 500)
			assert.Empty(t, known)
			return
		}
		require.False(t, mistaken, "%q", text)
		require.Equal(t, want, known)

		r := &conformance.Report{}
		for i, c := range all {
			r.Results = append(r.Results, conformance.Result{Case: c, Verdict: []conformance.Verdict{conformance.Failed, conformance.Passed}[i%2]})
		}
		compared := r.Against(known)
		seen := map[string]int{}
		for _, result := range slices.Concat(compared.New, compared.Known) {
			seen[result.Case.ID]++
			assert.Equal(t, slices.Contains(known, result.Case.ID), slices.ContainsFunc(compared.Known, func(k conformance.Result) bool { return k.Case.ID == result.Case.ID }))
		}
		for i, c := range all {
			if i%2 == 0 && c.Strength.Binding() {
				assert.Equal(t, 1, seen[c.ID], c.ID)
			}
			assert.Equal(t, i%2 == 1 && slices.Contains(known, c.ID), slices.Contains(compared.Fixed, c.ID))
		}
	})
}
