package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
)

func revokeCommand() *cobra.Command {
	var (
		config        string
		r             valetkey.Revocation
		before, until string
	)
	cmd := &cobra.Command{
		Use:   "revoke --config FILE --issuer I --id|--subject|--session|... [flags]",
		Short: "Publish a revocation to all proxies that share a Redis",
		Long: `Publish a revocation to all proxies that share the Redis instance of a configuration. The proxies then reject the tokens,
although their signatures are valid.

The authorization server is not informed: revoke grants there too if tokens must not be renewed. "valetkey serve" does not
publish its revocations to proxies: it reports revoked opaque tokens by introspection.

Without --before, tokens issued until the leeway of the proxies after now (30 s by default) are revoked too, because the
clock of the issuer may be ahead. A user who logs in again within that time is rejected. If you know the time of the
issuer's clock, pass it as --before: tokens issued in a later second remain valid.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var mistakes []error
			if config == "" {
				mistakes = append(mistakes, errors.New("--config: required"))
			}
			if r.Issuer == "" {
				mistakes = append(mistakes, errors.New("--issuer: required"))
			}
			if named(r) != 1 {
				mistakes = append(mistakes, errors.New("one of --id, --subject, --session, --client and --all is required"))
			}
			var err error
			if r.Before, err = moment(before); err != nil {
				mistakes = append(mistakes, fmt.Errorf("--before: %w", err))
			}
			if r.Until, err = moment(until); err != nil {
				mistakes = append(mistakes, fmt.Errorf("--until: %w", err))
			} else if until != "" && !r.Until.After(time.Now()) {
				mistakes = append(mistakes, errors.New("--until: is in the past"))
			}
			if err := errors.Join(mistakes...); err != nil {
				return err
			}
			if err := proxy.Revoke(cmd.Context(), config, r, logTo(cmd.ErrOrStderr(), slog.LevelWarn)); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "published")
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file of the proxies, with a redis section (required)")
	f.StringVar(&r.Issuer, "issuer", "", "issuer of the tokens (required)")
	f.StringVar(&r.ID, "id", "", "revoke the token with this jti")
	f.StringVar(&r.Subject, "subject", "", "revoke the tokens of this subject")
	f.StringVar(&r.SessionID, "session", "", "revoke the tokens of this login session, by their sid")
	f.StringVar(&r.ClientID, "client", "", "revoke the tokens of this client")
	f.BoolVar(&r.All, "all", false, "revoke all tokens of the issuer")
	f.StringVar(&before, "before", "", "revoke only tokens issued before this time (RFC 3339, by the issuer's clock); ignored with --id (default: now plus the leeway)")
	f.StringVar(&until, "until", "", "expiry of the last of the tokens (RFC 3339), at most 24 hours from now; the leeway is added (default: 24 hours from now)")
	return cmd
}

func named(r valetkey.Revocation) (count int) {
	for _, given := range []bool{r.ID != "", r.Subject != "", r.SessionID != "", r.ClientID != "", r.All} {
		if given {
			count++
		}
	}
	return count
}

// moment parses an RFC 3339 time. It returns the zero time for "".
func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time such as 2006-01-02T15:04:05Z", text)
	}
	return t, nil
}
