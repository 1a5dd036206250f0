// Package snippets reads and runs the code blocks of docs/issuers.md, so that tests can compare the page with the code.
package snippets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// Begin is the line of the page after which each section of the second level is about one product.
const Begin = "<!-- products -->"

// KeySet is the content of each key set that a snippet reads from a file: the public key of RFC 7515, appendix A.3.
const KeySet = `{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`

// SecretEnv is the environment variable in which snippets expect the secret of a client.
const SecretEnv = "API_SECRET"

// reads finds the files that a block of Go or YAML reads.
var reads = regexp.MustCompile(`os\.ReadFile\("([^"]+)"\)|(?m:^ *file: (\S+)$)`)

// A Section is a heading of the second level and the text below it. The text above the first heading has no title.
type Section struct {
	Title    string
	Product  bool // the section is after [Begin]
	Text     string
	Go, YAML []Block
}

// A Block is a code block.
type Block struct {
	Line int // of its first line in the page
	Text string
}

// Sections returns the sections of a page.
func Sections(page string) []Section {
	all := []Section{{}}
	product, language := false, ""
	var block Block
	for i, line := range strings.Split(page, "\n") {
		title, heading := strings.CutPrefix(line, "## ")
		last := &all[len(all)-1]
		switch {
		case language != "" && line == "```":
			if language == "go" {
				last.Go = append(last.Go, block)
			} else if language == "yaml" {
				last.YAML = append(last.YAML, block)
			}
			language = ""
		case language != "":
			block.Text += line + "\n"
		case strings.HasPrefix(line, "```"):
			language, block = strings.TrimPrefix(line, "```"), Block{Line: i + 2}
		case line == Begin:
			product = true
		case heading:
			all = append(all, Section{Title: title, Product: product})
			continue
		}
		last.Text += line + "\n"
	}
	return all
}

// WriteFiles writes the files that the block reads, each of which is a key set, to the folder dir.
func (b Block) WriteFiles(dir string) error {
	for _, m := range reads.FindAllStringSubmatch(b.Text, -1) {
		if err := os.WriteFile(filepath.Join(dir, m[1]+m[2]), []byte(KeySet), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// A Result is what a block of Go assigned to cfg.
type Result struct {
	Config string // as of Describe
	Error  string // of the block, or of the constructor that takes cfg; "": none
}

// Run compiles and runs blocks of Go, each of which assigns a [jwks.Config] or an [introspect.Config] to cfg, and returns a result for
// each. root is the folder of the module and page the name of the page, to which the errors of the compiler refer. Run uses no network and
// writes nothing below root.
//
// [jwks.Config]: https://pkg.go.dev/github.com/valetkey/valetkey/jwks#Config
// [introspect.Config]: https://pkg.go.dev/github.com/valetkey/valetkey/introspect#Config
func Run(root, page string, blocks []Block) ([]Result, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "snippets")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// With an overlay, the program is a package of the module, though it is in another folder.
	file, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "internal", "snippets", "program", "main.go"): file}})
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{file: program(page, blocks), overlay: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return nil, err
		}
	}
	for _, b := range blocks {
		if err := b.WriteFiles(dir); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "run", "-overlay", overlay, "./internal/snippets/program", dir)
	var errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = root, append(os.Environ(), "GOPROXY=off", SecretEnv+"=of the page"), &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, errs.Bytes())
	}
	var results []Result
	err = json.Unmarshal(out, &results)
	return results, err
}

const module = "github.com/valetkey/valetkey/"

func program(page string, blocks []Block) []byte {
	var text, calls bytes.Buffer
	imports := []string{"encoding/json", "os", module + "internal/snippets", module + "introspect", module + "jwks"}
	for _, path := range []string{"net/http", "time", module + "claims", module + "issuers"} {
		called := regexp.MustCompile(`\b` + filepath.Base(path) + `\.[A-Z]`)
		for _, b := range blocks {
			if called.MatchString(b.Text) {
				imports = append(imports, path)
				break
			}
		}
	}
	fmt.Fprint(&text, "package main\n\nimport (\n")
	for _, path := range imports {
		fmt.Fprintf(&text, "\t%q\n", path)
	}
	fmt.Fprint(&text, ")\n")
	for i, b := range blocks {
		fmt.Fprintf(&calls, "\t\tuse(snippet%d()),\n", i)
		fmt.Fprintf(&text, "\nfunc snippet%d() (any, error) {\n", i)
		if !strings.Contains(b.Text, "err") {
			fmt.Fprint(&text, "\tvar err error\n")
		}
		fmt.Fprintf(&text, "//line %s:%d\n%s//line program.go:1\n\treturn cfg, err\n}\n", page, b.Line, b.Text)
	}
	fmt.Fprintf(&text, `
func main() {
	if err := os.Chdir(os.Args[1]); err != nil {
		panic(err)
	}
	json.NewEncoder(os.Stdout).Encode([]snippets.Result{
%s	})
}

func use(cfg any, err error) snippets.Result {
	if err == nil {
		switch cfg := cfg.(type) {
		case jwks.Config:
			if _, err := os.Stat(cfg.KeyRequests.TokenFile); err != nil { // the files of a pod are not here
				cfg.KeyRequests = jwks.KeyRequests{}
			}
			var v *jwks.Verifier
			if v, err = jwks.New(cfg); err == nil {
				v.Close()
			}
		case introspect.Config:
			var v *introspect.Verifier
			if v, err = introspect.New(cfg); err == nil {
				v.Close()
			}
		}
	}
	r := snippets.Result{Config: snippets.Describe(cfg)}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
`, calls.Bytes())
	return text.Bytes()
}

// Describe returns the fields of a Config, one per line, except those without a value and those that are part of no file, such as a
// logger.
func Describe(cfg any) string {
	var text strings.Builder
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		field := v.Field(i)
		switch kind := field.Kind(); {
		case !v.Type().Field(i).IsExported() || field.IsZero():
			continue
		case kind == reflect.Func || kind == reflect.Interface || kind == reflect.Pointer || kind == reflect.Slice && field.Len() == 0:
			continue
		}
		data, err := json.Marshal(field.Interface())
		if err != nil {
			data = []byte(err.Error())
		}
		fmt.Fprintf(&text, "%s: %s\n", v.Type().Field(i).Name, data)
	}
	return text.String()
}
