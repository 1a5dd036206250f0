package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
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

// MaxMetadata is the maximum size of an issuer's metadata, in bytes, unless Client.MaxBody is set.
const MaxMetadata = 1 << 20

// DiscoverTimeout bounds [Client.Discover]: there are up to three locations, and each may hang for [Timeout].
const DiscoverTimeout = 3 * Timeout

// Discover returns the URL in the member of the issuer's metadata, such as "jwks_uri". It tries the well-known locations of
// RFC 8414, section 3.1, the same of OpenID, and OpenID Connect Discovery 1.0, section 4.1, in turn. It goes on to the next
// one after any failure, since a proxy in front of the issuer may reset or delay requests for a path that it does not know.
// Only if no connection is possible, there is no next one: all locations are on the same host. The error joins the errors of
// all locations that were tried, each with its URL.
func (c Client) Discover(ctx context.Context, issuer, member string) (string, error) {
	if err := c.Discoverable(issuer); err != nil {
		return "", fmt.Errorf("discover %s: %w", Bare(issuer), err)
	}
	ctx, cancel := context.WithTimeout(ctx, DiscoverTimeout)
	defer cancel()
	c.MaxBody = cmp.Or(c.MaxBody, MaxMetadata)
	var errs []error
	for _, place := range WellKnown(issuer) {
		answer, err := c.Get(ctx, place, "")
		if err == nil {
			var found string
			if found, err = c.metadata(answer.Body, issuer, member); err == nil {
				return found, nil
			}
			err = fmt.Errorf("metadata at %s: %w", Bare(place), err)
		}
		errs = append(errs, err)
		if unreachable(err) {
			break
		}
	}
	return "", errors.Join(errs...)
}

// unreachable reports whether err means that there was no connection to the host.
func unreachable(err error) bool {
	dial, is := errors.AsType[*net.OpError](err)
	return is && dial.Op == "dial"
}

// WellKnown returns the locations of an issuer's metadata without duplicates. A slash at the end of the issuer is ignored.
func WellKnown(issuer string) []string {
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
	}, "issuer", member)
	switch {
	case err != nil:
		return "", err
	case said != issuer: // RFC 8414, section 3.3: identical, or not used
		return "", fmt.Errorf("it is of the issuer %.100q", said)
	case found == "":
		return "", fmt.Errorf("it has no %s", member)
	}
	if err := c.AllowedBy(issuer, found); err != nil {
		return "", fmt.Errorf("%s %.100q: %w", member, Bare(found), err)
	}
	return found, nil
}

// AllowedBy returns nil if u, a URL in the metadata of issuer, can be requested: [Client.Allowed] permits it, and it is not http on
// loopback in metadata from an https issuer. A different origin is common and allowed.
func (c Client) AllowedBy(issuer, u string) error {
	if err := c.Allowed(u); err != nil {
		return err
	}
	if isHTTPS(issuer) && !isHTTPS(u) && !c.InsecureHTTP {
		return c.notHTTPS()
	}
	return nil
}

func isHTTPS(u string) bool {
	parsed, err := url.Parse(u)
	return err == nil && parsed.Scheme == "https"
}
