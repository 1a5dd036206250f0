package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options change how [Check] runs.
type Options struct {
	Cases []Case // to run; nil: all

	// Slow also runs cases that wait for longer than two seconds because the clock of the server cannot be set.
	Slow bool

	// Rate is the maximum number of requests per second. Zero: 200; negative: no limit.
	Rate int

	// AcceptNotReady runs the cases although the server refuses a good token. Without it, that is a [NotReadyError].
	AcceptNotReady bool

	// Restarts is how often a server is started again that a case has ended. The cases that are left afterwards fail. Zero: 50; negative:
	// never.
	Restarts int

	// Workers is the number of cases that run at the same time. Zero: 8.
	Workers int

	// Progress is called after each case, by one goroutine at a time. Nil: not.
	Progress func(done, total int)
}

// A Verdict is the result of one case.
type Verdict string

// The verdicts.
const (
	Passed     Verdict = "passed"
	Failed     Verdict = "failed"
	NotOffered Verdict = "not offered" // the server does not claim the profile or a feature
	Skipped    Verdict = "skipped"     // the case cannot run as the target is given
)

// A Result is the outcome of one case.
type Result struct {
	Case     Case
	Verdict  Verdict
	Problems []string   // what differs from the expected outcome; for Skipped and NotOffered, the reason
	Expected string     // of the step that failed
	Sent     []Exchange // all requests of the case; of a step with several, the last
	Origin   string     // scheme and host of the server that they were sent to
	Took     time.Duration
}

// An Exchange is a request with its response, as sent and received.
type Exchange struct {
	Request  string `json:"request"`
	Response string `json:"response"`
}

// A Report is the result of a run.
type Report struct {
	Target   string
	Audience string
	Profiles []Profile
	Set      string // name of the set, or empty
	Started  time.Time
	Took     time.Duration
	Requests int
	Results  []Result // ordered by the IDs of the cases
}

// Count returns the number of results with this verdict.
func (r *Report) Count(v Verdict) (n int) {
	for _, result := range r.Results {
		if result.Verdict == v {
			n++
		}
	}
	return n
}

// Failures returns the results of the cases that failed: those that fail a run if binding, and otherwise the others.
func (r *Report) Failures(binding bool) []Result {
	var failed []Result
	for _, result := range r.Results {
		if result.Verdict == Failed && result.Case.Strength.Binding() == binding {
			failed = append(failed, result)
		}
	}
	return failed
}

// NotReadyError reports that the server refuses a good token, so that nothing can be tested.
type NotReadyError struct {
	Exchange Exchange
	Problem  string
	Setup    Setup
}

// Error names the settings that must agree.
func (e *NotReadyError) Error() string {
	return fmt.Sprintf("the server does not accept a good token (%s): it must trust the issuer %s with the keys of %s, and expect the audience %s",
		e.Problem, e.Setup.Issuer, e.Setup.JWKSURI, e.Setup.Audience)
}

// Check runs cases against a server. It contacts nothing but the server, and listens on loopback only, unless IssuerListen is elsewhere.
// The error reports that the run was not possible, for example because the server did not start; failures of the server are in the
// [Report].
func Check(ctx context.Context, target Target, o Options) (*Report, error) {
	target, err := target.check()
	if err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Rate == 0 {
		o.Rate = 200
	}
	if o.Cases == nil {
		o.Cases = Cases()
	}
	canary, err := startCanary()
	if err != nil {
		return nil, err
	}
	defer canary.close()
	servers := 4
	if o.Slow {
		servers = 16 // most of them wait
	}
	r := &runner{target: target, options: o, canary: canary, slots: make(chan struct{}, o.Workers), servers: make(chan struct{}, servers),
		results: make([]Result, len(o.Cases)), recorded: map[int]bool{}}
	start := time.Now()
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	for i := range r.results {
		if result := &r.results[i]; result.Verdict == Passed && canary.contacted(result.Case.ID) {
			result.fail("a URL in the token or the request was contacted")
		}
	}
	report := &Report{Target: target.URL, Audience: target.Audience, Profiles: target.Profiles, Started: start, Took: time.Since(start),
		Requests: r.sent, Results: r.results}
	slices.SortFunc(report.Results, func(a, b Result) int { return strings.Compare(a.Case.ID, b.Case.ID) })
	return report, nil
}

func (r *Result) fail(problem string) {
	r.Verdict = Failed
	r.Problems = append(r.Problems, problem)
}

type runner struct {
	target  Target
	options Options
	canary  *canary
	slots   chan struct{} // one for each case that runs
	servers chan struct{} // one for each server that was started
	results []Result      // index: that of the case; each is written by one goroutine

	mu       sync.Mutex // guards what follows
	next     time.Time  // of the next request, for the rate
	sent     int
	done     int
	recorded map[int]bool // index: that of the case
	restarts int
}

