package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	jwtmiddleware2 "github.com/auth0/go-jwt-middleware/v2"
	validator2 "github.com/auth0/go-jwt-middleware/v2/validator"
	jwtmiddleware3 "github.com/auth0/go-jwt-middleware/v3"
	validator3 "github.com/auth0/go-jwt-middleware/v3/validator"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/jwtauth/v5"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	capjwt "github.com/hashicorp/cap/jwt"
	echojwt "github.com/labstack/echo-jwt/v5"
	"github.com/labstack/echo/v5"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/modelcontextprotocol/go-sdk/auth"

	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A candidate is a way to find out whether a token is good. It has a verifier, a guard, or both.
type candidate struct {
	name, module string
	verify       func(raw string) error
	guard        func(next http.Handler) (http.Handler, error)
}

const ours = "valetkey"

// candidates returns us and our peers, set up for the tokens of iss. Each is configured with all that its settings can check: the
// algorithm, the issuer, the audience. Keys are at hand: a lookup by kid where the peer has one, else the key itself.
func candidates(iss *issuer) ([]candidate, error) {
	var (
		public    = iss.public()
		algorithm = iss.algorithm
		errs      []error
	)
	must := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}

	keySet, err := jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKS: keys(iss)})
	must(err)

	byKeyID := map[string]crypto.PublicKey{iss.key.ID(): public}
	keyFunc := func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if key, ok := byKeyID[id]; ok {
			return key, nil
		}
		return nil, errors.New("the key is unknown")
	}
	golangOptions := []jwt.ParserOption{
		jwt.WithValidMethods([]string{algorithm}), jwt.WithIssuer(issuerURL), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
	}
	golang := jwt.NewParser(golangOptions...)
	golangVerify := func(raw string) (*golangClaims, error) {
		claims := new(golangClaims)
		_, err := golang.ParseWithClaims(raw, claims, keyFunc)
		return claims, err
	}

	oidcVerifier := oidc.NewVerifier(issuerURL, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{public}}, &oidc.Config{
		ClientID: audience, SupportedSigningAlgs: []string{algorithm},
	})

	capKeys, err := capjwt.NewStaticKeySet([]crypto.PublicKey{public})
	must(err)
	capValidator, err := capjwt.NewValidator(capKeys)
	must(err)
	capExpected := capjwt.Expected{Issuer: issuerURL, Audiences: []string{audience}, SigningAlgorithms: []capjwt.Alg{capjwt.Alg(algorithm)}}

	jwxKeys, err := jwk.Parse(keys(iss))
	must(err)
	for i := range jwxKeys.Len() {
		key, _ := jwxKeys.Key(i)
		must(key.Set(jwk.AlgorithmKey, jwa.SignatureAlgorithm(algorithm)))
	}

	issuer2, err := url.Parse(issuerURL)
	must(err)
	validate2, err := validator2.New(func(context.Context) (any, error) { return public, nil },
		validator2.SignatureAlgorithm(algorithm), issuer2.String(), []string{audience})
	must(err)
	validate3, err := validator3.New(
		validator3.WithKeyFunc(func(context.Context) (any, error) { return public, nil }),
		validator3.WithAlgorithm(validator3.SignatureAlgorithm(algorithm)),
		validator3.WithIssuer(issuerURL), validator3.WithAudience(audience),
	)
	must(err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("setting the candidates up for %s: %w", algorithm, err)
	}

	return []candidate{
		{ours, "github.com/valetkey/valetkey",
			func(raw string) error { _, err := keySet.Verify(context.Background(), raw); return err },
			func(next http.Handler) (http.Handler, error) {
				g, err := middleware.New(middleware.Config{Verifier: keySet})
				if err != nil {
					return nil, err
				}
				return g.Handler(next, scopes.All(needed)), nil
			}},
		{"golang-jwt v5", "github.com/golang-jwt/jwt/v5",
			func(raw string) error { _, err := golangVerify(raw); return err }, nil},
		{"go-jose v4", "github.com/go-jose/go-jose/v4",
			func(raw string) error {
				t, err := josejwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
				if err != nil {
					return err
				}
				var claims struct {
					josejwt.Claims
					ClientID string `json:"client_id"`
					Scope    string `json:"scope"`
				}
				if err := t.Claims(public, &claims); err != nil {
					return err
				}
				return claims.Validate(josejwt.Expected{Issuer: issuerURL, AnyAudience: josejwt.Audience{audience}})
			}, nil},
		{"go-oidc v3", "github.com/coreos/go-oidc/v3",
			func(raw string) error { _, err := oidcVerifier.Verify(context.Background(), raw); return err }, nil},
		{"hashicorp/cap", "github.com/hashicorp/cap",
			func(raw string) error {
				_, err := capValidator.Validate(context.Background(), raw, capExpected)
				return err
			}, nil},
		{"jwx v2 jwt.Parse", "github.com/lestrrat-go/jwx/v2",
			func(raw string) error {
				_, err := jwxjwt.Parse([]byte(raw), jwxjwt.WithKeySet(jwxKeys), jwxjwt.WithIssuer(issuerURL), jwxjwt.WithAudience(audience))
				return err
			}, nil},
		// As its documentation shows it: there is no setting for issuer or audience.
		{"echo-jwt v5", "github.com/labstack/echo-jwt/v5", nil,
			func(next http.Handler) (http.Handler, error) {
				mw, err := echojwt.Config{KeyFunc: keyFunc}.ToMiddleware()
				if err != nil {
					return nil, err
				}
				e := echo.New()
				e.GET("/orders", echo.WrapHandler(next), mw)
				return e, nil
			}},
		{"gin-jwt v3", "github.com/appleboy/gin-jwt/v3", nil,
			func(next http.Handler) (http.Handler, error) {
				gin.SetMode(gin.ReleaseMode)
				mw, err := ginjwt.New(&ginjwt.GinJWTMiddleware{
					Realm: "api", Key: []byte("unused"), KeyFunc: keyFunc, ParseOptions: golangOptions, IdentityKey: "sub",
				})
				if err != nil {
					return nil, err
				}
				e := gin.New()
				e.GET("/orders", mw.MiddlewareFunc(), gin.WrapH(next))
				return e, nil
			}},
		{"MCP go-sdk + golang-jwt", "github.com/modelcontextprotocol/go-sdk", nil,
			func(next http.Handler) (http.Handler, error) {
				verify := func(_ context.Context, raw string, _ *http.Request) (*auth.TokenInfo, error) {
					claims, err := golangVerify(raw)
					if err != nil {
						return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
					}
					return &auth.TokenInfo{Scopes: strings.Fields(claims.Scope), Expiration: claims.ExpiresAt.Time, UserID: claims.Subject}, nil
				}
				return auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{Scopes: []string{needed}})(next), nil
			}},
		{"chi jwtauth v5", "github.com/go-chi/jwtauth/v5", nil,
			func(next http.Handler) (http.Handler, error) {
				a := jwtauth.New(algorithm, nil, public, jwxjwt.WithIssuer(issuerURL), jwxjwt.WithAudience(audience))
				return jwtauth.Verifier(a)(jwtauth.Authenticator(a)(next)), nil
			}},
		{"auth0 v2", "github.com/auth0/go-jwt-middleware/v2", nil,
			func(next http.Handler) (http.Handler, error) {
				return jwtmiddleware2.New(validate2.ValidateToken).CheckJWT(next), nil
			}},
		{"auth0 v3", "github.com/auth0/go-jwt-middleware/v3", nil,
			func(next http.Handler) (http.Handler, error) {
				mw, err := jwtmiddleware3.New(jwtmiddleware3.WithValidator(validate3))
				if err != nil {
					return nil, err
				}
				return mw.CheckJWT(next), nil
			}},
	}, nil
}

type golangClaims struct {
	jwt.RegisteredClaims
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

// onGolangJWT are the middlewares that verify with golang-jwt.
var onGolangJWT = []string{"echo-jwt v5", "gin-jwt v3", "MCP go-sdk + golang-jwt"}
