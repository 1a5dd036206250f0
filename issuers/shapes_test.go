package issuers_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

type object = map[string]any

// A shape is one kind of access token of a product, with the tokens that are nearly like it.
type shape struct {
	of     string // name of the product
	kind   string // of token
	params issuers.Params
	change func(*jwks.Config) // of the settings, where the documentation asks for it; nil: none

	metadata string                                 // URL of the metadata; "": the key set is not discovered
	issuer   string                                 // in the metadata; "": that of params
	keySet   string                                 // URL of the key set; with {kid}, of each key in PEM
	keys     func(t *testing.T, jwks []byte) []byte // document at keySet, made of the JWK Set of the issuer; nil: the JWK Set
	alg      string                                 // "": RS256
	header   object                                 // in addition to alg and kid
	claims   string                                 // a JSON object; $IAT and $EXP are dates

	subject, client string
	scopes          []string

	relatives []relative
}

// A relative is a token that differs from a shape in what is listed and must be refused.
type relative struct {
	name           string
	header, claims object // changes; nil removes
	want           valetkey.Reason
}

// shapes are the shapes of all products.
var shapes = slices.Concat(
	keycloakShapes, cognitoShapes,
	frameworkShapes,
	ciShapes,
	microsoftShapes,
	cloudShapes,
	workloadShapes,
	enterpriseShapes,
	hostedShapes,
	selfHostedShapes,
)

// relatives returns the relatives of s, and those that every token has.
func (s shape) all() []relative {
	list := append(slices.Clone(s.relatives),
		relative{"an expired token", nil, object{"iat": past - 3600, "nbf": nil, "exp": past}, valetkey.ReasonExpired},
		relative{"a token of another issuer", nil, object{"iss": "https://issuer.example.net"}, valetkey.ReasonIssuer},
		relative{"a logout token", object{"typ": "logout+jwt"}, object{"events": object{"http://schemas.openid.net/event/backchannel-logout": object{}}}, valetkey.ReasonNotAccessToken},
	)
	if strings.Contains(s.claims, `"aud"`) {
		list = append(list, relative{"a token for another API", nil, object{"aud": "https://another-api.example.net"}, valetkey.ReasonAudience})
	}
	return list
}

var (
	start = time.Now().Truncate(time.Second)
	past  = start.Add(-24 * time.Hour).Unix()
)

func TestShapes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256", "ES256", "ES384", "EdDSA"))
	for _, s := range shapes {
		t.Run(s.of+" "+s.kind, func(t *testing.T) {
			v := s.open(t, iss)
			for _, r := range s.all() {
				t.Run(r.name+" is refused", func(t *testing.T) {
					_, err := v.Verify(context.Background(), s.mint(t, iss, r.header, r.claims))
					var e *valetkey.Error
					require.ErrorAs(t, err, &e)
					assert.Equal(t, r.want, e.Reason, "%v", err)
				})
			}
			t.Run("a token of an unpublished key is refused", func(t *testing.T) {
				_, err := v.Verify(context.Background(), s.mint(t, iss, nil, nil, valetkeytest.UnknownKey()))
				assert.Error(t, err)
			})
			t.Run("it is accepted", func(t *testing.T) {
				token, err := v.Verify(context.Background(), s.mint(t, iss, nil, nil))
				require.NoError(t, err)
				assert.Equal(t, s.subject, token.Subject(), "subject")
				assert.Equal(t, s.client, token.ClientID(), "client")
				assert.Equal(t, valetkey.NewScopes(s.scopes...), token.Scopes(), "scopes")
			})
		})
	}
}

// TestProducts prints the table of products, and holds that each has what the others have.
func TestProducts(t *testing.T) {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "product\taccepted\trefused")
	for _, name := range issuers.Names() {
		var kinds, refused []string
		for _, s := range shapes {
			if s.of != name {
				continue
			}
			kinds = append(kinds, s.kind)
			for _, r := range s.all() {
				if !slices.Contains(refused, r.name) {
					refused = append(refused, r.name)
				}
			}
			assert.GreaterOrEqual(t, len(s.relatives), 2, "%s %s: near relatives", s.of, s.kind)
		}
		assert.NotEmpty(t, kinds, "%s has no shape", name)
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, strings.Join(kinds, ", "), strings.Join(refused, ", "))
	}
	w.Flush()
	t.Logf("\n%s", table.String())
	for _, s := range shapes {
		assert.Contains(t, issuers.Names(), s.of)
	}
}

