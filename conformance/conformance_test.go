package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
)

// TestItems holds items.json to its form. Writing the items back must result in the same bytes, so unknown members,
// members that occur twice and another layout are mistakes.
func TestItems(t *testing.T) {
	file, err := os.ReadFile("items.json")
	require.NoError(t, err)
	items := conformance.Items()
	require.NotEmpty(t, items)

	var again bytes.Buffer
	enc := json.NewEncoder(&again)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	require.NoError(t, enc.Encode(items))
	if !bytes.Equal(file, again.Bytes()) {
		for i, line := range strings.Split(again.String(), "\n") {
			if old := strings.Split(string(file), "\n"); i >= len(old) || old[i] != line {
				t.Fatalf("items.json, line %d: expected %s", i+1, line)
			}
		}
		t.Fatal("items.json has data after its last item")
	}

	last, number := conformance.Item{}, 0
	for _, item := range items {
		for _, mistake := range mistakes(item) {
			t.Errorf("%s: %s", item.ID, mistake)
		}
		if item.ID <= last.ID {
			t.Errorf("%s is listed after %s", item.ID, last.ID)
		}
		if number++; item.Group() != last.Group() {
			number = 1
		}
		if got := item.ID[len(item.Group())+1:]; got != fmt.Sprintf("%02d", number) {
			t.Errorf("%s: expected the number %02d, since numbers have no gaps", item.ID, number)
		}
		last = item
	}
}

func TestMistakes(t *testing.T) {
	good := conformance.Item{ID: "BT-01", Standard: "RFC 6750", Section: "2.1, 3", Level: conformance.Must,
		Given: "The route requires a token.", When: "The request has none.", Then: "The response is 401."}
	require.Empty(t, mistakes(good))
	for name, change := range map[string]func(*conformance.Item){
		"an ID without a number":           func(i *conformance.Item) { i.ID = "BT" },
		"an ID in lower case":              func(i *conformance.Item) { i.ID = "bt-01" },
		"an ID with three digits":          func(i *conformance.Item) { i.ID = "BT-001" },
		"an unknown level":                 func(i *conformance.Item) { i.Level = "SHALL" },
		"no level":                         func(i *conformance.Item) { i.Level = "" },
		"no standard for a MUST":           func(i *conformance.Item) { i.Standard, i.Section = "", "" },
		"a standard without its section":   func(i *conformance.Item) { i.Section = "" },
		"a section without its standard":   func(i *conformance.Item) { i.Standard, i.Level = "", conformance.Derived },
		"a section with its sign":          func(i *conformance.Item) { i.Section = "§2.1" },
		"no given":                         func(i *conformance.Item) { i.Given = "" },
		"no when":                          func(i *conformance.Item) { i.When = "" },
		"no then":                          func(i *conformance.Item) { i.Then = "" },
		"a sentence without its period":    func(i *conformance.Item) { i.Then = "The response is 401" },
		"a sentence that is too long":      func(i *conformance.Item) { i.Then = strings.Repeat("a", 200) + "." },
		"a sentence in lower case":         func(i *conformance.Item) { i.Given = "the route." },
		"two sentences in when":            func(i *conformance.Item) { i.When = "It comes. It goes." },
		"three sentences in then":          func(i *conformance.Item) { i.Then = "It is. It is. It is." },
		"a line break":                     func(i *conformance.Item) { i.Given = "The\nroute." },
		"two spaces":                       func(i *conformance.Item) { i.Given = "The  route." },
		"markup that a table cannot hold":  func(i *conformance.Item) { i.Given = "A | B." },
		"markup that a page would swallow": func(i *conformance.Item) { i.Given = "Bearer <token>." },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			change(&bad)
			assert.NotEmpty(t, mistakes(bad))
		})
	}
}

var (
	wellFormedID = regexp.MustCompile(`^[A-Z]+(-[A-Z]+)?-[0-9]{2}$`)
	numbers      = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*(, [0-9]+(\.[0-9]+)*)*$`)
	title        = regexp.MustCompile(`^[A-Z][A-Za-z -]+$`) // of an appendix, or where sections have no numbers
	known        = map[conformance.Level]bool{conformance.Must: true, conformance.MustNot: true, conformance.Should: true,
		conformance.ShouldNot: true, conformance.Recommended: true, conformance.May: true, conformance.Derived: true}
)

// mistakes returns what is wrong with an item on its own.
func mistakes(item conformance.Item) (wrong []string) {
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if !wellFormedID.MatchString(item.ID) {
		note("id: expected a group in capitals and two digits")
	}
	if !known[item.Level] {
		note("level: unknown: %q", item.Level)
	}
	if (item.Standard == "") != (item.Section == "") {
		note("standard and section: expected both or neither")
	}
	if item.Standard == "" && item.Level != conformance.Derived {
		note("standard: required for the level %s", item.Level)
	}
	if item.Section != "" && !numbers.MatchString(item.Section) && !title.MatchString(item.Section) {
		note("section: malformed: %q", item.Section)
	}
	for _, field := range []struct {
		name, text string
		sentences  int
	}{{"given", item.Given, 1}, {"when", item.When, 1}, {"then", item.Then, 2}} {
		if n := strings.Count(field.text+" ", ". "); n < 1 || n > field.sentences || !strings.HasSuffix(field.text, ".") {
			note("%s: %d sentences that end with a period, expected 1 to %d", field.name, n, field.sentences)
		}
		if len(field.text) > 160 {
			note("%s: %d bytes, expected at most 160", field.name, len(field.text))
		}
		if field.text == "" || field.text[0] < 'A' || field.text[0] > 'Z' {
			note("%s: expected a capital letter at the beginning", field.name)
		}
		if strings.ContainsAny(field.text, "|<>*`") || strings.Join(strings.Fields(field.text), " ") != field.text ||
			strings.Trim(strconv.Quote(field.text), `"`) != field.text {
			note("%s: expected plain text on one line", field.name)
		}
	}
	return wrong
}

func TestLookups(t *testing.T) {
	items := conformance.Items()
	for _, item := range items {
		found, ok := conformance.Find(item.ID)
		assert.True(t, ok, item.ID)
		assert.Equal(t, item, found)
		assert.Contains(t, conformance.InGroup(item.Group()), item)
	}

	for _, id := range []string{"", "BT", "BT-00", "bt-01", " BT-01", "ZZ-99"} {
		found, ok := conformance.Find(id)
		assert.False(t, ok, id)
		assert.Zero(t, found)
	}
	for _, group := range []string{"", "AS", "bt", "BT-01", "ZZ"} {
		assert.Empty(t, conformance.InGroup(group), group)
	}
	assert.Empty(t, conformance.Item{}.Group())

	t.Run("a group is not the beginning of another group's name", func(t *testing.T) {
		for _, item := range conformance.InGroup("AS-DCR") {
			assert.Regexp(t, `^AS-DCR-\d\d$`, item.ID)
		}
	})
	t.Run("a caller cannot change the items of another", func(t *testing.T) {
		items[0].Then = "Changed."
		conformance.InGroup("BT")[0].Then = "Changed."
		for _, item := range conformance.Items() {
			assert.NotEqual(t, "Changed.", item.Then)
		}
	})
}

func ExampleFind() {
	item, _ := conformance.Find("BT-14")
	fmt.Println(item.Standard, item.Section, item.Level)
	fmt.Println(item.Given)
	fmt.Println(item.When)
	fmt.Println(item.Then)
	// Output:
	// RFC 6750 3.1 SHOULD
	// The server accepts tokens in the header and in another place.
	// The request carries a token in two places.
	// The response is 400 invalid_request, even if both values are equal.
}
