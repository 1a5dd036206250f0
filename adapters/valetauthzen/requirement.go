package valetauthzen

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/valetkey/valetkey"
)

// A Rule states what [Client.Require] asks about a route. The zero value asks about the method and the route.
type Rule struct {
	Action       string // name of the action; empty: the method of the request
	ResourceType string // type of the resource; empty: "route"
	ResourceID   string // wildcard in the pattern of the route whose value is the ID; empty: the pattern is the ID
}

// A Requirement is a [valetkey.Requirement] that a token meets if a policy server permits the access.
type Requirement struct {
	client *Client
	rule   Rule
}

// Remote marks the requirement as one that asks another service: a [valetkey.AllOf] checks it last. It implements
// [valetkey.RemoteRequirement].
func (q Requirement) Remote() {}

// Require returns a Requirement that asks c about rule.
func (c *Client) Require(rule Rule) Requirement { return Requirement{c, rule} }

var reasonDenied = valetkey.NewReason("policy_denied", "the policy of this API does not allow this request")

// Check returns nil if the server permits the access, and a refusal with [valetkey.Forbidden] if it denies it (AuthZEN, section 5.5). Any
// other error is a failure: there is no decision.
func (q Requirement) Check(a valetkey.Access) error {
	ctx := context.Background()
	if a.Request != nil {
		ctx = a.Request.Context()
	}
	question, err := q.client.cfg.Question(a, q.rule)
	if err != nil {
		return fmt.Errorf("valetauthzen: %w", err)
	}
	permitted, err := q.client.Evaluate(ctx, question)
	if err != nil {
		return err
	}
	if !permitted {
		return &valetkey.Error{Code: valetkey.Forbidden, Reason: reasonDenied}
	}
	return nil
}

// Describe states the rule, for audits. It implements [valetkey.Describer].
func (q Requirement) Describe() valetkey.Needs {
	action, resource := q.rule.Action, q.rule.ResourceType
	if action == "" {
		action = "the method"
	}
	if resource == "" {
		resource = "route"
	}
	return valetkey.Needs{Rules: []string{fmt.Sprintf("policy: %s on %s", action, resource)}}
}

var wildcards = regexp.MustCompile(`\{([^{}.$]+)(?:\.\.\.)?\}`)

// DefaultQuestion is the default of [Config].Question:
//
//	subject   type "user" with the sub of the token, or "client" with its client_id if the client acts for itself or there is no sub;
//	          properties issuer and client_id
//	action    rule.Action, or the method
//	resource  rule.ResourceType, or "route"; the path value rule.ResourceID, or the pattern of the route; properties with all path
//	          values
//	context   scopes, audience, and acr, as far as the token has them
//
// It returns an error if the request lacks the path value.
func DefaultQuestion(a valetkey.Access, rule Rule) (q Question, err error) {
	t := a.Token
	q.Subject.Type, q.Subject.ID = "user", t.Subject()
	if t.Subject() == "" || t.ByClient() {
		q.Subject.Type, q.Subject.ID = "client", t.ClientID()
	}
	q.Subject.Properties = present("issuer", t.Issuer(), "client_id", t.ClientID())
	q.Action.Name = rule.Action
	q.Resource.Type, q.Resource.ID = "route", rule.ResourceID
	if rule.ResourceType != "" {
		q.Resource.Type = rule.ResourceType
	}
	if r := a.Request; r != nil {
		if q.Action.Name == "" {
			q.Action.Name = r.Method
		}
		q.Resource.ID = r.Pattern
		for _, m := range wildcards.FindAllStringSubmatch(r.Pattern, -1) {
			if q.Resource.Properties == nil {
				q.Resource.Properties = map[string]any{}
			}
			q.Resource.Properties[m[1]] = a.PathValue(m[1])
		}
	}
	if rule.ResourceID != "" {
		if q.Resource.ID = a.PathValue(rule.ResourceID); q.Resource.ID == "" {
			return Question{}, fmt.Errorf("the request has no path value %s", rule.ResourceID)
		}
	}
	q.Context = present("acr", t.ACR(), "scope", strings.TrimSpace(t.Scopes().String()))
	if audience := t.Audience(); audience.Len() > 0 {
		if q.Context == nil {
			q.Context = map[string]any{}
		}
		q.Context["audience"] = audience
	}
	return q, nil
}

// present returns a map of the pairs whose value is not empty; nil if there is none.
func present(pairs ...string) map[string]any {
	var m map[string]any
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			if m == nil {
				m = map[string]any{}
			}
			m[pairs[i]] = pairs[i+1]
		}
	}
	return m
}
