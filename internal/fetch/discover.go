package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey/internal/strictjson"
)

// Discoverable returns nil if the metadata of issuer can be requested: issuer is a URL that [Client.Allowed] permits, without
// query and fragment (RFC 8414, section 2). An issuer may be any string, including a URN; only discovery needs a URL.
func (c Client) Discoverable(issuer string) error {
	if err := c.Allowed(issuer); err != nil {
		return err
	}
	if strings.ContainsAny(issuer, "?#") {
		return errors.New("has a query or a fragment")
	}
	return nil
}

// Discover returns the URL in the member of the issuer's metadata, such as "jwks_uri". It tries the well-known locations of
// RFC 8414, section 3.1, the same of OpenID, and OpenID Connect Discovery 1.0, section 4.1, in turn. The error joins the
// errors of all locations.
func (c Client) Discover(ctx context.Context, issuer, member string) (string, error) {
	if err := c.Discoverable(issuer); err != nil {
		return "", fmt.Errorf("discover %s: %w", Bare(issuer), err)
	}
	var errs []error
	for _, place := range wellKnown(issuer) {
		answer, err := c.Get(ctx, place, "")
		if err == nil {
			var found string
			if found, err = c.metadata(answer.Body, issuer, member); err == nil {
				return found, nil
			}
			err = fmt.Errorf("metadata at %s: %w", Bare(place), err)
		}
		errs = append(errs, err)
		if e, ok := errors.AsType[*Error](err); ok && e.Status == 0 {
			break // no response, and the other locations are on the same host
		}
	}
	return "", errors.Join(errs...)
}

// wellKnown returns the locations of an issuer's metadata without duplicates. A slash at the end of the issuer is ignored.
func wellKnown(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	host := u.Scheme + "://" + u.Host
	places := []string{
		host + "/.well-known/oauth-authorization-server" + path,
		host + "/.well-known/openid-configuration" + path,
	}
	if path != "" {
		places = append(places, host+path+"/.well-known/openid-configuration")
	}
	return places
}

func (c Client) metadata(body []byte, issuer, member string) (string, error) {
	var said, found string
	err := strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "issuer":
			said, _ = v.Text()
		case member:
			found, _ = v.Text()
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case said != issuer: // RFC 8414, section 3.3: identical, or not used
		return "", fmt.Errorf("it is of the issuer %.100q", said)
	case found == "":
		return "", fmt.Errorf("it has no %s", member)
	}
	if err := c.Allowed(found); err != nil {
		return "", fmt.Errorf("%s %.100q: %w", member, Bare(found), err)
	}
	// A different origin is common and allowed. A downgrade to http on loopback is not.
	if strings.HasPrefix(issuer, "https:") && !strings.HasPrefix(found, "https:") && !c.InsecureHTTP {
		return "", fmt.Errorf("%s %.100q: %w", member, Bare(found), c.notHTTPS())
	}
	return found, nil
}
