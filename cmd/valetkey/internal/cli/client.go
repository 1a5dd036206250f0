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
	"Name": "name", "URI": "uri", "RedirectURIs": "redirect-uri", "GrantTypes": "grant-type", "AuthMethod": "auth-method",
	"JWKS": "jwks", "JWKSURL": "jwks-uri", "DefaultAPI": "default-api", "Introspects": "introspects",
	"Lifetime": "lifetime", "Scopes": "scope", "Trusted": "trusted", "TLSSubjectDN": "tls-subject-dn", "TLSSANDNS": "tls-san-dns",
	"LogoutURI": "backchannel-logout-uri", "LogoutSession": "backchannel-logout-session",
	"TLSSANURI": "tls-san-uri", "TLSSANIP": "tls-san-ip", "TLSSANEmail": "tls-san-email",
}

const maxKeySet = 64 << 10 // bytes

func clientAddCommand(drivers driver.Set) *cobra.Command {
	var c authserver.Client
	var keySet string
	cmd := adding(drivers, "add --scope SCOPE [--redirect-uri URI]", "Register a client, and print its ID and secret (shown only once)", cobra.NoArgs,
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
	f.StringVar(&c.Name, "name", "", "display name")
	f.StringVar(&c.URI, "uri", "", "website URL")
	f.StringSliceVar(&c.RedirectURIs, "redirect-uri", nil, "allowed redirect URI (exact match); may be repeated")
	f.StringVar(&c.LogoutURI, "backchannel-logout-uri", "", "https URL that gets logout tokens; requires signals")
	f.BoolVar(&c.LogoutSession, "backchannel-logout-session", false, "put a sid into each logout token")
	f.StringSliceVar(&c.Scopes, "scope", nil, "allowed scope; may be repeated")
	f.StringSliceVar(&c.GrantTypes, "grant-type", nil, "allowed grant type; may be repeated (default: authorization_code and refresh_token with a redirect URI, otherwise client_credentials)")
	f.StringVar(&c.AuthMethod, "auth-method", "", "authentication method: client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth, self_signed_tls_client_auth, or none for a public client (default: client_secret_basic)")
	f.StringVar(&keySet, "jwks", "", "file with the public keys, for private_key_jwt or self_signed_tls_client_auth")
	f.StringVar(&c.JWKSURL, "jwks-uri", "", "https URL of the public keys, for private_key_jwt or self_signed_tls_client_auth")
	f.StringVar(&c.TLSSubjectDN, "tls-subject-dn", "", "distinguished name of the certificate, for tls_client_auth, such as CN=client,O=Example")
	f.StringVar(&c.TLSSANDNS, "tls-san-dns", "", "DNS name of the certificate, for tls_client_auth")
	f.StringVar(&c.TLSSANURI, "tls-san-uri", "", "URI of the certificate, for tls_client_auth")
	f.StringVar(&c.TLSSANIP, "tls-san-ip", "", "IP address of the certificate, for tls_client_auth")
	f.StringVar(&c.TLSSANEmail, "tls-san-email", "", "email address of the certificate, for tls_client_auth")
	f.StringVar(&c.DefaultAPI, "default-api", "", "audience of tokens if a request names none")
	f.StringSliceVar(&c.Introspects, "introspects", nil, "audience whose tokens the client, an API, may introspect; may be repeated")
	f.DurationVar(&c.Lifetime, "lifetime", 0, "lifetime of tokens (default: that of the API)")
	f.BoolVar(&c.Native, "native", false, "application on the user's device: a loopback redirect URI matches on any port")
	f.BoolVar(&c.Trusted, "trusted", false, "first-party application: users are not asked for consent; not for native applications, which others can impersonate")
	f.BoolVar(&c.WithoutPKCE, "without-pkce", false, "do not require PKCE, for legacy clients: anyone who obtains an authorization code can use it")
	return cmd
}

func clientListCommand(drivers driver.Set) *cobra.Command {
	return operating(drivers, "list", "List all clients, including those in the configuration", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
			var all []authserver.Client
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
	return operating(drivers, "rotate ID", "Replace the secret of a client, and print the new one (only once)", cobra.ExactArgs(1),
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
	return operating(drivers, "remove ID", "Remove a client, and revoke everything that users have granted it", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			return s.RemoveClient(cmd.Context(), args[0])
		})
}
