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
	return group("user", "Add, list and remove the people in the database of an authorization server, and end what any user has granted",
		userAddCommand(drivers), userPasswordCommand(drivers), userListCommand(drivers), userRemoveCommand(drivers), userRevokeCommand(drivers))
}

func userAddCommand(drivers driver.Set) *cobra.Command {
	var u login.NewUser
	var userType string
	cmd := adding(drivers, "add NAME", "Add a person, whose password is the first line of standard input", cobra.ExactArgs(1),
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
				return flagged(err, map[string]string{"scopes": "scope"})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "subject %s\n", made.Subject)
			return nil
		})
	userTypeFlag(cmd, &userType)
	cmd.Flags().StringVar(&u.Display, "display", "", "what pages call them (default: the name)")
	cmd.Flags().StringVar(&u.ID, "id", "", "their subject's part after the colon (default: a random one)")
	cmd.Flags().StringSliceVar(&u.Scopes, "scope", nil, "all that they may allow an application; may be repeated (default: whatever the API has)")
	return cmd
}

func userTypeFlag(cmd *cobra.Command, userType *string) {
	cmd.Flags().StringVar(userType, "type", "", "type of the users (default: the first whose people are in the database)")
}

// readPassword reads the password from the first line of standard input, and prompts at a terminal. The password is neither an
// argument nor a flag, because other users of the machine could see those.
func readPassword(cmd *cobra.Command) (string, error) {
	r := cmd.InOrStdin()
	if f, isFile := r.(*os.File); isFile {
		if about, err := f.Stat(); err == nil && about.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprint(cmd.ErrOrStderr(), "Password, which shows as you type it: ")
		}
	}
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if password == "" {
		return "", errors.New("the password is needed as the first line of standard input")
	}
	return password, nil
}

func userPasswordCommand(drivers driver.Set) *cobra.Command {
	var userType string
	cmd := operating(drivers, "password NAME", "Replace the password of a person by the first line of standard input, and end their sessions and grants", cobra.ExactArgs(1),
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
	cmd := operating(drivers, "list", "List the people who were added, but not those of the configuration", cobra.NoArgs,
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
	cmd := operating(drivers, "remove NAME", "Remove a person, and end all that they have granted", cobra.ExactArgs(1),
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
	cmd.Long = `End all browser sessions and grants of a user, on a store that a running server may use at the same time.

The subject is the sub of the user's tokens, as the audit log shows it: a type and an id. It may be any user's, also one
of the configuration file, of a directory, or one that exists nowhere any more. The user can log in again; remove the
account to prevent that. Refresh tokens end at once, and introspection reports the access tokens as inactive. An API that
verifies JWTs by itself accepts them until they expire: use "valetkey revoke" there. It is an error if nothing is found.`
	return cmd
}
