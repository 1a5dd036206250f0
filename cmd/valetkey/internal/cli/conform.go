package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/conformance"
)

// conformFlags are the flags of conform as given.
type conformFlags struct {
	target, audience, start, issuerListen    string
	scopeRoutes, routes, profiles, features  []string
	set, baseline, explain                   string
	groups, cases                            []string
	list, slow                               bool
	rate, restarts                           int
	jsonFile, junitFile, sarifFile, markdown string
}

func conformCommand() *cobra.Command {
	var f conformFlags
	cmd := &cobra.Command{
		Use:   "conform --target URL | --start COMMAND [flags]",
		Short: "Test whether a resource server refuses what it must refuse",
		Long: `Test whether a resource server refuses what it must refuse. The command is the issuer: it has metadata, key sets and
introspection, and sends requests with good and bad tokens.

With --start, it runs the server, with the placeholders {issuer}, {jwks_uri}, {second_issuer}, {audience}, {listen}, {port},
{introspection}, {client_id}, {client_secret}, {profile}, {nonce} and {signed}, which are in its environment too (CONFORM_ISSUER, ..., and PORT).
--target is then the path of a resource that any valid token opens. Cases about key rotation and failures of the issuer need --start.

With --target alone, the server runs already and is configured for the issuer at --issuer-listen.

Nothing but the server is contacted. Profiles and features that are not claimed count as not offered, not as failures. The exit code is 0
if no must or should failed, 1 if one did, and 2 if the run was not possible.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return conform(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.target, "target", "", "URL of a resource that any valid token opens; with --start, its path (default \"/\")")
	flags.StringVar(&f.audience, "audience", conformance.DefaultAudience, "name of the server in the aud of tokens")
	flags.StringVar(&f.start, "start", "", "command that starts the server")
	flags.StringVar(&f.issuerListen, "issuer-listen", "", "address of the issuer, such as 127.0.0.1:9000, for a server that runs already")
	flags.StringArrayVar(&f.scopeRoutes, "scope-route", nil, "PATH=SCOPE of a resource that requires a scope, or several separated by spaces; repeatable")
	flags.StringArrayVar(&f.routes, "route", nil, "NAME=PATH[=VALUE] of a resource: acr=PATH=ACR, max-age=PATH=SECONDS, optional=PATH, rar=PATH; repeatable")
	flags.StringSliceVar(&f.profiles, "profile", []string{string(conformance.ProfileBearer)}, "what the server claims: "+listed(conformance.Profiles()))
	flags.StringSliceVar(&f.features, "feature", nil, "what else it claims: "+listed(conformance.Features()))
	flags.StringVar(&f.set, "set", "", "frozen set of cases, by its date: "+strings.Join(conformance.Sets(), ", ")+" (default: all cases)")
	flags.StringSliceVar(&f.groups, "group", nil, "run only the cases of these groups")
	flags.StringSliceVar(&f.cases, "case", nil, "run only these cases, and print their requests as commands")
	flags.StringVar(&f.explain, "explain", "", "print what a case sends, what it expects and why, and exit")
	flags.BoolVar(&f.list, "list", false, "print the selected cases and exit")
	flags.BoolVar(&f.slow, "slow", false, "run cases that wait for clocks and caches of the server, too")
	flags.IntVar(&f.rate, "rate", 200, "maximum number of requests per second")
	flags.IntVar(&f.restarts, "restarts", 50, "with --start: how often a server is started again that a case has ended")
	flags.StringVar(&f.baseline, "expect", "", "file with the IDs of cases that are known to fail, one on a line")
	flags.StringVar(&f.jsonFile, "json", "", "write a report in JSON to this file, or - for stdout in place of the table")
	flags.StringVar(&f.junitFile, "junit", "", "write a report for CI systems to this file")
	flags.StringVar(&f.sarifFile, "sarif", "", "write a report for code scanning to this file")
	flags.StringVar(&f.markdown, "markdown", "", "write a report in Markdown to this file")
	return cmd
}

func listed[T ~string](all []T) string {
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}

func conform(cmd *cobra.Command, f conformFlags) error {
	out := cmd.OutOrStdout()
	if f.explain != "" {
		c, ok := conformance.FindCase(f.explain)
		if !ok {
			return fmt.Errorf("--explain: there is no case %q; see --list", f.explain)
		}
		_, err := io.WriteString(out, c.Explain())
		return err
	}
	cases, err := f.selected()
	if err != nil {
		return err
	}
	if f.list {
		return listCases(out, cases)
	}
	target, err := f.conformTarget()
	if err != nil {
		return err
	}
	var known conformance.Baseline
	if f.baseline != "" {
		if known, err = readBaseline(f.baseline); err != nil {
			return fmt.Errorf("--expect: %w", err)
		}
	}
	if f.rate < 1 {
		return fmt.Errorf("--rate: %d is not a positive number", f.rate)
	}
	if f.restarts < 1 {
		f.restarts = -1 // the zero value of Options is the default
	}
	report, err := conformance.Check(cmd.Context(), target, conformance.Options{Cases: cases, Slow: f.slow, Rate: f.rate, Restarts: f.restarts,
		Progress: progressTo(cmd.ErrOrStderr())})
	var notReady *conformance.NotReadyError
	if errors.As(err, &notReady) {
		fmt.Fprintf(cmd.ErrOrStderr(), "request:\n%s\nresponse:\n%s\n", notReady.Exchange.Request, notReady.Exchange.Response)
	}
	if err != nil {
		return err
	}
	report.Set = f.set
	if err := f.write(out, report, known); err != nil {
		return err
	}
	if !report.Against(known).Passed() {
		return errNo
	}
	return nil
}

// selected returns the cases of --set, --group and --case.
func (f conformFlags) selected() ([]conformance.Case, error) {
	cases := conformance.Cases()
	if f.set != "" {
		set, err := conformance.FindSet(f.set)
		if err != nil {
			return nil, fmt.Errorf("--set: %w", err)
		}
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return set.Cases[c.ID] == "" })
	}
	if len(f.groups) > 0 {
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return !slices.Contains(f.groups, c.Group) })
	}
	if len(f.cases) > 0 {
		for _, id := range f.cases {
			if !slices.ContainsFunc(cases, func(c conformance.Case) bool { return c.ID == id }) {
				return nil, fmt.Errorf("--case: no selected case has the ID %q; see --list", id)
			}
		}
		cases = slices.DeleteFunc(cases, func(c conformance.Case) bool { return !slices.Contains(f.cases, c.ID) })
	}
	if len(cases) == 0 {
		return nil, errors.New("--group: no case is selected; see --list")
	}
	return cases, nil
}

func listCases(w io.Writer, cases []conformance.Case) error {
	for _, c := range cases {
		if _, err := fmt.Fprintf(w, "%-40s %-8s %-14s %-22s %s\n", c.ID, c.Strength, c.Profile, c.Group, c.Title); err != nil {
			return err
		}
	}
	return nil
}

// conformTarget returns the server that the flags describe.
func (f conformFlags) conformTarget() (conformance.Target, error) {
	target := conformance.Target{URL: f.target, Audience: f.audience, IssuerListen: f.issuerListen, Routes: map[string]conformance.Route{}}
	var wrong []error
	for _, p := range f.profiles {
		target.Profiles = append(target.Profiles, conformance.Profile(p))
	}
	for _, feature := range f.features {
		target.Features = append(target.Features, conformance.Feature(feature))
	}
	for _, text := range f.scopeRoutes {
		path, scope, ok := strings.Cut(text, "=")
		if !ok || scope == "" {
			wrong = append(wrong, fmt.Errorf("--scope-route: expected PATH=SCOPE, got %q", text))
			continue
		}
		name := conformance.FeatureScope
		if strings.Contains(scope, " ") {
			name = conformance.FeatureScopes
		}
		target.Routes[string(name)] = conformance.Route{Path: path, Scope: scope}
	}
	for _, text := range f.routes {
		if err := addRoute(target.Routes, text); err != nil {
			wrong = append(wrong, err)
		}
	}
	switch {
	case f.start != "":
		start, err := conformance.StartCommand(f.start)
		if err != nil {
			return target, fmt.Errorf("--%w", err)
		}
		target.Start = start
		if f.issuerListen != "" {
			wrong = append(wrong, errors.New("--issuer-listen: cannot be combined with --start, which gives each server its issuer"))
		}
	case f.target == "":
		wrong = append(wrong, errors.New("--target: required, or --start"))
	case f.issuerListen == "":
		wrong = append(wrong, errors.New("--issuer-listen: required without --start: the address of the issuer that the server trusts"))
	}
	return target, errors.Join(wrong...)
}

func addRoute(routes map[string]conformance.Route, text string) error {
	name, rest, _ := strings.Cut(text, "=")
	path, value, _ := strings.Cut(rest, "=")
	route := conformance.Route{Path: path}
	switch conformance.Feature(name) {
	case conformance.FeatureACR:
		route.ACR = value
	case conformance.FeatureMaxAge:
		seconds, err := strconv.Atoi(value)
		if err != nil || seconds <= 0 {
			return fmt.Errorf("--route: %q: expected max-age=PATH=SECONDS", text)
		}
		route.MaxAge = seconds
	case conformance.FeatureOptional, conformance.FeatureRAR:
	default:
		return fmt.Errorf("--route: %q: the name must be acr, max-age, optional or rar", text)
	}
	if path == "" || name == string(conformance.FeatureACR) && value == "" {
		return fmt.Errorf("--route: expected NAME=PATH[=VALUE], got %q", text)
	}
	routes[name] = route
	return nil
}

func readBaseline(name string) (conformance.Baseline, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return conformance.ReadBaseline(bytes.NewReader(text))
}

// progressTo returns a function that shows the progress in one line of a terminal, or nil if w is none.
func progressTo(w io.Writer) func(done, total int) {
	t, ok := w.(terminal)
	if !ok {
		return nil
	}
	file, ok := t.to.(*os.File)
	if !ok {
		return nil
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return func(done, total int) {
		end := ""
		if done == total {
			end = "\r\x1b[K"
		}
		fmt.Fprintf(file, "\r%d of %d cases%s", done, total, end)
	}
}

// write writes the reports.
func (f conformFlags) write(out io.Writer, report *conformance.Report, known conformance.Baseline) error {
	for _, r := range []struct {
		flag, file string
		write      func(io.Writer, conformance.Baseline) error
	}{
		{"json", f.jsonFile, report.WriteJSON}, {"junit", f.junitFile, report.WriteJUnit}, {"sarif", f.sarifFile, report.WriteSARIF},
		{"markdown", f.markdown, report.WriteMarkdown},
	} {
		if r.file == "" || r.file == "-" && r.flag == "json" {
			continue
		}
		if err := writeFile(r.file, func(w io.Writer) error { return r.write(w, known) }); err != nil {
			return fmt.Errorf("--%s: %w", r.flag, err)
		}
	}
	if f.jsonFile == "-" {
		return report.WriteJSON(out, known)
	}
	if err := report.WriteTable(out, known); err != nil {
		return err
	}
	if len(f.cases) > 0 {
		return writeCommands(out, report)
	}
	return nil
}

func writeFile(name string, write func(io.Writer) error) error {
	var text bytes.Buffer
	if err := write(&text); err != nil {
		return err
	}
	return os.WriteFile(name, text.Bytes(), 0o644)
}

// writeCommands writes the requests of the cases as shell commands.
func writeCommands(w io.Writer, report *conformance.Report) error {
	for _, result := range report.Results {
		for _, sent := range result.Sent {
			if _, err := fmt.Fprintf(w, "\n%s: %s\n", result.Case.ID, sent.Command(result.Origin)); err != nil {
				return err
			}
		}
	}
	return nil
}
