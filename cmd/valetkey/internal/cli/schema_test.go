package cli_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
	"github.com/valetkey/valetkey/internal/config"
)

func TestSchemaArguments(t *testing.T) {
	for _, args := range [][]string{{"schema"}, {"schema", "vouch"}, {"schema", "proxy", "serve"}} {
		code, out, errs := clitest.Run(t, driver.Set{}, "", args...)
		assert.Equal(t, cli.Mistake, code, args)
		assert.Empty(t, out)
		assert.Equal(t, "valetkey: expected one of the commands "+strings.Join(cli.Schemas(), ", ")+"\n", errs)
	}
}

// schemaOf returns the schema that the command prints for the file of a command.
func schemaOf(t *testing.T, command string) map[string]any {
	t.Helper()
	code, out, errs := clitest.Run(t, driver.Set{}, "", "schema", command)
	require.Equal(t, cli.Good, code, errs)
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &schema))
	return schema
}

// TestExamplesConformToTheirSchema checks each YAML file and each block of YAML in the documentation that configures a command.
func TestExamplesConformToTheirSchema(t *testing.T) {
	const root = "../../../.."
	type example struct{ place, text string }
	var examples []example
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "fuzz"}, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(path)
		if !slices.Contains([]string{".md", ".yaml", ".yml"}, ext) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		place := filepath.ToSlash(strings.TrimPrefix(filepath.Clean(path), filepath.Clean(root)+string(filepath.Separator)))
		if ext != ".md" {
			examples = append(examples, example{place, string(text)})
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			if ext == ".md" {
				examples = append(examples, example{place, m[1]})
			}
		}
		return nil
	}))
	for _, command := range cli.Schemas() {
		require.NotEmpty(t, distinct[command], "the files of %s would not be recognized: add their keys to central and distinct", command)
	}
	checked := map[string]int{}
	for _, e := range examples {
		value, err := config.Value(e.text)
		fields, isMapping := value.(map[string]any)
		if err != nil || !isMapping { // a template, several documents, or an empty file
			continue
		}
		var wrong error // of the last command whose file it may be a part of
		for _, command := range cli.Schemas() {
			schema, part := schemaFor(t, command, fields)
			if schema == nil {
				continue
			}
			if wrong = schematest.Check(schema, e.text); wrong == nil { // a part such as signals may be of another command
				checked[part]++
				break
			}
			wrong = fmt.Errorf("%s, a %s: %w", e.place, part, wrong)
		}
		assert.NoError(t, wrong, e.text)
	}
	for part, least := range map[string]int{"proxy file": 2, "serve file": 4, "verifier": 60} {
		assert.GreaterOrEqual(t, checked[part], least, "examples of a %s", part)
	}
}

// schemaFor returns the schema for a mapping that is the file of a command, a part of one, or a verifier, as in docs/issuers.md. It
// returns nil if the mapping is none of these.
func schemaFor(t *testing.T, command string, fields map[string]any) (schema any, part string) {
	t.Helper()
	whole := schemaOf(t, command)
	known := properties(whole)
	switch {
	case fields[central[command]] != nil && slices.ContainsFunc(distinct[command], func(name string) bool { return fields[name] != nil }):
		return whole, command + " file"
	case subset(fields, known):
		return withoutRules(whole), "part of a " + command + " file"
	case fields["issuer_type"] != nil && known["verifiers"] != nil:
		kinds := properties(known["verifiers"].(map[string]any)["items"])
		return map[string]any{"anyOf": []any{withoutRules(kinds["jwks"]), withoutRules(kinds["introspection"])}}, "verifier"
	}
	return nil, ""
}

func properties(schema any) map[string]any {
	return schema.(map[string]any)["properties"].(map[string]any)
}

// withoutRules returns a schema that does not require any field.
func withoutRules(schema any) any {
	delete(schema.(map[string]any), "required")
	delete(schema.(map[string]any), "allOf")
	return schema
}

// central has a key that the files of a command have, and the parts of files in the documentation do not.
var central = map[string]string{"authorize": "verifiers", "proxy": "verifiers", "serve": "apis"}

// distinct has keys, one of which a file of a command has, and files of other commands do not.
var distinct = map[string][]string{
	"authorize": {"listen_http", "listen_grpc"}, "proxy": {"upstream", "upstreams"}, "serve": {"apis"},
}

func subset(fields, known map[string]any) bool {
	return !slices.ContainsFunc(slices.Collect(maps.Keys(fields)), func(name string) bool { return known[name] == nil })
}