// open returns the verifier for the tokens of s, which iss signs.
func (s shape) open(t *testing.T, iss *valetkeytest.Issuer) *jwks.Verifier {
	t.Helper()
	cfg := s.config(t)
	cfg.Client = &http.Client{Transport: s.internet(t, iss)}
	v, err := jwks.New(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

// config returns the settings for the tokens of s.
func (s shape) config(t *testing.T) jwks.Config {
	t.Helper()
	cfg, err := issuers.Named(s.of, s.params)
	require.NoError(t, err)
	if s.change != nil {
		s.change(&cfg)
	}
	return cfg
}

// mint returns a token of s with changes.
func (s shape) mint(t *testing.T, iss *valetkeytest.Issuer, header, claims object, more ...valetkeytest.Option) string {
	t.Helper()
	all := s.payload(t)
	for name, value := range claims {
		if value == nil {
			delete(all, name)
			continue
		}
		data, err := json.Marshal(value)
		require.NoError(t, err)
		all[name] = data
	}
	payload, err := json.Marshal(all)
	require.NoError(t, err)
	h := object{"typ": nil}
	maps.Copy(h, s.header)
	maps.Copy(h, header)
	opts := []valetkeytest.Option{valetkeytest.Algorithm(s.algorithm()), valetkeytest.Payload(string(payload))}
	for name, value := range h {
		opts = append(opts, valetkeytest.Header(name, value))
	}
	return iss.Token(append(opts, more...)...)
}

// payload returns the claims of s.
func (s shape) payload(t *testing.T) (all map[string]json.RawMessage) {
	t.Helper()
	text := strings.NewReplacer("$IAT", strconv.FormatInt(start.Unix(), 10), "$EXP", strconv.FormatInt(start.Add(time.Hour).Unix(), 10)).Replace(s.claims)
	require.NoError(t, json.Unmarshal([]byte(text), &all), "%s", text)
	return all
}

func (s shape) algorithm() string {
	if s.alg == "" {
		return "RS256"
	}
	return s.alg
}

// internet is where the product of s has its documents. Every other URL is not found.
func (s shape) internet(t *testing.T, iss *valetkeytest.Issuer) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r}
		var body []byte
		switch r.URL.String() {
		case s.keySet:
			if body = iss.JWKS(); s.keys != nil {
				body = s.keys(t, body)
			}
		case strings.Replace(s.keySet, "{kid}", path.Base(r.URL.Path), 1):
			if body = keyInPEM(t, iss.JWKS(), path.Base(r.URL.Path)); body == nil {
				res.StatusCode = http.StatusForbidden // as S3 does
			}
		case s.metadata:
			body, _ = json.Marshal(object{"issuer": cmp.Or(s.issuer, s.params.Issuer), "jwks_uri": s.keySet})
		default:
			res.StatusCode = http.StatusNotFound
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		return res, nil
	})
}

// keyInPEM returns a key of a JWK Set as PEM, or nil if it has none with this kid.
func keyInPEM(t *testing.T, set []byte, kid string) []byte {
	t.Helper()
	var doc struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(set, &doc))
	for _, jwk := range doc.Keys {
		var key struct{ Kid, X, Y string }
		require.NoError(t, json.Unmarshal(jwk, &key))
		if key.Kid != kid || key.Y == "" {
			continue
		}
		point := []byte{4} // uncompressed: SEC 1, section 2.3.3
		for _, coordinate := range []string{key.X, key.Y} {
			data, err := base64.RawURLEncoding.DecodeString(coordinate)
			require.NoError(t, err)
			point = append(point, data...)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		require.NoError(t, err)
		return publicPEM(t, public)
	}
	return nil
}

// publicPEM returns a public key in PEM.
func publicPEM(t *testing.T, public *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
