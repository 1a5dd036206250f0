package proxy

import (
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/internal/config"
)

// A lifecycle holds what a proxy knows about itself as one of several that follow each other in a process.
type lifecycle struct {
	verifiers    []*part[verifierPart] // in the order in which they are asked; shared with other configurations
	redis        *part[*shared]        // the owner of shared; nil: there is none
	signals      *part[*received]      // nil: there are none
	made         []made
	profile      string
	fixed        settings
	drain, grace time.Duration
	source       web.Source
	authorizer   *Authorizer // that this proxy belongs to; nil: none
}

// read reads the file as config.ReadFile does.
func (p *Proxy) read(path string, f any, check func(*config.Document) error) error {
	digest, err := web.ReadFile(path, f, check)
	p.source = web.Source{SHA256: digest, Loaded: time.Now()}
	return err
}

// Close stops fetches of keys and calls to issuers, and waits for them, unless another configuration uses them too.
func (p *Proxy) Close() {
	for _, end := range p.close {
		end()
	}
	for _, v := range p.verifiers {
		v.release()
	}
	p.endSignals() // before its Redis
	p.disconnect()
}

// shareRedis connects to Redis, or takes over the connection of the previous configuration.
func (p *Proxy) shareRedis(f *file) {
	switch {
	case f.previous == nil:
		if made := f.connect(0); made != nil {
			p.redis = &part[*shared]{value: made, close: func() { made.client.Close() }}
		}
	case !f.Wrong("redis"): // it is the same, as checkFixed has found
		p.redis = f.previous.redis
	}
	if p.redis != nil {
		p.redis.users.Add(1)
		p.shared = p.redis.value
	}
}

func (p *Proxy) disconnect() {
	if p.redis != nil {
		p.redis.release()
		p.redis, p.shared = nil, nil
	}
}

// times returns drain and grace. Without a probe, nothing notices that the proxy is not ready, so waiting would be of no use.
func (f *file) times() (drain, grace time.Duration) {
	drain, grace = time.Duration(f.Drain), time.Duration(f.Grace)
	if drain == 0 && f.Probe != "" {
		drain = web.DefaultDrain
	}
	if grace == 0 {
		grace = web.DefaultGrace
	}
	return max(drain, 0), max(grace, 0)
}
