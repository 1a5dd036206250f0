package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// columns is the width of a terminal that is not known to be wider.
const columns = 80

// foldHelp makes the help of a command and those below it fit into the columns.
func foldHelp(cmd *cobra.Command) {
	flags := fmt.Sprintf(".FlagUsagesWrapped %d", columns)
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), ".FlagUsages", flags))
	var fold func(*cobra.Command)
	fold = func(c *cobra.Command) {
		c.Long = foldText(c.Long)
		for _, below := range c.Commands() {
			fold(below)
		}
	}
	fold(cmd)
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
