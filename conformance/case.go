package conformance

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
)

// A Case is one test of a resource server, as data: the requests to send, what their tokens are made of, and the responses that a
// server may give. It contains no fixed bytes, because keys, URLs and times are those of a run. cases/schema.json describes the
// file format.
type Case struct {
	// ID is lower case words with hyphens, such as jws-alg-none. It never changes its meaning: a case that has to change gets a
	// new ID.
	ID    string `json:"id"`
	Title string `json:"title"`

	// Items lists the items of this package that the case tests. Empty: the case is an attack that no item describes by itself.
	Items []string `json:"items,omitempty"`

	Standard string   `json:"standard"` // such as RFC 6750
	Section  string   `json:"section,omitempty"`
	Strength Strength `json:"level"`

	// Group is the topic of the case, by which a report summarizes, and Profile the set of features that a server claims or
	// does not claim as a whole.
	Group   string  `json:"group"`
	Profile Profile `json:"profile"`

	// Features lists what the server must offer beyond the profile. A server without one of them gets "not offered".
	Features []Feature `json:"features,omitempty"`

	// Alone reports whether the case changes or counts what other cases share, so that it needs a separate server, or the
	// only one for itself. Fresh cases need a separate server, which is started for them.
	Alone bool `json:"alone,omitempty"`
	Fresh bool `json:"fresh,omitempty"`

	// Given is the state of the issuer when the server starts. Nil: healthy.
	Given *Given `json:"given,omitempty"`

	Steps []Step `json:"steps"`

	Reason    string `json:"reason"`    // why the outcome matters, in one sentence
	Reference string `json:"reference"` // URL of the text that the case comes from
}

// A Strength states what it means to fail a case.
type Strength string

// The strengths of cases. A failure of a [CaseMay] or a [CaseOpinion] is reported and does not fail a run: a standard leaves the
// choice to the server, or does not mention it.
const (
	CaseMust    Strength = "must"
	CaseShould  Strength = "should"
	CaseMay     Strength = "may"
	CaseOpinion Strength = "opinion"
)

// Binding reports whether failing the case fails a run.
func (s Strength) Binding() bool { return s == CaseMust || s == CaseShould }

// A Profile is a set of features that a server claims as a whole.
type Profile string

// The profiles of the suite.
const (
	ProfileBearer        Profile = "bearer"        // JWTs as bearer tokens: RFC 6750, RFC 7519, RFC 8725
	ProfileRFC9068       Profile = "rfc9068"       // the JWT profile for access tokens
	ProfileIntrospection Profile = "introspection" // opaque tokens: RFC 7662
	ProfileMetadata      Profile = "metadata"      // protected resource metadata: RFC 9728
	ProfileDPoP          Profile = "dpop"          // RFC 9449
	ProfileMTLS          Profile = "mtls"          // RFC 8705
	ProfileStepUp        Profile = "step-up"       // RFC 9470
	ProfileMCP           Profile = "mcp"           // Model Context Protocol, authorization
	ProfileFAPI2         Profile = "fapi2"         // FAPI 2.0 Security Profile
)

// Profiles returns all profiles.
func Profiles() []Profile {
	return []Profile{ProfileBearer, ProfileRFC9068, ProfileIntrospection, ProfileMetadata, ProfileDPoP, ProfileMTLS, ProfileStepUp,
		ProfileMCP, ProfileFAPI2}
}

// A Feature is something that a server may offer within a profile.
type Feature string

// The features of servers. A [Target] claims those that it has.
const (
	FeatureScope        Feature = "scope"                // a route that requires one scope
	FeatureScopes       Feature = "scopes"               // a route that requires two scopes
	FeatureACR          Feature = "acr"                  // a route that requires an acr
	FeatureMaxAge       Feature = "max-age"              // a route that requires a recent login
	FeatureOptional     Feature = "optional"             // a route that accepts requests without a token
	FeatureRAR          Feature = "rar"                  // a route that requires authorization details (RFC 9396)
	FeatureIdentity     Feature = "identity"             // responses contain sub, client_id and scope of the token, as JSON
	FeatureSecondIssuer Feature = "second-issuer"        // two issuers are trusted
	FeatureReplay       Feature = "dpop-replay"          // a DPoP proof is accepted once
	FeatureNonce        Feature = "dpop-nonce"           // DPoP proofs need a nonce of the server
	FeatureStatusList   Feature = "status-list"          // Token Status List
	FeatureSigned       Feature = "signed-introspection" // RFC 9701
	FeatureClock        Feature = "clock"                // the runner sets the clock of the server
)

