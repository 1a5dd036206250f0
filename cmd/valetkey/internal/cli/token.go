package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/grant"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proof"
	"github.com/valetkey/valetkey/internal/config"
)

// tokenFlags maps the fields of grant.Request to flags.
var tokenFlags = map[string]string{"issuer": "--issuer", "token_url": "--token-url", "client_id": "--client-id"}

func tokenCommand() *cobra.Command {
	var (
		r                           grant.Request
		secretFile, secretEnv, auth string
		key                         string
		asJSON                      bool
	)
	cmd := &cobra.Command{
		Use:   "token --issuer I --client-id ID --secret-file F [flags]",
		Short: "Get an access token by client credentials, and print it",
		Long: `Get an access token with the client credentials grant (RFC 6749, section 4.4), and print only the token:

  TOKEN=$(valetkey token --issuer I --client-id ID --secret-file F)
  curl -H "Authorization: Bearer $TOKEN" URL

With --dpop, the token is bound to the key in a file (RFC 9449). A missing file is created with a new key. Each request then
needs a separate proof:

  TOKEN=$(valetkey token --issuer I --client-id ID --secret-file F \
    --dpop key.json)
  PROOF=$(valetkey token proof --key key.json --request "GET URL" "$TOKEN")
  curl -H "Authorization: DPoP $TOKEN" -H "DPoP: $PROOF" URL

The exit code is 0 if a token was printed, 1 if the server refuses the request, and 2 for an error, for example if the
server is unreachable.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var mistakes []error
			for _, m := range r.Mistakes() {
				mistakes = append(mistakes, fmt.Errorf("%s: %w", tokenFlags[m.Field], m.Err))
			}
			switch auth {
			case "basic":
			case "post":
				r.Post = true
			default:
				mistakes = append(mistakes, fmt.Errorf("--auth: %q is neither basic nor post", auth))
			}
			var err error
			if r.Secret, err = secret(secretFile, secretEnv); err != nil {
				mistakes = append(mistakes, err)
			}
			if err := errors.Join(mistakes...); err != nil {
				return err
			}
			if key != "" { // create the key file only if there are no mistakes
				if r.Key, err = proof.Open(key); err != nil {
					return fmt.Errorf("--dpop: %w", err)
				}
			}
			return printToken(cmd, r, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Issuer, "issuer", "", "authorization server; its metadata provides the token endpoint")
	f.StringVar(&r.TokenURL, "token-url", "", "token endpoint, instead of --issuer")
	f.StringVar(&r.ClientID, "client-id", "", "client ID (required)")
	f.StringVar(&secretFile, "secret-file", "", "file with the client secret")
	f.StringVar(&secretEnv, "secret-env", "", "environment variable with the secret, instead of --secret-file")
	f.StringVar(&auth, "auth", "basic", "how the secret is sent: basic or post")
	f.StringArrayVar(&r.Scopes, "scope", nil, "requested scope; may be repeated (default: chosen by the server)")
	f.StringArrayVar(&r.Resources, "resource", nil, "API for which the token is requested; may be repeated")
	f.StringVar(&key, "dpop", "", "bind the token to the key in this file, a private JWK")
	f.BoolVar(&r.InsecureHTTP, "insecure-http", false, "allow http URLs beyond loopback: an attacker on the network can read the secret and the token")
	f.BoolVar(&asJSON, "json", false, "print one JSON object, with the type, scope and expiry of the token")
	cmd.AddCommand(proofCommand())
	return cmd
}

// secret returns the client secret.
func secret(path, env string) (string, error) {
	s := config.Secret{File: path, Env: env}
	switch len(s.Sources()) {
	case 0:
		return "", errors.New("--secret-file: required, or --secret-env")
	case 2:
		return "", errors.New("--secret-env: cannot be combined with --secret-file")
	}
	text, err := s.Read()
	if err != nil {
		return "", fmt.Errorf("--secret-%s: %w", s.Sources()[0][1:], err)
	}
	return text, nil
}

func printToken(cmd *cobra.Command, r grant.Request, asJSON bool) error {
	t, err := r.Token(cmd.Context())
	if refusal, ok := errors.AsType[*grant.Refusal](err); ok {
		fmt.Fprintln(cmd.ErrOrStderr(), "valetkey: refused by the server:", printable(refusal.Error()))
		return errNo
	}
	if err != nil {
		return err
	}
	if !asJSON {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), t.AccessToken)
		return err
	}
	return printJSON(cmd.OutOrStdout(), granted(t, r))
}

// granted returns the JSON form of a token, for --json.
func granted(t *oauth2.Token, r grant.Request) any {
	scope, _ := t.Extra("scope").(string)
	out := struct {
		Token      string    `json:"access_token"`
		Type       string    `json:"token_type"`
		Expiry     time.Time `json:"expires_at,omitzero"`
		Scope      string    `json:"scope,omitempty"`
		Thumbprint string    `json:"jkt,omitempty"`
	}{Token: t.AccessToken, Type: t.TokenType, Expiry: t.Expiry.UTC().Truncate(time.Second), Scope: scope}
	if r.Key != nil {
		out.Thumbprint = r.Key.Thumbprint()
	}
	return out
}

func proofCommand() *cobra.Command {
	var key, request, nonce string
	cmd := &cobra.Command{
		Use:   `proof --key FILE --request "GET URL" [TOKEN|-]`,
		Short: "Make a DPoP proof for one request, and print it",
		Long: `Make a DPoP proof (RFC 9449) for one request, and print it: the value of its DPoP header. A server accepts it once, for
a short time. Without a token argument, the proof is for a token endpoint.

Other users of the machine can see command arguments: to keep the token secret, pass - and pipe it to stdin.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var mistakes []error
			method, at, err := requestFrom(request)
			switch {
			case err != nil:
				mistakes = append(mistakes, fmt.Errorf("--request: %w", err))
			case at == nil:
				mistakes = append(mistakes, errors.New("--request: method and URL are required"))
			case at.Host == "":
				mistakes = append(mistakes, fmt.Errorf("--request: %q is not an absolute URL, which a proof requires", at))
			}
			if key == "" {
				mistakes = append(mistakes, errors.New("--key: required"))
			}
			if len(args) > 1 {
				mistakes = append(mistakes, fmt.Errorf("expected at most one token argument (- for stdin), got %d", len(args)))
			}
			if err := errors.Join(mistakes...); err != nil {
				return err
			}
			k, err := proof.Read(key)
			if err != nil {
				return fmt.Errorf("--key: %w", err)
			}
			r := proof.Request{Method: method, URL: at.String(), Nonce: nonce}
			if len(args) == 1 {
				if r.Token, err = tokenFrom(args[0], cmd.InOrStdin()); err != nil {
					return err
				}
				if r.Token == "" { // otherwise this would be a proof for a token endpoint
					return errNoToken
				}
			}
			made, err := k.Proof(r)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "file with the key to which the token is bound (required)")
	f.StringVar(&request, "request", "", "method and URL of the request (required)")
	f.StringVar(&nonce, "nonce", "", "nonce from the DPoP-Nonce header of the server, if it sent one")
	return cmd
}

// requestFrom parses "GET https://api.example.com/orders" or "GET /orders". It returns zero values for an empty text.
func requestFrom(text string) (method string, at *url.URL, err error) {
	if text == "" {
		return "", nil, nil
	}
	method, target, found := strings.Cut(text, " ")
	if !found {
		return "", nil, fmt.Errorf("%q is not a method and a URL, such as \"GET /orders\"", text)
	}
	at, err = url.Parse(target)
	if err != nil || at.Host == "" && !strings.HasPrefix(target, "/") || at.Host != "" && at.Scheme != "https" && at.Scheme != "http" || at.User != nil {
		return "", nil, fmt.Errorf("%q is neither an http URL nor a path", target)
	}
	if _, err := http.NewRequestWithContext(context.Background(), method, "/", nil); err != nil || method == "" {
		return "", nil, fmt.Errorf("%q is not a method", method)
	}
	return method, at, nil
}

// noArgs refuses arguments without printing them, because one may be the secret.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument; see %s --help", cmd.CommandPath())
	}
	return nil
}
