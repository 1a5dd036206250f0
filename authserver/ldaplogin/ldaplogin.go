// Package ldaplogin lets people log in to the authorization server with their name and password in an LDAP directory. It
// searches for the entry that has the name, and binds as that entry with the password (RFC 4511, RFC 4513).
//
//	employees, err := ldaplogin.New(ldaplogin.Config{
//		URL:          "ldaps://ldap.example.com",
//		BindDN:       "cn=valetkey,ou=services,dc=example,dc=com",
//		BindPassword: password,
//		BaseDN:       "ou=people,dc=example,dc=com",
//	})
//
// Referrals are not followed, and aliases are not resolved. Password policy controls are not read: a user who must first change
// a password is refused only if the directory refuses the bind.
package ldaplogin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/authserver/login"
)

// A Directory is a [login.Login] of the people in an LDAP directory. It is safe for concurrent use.
type Directory struct {
	server   server
	pool     *pool // of connections that are bound as the service, never as a user
	timeout  time.Duration
	log      *slog.Logger
	baseDN   string
	filter   string
	names    []string // the attributes that the filter compares with the name
	id       string
	display  string
	groups   []group
	userType string
}

var _ login.Login = (*Directory)(nil)

// Login implements [login.Login]. The user's Name is spelled as in the directory. An unknown name costs a search and a bind,
// like a wrong password; the time that the directory itself takes for each may differ.
func (d *Directory) Login(ctx context.Context, name, password string) (*login.User, error) {
	// A bind without a password succeeds for any entry, because it requests no authentication (RFC 4513, section 5.1.2).
	if password == "" || len(password) > 1024 || login.ValidName(name) != nil {
		return nil, login.ErrRefused
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	entry, err := d.find(ctx, strings.TrimSpace(name))
	if err != nil {
		return nil, fmt.Errorf("ldaplogin: searching for %q: %w", name, err)
	}
	dn := d.baseDN // an entry that is not a user
	if entry != nil {
		dn = entry.DN
	}
	right, err := d.bind(ctx, dn, password)
	if err != nil {
		return nil, fmt.Errorf("ldaplogin: binding as %q: %w", dn, err)
	}
	if entry == nil || !right || disabled(entry, time.Now()) {
		return nil, login.ErrRefused
	}
	u, err := d.user(entry, name)
	if err != nil {
		return nil, fmt.Errorf("ldaplogin: reading %q: %w", dn, err)
	}
	return u, nil
}

// Lookup implements [login.Login]. It finds the entry by the ID attribute, among the entries that the Filter matches with any
// name. An entry that the Filter excludes, or that is disabled, is not a user. [Config] describes when an account counts as
// disabled and a password as new. If no entry is found and the base cannot be read either, the result is an outage.
func (d *Directory) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	id, ours := strings.CutPrefix(subject, d.userType+":")
	if !ours || id == "" {
		return nil, fmt.Errorf("ldaplogin: %w of type %s: %q", login.ErrNoUser, d.userType, subject)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	found, several, err := d.people(ctx, "(&"+strings.ReplaceAll(d.filter, "%s", "*")+d.idFilter(id)+")")
	switch {
	case several:
		return nil, fmt.Errorf("ldaplogin: looking up %q: several entries have this %s", subject, d.id)
	case err != nil:
		return nil, fmt.Errorf("ldaplogin: looking up %q: %w", subject, err)
	case len(found) == 0:
		// A service that has lost its read permission finds no entry either.
		if err := d.Ready(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("ldaplogin: %w: %q", login.ErrNoUser, subject)
	}
	entry := found[0]
	if is, err := idOf(entry, d.id); err != nil || is != id { // a directory compares without regard to case
		return nil, errors.Join(err, fmt.Errorf("ldaplogin: %w: %q", login.ErrNoUser, subject))
	}
	if disabled(entry, time.Now()) {
		return nil, fmt.Errorf("ldaplogin: %w: %q is disabled", login.ErrNoUser, subject)
	}
	a := new(login.Account)
	if a.Since, err = passwordSet(entry); err != nil {
		return nil, fmt.Errorf("ldaplogin: looking up %q: %w", subject, err)
	}
	if d.groups != nil {
		a.Scopes = d.scopes(entry)
	}
	return a, nil
}

// Ready returns an error if the directory cannot be searched now. Call it at startup to fail, or to wait.
func (d *Directory) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	_, err := d.search(ctx, ldap.NewSearchRequest(d.baseDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass=*)", []string{"1.1"}, nil)) // 1.1: no attributes (RFC 4511, section 4.5.1.8)
	if err != nil {
		return fmt.Errorf("ldaplogin: reading %q: %w", d.baseDN, err)
	}
	return nil
}

// Close waits for logins in progress and closes all connections. Later logins return an outage.
func (d *Directory) Close() error {
	d.pool.close()
	return nil
}

// find returns the only entry that has the name, or nil if there is none or more than one.
func (d *Directory) find(ctx context.Context, name string) (*ldap.Entry, error) {
	found, several, err := d.people(ctx, strings.ReplaceAll(d.filter, "%s", ldap.EscapeFilter(name)))
	if several {
		d.log.WarnContext(ctx, "ldaplogin: several entries have the same name, so log-ins with it are refused", "name", name)
		return nil, nil
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	entry := found[0]
	switch {
	case entry.DN == "":
		return nil, errors.New("the entry has no DN") // an anonymous bind might succeed
	case d.nameOf(entry, name) == "":
		// A directory may match more names than [login.Fold] does (RFC 4518), such as without accents or with invisible
		// characters. Then one entry would have many names, each with its own budget of password attempts.
		return nil, nil
	}
	return entry, nil
}

// people returns the entries that a filter matches, with all attributes that are read. several: there is more than one.
func (d *Directory) people(ctx context.Context, filter string) (found []*ldap.Entry, several bool, err error) {
	attributes := slices.Concat(d.names, []string{d.id, d.display}, stateAttributes)
	if d.groups != nil {
		attributes = append(attributes, memberOf)
	}
	found, err = d.search(ctx, ldap.NewSearchRequest(d.baseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, 0, false,
		filter, attributes, nil))
	return found, len(found) > 1 || ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err
}

// nameOf returns the name as the entry spells it, or "" if the entry does not have it.
func (d *Directory) nameOf(entry *ldap.Entry, name string) string {
	for _, attribute := range d.names {
		for _, value := range entry.GetEqualFoldAttributeValues(attribute) {
			if login.Fold(value) == login.Fold(name) {
				return value
			}
		}
	}
	return ""
}

// search searches as the service.
func (d *Directory) search(ctx context.Context, request *ldap.SearchRequest) ([]*ldap.Entry, error) {
	var found []*ldap.Entry
	err := d.pool.use(ctx, func(c *ldap.Conn) error {
		result, err := c.Search(request)
		if result != nil {
			found = result.Entries
		}
		return err
	})
	return found, err
}

// bind reports whether the password is that of the entry. It uses a separate connection for this alone.
func (d *Directory) bind(ctx context.Context, dn, password string) (bool, error) {
	c, err := d.server.connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.close()
	err = c.do(ctx, func(c *ldap.Conn) error { return c.Bind(dn, password) })
	// The result codes with which directories refuse, including for a user who is locked, expired, without a password, or
	// removed.
	no := ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication,
		ldap.LDAPResultConstraintViolation, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultNoSuchObject)
	if no {
		return false, nil
	}
	return err == nil, err
}