// Features returns all features.
func Features() []Feature {
	return []Feature{FeatureScope, FeatureScopes, FeatureACR, FeatureMaxAge, FeatureOptional, FeatureRAR, FeatureIdentity,
		FeatureSecondIssuer, FeatureReplay, FeatureNonce, FeatureStatusList, FeatureSigned, FeatureClock}
}

// Given is the state of the issuer when a server starts.
type Given struct {
	// Keys is the key set. Nil: one key for each common algorithm.
	Keys []PublishedKey `json:"keys,omitempty"`

	// Do lists what else happens before the server starts.
	Do []Action `json:"do,omitempty"`

	// Nonce requires DPoP nonces of the server, which it does not require otherwise.
	Nonce bool `json:"nonce,omitempty"`

	Audience string `json:"audience,omitempty"` // of the server, in place of that of the target
	Secret   string `json:"secret,omitempty"`   // of the server at the introspection endpoint, in place of the usual one
	Signed   bool   `json:"signed,omitempty"`   // the server requires signed introspection responses (RFC 9701)
}

// A Step changes the issuer and then sends a request.
type Step struct {
	Do      []Action `json:"do,omitempty"`
	Token   *Token   `json:"token,omitempty"`   // nil: the request carries no token
	Request *Request `json:"request,omitempty"` // nil: GET of the protected route with the token as a Bearer token
	Times   int      `json:"times,omitempty"`   // how often the request is sent; zero: once
	At      string   `json:"at,omitempty"`      // "once": all at the same time
	Until   string   `json:"until,omitempty"`   // the step is repeated until it passes, for at most this long
	Expect  *Expect  `json:"expect,omitempty"`  // nil: nothing is sent
}

// An Action is one event at the issuer or in time. Exactly one member is set.
type Action struct {
	Keys     []PublishedKey `json:"keys,omitempty"`     // replaces the key set
	Fault    *Fault         `json:"fault,omitempty"`    // an endpoint misbehaves
	Restore  string         `json:"restore,omitempty"`  // the endpoint with this name is healthy again
	Revoke   string         `json:"revoke,omitempty"`   // the token saved under this name is no longer active
	Status   *Status        `json:"status,omitempty"`   // the status list changes
	Wait     string         `json:"wait,omitempty"`     // time passes
	Metadata map[string]any `json:"metadata,omitempty"` // members of the issuer's metadata change
}

// A Status is an entry of the status list: at Index, it is Value.
type Status struct {
	Index int `json:"index"`
	Value int `json:"value"`
}

// A Fault is the behavior of an endpoint in place of its normal one.
type Fault struct {
	Endpoint string   `json:"endpoint"`         // metadata, jwks, introspection or status
	Status   int      `json:"status,omitempty"` // zero: 200
	Header   []string `json:"header,omitempty"`
	Body     string   `json:"body,omitempty"`
	Kind     string   `json:"kind,omitempty"`  // "down": no response, "endless": a body without end, "slow": after Delay as usual
	Delay    string   `json:"delay,omitempty"` // before the response
	Times    int      `json:"times,omitempty"` // requests until it ends; zero: until it is restored
}

// A PublishedKey is one member of a key set.
type PublishedKey struct {
	Key  string         `json:"key,omitempty"`  // name of a key of the run
	Set  map[string]any `json:"set,omitempty"`  // members that replace those of its JWK
	Text string         `json:"text,omitempty"` // the member itself, as JSON
}

// A Token is the recipe of a token: what differs from a good one. Strings may contain the placeholders that cases/README.md lists.
// So may the members of Header and Claims, whose values may also be one of {"$time": "-1h"}, {"$absent": true}, {"$raw": "1e400"},
// {"$repeat": {"text": "a", "times": 1000}}, {"$jwk": "key"}, {"$jkt": "key"} and {"$x5t": "certificate"}.
type Token struct {
	Kind   string `json:"kind,omitempty"`   // jwt, opaque, jwe, or text. Empty: jwt
	Text   string `json:"text,omitempty"`   // the token, of the kind text
	Issuer string `json:"issuer,omitempty"` // main, second or hostile. Empty: main
	Key    string `json:"key,omitempty"`    // name of the key that signs. Empty: es256
	Alg    string `json:"alg,omitempty"`    // algorithm of the signature. Empty: that of the key
	Sign   string `json:"sign,omitempty"`   // a way to sign that no library offers, see sign.go. Empty: correctly

	Header map[string]any `json:"header,omitempty"`
	Claims map[string]any `json:"claims,omitempty"`

	// HeaderText and PayloadText replace the JSON; the Head and Tail texts are inserted after its first and before its last character.
	HeaderText  string `json:"header_text,omitempty"`
	HeaderHead  string `json:"header_head,omitempty"`
	HeaderTail  string `json:"header_tail,omitempty"`
	PayloadText string `json:"payload_text,omitempty"`
	PayloadHead string `json:"payload_head,omitempty"`
	PayloadTail string `json:"payload_tail,omitempty"`

	Forged map[string]any `json:"forged,omitempty"` // claims that are changed after signing
	Edit   []string       `json:"edit,omitempty"`   // changes of the text after signing, see sign.go
	Answer *Answer        `json:"answer,omitempty"` // how introspection of an opaque token differs

	Save string `json:"save,omitempty"` // name under which later steps find the token
	Use  string `json:"use,omitempty"`  // the token that was saved under this name
}

