package jose

import (
	"bytes"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// HeaderMember returns the member of c's header with this name, or nil if it is missing or empty. It must not have the name in another
// letter case too. It decodes the header again, since few issuers have data for the application in it.
func (c *Compact) HeaderMember(name string) (value strictjson.Value, err error) {
	header, _, _ := bytes.Cut(c.input(), []byte("."))
	object, _ := base64url.AppendDecode(nil, bytes.TrimRight(header, "=")) // parse has decoded it before
	err = strictjson.Object(object, func(n string, v strictjson.Value) error {
		if n == name && !v.IsEmpty() {
			value = v
		}
		return nil
	}, name)
	if err != nil {
		return nil, err
	}
	return value, nil
}