// A group is a list of cases that share a server.
type group struct {
	given   *Given
	profile Profile
	cases   []int // may run at the same time
	alone   []int // run afterwards, one by one
}

// maxQuickWait is the longest wait in cases that are not slow.
const maxQuickWait = 2 * time.Second

// plan sorts the cases by the server that they need.
func (r *runner) plan() []*group {
	var groups []*group
	shared := map[string]*group{}
	for i, c := range r.options.Cases {
		r.results[i] = Result{Case: c}
		if verdict, reason := r.excluded(c); verdict != "" {
			r.results[i].Verdict, r.results[i].Problems = verdict, []string{reason}
			r.finished()
			continue
		}
		profile := Profile("")
		if r.target.Start != nil && (c.Profile == ProfileMTLS || c.Profile == ProfileFAPI2) {
			profile = c.Profile
		}
		key, err := json.Marshal(struct {
			*Given
			Profile
		}{c.Given, profile})
		if err != nil {
			panic(err) // a Given is read from JSON
		}
		g := shared[string(key)]
		own := r.target.Start != nil && (c.Alone || c.Fresh)
		if g == nil || own {
			g = &group{given: c.Given, profile: profile}
			groups = append(groups, g)
			if !own {
				shared[string(key)] = g
			}
		}
		if c.Alone && !own {
			g.alone = append(g.alone, i)
		} else {
			g.cases = append(g.cases, i)
		}
	}
	return groups
}

// excluded returns why a case does not run, if so.
func (r *runner) excluded(c Case) (Verdict, string) {
	if !slices.Contains(r.target.Profiles, c.Profile) {
		return NotOffered, "profile " + string(c.Profile)
	}
	for _, f := range c.Features {
		if !r.target.offers(f) && !slices.Contains(r.target.Profiles, Profile(f)) {
			return NotOffered, "feature " + string(f)
		}
	}
	if r.target.Start == nil && (c.Fresh || c.Given != nil) {
		return Skipped, "needs a server that the runner can start"
	}
	if c.Slow() && !r.target.offers(FeatureClock) && !r.options.Slow {
		return Skipped, "slow"
	}
	return "", ""
}

// refusesOnly reports whether the case expects no more than that no handler runs.
func (c Case) refusesOnly() bool {
	for _, s := range c.Steps {
		if s.Expect == nil {
			continue
		}
		rest := s.Expect.resolved()
		if rest.Handler == nil || *rest.Handler {
			return false
		}
		rest.Handler = nil
		if !reflect.ValueOf(rest).IsZero() {
			return false
		}
	}
	return true
}

// Slow reports whether the case waits for longer than two seconds, so that it runs with [Options].Slow, or with the feature clock, only.
func (c Case) Slow() bool { return c.wait() > maxQuickWait }

// wait returns how long the case waits.
func (c Case) wait() (all time.Duration) {
	for _, s := range c.Steps {
		for _, a := range s.Do {
			if d, err := time.ParseDuration(a.Wait); err == nil {
				all += d
			}
		}
	}
	return all
}

func (r *runner) finished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	if r.options.Progress != nil {
		r.options.Progress(r.done, len(r.options.Cases))
	}
}

