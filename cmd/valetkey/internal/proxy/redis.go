package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/internal/config"
)

// examineTime is the time limit of an examination.
const examineTime = 5 * time.Second

// A shared holds the Redis that proxies share.
type shared struct {
	*valetredis.Redis
	client redis.UniversalClient
	allow  bool                    // allow requests before its revocations are known
	again  func() (*shared, error) // returns another connection with the same settings
}

// examine reads the revocations through another connection, as a proxy that starts does, and returns what that reports first.
func (s *shared) examine(ctx context.Context) error {
	other, err := s.again()
	if err != nil {
		return err
	}
	defer other.client.Close()
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	err = errors.New("it does not respond")
	other.Watch(ctx, func(...valetkey.Revocation) error { return nil }, func(reported error) {
		if ctx.Err() == nil {
			err = reported
			cancel()
		}
	})
	return err
}

// connect creates the connection to Redis without any network I/O. It returns nil if Redis is not configured or there are
// mistakes. patience is the minimum timeout. Zero: the default of valetredis applies.
func (f *file) connect(patience time.Duration) *shared {
	r := f.Redis
	if r == nil {
		return nil
	}
	cfg := valetredis.Config{
		Key: f.Key(r.Key), Prefix: r.Prefix, Timeout: max(time.Duration(r.Timeout), patience), Logger: f.log,
		MinReplicas: int(r.MinReplicas), AllowUnreplicated: r.Unreplicated,
	}
	if f.Signals != nil { // the receiver publishes revocations that end up to a tolerated difference of clocks later than revocations.keep
		cfg.Keep = cmp.Or(time.Duration(f.Revocations.Keep), 24*time.Hour) + signalSkew
	}
	if !f.SecretGiven(r.Key) {
		f.Mistake("redis.key_file", "required, or key_env or key")
	}
	switch given := f.Given("redis.min_replicas"); {
	case given && r.Unreplicated:
		f.Mistake("redis.allow_unreplicated", "cannot be combined with min_replicas")
	case given && r.MinReplicas == 0 && (r.Cluster != nil || r.Sentinel != nil):
		f.Mistake("redis.min_replicas", "0 requires allow_unreplicated: true instead, because a failover may forget used proofs and revocations")
	}
	dial := f.redisClient()
	if f.Wrong("redis") {
		return nil
	}
	logging.Disable() // go-redis logs each failed connection; valetredis logs the outage once
	made, err := open(cfg, dial, r.AllowLate)
	if err != nil {
		f.Blame("redis", err, map[string]string{
			"Key": "key", "Prefix": "prefix", "Timeout": "timeout", "MinReplicas": "min_replicas", "AllowUnreplicated": "allow_unreplicated",
		})
		return nil
	}
	return made
}

func open(cfg valetredis.Config, dial func() redis.UniversalClient, allow bool) (*shared, error) {
	cfg.Client = dial()
	made, err := valetredis.New(cfg)
	if err != nil {
		cfg.Client.Close()
		return nil, err
	}
	return &shared{made, cfg.Client, allow, func() (*shared, error) { return open(cfg, dial, allow) }}, nil
}

// places are the fields of the redis section that state where Redis is. Exactly one of them is required.
var places = []string{"address", "socket", "cluster", "sentinel"}

// redisClient checks the settings about connections to Redis. The result creates the client that they describe. It must not be
// called if there are mistakes.
func (f *file) redisClient() func() redis.UniversalClient {
	const section = "redis."
	r := f.Redis
	var given []string
	for _, place := range places {
		if f.Given(section + place) {
			given = append(given, place)
		}
	}
	if len(given) == 0 {
		f.Mistake(section+"address", "required, or socket, cluster or sentinel")
	}
	for _, place := range given[min(1, len(given)):] {
		f.Mistake(section+place, "cannot be combined with %s", given[0])
	}
	if r.Cluster != nil && r.DB != 0 {
		f.Mistake(section+"db", "cannot be combined with cluster, which has database 0 only")
	}
	encrypted := f.redisTLS()
	password := f.credentials("redis", r.Username, r.Password)
	switch {
	case r.Cluster != nil:
		return func() redis.UniversalClient {
			return redis.NewClusterClient(&redis.ClusterOptions{
				Addrs: texts(r.Cluster), Username: r.Username, Password: password, TLSConfig: encrypted, ContextTimeoutEnabled: true,
			})
		}
	case r.Sentinel != nil:
		s := r.Sentinel
		sentinelPassword := f.credentials("redis.sentinel", s.Username, s.Password)
		return func() redis.UniversalClient {
			return redis.NewFailoverClient(&redis.FailoverOptions{
				MasterName: s.Master, SentinelAddrs: texts(s.Addresses), SentinelUsername: s.Username, SentinelPassword: sentinelPassword,
				Username: r.Username, Password: password, DB: int(r.DB), TLSConfig: encrypted, ContextTimeoutEnabled: true,
			})
		}
	}
	options := &redis.Options{
		Network: "tcp", Addr: string(r.Address), Username: r.Username, Password: password, DB: int(r.DB), TLSConfig: encrypted,
		ContextTimeoutEnabled: true, // valetredis requires it
	}
	if r.Socket != "" {
		options.Network, options.Addr = "unix", f.Path(r.Socket)
	}
	return func() redis.UniversalClient { return redis.NewClient(options) }
}

// credentials reads the password of a section. A user name without one is a mistake: the client would not send it.
func (f *file) credentials(section, username string, password config.Secret) string {
	if username != "" && !f.SecretGiven(password) {
		f.Mistake(section+".username", "requires password_file, or password_env or password")
	}
	return f.Secret(password)
}

// redisTLS returns the TLS configuration of the connections to Redis and its sentinels, or nil without TLS.
func (f *file) redisTLS() *tls.Config {
	const section = "redis."
	r := f.Redis
	if !r.TLS {
		for _, name := range []string{"tls_ca_file", "tls_cert_file", "tls_key_file", "tls_server_name"} {
			if f.Given(section + name) {
				f.Mistake(section+name, "requires tls: true")
			}
		}
		return nil
	}
	if r.Socket != "" {
		f.Mistake(section+"tls", "cannot be combined with socket")
	}
	cfg := f.clientTLS(section+"tls_", r.TLSCAFile, r.TLSCertFile, r.TLSKeyFile)
	cfg.ServerName = r.TLSServerName
	return cfg
}

func texts(all []address) (list []string) {
	for _, a := range all {
		list = append(list, string(a))
	}
	return list
}