// An Answer is a response of the introspection endpoint that differs from the normal one.
type Answer struct {
	Status int      `json:"status,omitempty"`
	Header []string `json:"header,omitempty"`
	Body   string   `json:"body,omitempty"`
	Delay  string   `json:"delay,omitempty"`
}

// A Request is the recipe of a request. It is sent as written, byte by byte, so that no client library corrects it.
type Request struct {
	Method string `json:"method,omitempty"` // empty: GET
	Route  string `json:"route,omitempty"`  // name of the route, see [Target]. Empty: any
	Target string `json:"target,omitempty"` // the request target. Empty: {path}, the path of the route

	// Authorization lists the values of the Authorization lines. Nil: one with the token, if there is one.
	Authorization []string `json:"authorization,omitempty"`
	Anonymous     bool     `json:"anonymous,omitempty"` // no Authorization line, although there is a token

	Header      []string `json:"header,omitempty"` // further lines
	Body        string   `json:"body,omitempty"`
	Proof       *Token   `json:"proof,omitempty"`       // the DPoP proof; the token's scheme is then DPoP
	Certificate string   `json:"certificate,omitempty"` // name of the client certificate of the connection
	Raw         string   `json:"raw,omitempty"`         // the whole request
	Last        bool     `json:"last,omitempty"`        // Raw has two requests, and the response to the second counts
}

//go:embed cases/*.json cases/sets/*.json
var caseFiles embed.FS

type caseFile struct {
	Schema string `json:"$schema"`
	Cases  []Case `json:"cases"`
}

var loadCases = sync.OnceValues(func() ([]Case, error) {
	var all []Case
	names, err := fs.Glob(caseFiles, "cases/*.json")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if base := path.Base(name); base == "schema.json" || base == "outcomes.json" || base == "without.json" {
			continue
		}
		var file caseFile
		if err := readData(name, &file); err != nil {
			return nil, err
		}
		all = append(all, file.Cases...)
	}
	slices.SortFunc(all, func(a, b Case) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
})

// readData reads an embedded file and refuses unknown members.
func readData(name string, into any) error {
	data, err := caseFiles.ReadFile(name)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Cases returns all cases, ordered by ID. The slice is the caller's; the cases must not be modified.
func Cases() []Case {
	all, err := loadCases()
	if err != nil {
		panic(fmt.Sprintf("conformance: %v", err)) // embedded, so the package's test has read it
	}
	return slices.Clone(all)
}

// FindCase returns the case with the given ID. It reports false if there is none.
func FindCase(id string) (Case, bool) {
	all := Cases()
	i, found := slices.BinarySearchFunc(all, id, func(c Case, id string) int { return strings.Compare(c.ID, id) })
	if !found {
		return Case{}, false
	}
	return all[i], true
}

// Without returns the items of resource servers, and the groups of items, that have no case, each with the reason.
func Without() map[string]string {
	var reasons map[string]string
	if err := readData("cases/without.json", &reasons); err != nil {
		panic(fmt.Sprintf("conformance: %v", err)) // as in Cases
	}
	return reasons
}

// A Set is a frozen list of cases, by the month in which it was published. Later versions of the suite keep it, so that two reports
// with the same set compare.
type Set struct {
	Name  string            `json:"set"`
	Cases map[string]string `json:"cases"` // ID -> digest of the case
}

// Sets returns the names of all sets, oldest first.
func Sets() []string {
	names, err := fs.Glob(caseFiles, "cases/sets/*.json")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, name := range names {
		names[i] = strings.TrimSuffix(path.Base(name), ".json")
	}
	return names
}

// FindSet returns the set with this name.
func FindSet(name string) (Set, error) {
	if !slices.Contains(Sets(), name) {
		return Set{}, fmt.Errorf("unknown set %q: the sets are %s", name, strings.Join(Sets(), ", "))
	}
	var set Set
	return set, readData("cases/sets/"+name+".json", &set)
}
