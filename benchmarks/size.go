package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A program is the same one as the others, on one library.
type program struct{ name, folder, keys string }

// programs have two routes with two scopes.
var programs = []program{
	{ours, filepath.Join("..", "examples", "orders"), "fetched"},
	{"golang-jwt v5", "golangjwt", "from a file"},
	{"go-jose v4", "gojose", "from a file"},
	{"go-oidc v3", "gooidc", "fetched"},
	{"hashicorp/cap", "hashicorpcap", "fetched"},
	{"jwx v2", "jwx", "fetched"},
	{"echo-jwt v5", "echojwt", "from a file"},
	{"gin-jwt v3", "ginjwt", "from a file"},
	{"MCP go-sdk + golang-jwt", "gosdk", "from a file"},
	{"chi jwtauth v5", "jwtauth", "from a file"},
	{"auth0 v2", "auth0v2", "fetched"},
	{"auth0 v3", "auth0v3", "fetched"},
}

// size builds the programs, which needs the source of this module and the go command.
func size(b *bench) error {
	t := &table{
		id: "size", title: "The same program on each library", unit: "MB", head: []string{"library", "keys", "binary", "stripped", "modules linked"},
		note: "`examples/orders` of this repository, and what comes closest to it on each peer (`benchmarks/programs`): two routes, two scopes. " +
			"Half of the peers do not fetch keys and read one from a file instead, and those that are only a library have their guard written out. " +
			"Built with `go build`, stripped with `-ldflags='-s -w'`. Modules are those whose packages are in the binary, besides the program's own and the standard library.",
	}
	b.tables = append(b.tables, t)
	dir, err := os.MkdirTemp("", "size")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, p := range programs {
		row, stripped, err := p.measure(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		t.rows = append(t.rows, row)
		t.bars = append(t.bars, bar{p.name, quartiles{stripped, stripped, stripped}})
	}
	return nil
}

// measure builds p twice in dir and returns its row.
func (p program) measure(dir string) (row []string, stripped float64, err error) {
	folder := p.folder
	if p.name != ours {
		folder = filepath.Join("programs", folder)
	}
	whole, modules, err := build(folder, filepath.Join(dir, "whole"))
	if err != nil {
		return nil, 0, err
	}
	stripped, _, err = build(folder, filepath.Join(dir, "stripped"), "-ldflags=-s -w")
	if err != nil {
		return nil, 0, err
	}
	return []string{p.name, p.keys, megabytes(whole), megabytes(stripped), fmt.Sprint(modules)}, stripped, nil
}

// docs/dependencies.md quotes the table between these lines.
const quoteBegins, quoteEnds = "<!-- size -->\n", "<!-- end -->\n"

// quoteSizes puts the table of sizes, if it was asked for, into the page on dependencies.
func (b *bench) quoteSizes(page string) error {
	i := slices.IndexFunc(b.tables, func(t *table) bool { return t.id == "size" })
	if i < 0 {
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("quoting the sizes: %w", err)
	}
	before, rest, found := strings.Cut(string(text), quoteBegins)
	_, after, ended := strings.Cut(rest, quoteEnds)
	if !found || !ended {
		return fmt.Errorf("quoting the sizes: %s has no place for them", page)
	}
	return os.WriteFile(page, []byte(before+quoteBegins+b.tables[i].markdown()+quoteEnds+after), 0o644)
}

func megabytes(mb float64) string { return fmt.Sprintf("%.1f MB", mb) }

// build builds the package in folder.
func build(folder, to string, flags ...string) (mb float64, modules int, err error) {
	return buildPackage(folder, to, ".", flags...)
}

// buildPackage builds a package of the module in folder, or one that it requires.
func buildPackage(folder, to, name string, flags ...string) (mb float64, modules int, err error) {
	cmd := exec.Command("go", append(append([]string{"build", "-o", to}, flags...), name)...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, errors.Join(err, errors.New(string(out)))
	}
	file, err := os.Stat(to)
	if err != nil {
		return 0, 0, err
	}
	info, err := buildinfo.ReadFile(to)
	if err != nil {
		return 0, 0, err
	}
	return float64(file.Size()) / 1e6, len(info.Deps), nil
}
