package ldaplogin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/valetkey/valetkey/authserver/login"
)

// memberOf is the attribute with the groups that an entry belongs to directly.
const memberOf = "memberOf"

// A group gives its members scopes.
type group struct {
	dn     *ldap.DN
	scopes []string
}

func (d *Directory) user(entry *ldap.Entry, name string) (*login.User, error) {
	id, err := idOf(entry, d.id)
	if err != nil {
		return nil, err
	}
	u := &login.User{
		Subject: d.userType + ":" + id,
		Type:    d.userType,
		Name:    d.nameOf(entry, name),
		Display: entry.GetEqualFoldAttributeValue(d.display),
	}
	if d.groups != nil {
		u.Scopes = d.scopes(entry)
	}
	if u.Since, err = passwordSet(entry); err != nil {
		return nil, err
	}
	return u, nil
}

// idOf returns the permanent identifier of the entry.
func idOf(entry *ldap.Entry, attribute string) (string, error) {
	values := entry.GetEqualFoldRawAttributeValues(attribute)
	if len(values) != 1 {
		return "", fmt.Errorf("the attribute %s has %d values, not one", attribute, len(values))
	}
	id := values[0]
	if strings.EqualFold(attribute, "objectGUID") && len(id) == 16 {
		// Active Directory stores it as bytes, with the first three fields in little-endian order, and displays it as a UUID.
		return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(id), binary.LittleEndian.Uint16(id[4:]),
			binary.LittleEndian.Uint16(id[6:]), id[8:10], id[10:]), nil
	}
	if len(id) == 0 || len(id) > 200 || slices.ContainsFunc(id, func(c byte) bool { return c <= ' ' || c > '~' }) {
		return "", errors.New("the attribute " + attribute + " is not an identifier: 1 to 200 visible ASCII characters")
	}
	return string(id), nil
}

// scopes returns the scopes of all groups that the entry is in. The result is not nil, because nil means all scopes.
func (d *Directory) scopes(entry *ldap.Entry) []string {
	scopes := []string{}
	for _, value := range entry.GetEqualFoldAttributeValues(memberOf) {
		dn, err := ldap.ParseDN(value)
		if err != nil {
			continue // not in Groups, whose names can be parsed
		}
		for _, g := range d.groups {
			if g.dn.EqualFold(dn) {
				scopes = append(scopes, g.scopes...)
			}
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}
