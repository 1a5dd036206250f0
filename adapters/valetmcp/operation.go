package valetmcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

const (
	callTool = "tools/call"

	strangersBody = 64 << 10 // bytes read from a request without a token, to find the scope for its challenge
	maxBatch      = 100      // messages
)

// An operation is the requirement of one request, found in its body. The guard checks requirements last, so the body is not read
// if the token is invalid.
type operation struct {
	*handler
	w     http.ResponseWriter
	r     *http.Request
	body  []byte
	needs []valetkey.Requirement // once read, at least one
	err   error
}

// Check reads the request and checks what it requires.
func (o *operation) Check(a valetkey.Access) error {
	if err := o.read(o.MaxBody); err != nil {
		return err
	}
	strict := slices.DeleteFunc(slices.Clone(o.needs), func(need valetkey.Requirement) bool {
		level, ok := need.(valetkey.Openness)
		return ok && level.Known()
	})
	if len(strict) == 0 { // a valid token is sufficient, and the guard has already verified it
		return nil
	}
	return valetkey.AllOf(strict).Check(a)
}

// Describe reads the request and returns its needs for the challenge to a sender without a token.
func (o *operation) Describe() valetkey.Needs {
	if o.read(min(o.MaxBody, strangersBody)) != nil {
		return valetkey.Needs{}
	}
	needs := valetkey.Describe(o.needs...)
	needs.Open = !slices.ContainsFunc(o.needs, func(need valetkey.Requirement) bool { return !open(need) })
	return needs
}

func open(need valetkey.Requirement) bool {
	o, ok := need.(valetkey.Openness)
	return ok && o.Open()
}

// read reads the request once and keeps its needs or the error.
func (o *operation) read(limit int64) error {
	switch {
	case o.needs != nil || o.err != nil:
	case o.r.Method != http.MethodPost: // GET opens a stream of the server's messages; DELETE ends a session
		o.needs = []valetkey.Requirement{valetkey.AnyToken}
	default:
		o.body, o.err = io.ReadAll(http.MaxBytesReader(o.w, o.r.Body, limit))
		if o.err != nil {
			o.err = &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reasonBody, Err: o.err}
			break
		}
		o.needs, o.err = o.needsOf(o.body)
	}
	return o.err
}

// restore returns the request with ctx and a body that can be read again.
func (o *operation) restore(ctx context.Context) *http.Request {
	r := o.r.WithContext(ctx)
	if o.body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(o.body)), int64(len(o.body))
	}
	return r
}

// needsOf returns the requirements of the messages in body. The body is one message or, up to MCP 2025-03-26, a batch of
// messages.
func (h *handler) needsOf(body []byte) ([]valetkey.Requirement, error) {
	if !utf8.Valid(body) || !json.Valid(body) { // RFC 8259, section 8.1
		return nil, malformed(reasonNotJSON)
	}
	var messages []json.RawMessage // nil, so that decoding does not overwrite body
	if bytes.TrimLeft(body, " \t\r\n")[0] != '[' {
		messages = []json.RawMessage{body}
	} else if err := json.Unmarshal(body, &messages); err != nil || len(messages) == 0 || len(messages) > maxBatch {
		return nil, malformed(reasonBatch)
	}
	needs := make([]valetkey.Requirement, len(messages))
	for i, message := range messages {
		var err error
		if needs[i], err = h.needOf(message); err != nil {
			return nil, err
		}
	}
	return needs, nil
}

// needOf returns the requirement of one message (JSON-RPC 2.0, sections 4 and 5; MCP, tools/call).
func (h *handler) needOf(message json.RawMessage) (valetkey.Requirement, error) {
	envelope, err := members(message)
	if err != nil {
		return nil, err
	}
	_, result := envelope["result"]
	_, failure := envelope["error"]
	if _, request := envelope["method"]; request == (result || failure) {
		return nil, malformed(reasonMessage)
	}
	if result || failure {
		return valetkey.AnyToken, nil
	}
	method, ok := text(envelope["method"])
	if !ok {
		return nil, malformed(reasonMethod)
	}
	if method != callTool {
		if need, listed := h.Methods[method]; listed {
			return need, nil
		}
		return valetkey.AnyToken, nil
	}
	params, err := members(envelope["params"])
	if err != nil {
		return nil, err
	}
	tool, ok := text(params["name"])
	if !ok {
		return nil, malformed(reasonNoTool)
	}
	if need, listed := h.Tools[tool]; listed {
		return need, nil
	}
	return scopes.Requirement{}, nil
}

// words are the members that determine the meaning of a message.
var words = []string{"jsonrpc", "id", "method", "params", "result", "error", "name"}

// members returns the members of an object by name. It refuses an object that another parser could read differently:
// encoding/json keeps the last of two members with the same name, and some parsers ignore letter case in names.
func members(object json.RawMessage) (map[string]json.RawMessage, error) {
	found := map[string]json.RawMessage{}
	decoder := json.NewDecoder(bytes.NewReader(object))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, malformed(reasonNotObject)
	}
	for decoder.More() {
		var value json.RawMessage
		token, err := decoder.Token()
		if err := errors.Join(err, decoder.Decode(&value)); err != nil {
			return nil, malformed(reasonNotJSON)
		}
		name, _ := token.(string)
		folded := strings.ToLower(strings.ToUpper(name)) // folds the long s to s and the Kelvin sign to k
		if _, twice := found[folded]; twice || folded != name && slices.Contains(words, folded) {
			return nil, malformed(reasonAmbiguous)
		}
		found[folded] = value
	}
	return found, nil
}

func text(value json.RawMessage) (string, bool) {
	var v any
	if json.Unmarshal(value, &v) != nil {
		return "", false
	}
	s, ok := v.(string)
	return s, ok
}

func malformed(reason valetkey.Reason) error {
	return &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reason}
}

// Reasons to refuse a message before its token is checked against a requirement.
var (
	reasonNotJSON   = valetkey.NewReason("mcp_not_json", "the body is not JSON")
	reasonBatch     = valetkey.NewReason("mcp_batch", "the body is not a batch of 1 to 100 messages")
	reasonMessage   = valetkey.NewReason("mcp_message", "a message is not either a request or a response")
	reasonMethod    = valetkey.NewReason("mcp_method", "a method is not a string")
	reasonNoTool    = valetkey.NewReason("mcp_no_tool", "the call of a tool does not name it")
	reasonNotObject = valetkey.NewReason("mcp_not_object", "a message, or the params of a call, is not an object")
	reasonAmbiguous = valetkey.NewReason("mcp_ambiguous", "a message has a member that can be read in two ways")
	reasonBody      = valetkey.NewReason("mcp_body", "the body is too long, or broke off")
)
