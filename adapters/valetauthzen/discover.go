package valetauthzen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
)

// locate returns the endpoints. If they have not been discovered, it starts that, and returns an error.
func (c *Client) locate() (endpoints, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return endpoints{}, &valetkey.Unavailable{Err: errors.New("valetauthzen: the client is closed")}
	case c.endpoints != nil:
		return *c.endpoints, nil
	}
	c.discoverLocked()
	err := c.discovered
	if err == nil {
		err = errors.New("the metadata of the policy server is being read")
	}
	return endpoints{}, &valetkey.Unavailable{RetryAfter: discoveryRetry, Err: fmt.Errorf("valetauthzen: %w", err)}
}

// Ready reads the metadata, if Config.Discover is set, and waits until that has succeeded or ctx is done. Otherwise it returns nil.
func (c *Client) Ready(ctx context.Context) error {
	for {
		c.mu.Lock()
		ready, closed := c.endpoints != nil, c.closed
		if !ready && !closed {
			c.discoverLocked()
		}
		ended, next, err := c.discovering, c.next, c.discovered
		c.mu.Unlock()
		switch {
		case ready:
			return nil
		case closed:
			return errors.New("valetauthzen: the client is closed")
		}
		if ended == nil { // it is too early for another attempt
			timer := time.NewTimer(time.Until(next))
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			}
			continue
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// discoverLocked starts to read the metadata unless that is under way, or an attempt has failed a moment ago.
func (c *Client) discoverLocked() {
	if c.discovering != nil || time.Now().Before(c.next) {
		return
	}
	ended := make(chan struct{})
	c.discovering = ended
	c.running.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, discoveryTimeout)
		defer cancel()
		found, err := c.discover(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.discovering, c.discovered, c.next = nil, err, time.Now().Add(discoveryRetry)
		if err == nil {
			c.endpoints = found
		}
		close(ended)
	})
}

// discover reads the metadata (AuthZEN, section 9).
func (c *Client) discover(ctx context.Context) (*endpoints, error) {
	at := *c.base // section 9.2.1: inserted between the host and the path
	at.Path = "/.well-known/authzen-configuration" + strings.TrimSuffix(c.base.Path, "/")
	at.RawPath = ""
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	defer resp.Body.Close()
	text, err := jsonBody(resp)
	if err != nil {
		return nil, fmt.Errorf("metadata at %s: %w", at.String(), err)
	}
	value := func(name string) string {
		raw, wrong := member(text, name)
		var s string
		if wrong != nil {
			err = errors.Join(err, wrong)
		} else if raw != nil && json.Unmarshal(raw, &s) != nil {
			err = errors.Join(err, fmt.Errorf("%s is not a string", name))
		}
		return s
	}
	pdp, found := value("policy_decision_point"), &endpoints{value("access_evaluation_endpoint"), value("access_evaluations_endpoint")}
	switch {
	case err != nil:
	case pdp != c.cfg.URL: // section 9.2.3: identical, or not used
		err = fmt.Errorf("policy_decision_point: %q in the metadata, %q configured", pdp, c.cfg.URL)
	case found.evaluation == "":
		err = errors.New("access_evaluation_endpoint: missing")
	default:
		for name, endpoint := range map[string]string{"access_evaluation_endpoint": found.evaluation, "access_evaluations_endpoint": found.evaluations} {
			if u, bad := url.Parse(endpoint); endpoint != "" && (bad != nil || u.Host == "" || !allowed(u, c.cfg.InsecureHTTP)) {
				err = errors.Join(err, fmt.Errorf("%s: %q is not an https URL", name, endpoint))
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("metadata at %s: %w", at.String(), err)
	}
	return found, nil
}
