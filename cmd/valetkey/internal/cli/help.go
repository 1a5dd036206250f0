package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// columns is the width of a terminal that is not known to be wider.
const columns = 80

// foldHelp makes the help of a command and those below it fit into the columns. It is a function and not a template: a program that contains
// text/template keeps every exported method of its libraries, which makes that of the gateway 10 MB larger.
func foldHelp(cmd *cobra.Command) {
	cmd.SetUsageFunc(usage)
	var fold func(*cobra.Command)
	fold = func(c *cobra.Command) {
		c.Long = foldText(c.Long)
		for _, below := range c.Commands() {
			fold(below)
		}
	}
	fold(cmd)
}

// usage writes how to use a command.
func usage(cmd *cobra.Command) error {
	var text strings.Builder
	text.WriteString("Usage:\n")
	if cmd.Runnable() {
		fmt.Fprintf(&text, "  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&text, "  %s [command]\n\nAvailable Commands:\n", cmd.CommandPath())
		for _, below := range cmd.Commands() {
			if below.IsAvailableCommand() || below.Name() == "help" {
				fmt.Fprintf(&text, "  %-*s %s\n", below.NamePadding(), below.Name(), below.Short)
			}
		}
	}
	for _, flags := range []struct {
		title string
		lines string
	}{{"Flags", cmd.LocalFlags().FlagUsagesWrapped(columns)}, {"Global Flags", cmd.InheritedFlags().FlagUsagesWrapped(columns)}} {
		if flags.lines != "" {
			fmt.Fprintf(&text, "\n%s:\n%s\n", flags.title, strings.TrimRight(flags.lines, " \n"))
		}
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&text, "\nUse \"%s [command] --help\" for more information about a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(cmd.OutOrStderr(), text.String())
	return err
}

// foldText breaks paragraphs into lines that fit. An indented line is a command or a table, and stays as it is.
func foldText(text string) string {
	var lines []string
	folded := "" // the line of the paragraph that is being filled
	flush := func() {
		if folded != "" {
			lines, folded = append(lines, folded), ""
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			flush()
			lines = append(lines, line)
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if len(folded)+len(" ")+len(word) > columns {
				flush()
			}
			if folded != "" {
				folded += " "
			}
			folded += word
		}
	}
	flush()
	return strings.Join(lines, "\n")
}
