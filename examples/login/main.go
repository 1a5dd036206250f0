// The page that valetkey serve hands log-ins to: it logs users in at an OpenID Connect provider.
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func main() {
	provider, err := oidc.NewProvider(context.Background(), os.Getenv("UPSTREAM"))
	if err != nil {
		log.Fatal(err)
	}
	key, err := readKey(os.Getenv("KEY_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	p := &page{
		server: os.Getenv("ISSUER"),
		key:    key,
		secure: strings.HasPrefix(os.Getenv("URL"), "https:"),
		client: oauth2.Config{
			ClientID: os.Getenv("CLIENT_ID"), ClientSecret: os.Getenv("CLIENT_SECRET"), Endpoint: provider.Endpoint(),
			RedirectURL: os.Getenv("URL") + "/callback", Scopes: []string{"openid", "profile"},
		},
		tokens: provider.Verifier(&oidc.Config{ClientID: os.Getenv("CLIENT_ID")}),
	}
	http.HandleFunc("GET /{$}", p.start)
	http.HandleFunc("GET /callback", p.callback)
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

// readKey reads an Ed25519 key: openssl genpkey -algorithm ed25519
func readKey(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(file + " is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New(file + " has no Ed25519 key")
	}
	return private, nil
}

type page struct {
	server string // issuer of the authorization server
	key    ed25519.PrivateKey
	secure bool
	client oauth2.Config // at the upstream provider
	tokens *oidc.IDTokenVerifier
}

// A challenge is the description of a log-in by the authorization server.
type challenge struct {
	ACRValues []string `json:"acr_values"`
	MaxAge    *int     `json:"max_age"`
	Prompt    string   `json:"prompt"`
	LoginHint string   `json:"login_hint"`
	UILocales string   `json:"ui_locales"`
}

// A pending log-in is kept in a cookie. Thus only the browser that began a log-in here can finish it.
type pending struct{ Challenge, Nonce, Verifier string }

// start gets the browser from the authorization server, and sends it to the upstream provider.
func (p *page) start(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("iss") != p.server { // a challenge of another server must not be answered to this one
		http.Error(w, "unknown authorization server", http.StatusBadRequest)
		return
	}
	began := pending{r.FormValue("login_challenge"), rand.Text(), oauth2.GenerateVerifier()}
	var asked challenge
	if err := p.tell(r.Context(), "/login/challenge", "login-challenge+jwt", map[string]any{"challenge": began.Challenge}, &asked); err != nil {
		fail(w, err)
		return
	}
	// acr_values may be ignored, so the acr is an essential claim (OpenID Connect Core 1.0, section 5.5.1.1).
	idToken := map[string]any{"auth_time": map[string]any{"essential": true}, "acr": nil}
	if len(asked.ACRValues) > 0 {
		idToken["acr"] = map[string]any{"essential": true, "values": asked.ACRValues}
	}
	claims, err := json.Marshal(map[string]any{"id_token": idToken})
	if err != nil {
		fail(w, err)
		return
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(began.Nonce), oauth2.S256ChallengeOption(began.Verifier), oauth2.SetAuthURLParam("claims", string(claims))}
	for name, value := range map[string]string{"prompt": upstreamPrompt(asked.Prompt), "login_hint": asked.LoginHint, "ui_locales": asked.UILocales} {
		if value != "" {
			options = append(options, oauth2.SetAuthURLParam(name, value))
		}
	}
	if asked.MaxAge != nil {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.Itoa(*asked.MaxAge)))
	}
	state := rand.Text()
	text, err := json.Marshal(began)
	if err != nil {
		fail(w, err)
		return
	}
	http.SetCookie(w, p.cookie(state, base64.RawURLEncoding.EncodeToString(text), 15*time.Minute))
	http.Redirect(w, r, p.client.AuthCodeURL(state, options...), http.StatusSeeOther)
}

// upstreamPrompt omits consent, which the authorization server asks for itself.
func upstreamPrompt(prompt string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(prompt), func(p string) bool { return p == "consent" }), " ")
}

// callback gets the browser from the upstream provider, answers the challenge, and sends the browser back.
func (p *page) callback(w http.ResponseWriter, r *http.Request) {
	state := r.FormValue("state")
	cookie, err := r.Cookie(p.cookie(state, "", 0).Name)
	if err != nil {
		http.Error(w, "this log-in began in another browser, or has expired: start again in the application", http.StatusBadRequest)
		return
	}
	http.SetCookie(w, p.cookie(state, "", -1))
	var began pending
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err == nil {
		err = json.Unmarshal(text, &began)
	}
	var answer map[string]any
	if err == nil {
		answer, err = p.logIn(r, began)
	}
	var next struct {
		To string `json:"redirect_to"`
	}
	if err == nil {
		answer["challenge"] = began.Challenge
		err = p.tell(r.Context(), "/login/answer", "login-answer+jwt", answer, &next)
	}
	if err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, next.To, http.StatusSeeOther)
}

// logIn returns the claims of an answer: the user in the ID token, or an error.
func (p *page) logIn(r *http.Request, began pending) (map[string]any, error) {
	if code := r.FormValue("error"); code != "" {
		return map[string]any{"error": refusal(code)}, nil
	}
	token, err := p.client.Exchange(r.Context(), r.FormValue("code"), oauth2.VerifierOption(began.Verifier))
	if err != nil {
		return nil, err
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.tokens.Verify(r.Context(), raw)
	if err != nil {
		return nil, err
	}
	if id.Nonce != began.Nonce {
		return nil, errors.New("the ID token is of another log-in")
	}
	var user struct {
		Name     string `json:"name"`
		ACR      string `json:"acr"`
		AuthTime int64  `json:"auth_time"`
	}
	if err := id.Claims(&user); err != nil {
		return nil, err
	}
	// With a claim scope, the answer would limit what the user may allow: all scopes without it.
	return map[string]any{"sub": id.Subject, "name": user.Name, "acr": user.ACR, "auth_time": user.AuthTime}, nil
}

// refusal converts an error of the upstream provider to one that an answer may have.
func refusal(code string) string {
	switch code {
	case "login_required", "interaction_required", "unmet_authentication_requirements":
		return code
	default:
		return "access_denied"
	}
}

// tell sends a message to the authorization server: a JWT with the claims, signed by this page.
func (p *page) tell(ctx context.Context, path, typ string, claims map[string]any, response any) error {
	now := time.Now().Unix()
	claims["aud"], claims["iat"], claims["exp"], claims["jti"] = p.server, now, now+60, rand.Text()
	header, err := json.Marshal(map[string]string{"alg": "EdDSA", "typ": typ})
	if err != nil {
		return err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	jwt := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	jwt += "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(p.key, []byte(jwt)))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", strings.TrimSuffix(p.server, "/")+path, bytes.NewBufferString(jwt))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/jwt")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Code  string `json:"error"`
			Words string `json:"error_description"`
		}
		_ = json.NewDecoder(resp.Body).Decode(&problem)
		return fmt.Errorf("the authorization server answers %s: %s: %s", resp.Status, problem.Code, problem.Words)
	}
	return json.NewDecoder(resp.Body).Decode(response)
}

// cookie returns the cookie of a pending log-in. Each tab of a browser may have one.
func (p *page) cookie(state, value string, life time.Duration) *http.Cookie {
	name := "upstream-" + state
	if p.secure {
		name = "__Host-" + name
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()), Secure: p.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "the log-in has failed: start again in the application", http.StatusBadGateway)
}
