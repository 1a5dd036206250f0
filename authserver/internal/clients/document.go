package clients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/refresh"
)

// DocumentsConfig configures [Documents]. Scopes, AuthMethods and Callers are required.
type DocumentsConfig struct {
	_ struct{} // keyed literals only

	// Scopes, GrantTypes and AuthMethods are all that a document can give its client. Nil GrantTypes: those of
	// [RegistrationConfig]. Those that require no consent of a user are left out: anyone can publish a document, and with its own keys
	// the client would get tokens without a user's permission.
	Scopes, GrantTypes, AuthMethods []string

	// PrivateUse are the private-use schemes that redirect URIs may have; see [NewRegistry].
	PrivateUse []string

	// Hosts are the hosts, in lower case and without a port, whose documents are accepted. Empty: all.
	Hosts []string

	// Callers limits the documents that one network causes to be fetched. See [WithCaller].
	Callers *login.Limiter

	// HTTP fetches the documents. Nil: [KeySetClient], which connects to public addresses only.
	HTTP *http.Client

	// Audit receives the reason of each fetch that yields no client. Nil: it is not reported.
	Audit func(ctx context.Context, event string, attrs ...slog.Attr)
}

// Documents are the clients that are not registered, whose ID is the URL of their metadata
// (draft-ietf-oauth-client-id-metadata-document). A document is fetched when it is needed, and again before its lifetime ends
// while its client gets tokens. Documents are safe for concurrent use and need no Close: fetches and timers end by themselves.
type Documents struct {
	cfg  DocumentsConfig
	http fetch.Client
	pool *refresh.Pool[Client]
}

const (
	// Anyone can fill the pool with invented URLs, as fast as the limit on callers allows. Each is charged to its host. A full
	// pool drops a document of the host that has the most, preferably one whose client has got no token lately. The next
	// request that needs it waits for another fetch.
	maxDocuments    = 1000
	maxDocument     = 16 << 10         // bytes. Section 8.7 recommends 5 kB; with a key set, documents are larger
	documentLeast   = 5 * time.Minute  // the bounds of the lifetime (section 5.2: "MAY define its own upper and/or lower bounds")
	documentUsual   = time.Hour        // without one in the response
	documentMost    = 24 * time.Hour   //
	documentStale   = 24 * time.Hour   // more, while the document cannot be fetched; one that is invalid or gone ends at once
	documentRefetch = 30 * time.Second // the minimum interval between fetches of one URL. No error is cached longer (section 5.2)
)

// NewDocuments returns Documents.
func NewDocuments(cfg DocumentsConfig) *Documents {
	if cfg.HTTP == nil {
		cfg.HTTP = KeySetClient(nil)
	}
	if cfg.GrantTypes == nil {
		cfg.GrantTypes = withConsent
	}
	cfg.GrantTypes = requiringConsent(cfg.GrantTypes)
	if cfg.Audit == nil {
		cfg.Audit = func(context.Context, string, ...slog.Attr) {}
	}
	d := &Documents{cfg: cfg, http: fetch.Client{HTTP: cfg.HTTP, MaxBody: maxDocument}}
	d.pool = refresh.NewPool(maxDocuments, func(id string) refresh.Config[Client] {
		return refresh.Config[Client]{
			Fetch:        func(ctx context.Context, _ *Client) (refresh.Result[Client], error) { return d.fetch(ctx, id) },
			Withdrawn:    errWithdrawn,
			StaleIfError: documentStale, MinRefetchInterval: documentRefetch, MaxRetryAfter: documentRefetch, MaxWait: fetch.Timeout + time.Second,
			WhileUsed: true, Name: "client document", Logger: slog.New(slog.DiscardHandler), // otherwise anyone could fill the log
		}
	})
	return d
}

// A DocumentError reports that a client ID is the URL of a document that cannot be used. It wraps [store.ErrNotFound] unless it is
// Temporary.
type DocumentError struct {
	Temporary bool   // the document cannot be fetched now
	Problem   string // for the client's developer; it does not reveal anything about this server's network
}

func (e *DocumentError) Error() string { return "the metadata document at the client_id " + e.Problem }

// Unwrap returns [store.ErrNotFound], or nil.
func (e *DocumentError) Unwrap() error {
	if e.Temporary {
		return nil
	}
	return store.ErrNotFound
}

type callerKey struct{}

// WithCaller returns a context for the lookups of a request from a network address. Fetches that they cause are charged to it.
func WithCaller(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, callerKey{}, login.Network(address))
}

// IsDocument reports whether a client ID can be the URL of a metadata document (section 3).
func IsDocument(id string) bool {
	if !strings.HasPrefix(id, "https://") || !isID(id) || strings.Contains(id, "#") {
		return false
	}
	u, err := webURI(id) // which refuses a user
	if err != nil || u.Hostname() == "" || u.Path == "" {
		return false
	}
	// Escaped dots count, too: RFC 3986, section 6.2.2.2, makes them equivalent.
	return !slices.ContainsFunc(strings.Split(u.Path, "/"), func(s string) bool { return s == "." || s == ".." })
}

