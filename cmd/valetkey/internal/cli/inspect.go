package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/scopes"
)

const maxCertificate = 64 << 10 // bytes of a certificate file

func inspectCommand(drivers driver.Set) *cobra.Command {
	var (
		config, request, scope, cert, at string
		in                               proxy.Request
		asJSON                           bool
	)
	cmd := &cobra.Command{
		Use:   "inspect [--config proxy.yaml] [flags] TOKEN|-",
		Short: "Describe a token, and explain what a proxy would decide about it",
		Long: `Describe a token and its binding, without verifying it.

With the configuration of a proxy, also rehearse a request with the token, in a separate proxy without an upstream. The
output lists each check in order, with its verdict and the RFC that requires it, and so answers "why is this 401?". Keys,
status lists and introspection responses are fetched from the issuers. Data of running proxies is not used: revocations in
Redis, and whether a proof was used before.

Other users of the machine can see command arguments: to keep the token secret, pass - and pipe it to stdin.

The exit code is 0 if the request would go to the upstream, or without a configuration; 1 if it would not; and 2 for an
error, or if the result could not be determined.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var mistakes []error
			mistake := func(flag string, err error) {
				if err != nil {
					mistakes = append(mistakes, fmt.Errorf("%s: %w", flag, err))
				}
			}
			var err error
			in.Method, in.URL, err = requestFrom(request)
			mistake("--request", err)
			if scope != "" {
				in.Need, err = scopes.Parse(scope)
				mistake("--scope", err)
			}
			if cert != "" {
				in.Certificate, err = certificate(cert)
				mistake("--cert", err)
			}
			in.At, err = moment(at)
			mistake("--at", err)
			if config == "" && (request != "" || scope != "" || cert != "" || in.Proof != "") {
				mistakes = append(mistakes, errors.New("--config: required with --request, --scope, --proof and --cert"))
			}
			if in.Proof != "" && request == "" {
				mistakes = append(mistakes, errors.New("--request: required with --proof, which is for one method and URL"))
			}
			if len(args) != 1 {
				mistakes = append(mistakes, fmt.Errorf("expected one token argument (- for stdin), got %d", len(args)))
			}
			if err := errors.Join(mistakes...); err != nil {
				return err
			}
			if in.Token, err = tokenFrom(args[0], cmd.InOrStdin()); err != nil {
				return err
			}
			if in.Token == "" {
				return errNoToken
			}
			return inspect(cmd, drivers, config, in, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file of a proxy, to check the token against")
	f.StringVar(&request, "request", "", `request to check, "GET /orders" or with an absolute URL (default: a request for which any valid token is sufficient)`)
	f.StringVar(&scope, "scope", "", `scopes that the request needs, "a b | c", instead of those of the routes`)
	f.StringVar(&in.Proof, "proof", "", "DPoP proof of the request; the token is then sent with the scheme DPoP")
	f.StringVar(&cert, "cert", "", "client certificate, a PEM file")
	f.StringVar(&at, "at", "", "time of the check (RFC 3339) instead of now; status lists are current")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func certificate(path string) (*x509.Certificate, error) {
	text, err := config.Content(path, maxCertificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: does not begin with a PEM certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func inspect(cmd *cobra.Command, drivers driver.Set, config string, in proxy.Request, asJSON bool) error {
	var (
		about = look(in.Token)
		out   *proxy.Outcome
		err   error
	)
	if config != "" {
		ctx, cancel := context.WithTimeout(cmd.Context(), keysTimeout)
		defer cancel()
		if out, err = proxy.Rehearse(ctx, config, in, drivers, logTo(io.Discard, slog.LevelError)); err != nil {
			return err
		}
	}
	w := cmd.OutOrStdout()
	if asJSON {
		err = printJSON(w, struct {
			appearance
			Request *decision `json:"request,omitempty"`
		}{about, decisionOf(out)})
	} else {
		err = about.print(w, cmp.Or(in.At, time.Now()))
		if err == nil && out != nil {
			err = printDecision(w, decisionOf(out))
		}
	}
	switch {
	case err != nil || out == nil:
		return err
	case out.Failure != nil:
		return errors.New(issuer.InFiles(out.Failure.Error()))
	case out.Status >= 300:
		return errNo
	}
	return nil
}

// An appearance is the unverified content of a token. It never contains a signature.
type appearance struct {
	Kind      string                     `json:"kind"`
	Malformed string                     `json:"malformed,omitempty"` // why it must be refused
	Header    map[string]json.RawMessage `json:"header,omitempty"`
	Claims    map[string]json.RawMessage `json:"claims,omitempty"`
	BoundTo   []string                   `json:"bound_to"` // empty: not bound, or only the issuer knows
}

// kinds maps the types of JWTs to their meanings.
var kinds = map[string]string{
	"at+jwt":                  "an access token (RFC 9068)",
	"dpop+jwt":                "a DPoP proof, not a token (RFC 9449)",
	"statuslist+jwt":          "a status list, not a token",
	"token-introspection+jwt": "an introspection response, not a token (RFC 9701)",
	"logout+jwt":              "a logout token",
	"JWT":                     "type unspecified",
}

func look(raw string) appearance {
	parts := strings.Split(raw, ".")
	header := object(parts[0])
	switch {
	case header["alg"] == nil || len(parts) != 3 && len(parts) != 5:
		return appearance{Kind: fmt.Sprintf("opaque, %d characters: only its issuer can interpret it (RFC 7662)", len(raw)), BoundTo: []string{}}
	case len(parts) == 5:
		return appearance{Kind: "an encrypted JWT (RFC 7516), which is not supported", Header: header, BoundTo: []string{}}
	}
	a := appearance{Kind: "a signed JWT", Header: header, Claims: object(parts[1]), BoundTo: []string{}}
	var typ string
	_ = json.Unmarshal(header["typ"], &typ) // typ stays empty if it is missing or invalid
	for known, meaning := range kinds {
		if jose.SameType(typ, known) || typ == "" && known == "JWT" {
			a.Kind += ": " + meaning
		}
	}
	c, err := jose.ParseWith(raw, jose.Options{Limit: authheader.MaxTokenLimit})
	if err == nil {
		err = strictjson.Object(c.Payload, func(string, strictjson.Value) error { return nil })
	}
	if err != nil {
		a.Malformed = err.Error()
	}
	bound, err := tokenclaims.Binding(strictjson.Value(a.Claims["cnf"]))
	if err != nil && a.Malformed == "" {
		a.Malformed = err.Error()
	}
	if bound.JWKThumbprint != "" {
		a.BoundTo = append(a.BoundTo, "the key with the thumbprint "+bound.JWKThumbprint+": requires a DPoP proof (RFC 9449)")
	}
	if bound.CertificateThumbprint != "" {
		a.BoundTo = append(a.BoundTo, "the certificate with the thumbprint "+bound.CertificateThumbprint+": requires TLS with that certificate (RFC 8705)")
	}
	for method := range bound.Unknown.All() {
		a.BoundTo = append(a.BoundTo, fmt.Sprintf("something by the method %.50q, which is not supported (RFC 7800)", method))
	}
	return a
}

// object decodes a part of a JWT. It returns nil if the part is not a JSON object in base64url.
func object(part string) (members map[string]json.RawMessage) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || json.Unmarshal(text, &members) != nil {
		return nil
	}
	return members
}

func (a appearance) print(w io.Writer, now time.Time) error {
	fmt.Fprintln(w, a.Kind)
	if a.Malformed != "" {
		fmt.Fprintln(w, "malformed, must be refused:", printable(a.Malformed))
	}
	for _, to := range a.BoundTo {
		fmt.Fprintln(w, "bound to", to)
	}
	if a.Claims != nil && len(a.BoundTo) == 0 && a.Malformed == "" {
		fmt.Fprintln(w, "not bound: anyone who has it can use it (RFC 6750)")
	}
	for _, members := range []map[string]json.RawMessage{a.Header, a.Claims} {
		if len(members) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := printMembers(w, members, now); err != nil {
			return err
		}
	}
	return nil
}

// A decision is the JSON form of an outcome, for --json.
type decision struct {
	Request   string        `json:"request"`
	Row       string        `json:"row"` // pattern of the route; empty: none
	Need      string        `json:"needs"`
	Checks    []proxy.Check `json:"checks"`
	Passed    bool          `json:"passed"`
	Status    int           `json:"status"`
	Refusal   *refusal      `json:"refusal,omitempty"`
	Challenge []string      `json:"challenge,omitempty"`
	Location  string        `json:"location,omitempty"`
	Failure   string        `json:"failure,omitempty"`
}

func decisionOf(out *proxy.Outcome) *decision {
	if out == nil {
		return nil
	}
	d := &decision{
		Request: out.Request, Row: out.Row, Need: out.Need, Checks: append([]proxy.Check{}, out.Checks...), Passed: out.Passed, Status: out.Status,
		Challenge: out.Header["Www-Authenticate"], Location: out.Header.Get("Location"),
	}
	if out.Refusal != nil {
		r := refusalOf(out.Refusal, issuer.InFiles)
		d.Refusal = &r
	}
	if out.Failure != nil {
		d.Failure = issuer.InFiles(out.Failure.Error())
	}
	return d
}

func printDecision(w io.Writer, d *decision) error {
	fmt.Fprintf(w, "\n%s\n", d.Request)
	switch {
	case d.Row != "":
		fmt.Fprintf(w, "decided by %q: %s\n", d.Row, d.Need)
	case d.Need != "":
		fmt.Fprintf(w, "decided without the routes: %s\n", d.Need)
	case d.Status >= 300:
		fmt.Fprintln(w, "no route matches, so the request is refused")
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range d.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Verdict, c.Name, c.Section)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(d.Checks) > 0 {
		fmt.Fprintln(w)
	}
	switch {
	case d.Refusal != nil:
		fmt.Fprintf(w, "%d %s\n", d.Status, d.Refusal)
		for _, line := range d.Challenge {
			fmt.Fprintln(w, "WWW-Authenticate:", line)
		}
	case d.Location != "":
		fmt.Fprintf(w, "%d to %s\n", d.Status, printable(d.Location))
	case d.Failure != "":
		fmt.Fprintln(w, d.Status, "because the result could not be determined")
	case d.Passed:
		fmt.Fprintln(w, "the request would go to the upstream")
	default:
		fmt.Fprintln(w, d.Status, "from the proxy itself")
	}
	return nil
}
