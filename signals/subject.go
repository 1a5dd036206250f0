package signals

import (
	"errors"
	"fmt"
	"strings"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// A Subject is a subject identifier that a resolver maps to users: RFC 9493, section 3.2, and SSF 1.0, section 3.5.
type Subject struct {
	Format string // email, phone_number, opaque, account, did, uri, iss_sub, jwt_id or another
	Issuer string // iss of iss_sub and jwt_id; "" for the others
	ID     string // the identifier: email, phone_number, id, uri, url, sub or jti; "" for a format that is not listed above
	Raw    string // the JSON object as received
}

// The limits of a subject. The transmitter fills them; a SET that exceeds them is refused as malformed.
const (
	maxIdentifier = 1024 // bytes of a value that becomes part of a revocation; valetredis stores up to 8 KiB for each
	maxAliases    = 32   // identifiers of one subject, since each may cost a call of the resolver
)

// A parsed is the subject of an event. Either simple or complex is set.
type parsed struct {
	simple  []Subject            // one identifier, or several of the same subject (aliases)
	complex map[string][]Subject // SSF 1.0, section 3.3: the members, such as user and session
}

// formats maps a format to the member with the identifier (RFC 9493, section 3.2; SSF 1.0, section 3.5.1).
var formats = map[string]string{
	"account": "uri", "email": "email", "iss_sub": "sub", "opaque": "id", "phone_number": "phone_number", "did": "url", "uri": "uri",
	"jwt_id": "jti",
}

// complexMembers are the members of a complex subject (SSF 1.0, section 3.3).
var complexMembers = []string{"user", "device", "session", "application", "tenant", "org_unit", "group"}

// parseSubject decodes a subject. With legacy, it also reads the forms of drafts: subject_type in place of format, with "-" in place of
// "_", and a complex subject without a format.
func parseSubject(v strictjson.Value, legacy bool) (parsed, error) {
	format, members, err := readMembers(v, legacy)
	if err != nil {
		return parsed{}, err
	}
	if format != "complex" {
		all, err := parseSimple(v, legacy, true)
		return parsed{simple: all}, err
	}
	p := parsed{complex: map[string][]Subject{}}
	for name, value := range members {
		if name == "format" || name == "subject_type" {
			continue
		}
		all, err := parseSimple(value, legacy, true)
		if err != nil {
			return parsed{}, fmt.Errorf("%.50s: %w", name, err)
		}
		p.complex[name] = all
	}
	if len(p.complex) == 0 {
		return parsed{}, errors.New("a complex subject has no member")
	}
	return p, nil
}

// readMembers returns the format and the members of a subject.
func readMembers(v strictjson.Value, legacy bool) (format string, members map[string]strictjson.Value, err error) {
	if !v.IsObject() {
		return "", nil, errors.New("the subject is not an object")
	}
	members = map[string]strictjson.Value{}
	err = strictjson.Object(v, func(name string, value strictjson.Value) error {
		members[strings.Clone(name)] = value
		return nil
	}, "format")
	if err != nil {
		return "", nil, err
	}
	format, ok := members["format"].Text()
	if old, is := members["subject_type"].Text(); is && members["format"] == nil && legacy { // RISC 1.0, section 3.1
		format, ok = strings.ReplaceAll(old, "-", "_"), true
	}
	if members["format"] == nil && !ok && legacy {
		for _, name := range complexMembers {
			if members[name].IsObject() {
				return "complex", members, nil
			}
		}
	}
	if format == "" {
		return "", nil, errors.New("the subject has no format")
	}
	if legacy {
		switch format {
		case "jwt-id", "id_token_claims":
			format = strings.ReplaceAll(format, "-", "_")
		case "phone":
			format = "phone_number"
		}
	}
	return format, members, nil
}

// parseSimple decodes one identifier or, if that is allowed, several of the same subject (RFC 9493, section 3.2.8).
func parseSimple(v strictjson.Value, legacy, aliases bool) ([]Subject, error) {
	format, members, err := readMembers(v, legacy)
	if err != nil {
		return nil, err
	}
	if format != "aliases" {
		one, err := parseOne(format, members, v)
		return []Subject{one}, err
	}
	if !aliases { // "aliases" must not nest
		return nil, errors.New("aliases contain aliases")
	}
	list, _ := members["identifiers"].Elements()
	if len(list) == 0 || len(list) > maxAliases {
		return nil, fmt.Errorf("identifiers is not an array of 1 to %d subjects", maxAliases)
	}
	var all []Subject
	for _, value := range list {
		more, err := parseSimple(value, legacy, false)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func parseOne(format string, members map[string]strictjson.Value, v strictjson.Value) (Subject, error) {
	s := Subject{Format: format, Raw: string(v)}
	name, known := formats[format]
	if !known {
		if format == "complex" {
			return s, errors.New("a complex subject is not allowed here")
		}
		return s, nil // RFC 9493, section 3: others may define formats
	}
	if err := identifier(&s.ID, name, members[name]); err != nil {
		return s, err
	}
	if format == "iss_sub" || format == "jwt_id" {
		return s, identifier(&s.Issuer, "iss", members["iss"])
	}
	return s, nil
}

// identifier decodes a value that must not be empty.
func identifier(dst *string, name string, v strictjson.Value) error {
	text, ok := v.Text()
	switch {
	case v == nil || ok && text == "":
		return fmt.Errorf("%s is missing", name)
	case !ok:
		return fmt.Errorf("%s is not a string", name)
	case len(text) > maxIdentifier:
		return fmt.Errorf("%s has more than %d bytes", name, maxIdentifier)
	}
	*dst = text
	return nil
}
