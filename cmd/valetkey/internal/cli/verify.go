package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// keysTimeout is the limit for fetching the keys of an issuer.
const keysTimeout = 15 * time.Second

// flags maps the fields of issuer.Settings to flags.
var flags = map[string]string{
	"url": "--jwks", "file": "--jwks", "algorithms": "--alg", "insecure_http": "--insecure-http",
	"issuer": "--issuer", "audience": "--audience", "profile": "--profile", "issuer_type": "--issuer-type", "tenants": "--tenant",
	"clients": "--client", "rules": "--rule", "allow": "--allow",
}

func verifyCommand() *cobra.Command {
	var (
		s      issuer.Settings
		keys   string
		at     string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "verify --issuer I --audience A [flags] TOKEN|-",
		Short: "Verify a JWT, and print its claims or the reason for its refusal",
		Long: `Verify one JWT access token, and print its claims.

Other users of the machine can see command arguments: to keep the token secret, pass - and pipe it to stdin.

The exit code is 0 for a valid token, 1 for a refused one, and 2 for an error, for example if the keys are unavailable.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var wrong []error
			keysFrom(&s, keys)
			now, err := moment(at)
			switch {
			case err != nil:
				wrong = append(wrong, fmt.Errorf("--at: %w", err))
			case now.IsZero():
				now = time.Now()
			default:
				s.Now = func() time.Time { return now }
			}
			if len(args) != 1 {
				wrong = append(wrong, fmt.Errorf("expected one token argument (- for stdin), got %d", len(args)))
			}
			s.Logger = logTo(cmd.ErrOrStderr(), slog.LevelWarn)
			v, found := s.Verifier()
			wrong = append(wrong, inFlags(found)...)
			if v != nil {
				defer v.Close()
			}
			if err := errors.Join(wrong...); err != nil {
				return err
			}
			raw, err := tokenFrom(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			return verify(cmd.Context(), cmd.OutOrStdout(), v, raw, now, asJSON)
		},
	}
	f := cmd.Flags()
	issuerFlags(cmd, &s, &keys)
	f.StringVar(&at, "at", "", "time of the verification (RFC 3339) instead of now")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// issuerFlags adds the flags for the verifier of one issuer.
func issuerFlags(cmd *cobra.Command, s *issuer.Settings, keys *string) {
	f := cmd.Flags()
	f.StringVar(&s.Issuer, "issuer", "", "issuer of the token (required, unless --issuer-type determines it)")
	f.StringArrayVar(&s.Audience, "audience", nil, "accepted audience of the token; may be repeated (required)")
	f.StringVar(keys, "jwks", "", "key set, a file or a URL (default: discovered at the issuer)")
	f.StringVar(&s.Type, "issuer-type", "", "product of the issuer, such as keycloak, for the settings of its tokens (default: none, only tokens by RFC 9068)")
	f.StringArrayVar(&s.Tenants, "tenant", nil, "accepted tenant, with --issuer-type; may be repeated")
	f.StringArrayVar(&s.Clients, "client", nil, "accepted client; may be repeated (default: all, unless the product requires it)")
	f.StringArrayVar(&s.Rules, "rule", nil, `condition on a claim, such as "sub ^= repo:example/"; may be repeated`)
	f.StringArrayVar(&s.Allow, "allow", nil, "part of RFC 9068 that the token may lack; may be repeated: "+strings.Join(issuer.Allowances(), ", "))
	f.StringVar(&s.Profile, "profile", "", "rfc9068, or lenient for a first look at the token of an unknown product (default rfc9068)")
	f.StringArrayVar(&s.Algorithms, "alg", nil, "allowed signature algorithm; may be repeated (default RS256, PS256, ES256, ES384, EdDSA, Ed25519)")
	f.BoolVar(&s.InsecureHTTP, "insecure-http", false, "allow http URLs beyond loopback: an attacker on the network can replace the keys")
}

// keysFrom sets where the keys come from: the value of --jwks, a URL or a file.
func keysFrom(s *issuer.Settings, keys string) {
	if keys != "" && !strings.HasPrefix(keys, "http://") && !strings.HasPrefix(keys, "https://") {
		s.File = keys
	} else {
		s.URL = keys
	}
}

// inFlags returns the mistakes in an issuer's settings under the names of flags.
func inFlags(wrong []issuer.Mistake) (all []error) {
	for _, m := range wrong {
		text := issuer.InFlags(m.Err.Error())
		if flag, known := mistakes.Rename(m.Field, flags); known {
			text = flag + ": " + text
		}
		all = append(all, errors.New(text))
	}
	return all
}

// errNoToken usually means that the command that was to print the token has printed nothing.
var errNoToken = errors.New("the token is empty")

// tokenFrom returns arg, or the content of stdin if arg is "-", without one trailing line break. It reads only a little more than
// the longest token, so an oversized input is still too long afterwards. A value with the scheme of an Authorization header is an
// error.
func tokenFrom(arg string, stdin io.Reader) (string, error) {
	token := arg
	if arg == "-" {
		text, err := io.ReadAll(io.LimitReader(stdin, authheader.MaxTokenLimit+3))
		if err != nil {
			return "", fmt.Errorf("read standard input: %w", err)
		}
		token = withoutBreak(string(text))
	}
	if scheme, _, found := strings.Cut(token, " "); found && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "DPoP")) {
		return "", errors.New("expected the token alone, without the scheme of an Authorization header")
	}
	return token, nil
}

// withoutBreak returns text without one trailing line break.
func withoutBreak(text string) string {
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
}

func verify(ctx context.Context, w io.Writer, v *jwks.Verifier, raw string, now time.Time, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	t, err := v.Verify(ctx, raw)
	var refusal *valetkey.Error
	if err != nil && !errors.As(err, &refusal) { // no keys yet: unlike a server, a command can wait for them
		if err := v.Ready(ctx); err != nil {
			return errors.New(issuer.InFlags(err.Error()))
		}
		t, err = v.Verify(ctx, raw)
	}
	switch {
	case errors.As(err, &refusal):
		if err := printRefusal(w, refusal, asJSON); err != nil {
			return err
		}
		return errNo
	case err != nil:
		return err
	case asJSON:
		return printJSON(w, accepted(t))
	default:
		var claims map[string]json.RawMessage
		if err := t.Claims(&claims); err != nil {
			return err
		}
		return printMembers(w, claims, now)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func printRefusal(w io.Writer, e *valetkey.Error, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			Valid bool `json:"valid"`
			refusal
		}{false, refusalOf(e, issuer.InFlags)})
	}
	_, err := fmt.Fprintln(w, refusalOf(e, issuer.InFlags))
	return err
}

// A refusal is the JSON form of a refusal, for --json.
type refusal struct {
	Error       valetkey.Code   `json:"error"`
	Reason      valetkey.Reason `json:"reason,omitempty"`
	Description string          `json:"error_description"`
	Detail      string          `json:"detail,omitempty"`
}

// refusalOf returns the JSON form of e. spell replaces the names of settings by those that the user of the command knows.
func refusalOf(e *valetkey.Error, spell func(string) string) refusal {
	r := refusal{Error: e.Code, Reason: e.Reason, Description: e.Reason.Description()}
	if e.Err != nil {
		r.Detail = spell(e.Err.Error())
	}
	return r
}

func (r refusal) String() string {
	text := fmt.Sprintf("%s: %s", r.Error, r.Description)
	if r.Detail != "" {
		text += " (" + printable(r.Detail) + ")"
	}
	return text
}

// facts is the JSON form of a token, for --json.
type facts struct {
	Valid     bool            `json:"valid"`
	Issuer    string          `json:"issuer"`
	Subject   string          `json:"subject,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	ID        string          `json:"id,omitempty"`
	Audience  []string        `json:"audience"`
	Scopes    []string        `json:"scopes"`
	IssuedAt  time.Time       `json:"issued_at,omitzero"`
	NotBefore time.Time       `json:"not_before,omitzero"`
	Expiry    time.Time       `json:"expires_at,omitzero"`
	Claims    json.RawMessage `json:"claims"`
}

func accepted(t *valetkey.Token) facts {
	return facts{
		Valid:     true,
		Issuer:    t.Issuer(),
		Subject:   t.Subject(),
		ClientID:  t.ClientID(),
		ID:        t.ID(),
		Audience:  t.Audience().Slice(),
		Scopes:    append([]string{}, t.Scopes().Slice()...), // never null
		IssuedAt:  t.IssuedAt().UTC(),
		NotBefore: t.NotBefore().UTC(),
		Expiry:    t.Expiry().UTC(),
		Claims:    json.RawMessage(t.Raw()),
	}
}