func (r *runner) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	groups := r.plan()
	errs := make([]error, len(groups))
	var all sync.WaitGroup
	for i, g := range groups {
		r.servers <- struct{}{}
		all.Go(func() {
			defer func() { <-r.servers }()
			if errs[i] = r.runGroup(ctx, g); errs[i] != nil {
				cancel() // one server that does not start stands for all
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return context.Cause(ctx)
}

func (r *runner) runGroup(ctx context.Context, g *group) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	listen := cmpOr(r.target.IssuerListen, "127.0.0.1:0")
	if r.target.Start != nil {
		listen = "127.0.0.1:0"
	}
	iss, err := startIssuer(listen, r.canary.url)
	if err != nil {
		return err
	}
	defer iss.close()
	if g.given != nil {
		iss.secret = cmpOr(g.given.Secret, iss.secret)
		b := &bench{issuer: iss, tokens: map[string]string{}, caseID: r.options.Cases[slices.Concat(g.cases, g.alone)[0]].ID}
		actions := g.given.Do
		if g.given.Keys != nil {
			actions = append([]Action{{Keys: g.given.Keys}}, actions...)
		}
		for _, a := range actions {
			if err := iss.do(a, b); err != nil {
				return fmt.Errorf("preparing %s: %w", b.caseID, err)
			}
		}
	}
	s, err := r.startServer(ctx, iss, g)
	if err != nil {
		if ctx.Err() != nil || g.given == nil || g.given.Keys == nil && len(g.given.Do) == 0 {
			return err
		}
		// The issuer is in an unusual state, and what a server makes of it is the result: some need the issuer in order to start.
		for _, i := range slices.Concat(g.cases, g.alone) {
			if r.options.Cases[i].refusesOnly() { // as a server that does not start does
				r.record(i, Result{Verdict: Passed})
			} else {
				r.record(i, Result{Verdict: Failed, Problems: []string{err.Error()}})
			}
		}
		return nil
	}
	defer func() { s.stop() }() // of the process that runs at the end
	if err := r.readyOf(ctx, g, iss, s); err != nil {
		return err
	}
	r.runAll(ctx, g, iss, s)
	for _, i := range g.alone {
		result, _ := r.runCase(ctx, i, iss, s)
		r.record(i, result)
	}
	return ctx.Err()
}

// startServer starts the server of a group, or describes that which runs.
func (r *runner) startServer(ctx context.Context, iss *issuer, g *group) (*live, error) {
	setup := Setup{Issuer: iss.url, JWKSURI: iss.urlOf("main", "jwks_uri"), SecondIssuer: iss.urlOf("second", "issuer"),
		Introspection: iss.url + "/introspect", ClientID: introspectionID, ClientSecret: iss.secret, Audience: r.target.Audience,
		Profile: g.profile, Now: iss.now}
	if g.given != nil {
		setup.Nonce, setup.Signed = g.given.Nonce, g.given.Signed
		setup.Audience = cmpOr(g.given.Audience, setup.Audience)
	}
	u, err := url.Parse(r.target.URL)
	if err != nil {
		return nil, err
	}
	s := &live{stop: func() {}}
	origin := u.Scheme + "://" + u.Host
	if r.target.Start != nil {
		if setup.Listen, err = freeAddress(); err != nil {
			return nil, err
		}
		server, err := r.target.Start(ctx, setup)
		if err != nil {
			return nil, fmt.Errorf("starting the server: %w", err)
		}
		if server.Close != nil {
			s.stop = sync.OnceFunc(server.Close) // a restart that fails has called it
		}
		s.done, s.err = server.Done, server.Err
		origin = strings.TrimSuffix(server.URL, "/")
	}
	info := serverInfo{origin: origin, audience: setup.Audience, routes: map[string]Route{routeAny: {Path: cmpOr(u.EscapedPath(), "/")}}}
	_, info.host, _ = strings.Cut(origin, "://")
	for name, route := range r.target.Routes {
		info.routes[name] = route
	}
	s.info, s.setup = info, setup
	return s, nil
}

// readyOf is ready for the servers of groups that must accept a good token.
func (r *runner) readyOf(ctx context.Context, g *group, iss *issuer, s *live) error {
	if g.given != nil || g.profile != "" || r.options.AcceptNotReady {
		return nil
	}
	return r.ready(ctx, iss, s.info, s.setup)
}

// freeAddress returns an address at which a program can listen. Its port is below those that systems choose themselves, from 32768 on Linux and
// 49152 elsewhere (RFC 6335, section 6): another server that is started meanwhile would otherwise get it, and answer in place of the program.
func freeAddress() (address string, err error) {
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", err
}

// ready sends a good token, without which no refusal means anything. A server may take a moment to have its keys.
func (r *runner) ready(ctx context.Context, iss *issuer, info serverInfo, setup Setup) error {
	good := Case{ID: "ready", Steps: []Step{{Token: &Token{}, Expect: &Expect{Outcome: "accepted"}}}}
	var problems []string
	var sent []Exchange
	for try := range 5 {
		b := &bench{issuer: iss, server: info, caseID: good.ID, tokens: map[string]string{}}
		if problems, _, sent = r.play(ctx, b, good); len(problems) == 0 {
			if r.target.offers(FeatureSecondIssuer) { // so that no case is the first to need its keys
				good.Steps[0].Token = &Token{Issuer: "second"}
				r.play(ctx, b, good)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		}
	}
	e := &NotReadyError{Problem: problems[0], Setup: setup}
	if len(sent) > 0 {
		e.Exchange = sent[0]
	}
	return e
}

// runCase runs one case, and reports whether a request got no response.
func (r *runner) runCase(ctx context.Context, i int, iss *issuer, s *live) (result Result, silent bool) {
	c := r.options.Cases[i]
	b := &bench{issuer: iss, server: s.info, caseID: c.ID, tokens: map[string]string{}}
	start := time.Now()
	problems, expected, sent := r.play(ctx, b, c)
	result = Result{Verdict: Passed, Took: time.Since(start), Sent: sent, Origin: s.info.origin}
	if len(problems) > 0 {
		result.Verdict, result.Problems, result.Expected = Failed, problems, expected
	}
	return result, b.silent
}

// record keeps the result of a case. A later one replaces it.
func (r *runner) record(i int, result Result) {
	result.Case = r.options.Cases[i]
	r.results[i] = result
	r.mu.Lock()
	again := r.recorded[i]
	r.recorded[i] = true
	r.mu.Unlock()
	if !again {
		r.finished()
	}
}

// play carries out the steps of a case up to the first that fails.
func (r *runner) play(ctx context.Context, b *bench, c Case) (problems []string, expected string, sent []Exchange) {
	for n, s := range c.Steps {
		problems, exchanges, err := r.stepUntil(ctx, b, s)
		sent = append(sent, exchanges...)
		if err != nil {
			return []string{fmt.Sprintf("step %d cannot be carried out: %v", n+1, err)}, "", sent
		}
		if len(problems) > 0 {
			if len(c.Steps) > 1 {
				for i := range problems {
					problems[i] = fmt.Sprintf("step %d: %s", n+1, problems[i])
				}
			}
			return problems, s.Expect.String(), sent
		}
	}
	return nil, "", sent
}

// stepUntil repeats a step for as long as it may fail.
func (r *runner) stepUntil(ctx context.Context, b *bench, s Step) ([]string, []Exchange, error) {
	limit, err := time.ParseDuration(cmpOr(s.Until, "0s"))
	if err != nil {
		return nil, nil, err
	}
	for end := time.Now().Add(limit); ; {
		problems, sent, err := r.step(ctx, b, s)
		if err != nil || len(problems) == 0 || !time.Now().Before(end) {
			return problems, sent, err
		}
		s.Do = nil
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *runner) step(ctx context.Context, b *bench, s Step) (problems []string, sent []Exchange, err error) {
	for _, a := range s.Do {
		if a.Wait != "" {
			err = r.wait(ctx, b, a.Wait)
		} else {
			err = b.issuer.do(a, b)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if s.Expect == nil {
		return nil, nil, nil
	}
	expect := s.Expect.resolved()
	before := b.issuer.counts(b.minted)
	o := observation{expand: b.expand}
	times := max(s.Times, 1)
	var responses []*response
	if s.At == "once" {
		responses, sent, err = r.sendTogether(ctx, b, s, times)
	} else {
		for range times {
			var one []*response
			one, sent, err = r.sendTogether(ctx, b, s, 1)
			if responses = append(responses, one...); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, nil, err
	}
	o.scheme = b.scheme(s)
	for _, got := range responses {
		if got.accepted() {
			o.accepted++
		}
		if nonce := got.header.Get("DPoP-Nonce"); nonce != "" {
			b.nonce = nonce
		}
		o.response = got
		for _, p := range expect.check(o) {
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
	}
	o.calls = b.issuer.counts(b.minted)
	for name, n := range before {
		o.calls[name] -= n
	}
	return append(problems, expect.checkAll(o)...), sent, nil
}

// wait advances the clock of the issuer and the server if they share it, and otherwise sleeps.
func (r *runner) wait(ctx context.Context, b *bench, text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if r.target.offers(FeatureClock) {
		b.issuer.offset.Add(int64(d))
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// sendTogether makes one request and sends it n times at once. It returns the last exchange, in a slice.
func (r *runner) sendTogether(ctx context.Context, b *bench, s Step, n int) ([]*response, []Exchange, error) {
	raw, method, err := b.request(s)
	if err != nil {
		return nil, nil, err
	}
	responses := make([]*response, n)
	certificate, err := b.certificate(s)
	if err != nil {
		return nil, nil, err
	}
	var all sync.WaitGroup
	for i := range n {
		if err := r.pace(ctx); err != nil {
			return nil, nil, err
		}
		all.Go(func() { responses[i] = exchange(ctx, b.server.origin, method, raw, certificate, s.request().Last) })
	}
	all.Wait()
	for _, got := range responses {
		b.silent = b.silent || got.err != nil
	}
	last := Exchange{Request: string(raw), Response: string(responses[n-1].raw)}
	if err := responses[n-1].err; err != nil {
		last.Response += fmt.Sprintf("(%v)", err)
	}
	return responses, []Exchange{last}, nil
}

// pace keeps to the rate.
func (r *runner) pace(ctx context.Context) error {
	r.mu.Lock()
	r.sent++
	if r.options.Rate < 0 {
		r.mu.Unlock()
		return ctx.Err()
	}
	now := time.Now()
	at := r.next
	if at.Before(now) {
		at = now
	}
	r.next = at.Add(time.Second / time.Duration(r.options.Rate))
	r.mu.Unlock()
	if d := at.Sub(now); d > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	return ctx.Err()
}
