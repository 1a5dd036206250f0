package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
)

func clientCommand(drivers driver.Set) *cobra.Command {
	return group("client", "Register, list and remove the clients of an authorization server",
		clientAddCommand(drivers), clientListCommand(drivers), clientRotateCommand(drivers), clientRemoveCommand(drivers))
}

// clientFlags maps the fields of a client to flags.
var clientFlags = map[string]string{
	"name": "name", "uri": "uri", "redirect_uris": "redirect-uri", "grant_types": "grant-type", "token_endpoint_auth_method": "auth-method",
	"jwks": "jwks", "jwks_uri": "jwks-uri", "default_api": "default-api", "introspects": "introspects",
	"lifetime": "lifetime", "scopes": "scope", "trusted": "trusted",
}

const maxKeySet = 64 << 10 // bytes

func clientAddCommand(drivers driver.Set) *cobra.Command {
	var c authserver.Client
	var keySet string
	cmd := adding(drivers, "add --scope SCOPE [--redirect-uri URI]", "Register a client, and print its id and, this once, its secret", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
			if keySet != "" {
				text, err := config.Content(keySet, maxKeySet)
				if err != nil {
					return fmt.Errorf("--jwks: %w", err)
				}
				c.JWKS = string(text)
			}
			c.Scopes = words(c.Scopes)
			id, secret, err := s.AddClient(cmd.Context(), c)
			if err != nil {
				return flagged(err, clientFlags)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "client_id %s\n", id)
			if secret != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "client_secret %s\n", secret)
			}
			return nil
		})
	f := cmd.Flags()
	f.StringVar(&c.Name, "name", "", "what people call it")
	f.StringVar(&c.URI, "uri", "", "its website")
	f.StringSliceVar(&c.RedirectURIs, "redirect-uri", nil, "where the answers for its users go, compared exactly; may be repeated")
	f.StringSliceVar(&c.Scopes, "scope", nil, "what it may ask for; may be repeated")
	f.StringSliceVar(&c.GrantTypes, "grant-type", nil, "what it may use; may be repeated (default: with a redirect URI authorization_code and refresh_token, or else client_credentials)")
	f.StringVar(&c.AuthMethod, "auth-method", "", "how it authenticates: client_secret_basic, client_secret_post, private_key_jwt, or none for an application that keeps no secret (default: client_secret_basic)")
	f.StringVar(&keySet, "jwks", "", "file with its public keys, for private_key_jwt")
	f.StringVar(&c.JWKSURL, "jwks-uri", "", "https URL of its public keys, for private_key_jwt")
	f.StringVar(&c.DefaultAPI, "default-api", "", "audience of its tokens if it names none")
	f.StringSliceVar(&c.Introspects, "introspects", nil, "audience that it answers for, for an API; may be repeated")
	f.DurationVar(&c.Lifetime, "lifetime", 0, "of its tokens (default: the API's)")
	f.BoolVar(&c.Native, "native", false, "it runs on the user's device: the port of a loopback redirect URI is free")
	f.BoolVar(&c.Trusted, "trusted", false, "it is ours: users are not asked for consent; not for native applications, whose place others can take")
	f.BoolVar(&c.WithoutPKCE, "without-pkce", false, "it is too old for PKCE: whoever learns a code of it can use that")
	return cmd
}

func clientListCommand(drivers driver.Set) *cobra.Command {
	return operating(drivers, "list", "List all clients, those of the configuration among them", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
			var all []authserver.RegisteredClient
			const page = 100
			for after := ""; ; after = all[len(all)-1].ID {
				some, err := s.Clients(cmd.Context(), after, page)
				if err != nil {
					return err
				}
				all = append(all, some...)
				if len(some) < page {
					break
				}
			}
			return table(cmd.OutOrStdout(), "ID\tNAME\tAUTHENTICATION\tSCOPES\tREGISTERED\tBY", func(row func(cells ...any)) {
				for _, c := range all {
					registered := when(c.IssuedAt)
					if registered == "" {
						registered = "configuration"
					}
					row(c.ID, c.Name, c.AuthMethod, strings.Join(c.Scopes, " "), registered, c.Owner)
				}
			})
		})
}

func clientRotateCommand(drivers driver.Set) *cobra.Command {
	return operating(drivers, "rotate ID", "Give a client a new secret, print it this once, and end the old one", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			secret, err := s.RotateSecret(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "client_secret %s\n", secret)
			return nil
		})
}

func clientRemoveCommand(drivers driver.Set) *cobra.Command {
	return operating(drivers, "remove ID", "Remove a client, and end all that users have granted it", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			return s.RemoveClient(cmd.Context(), args[0])
		})
}