// HostOf returns the host of the metadata document of a client with this ID, in lower case and without a port. It is the only
// party that vouches for what the document states.
func HostOf(id string) string {
	u, err := url.Parse(id)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// get returns the client of a document, fetching it if needed. The error is a [*DocumentError], a [*login.TooMany] for the caller
// of ctx, or [store.ErrNotFound] if id is not the URL of a document.
func (d *Documents) get(ctx context.Context, id string) (*Client, error) {
	if !IsDocument(id) {
		return nil, store.ErrNotFound
	}
	host := HostOf(id)
	if len(d.cfg.Hosts) > 0 && !slices.Contains(d.cfg.Hosts, host) {
		return nil, &DocumentError{Problem: "is on a host that is not accepted here"}
	}
	if c := d.held(id); c != nil {
		return c, nil
	}
	caller, _ := ctx.Value(callerKey{}).(string)
	if err := d.cfg.Callers.Allow(caller); err != nil {
		return nil, err
	}
	document := d.pool.GetFor(host, id)
	if c := document.Renew(ctx, nil); c != nil {
		return copyOf(c), nil
	}
	problem := &DocumentError{Temporary: true, Problem: "cannot be fetched now"}
	errors.As(document.Status().Err, &problem)
	return nil, problem
}

// held returns the client of a document that need not be fetched, or nil.
func (d *Documents) held(id string) *Client {
	document := d.pool.FindFor(HostOf(id), id)
	if document == nil {
		return nil
	}
	return copyOf(document.Load())
}

// copyOf returns a copy, whose slices are shared, as those of all clients of a registry.
func copyOf(c *Client) *Client {
	if c == nil {
		return nil
	}
	made := *c
	return &made
}

// use records that a client has got a token. Requests that lead to none do not keep a document in the pool.
func (d *Documents) use(id string) {
	if document := d.pool.FindFor(HostOf(id), id); document != nil {
		document.Use()
	}
}

// errWithdrawn is wrapped by errors about a document that its host no longer serves, or serves in a form that is not valid.
var errWithdrawn = errors.New("the document is gone or not valid")

func (d *Documents) fetch(ctx context.Context, id string) (result refresh.Result[Client], err error) {
	refuse := func(gone bool, problem string, err error) (refresh.Result[Client], error) {
		d.cfg.Audit(ctx, "client document refused", slog.String("client", id), slog.String("reason", err.Error()))
		wrapped := fmt.Errorf("%w: %w", &DocumentError{Temporary: !gone, Problem: problem}, err)
		if gone {
			wrapped = fmt.Errorf("%w: %w", errWithdrawn, wrapped)
		}
		return result, wrapped
	}
	answer, err := d.http.Get(ctx, id, "") // without redirects (section 5)
	if err != nil {
		failure, _ := errors.AsType[*fetch.Error](err)
		if failure != nil && (failure.Status == http.StatusNotFound || failure.Status == http.StatusGone) {
			return refuse(true, "does not exist", err)
		}
		// An address that is not public looks the same as a host that does not respond (section 8.6).
		return refuse(false, "cannot be fetched now", err)
	}
	c, err := d.read(id, answer)
	if err != nil {
		problem := "is not valid"
		if invalid, ok := errors.AsType[*Invalid](err); ok {
			problem += ": " + invalid.Description()
		}
		return refuse(true, problem, err)
	}
	lifetime := documentUsual
	if answer.MaxAge >= 0 {
		lifetime = min(max(answer.MaxAge, documentLeast), documentMost)
	}
	return refresh.Result[Client]{Value: c, Fresh: lifetime}, nil
}

// read returns the client that a document describes (section 4).
func (d *Documents) read(id string, answer *fetch.Answer) (*Client, error) {
	wrong := func(member, problem string) (*Client, error) {
		return nil, &Invalid{Code: InvalidMetadata, Member: member, Problem: problem}
	}
	// Otherwise a site where anyone can upload files could be made to vouch for a client.
	if t := answer.Type; t != "application/json" && !(strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json")) {
		return wrong("", "the content type is not application/json")
	}
	m, err := readMembers(answer.Body)
	if err != nil {
		return wrong("", "the document is not one JSON object with each member once")
	}
	if said, _ := m["client_id"].Text(); said != id { // as strings: section 4
		return wrong("client_id", "is not the URL of the document")
	}
	for _, name := range []string{"client_secret", "client_secret_expires_at"} { // section 4.1
		if m[name] != nil {
			return wrong(name, "must not be in a document that everyone can read")
		}
	}
	delete(m, "software_statement") // not checked here, and thus not recorded
	c, err := m.client()
	if err != nil {
		return nil, err
	}
	c.ID, c.Document, c.PrivateUse = id, true, d.cfg.PrivateUse
	if m["token_endpoint_auth_method"] == nil {
		c.AuthMethod = "none" // the default of RFC 7591 needs a secret
	}
	if usesSecret(c.AuthMethod) || unknown([]string{c.AuthMethod}, d.cfg.AuthMethods) {
		return wrong("token_endpoint_auth_method", "cannot be used with a document")
	}
	// The document is for all servers: what this one does not offer is left out.
	narrowRedirects(&c)
	c.GrantTypes = slices.DeleteFunc(c.GrantTypes, func(g string) bool { return !slices.Contains(d.cfg.GrantTypes, g) })
	if len(c.GrantTypes) == 0 {
		return wrong("grant_types", "has none that is offered here")
	}
	if _, err := narrowScopes(&c, d.cfg.Scopes); err != nil {
		return nil, err
	}
	if err := Validate(&c); err != nil {
		return nil, err
	}
	return &c, nil
}
