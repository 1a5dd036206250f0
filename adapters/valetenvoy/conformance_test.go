package valetenvoy_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// What an authorization service cannot do, and a guard in the process of the API can.
const (
	oneGuard   = "a gateway asks once, so a route has one guard and one list of needs"
	noBody     = "the body is not read"
	noEmpty    = "Envoy sends no Content-Type with an empty body"
	joinedText = "the refusal is the same, but a joined line is malformed, where two lines are two tokens"
)

// unable lists the checks that differ, by the names of adaptertest.
var unable = map[string]string{
	"no credentials, a group":                           oneGuard,
	"optional, only another guard in front has a token": oneGuard,
	"optional, a good token for both guards":            oneGuard,
	"full, header and form":                             noBody,
	"full, form and query":                              noBody,
	"full, a form that is too long":                     noBody,
	"full, optional, a form with a bad token":           noBody,
	"full, in the form":                                 noBody,
	"full, a preflight":                                 noEmpty,
	"full, optional, a preflight":                       noEmpty,
}

func TestAdapter(t *testing.T) {
	for _, encoded := range []bool{true, false} {
		t.Run(fmt.Sprintf("encode_raw_headers %v", encoded), func(t *testing.T) {
			differs := maps.Clone(unable)
			if !encoded {
				differs["other header, two lines"], differs["other header, two lines, one empty"] = joinedText, joinedText
			}
			adaptertest.Test(t, adaptertest.Adapter{
				OneChallenge: true, NoCancel: true, NoForwarded: true, Unable: differs,
				Serve: func(t testing.TB, routes []adaptertest.Route) string { return newProxy(t, routes, encoded) },
			})
		})
	}
}

// newProxy starts a gateway that asks a Server for each request, and applies the answer to the request and to the response of the
// upstream as Envoy does. It returns the URL.
func newProxy(t testing.TB, routes []adaptertest.Route, encoded bool) string {
	upstream := http.NewServeMux()
	authorize := http.NewServeMux()
	for guard, guarded := range byGuard(routes) {
		client := newClient(t, guard, guarded)
		for _, route := range guarded {
			upstream.Handle(route.Path, identified(route.Handler))
			authorize.Handle(route.Path, asking{client, encoded})
		}
	}
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	to, err := url.Parse(server.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			for _, h := range r.Request.Context().Value(mutations{}).([]*corev3.HeaderValueOption) {
				mutate(r.Header, h)
			}
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, _ := authorize.Handler(r)
		ask.(asking).serve(w, r, proxy)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

func byGuard(all []adaptertest.Route) map[*middleware.Guard][]adaptertest.Route {
	grouped := map[*middleware.Guard][]adaptertest.Route{}
	for _, route := range all {
		grouped[route.Guard] = append(grouped[route.Guard], route)
	}
	return grouped
}

// newClient starts a Server for the routes of one guard.
func newClient(t testing.TB, guard *middleware.Guard, guarded []adaptertest.Route) authv3.AuthorizationClient {
	table := routes.Table{}
	for _, route := range guarded {
		switch needs := slices.Concat(route.Require...); len(needs) {
		case 0:
			table[route.Path] = valetkey.AnyToken
		case 1:
			table[route.Path] = needs[0]
		default:
			table[route.Path] = valetkey.AllOf(needs)
		}
	}
	decider, err := table.Decider(guard)
	require.NoError(t, err)
	server, err := valetenvoy.New(valetenvoy.Config{Decider: decider, Callers: loopback, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return authv3.NewAuthorizationClient(dial(t, serve(t, server)))
}

// identified attaches the caller to the request that the identity headers report.
func identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		if subject := r.Header.Get("X-Valetkey-Subject"); subject != "" {
			scopes := valetkey.NewScopes(strings.Fields(r.Header.Get("X-Valetkey-Scope"))...)
			r = r.WithContext(valetkey.NewContext(r.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: subject, Scopes: scopes})))
		}
		next.ServeHTTP(w, r)
	})
}

type mutations struct{} // the key of the headers to add to the response, in the context of a request

// An asking asks for a request before it passes it on.
type asking struct {
	client  authv3.AuthorizationClient
	encoded bool
}

func (a asking) ServeHTTP(http.ResponseWriter, *http.Request) { panic("not used") }

func (a asking) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	out, err := a.client.Check(r.Context(), a.describe(r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden) // status_on_error
		return
	}
	if out.GetStatus().GetCode() != 0 {
		denied := out.GetDeniedResponse()
		for _, h := range denied.GetHeaders() {
			mutate(w.Header(), h)
		}
		if denied.GetBody() == "" {
			w.Header().Del("Content-Type")
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(denied.GetBody())))
		w.WriteHeader(int(denied.GetStatus().GetCode()))
		w.Write([]byte(denied.GetBody()))
		return
	}
	ok := out.GetOkResponse()
	for _, h := range ok.GetHeaders() {
		mutate(r.Header, h)
	}
	for _, name := range ok.GetHeadersToRemove() {
		r.Header.Del(name)
	}
	for _, name := range ok.GetQueryParametersToRemove() {
		kept := slices.DeleteFunc(strings.Split(r.URL.RawQuery, "&"), func(p string) bool { before, _, _ := strings.Cut(p, "="); return before == name })
		r.URL.RawQuery = strings.Join(kept, "&")
	}
	next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), mutations{}, ok.GetResponseHeadersToAdd())))
}

// describe returns the request as Envoy reports it.
func (a asking) describe(r *http.Request) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Method: r.Method, Path: r.RequestURI, Host: r.Host, Scheme: "http", Protocol: r.Proto}
	header := r.Header.Clone()
	header[":method"], header[":path"], header[":authority"] = []string{r.Method}, []string{r.RequestURI}, []string{r.Host}
	if a.encoded {
		h.HeaderMap = &corev3.HeaderMap{}
	} else {
		h.Headers = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if a.encoded {
			for _, line := range header[name] {
				h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: strings.ToLower(name), RawValue: []byte(line)})
			}
		} else {
			h.Headers[strings.ToLower(name)] = strings.ToValidUTF8(strings.Join(header[name], ","), "!")
		}
	}
	return of(h)
}

// mutate applies one change. As in Envoy, the older field counts if it is set.
func mutate(header http.Header, h *corev3.HeaderValueOption) {
	//lint:ignore SA1019 see above
	older := h.Append
	appends := h.AppendAction == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	if older != nil {
		appends = older.Value
	}
	if appends {
		header.Add(h.Header.Key, h.Header.Value)
	} else {
		header.Set(h.Header.Key, h.Header.Value)
	}
}
