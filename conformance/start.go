package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// startTimeout is how long a program may take until it listens.
const startTimeout = time.Minute

// StartCommand returns a [Target.Start] that runs a program for each server. In the command, which is split at spaces outside of quotes and
// is not given to a shell, the placeholders {issuer}, {jwks_uri}, {second_issuer}, {audience}, {listen}, {port}, {introspection},
// {client_id}, {client_secret}, {profile}, {nonce} and {signed} stand for the values of the [Setup]. The program also has them in its
// environment, as CONFORM_ISSUER and so on, and the port as PORT.
//
// The program must listen at {listen}, an address on loopback, with TLS if the profile is mtls. When the server is closed, it gets SIGTERM and,
// after two seconds, SIGKILL, with all programs that it has started. The end of its output is part of the error if it ends, or does not
// listen within a minute. [Check] starts a program again that has ended.
func StartCommand(command string) (func(ctx context.Context, s Setup) (*Server, error), error) {
	words, err := splitCommand(command)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, s Setup) (*Server, error) { return startProgram(ctx, words, s) }, nil
}

// values returns what placeholders in commands stand for.
func (s Setup) values() map[string]string {
	_, port, _ := net.SplitHostPort(s.Listen)
	return map[string]string{
		"issuer": s.Issuer, "jwks_uri": s.JWKSURI, "second_issuer": s.SecondIssuer, "audience": s.Audience, "listen": s.Listen, "port": port,
		"introspection": s.Introspection, "client_id": s.ClientID, "client_secret": s.ClientSecret, "profile": string(s.Profile),
		"nonce": strconv.FormatBool(s.Nonce), "signed": strconv.FormatBool(s.Signed),
	}
}

func startProgram(ctx context.Context, words []string, s Setup) (*Server, error) {
	environment := os.Environ()
	var pairs []string
	for name, value := range s.values() {
		pairs = append(pairs, "{"+name+"}", value)
		environment = append(environment, "CONFORM_"+strings.ToUpper(name)+"="+value)
		if name == "port" {
			environment = append(environment, "PORT="+value)
		}
	}
	fill := strings.NewReplacer(pairs...)
	args := make([]string, len(words))
	for i, word := range words {
		args[i] = fill.Replace(word)
	}
	// The program outlives ctx, which is that of its start, so that it is closed after its last case.
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = environment
	output := &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second // for descendants that keep the output open
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	var waited error // written before ended is closed
	go func() {
		defer close(ended)
		waited = cmd.Wait()
	}()
	stop := sync.OnceFunc(func() {
		signalGroup(cmd, false)
		select {
		case <-ended:
		case <-time.After(2 * time.Second):
		}
		signalGroup(cmd, true) // also for programs that it has left behind
		<-ended
	})
	if err := listening(ctx, s.Listen, ended); err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w%s", args[0], err, output.quoted())
	}
	scheme := "http://"
	if s.Profile == ProfileMTLS {
		scheme = "https://"
	}
	reason := func() error {
		<-ended
		status := "exit status 0"
		if waited != nil {
			status = waited.Error()
		}
		return fmt.Errorf("%s: %s%s", args[0], status, output.quoted())
	}
	return &Server{URL: scheme + s.Listen, Close: stop, Done: ended, Err: reason}, nil
}

// listening waits until something accepts connections at address.
func listening(ctx context.Context, address string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return errors.New("the program has ended")
		case <-ctx.Done():
			return fmt.Errorf("the program does not listen at %s: %w", address, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// splitCommand splits a command at spaces outside of single and double quotes.
func splitCommand(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	for _, c := range command {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("start: a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("start: the command is empty")
	}
	return words, nil
}

// tail holds the end of a program's output, at most 4 KiB.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4<<10; over > 0 {
		t.text = bytes.Clone(t.text[over:])
	}
	return len(p), nil
}

func (t *tail) quoted() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return "; its output ends with:\n" + strings.TrimRight(indented(string(t.text)), "\n")
}
