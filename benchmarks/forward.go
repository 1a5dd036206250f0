package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
)

// forwards asks what the answers to a gateway cost that asks over HTTP.
func forwards(b *bench, dir, valetkey string, keySet []byte, tokens []*token) error {
	t := b.table("gateways-forward", "valetkey authorize, forward authentication",
		fmt.Sprintf("The questions are those of nginx's auth_request, as `examples/gateways/nginx` sets them, over %d keep-alive connections. "+
			"The bare one is a net/http handler with the same server, which answers 200 with the same headers and checks nothing. ", connections)+b.note(tokens), sideColumns...)
	bare, err := command(dir, filepath.Join("programs", "answer"))
	if err != nil {
		return err
	}
	questions := forwardQuestions(tokens)
	length := 0 // of the answer of the bare one
	contenders := []contender{
		{"net/http", func(addr string) (*process, error) {
			return startProcess(addr, bare, []string{"ADDR=" + addr, "SUBJECT=" + subject, "CLIENT=" + clientID, "SCOPE=" + scope})
		}, func(addr string) (generator, error) {
			l, err := newLoad(addr, questions, http.StatusOK, "")
			if err == nil {
				length = l.length
			}
			return l, err
		}},
		{ours + " authorize", func(addr string) (*process, error) {
			return startCommand(dir, addr, valetkey, "authorize", fmt.Sprintf("listen_http: %s\ndialect: nginx\ncallers: [127.0.0.1]\n", addr))
		}, func(addr string) (generator, error) {
			if err := refuses("http://"+addr+"/", asked); err != nil {
				return nil, err
			}
			l, err := newLoad(addr, questions, http.StatusOK, "")
			if err == nil && l.length != length {
				err = errors.New("the headers are not those of the bare handler")
			}
			return l, err
		}},
	}
	if b.quick { // a hundred modules to build
		t.note += " With `-quick`, oauth2-proxy is left out: its build takes minutes."
	} else {
		peer, end, err := oauth2Proxy(dir, keySet, tokens)
		if err != nil {
			return err
		}
		defer end()
		contenders = append(contenders, peer)
		t.note += " oauth2-proxy is asked at `/oauth2/auth` with the same tokens and answers 202 with its own headers. It verifies every token anew " +
			"(skip-jwt-bearer-tokens) with the keys of an issuer on loopback, and its logs are off."
	}
	outcomes, err := b.contest(t, contenders...)
	if err != nil {
		return err
	}
	b.goalAtLeast("forward authentication / bare net/http handler, requests per second", outcomes[1].rate.ratio, 0.93)
	if len(outcomes) > 2 {
		b.goalAtLeast("forward authentication / oauth2-proxy, the same tokens, requests per second", outcomes[1].times(outcomes[2]), 1)
	}
	return nil
}

// times returns how many times as many operations per second o did as other, in the same rounds.
func (o outcome) times(other outcome) quartiles {
	ratios := make([]float64, len(o.turns))
	for i, got := range o.turns {
		ratios[i] = got.rate / other.turns[i].rate
	}
	return quartilesOf(ratios)
}

// asked are the headers with which nginx describes a request.
var asked = http.Header{
	"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/orders?page=2&limit=50"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com"},
}

// forwardQuestions returns the requests of nginx about a client with each token.
func forwardQuestions(tokens []*token) (requests [][]byte) {
	for _, t := range tokens {
		var text strings.Builder
		text.WriteString("GET / HTTP/1.1\r\nHost: api.example.com\r\n")
		asked.Write(&text)
		fmt.Fprintf(&text, "Accept: application/json\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\nUser-Agent: orders/1.2\r\nAuthorization: Bearer %s\r\n\r\n", t.raw)
		requests = append(requests, []byte(text.String()))
	}
	return requests
}

// oauth2Proxy builds oauth2-proxy and serves the keys of its issuer until end.
func oauth2Proxy(dir string, keySet []byte, tokens []*token) (peer contender, end func(), err error) {
	path := filepath.Join(dir, "oauth2-proxy")
	if _, _, err := buildPackage(filepath.Join("programs", "oauth2proxy"), path, "github.com/oauth2-proxy/oauth2-proxy/v7", "-ldflags=-s -w"); err != nil {
		return contender{}, nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return contender{}, nil, err
	}
	issuer, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(keySet)
	}))
	if err != nil {
		return contender{}, nil, err
	}
	var questions [][]byte
	for _, t := range tokens {
		questions = append(questions, fmt.Appendf(nil, "GET /oauth2/auth HTTP/1.1\r\nHost: api.example.com\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"+
			"Accept-Language: en\r\nUser-Agent: orders/1.2\r\nAuthorization: Bearer %s\r\n\r\n", t.raw))
	}
	return contender{"oauth2-proxy " + info.Main.Version, func(addr string) (*process, error) {
		return startProcess(addr, path, nil, "--http-address="+addr, "--provider=oidc", "--skip-oidc-discovery", "--oidc-issuer-url="+issuerURL,
			"--oidc-jwks-url=http://"+issuer+"/keys", "--login-url=http://"+issuer+"/login", "--redeem-url=http://"+issuer+"/token",
			"--oidc-enabled-signing-alg=ES256", "--oidc-extra-audience="+audience, "--client-id=gateway", "--client-secret=unused",
			"--cookie-secret="+strings.Repeat("0", 32), "--email-domain=*", "--skip-jwt-bearer-tokens", "--set-xauthrequest", "--upstream=static://202",
			"--request-logging=false", "--auth-logging=false", "--standard-logging=false")
	}, func(addr string) (generator, error) {
		if err := refuses("http://"+addr+"/oauth2/auth", nil); err != nil {
			return nil, err
		}
		return newLoad(addr, questions, http.StatusAccepted, "")
	}}, end, nil
}
