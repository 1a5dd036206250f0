// Command man writes the manual pages and the shell completions of valetkey:
//
//	GOWORK=off go run -C tools/man . -version v0.1.0 DIR
//
// DIR then contains man1/*.1 and completions/valetkey.{bash,zsh,fish,ps1}. The time of the pages is SOURCE_DATE_EPOCH. It is a module apart,
// because a program that contains cobra/doc also contains a renderer for Markdown. Its path lies under cmd/valetkey, whose internal packages
// it imports.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func main() {
	version := flag.String("version", "", "version in the footer of the pages (required)")
	flag.Parse()
	if *version == "" || flag.NArg() != 1 {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: man -version VERSION DIR")
		os.Exit(2)
	}
	if err := write(*version, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(version, dir string) error {
	if os.Getenv("SOURCE_DATE_EPOCH") == "" {
		return errors.New("SOURCE_DATE_EPOCH: required") // cobra would use the time of the call
	}
	pages, completions := filepath.Join(dir, "man1"), filepath.Join(dir, "completions")
	for _, folder := range []string{pages, completions} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	root := cli.Root(driver.Set{}) // the full build has the same commands and flags
	root.InitDefaultCompletionCmd("completion")
	untagged(root)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Valetkey " + version, Manual: "Valetkey"}, pages); err != nil {
		return err
	}
	file := func(shell string) string { return filepath.Join(completions, "valetkey."+shell) }
	return errors.Join(
		root.GenBashCompletionFileV2(file("bash"), true),
		root.GenZshCompletionFile(file("zsh")),
		root.GenFishCompletionFile(file("fish"), true),
		root.GenPowerShellCompletionFileWithDesc(file("ps1")),
	)
}

// untagged removes the line with the date of the generation at the end of each page, which no other manual page has.
func untagged(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, c := range cmd.Commands() {
		untagged(c)
	}
}
