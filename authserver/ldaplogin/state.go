package ldaplogin

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Attributes that show whether an account is disabled and when its password was set. A directory returns those that it has and
// that the service may read.
const (
	userAccountControl   = "userAccountControl"   // Active Directory: flags, of which 0x2 is ACCOUNTDISABLE
	accountExpires       = "accountExpires"       // Active Directory: a file time; 0 and the greatest number mean never
	nsAccountLock        = "nsAccountLock"        // 389 Directory Server, FreeIPA
	loginDisabled        = "loginDisabled"        // eDirectory
	pwdAccountLockedTime = "pwdAccountLockedTime" // password policy draft, section 5.3.3
	pwdChangedTime       = "pwdChangedTime"       // password policy draft, section 5.3.2
	pwdLastSet           = "pwdLastSet"           // Active Directory: a file time
)

var stateAttributes = []string{
	userAccountControl, accountExpires, nsAccountLock, loginDisabled, pwdAccountLockedTime, pwdChangedTime, pwdLastSet,
}

// lockedForGood is the pwdAccountLockedTime of an account that only an administrator can unlock. Any other value is a lock after
// too many wrong passwords, which must be ignored: otherwise an attacker could end a user's grants by trying passwords.
const lockedForGood = "000001010000Z"

// disabled reports whether an administrator has disabled the account, or it has expired.
func disabled(entry *ldap.Entry, now time.Time) bool {
	value := func(name string) string { return strings.TrimSpace(entry.GetEqualFoldAttributeValue(name)) }
	if flags, err := strconv.ParseInt(value(userAccountControl), 10, 64); err == nil && flags&0x2 != 0 {
		return true
	}
	if end, err := fileTime(value(accountExpires)); err == nil && !end.IsZero() && !now.Before(end) {
		return true
	}
	return strings.EqualFold(value(nsAccountLock), "TRUE") || strings.EqualFold(value(loginDisabled), "TRUE") ||
		value(pwdAccountLockedTime) == lockedForGood
}

// passwordSet returns when the password of the entry was set, or zero if the directory does not provide it.
func passwordSet(entry *ldap.Entry) (time.Time, error) {
	if text := entry.GetEqualFoldAttributeValue(pwdChangedTime); text != "" {
		t, err := time.Parse("20060102150405Z0700", text) // RFC 4517, section 3.3.13
		if err != nil {
			return time.Time{}, fmt.Errorf("the attribute %s is not a time", pwdChangedTime)
		}
		return t.UTC(), nil
	}
	t, err := fileTime(entry.GetEqualFoldAttributeValue(pwdLastSet))
	if err != nil {
		return time.Time{}, fmt.Errorf("the attribute %s: %w", pwdLastSet, err)
	}
	return t, nil
}

// fileTime parses a count of 100 ns since 1601. The result is zero for "", and for 0 and the greatest number, which mean never.
func fileTime(text string) (time.Time, error) {
	const (
		never = 1<<63 - 1
		epoch = 11_644_473_600 // seconds from 1601 to 1970
	)
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("is not a file time")
	}
	if n == 0 || n == never {
		return time.Time{}, nil
	}
	return time.Unix(n/1e7-epoch, n%1e7*100).UTC(), nil
}

// idFilter returns the filter for an ID as returned by idOf.
func (d *Directory) idFilter(id string) string {
	text := "(" + d.id + "=" + ldap.EscapeFilter(id) + ")"
	raw, isUUID := guid(id)
	if !strings.EqualFold(d.id, "objectGUID") || !isUUID {
		return text
	}
	var escaped strings.Builder
	for _, b := range raw {
		fmt.Fprintf(&escaped, "\\%02x", b)
	}
	return "(|(" + d.id + "=" + escaped.String() + ")" + text + ")" // not every directory stores it as bytes
}

// guid returns the bytes that Active Directory stores for a UUID, with the first three fields in little-endian order.
func guid(text string) (raw []byte, ok bool) {
	digits := strings.ReplaceAll(text, "-", "")
	if len(text) != 36 || len(digits) != 32 {
		return nil, false
	}
	for _, i := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		b, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			return nil, false
		}
		raw = append(raw, byte(b))
	}
	return raw, true
}
