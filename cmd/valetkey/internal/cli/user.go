package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func userCommand(drivers driver.Set) *cobra.Command {
	return group("user", "Add, list and remove users in the database, and revoke grants",
		userAddCommand(drivers), userPasswordCommand(drivers), userListCommand(drivers), userRemoveCommand(drivers), userRevokeCommand(drivers))
}

func userAddCommand(drivers driver.Set) *cobra.Command {
	var u login.NewUser
	var userType string
	cmd := adding(drivers, "add NAME", "Add a user; the password is the first line of stdin", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			var err error
			u.Name = args[0]
			if u.Password, err = readPassword(cmd); err != nil {
				return err
			}
			u.Scopes = words(u.Scopes)
			if !cmd.Flags().Changed("scope") {
				u.Scopes = nil // nil permits all scopes, empty permits none
			}
			made, err := s.AddUser(cmd.Context(), userType, u)
			if err != nil {
				return flagged(err, map[string]string{"Scopes": "scope"})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "subject %s\n", made.Subject)
			return nil
		})
	userTypeFlag(cmd, &userType)
	cmd.Flags().StringVar(&u.Display, "display", "", "display name (default: the name)")
	cmd.Flags().StringVar(&u.ID, "id", "", "part of the subject after the colon (default: random)")
	cmd.Flags().StringSliceVar(&u.Scopes, "scope", nil, "scope that the user may grant to applications; may be repeated (default: all scopes of the API)")
	return cmd
}

func userTypeFlag(cmd *cobra.Command, userType *string) {
	cmd.Flags().StringVar(userType, "type", "", "user type (default: the first type that uses the database)")
}

// readPassword reads the password from the first line of standard input, and prompts at a terminal. The password is neither an
// argument nor a flag, because other users of the machine could see those.
func readPassword(cmd *cobra.Command) (string, error) {
	r := cmd.InOrStdin()
	if f, isFile := r.(*os.File); isFile {
		if about, err := f.Stat(); err == nil && about.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprint(cmd.ErrOrStderr(), "Password (visible as you type): ")
		}
	}
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if password == "" {
		return "", errors.New("the password is required on the first line of stdin")
	}
	return password, nil
}

func userPasswordCommand(drivers driver.Set) *cobra.Command {
	var userType string
	cmd := operating(drivers, "password NAME", "Replace a password by the first line of stdin, and end sessions", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			return s.SetPassword(cmd.Context(), userType, args[0], password)
		})
	userTypeFlag(cmd, &userType)
	return cmd
}

func userListCommand(drivers driver.Set) *cobra.Command {
	var userType string
	cmd := operating(drivers, "list", "List the users in the database, without those in the configuration", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
			people, err := s.Users(userType)
			if err != nil {
				return err
			}
			var all []login.User
			const page = 100
			for after := ""; ; after = all[len(all)-1].Name {
				some, err := people.List(cmd.Context(), after, page)
				if err != nil {
					return err
				}
				all = append(all, some...)
				if len(some) < page {
					break
				}
			}
			return table(cmd.OutOrStdout(), "NAME\tSUBJECT\tDISPLAY\tSCOPES", func(row func(cells ...any)) {
				for _, u := range all {
					scopes := strings.Join(u.Scopes, " ")
					if u.Scopes == nil {
						scopes = "all"
					}
					row(u.Name, u.Subject, u.Display, scopes)
				}
			})
		})
	userTypeFlag(cmd, &userType)
	return cmd
}

func userRemoveCommand(drivers driver.Set) *cobra.Command {
	var userType string
	cmd := operating(drivers, "remove NAME", "Remove a user, and end the sessions and grants of the user", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			return s.RemoveUser(cmd.Context(), userType, args[0])
		})
	userTypeFlag(cmd, &userType)
	return cmd
}

func userRevokeCommand(drivers driver.Set) *cobra.Command {
	cmd := operating(drivers, "revoke SUBJECT", "End all sessions and grants of a user, such as customer:alice", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			sessions, grants, err := s.RevokeUser(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ended %d sessions and %d grants of %s\n", sessions, grants, args[0])
			return err
		})
	cmd.Long = `End all browser sessions and grants of a user. A running server may use the store at the same time.

The subject is the sub of the user's tokens and the subject in the audit log: a type and an ID. The user may be in the
configuration file, in a directory, or deleted. The user can log in again; remove the account to prevent that. Refresh
tokens end immediately, and introspection reports the access tokens as inactive. An API that verifies JWTs locally accepts
them until they expire: use "valetkey revoke" there. It is an error if the user has no sessions and no grants.`
	return cmd
}
