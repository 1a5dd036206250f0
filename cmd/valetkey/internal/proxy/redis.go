package proxy

import (
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/valetkey/valetkey/adapters/valetredis"
)

// A shared holds the Redis that proxies share.
type shared struct {
	*valetredis.Redis
	client *redis.Client
	allow  bool // allow requests before its revocations are known
}

// connect creates the connection to Redis without any I/O. It returns nil if Redis is not configured or there are mistakes.
// patience is the minimum timeout. Zero: the default of valetredis applies.
func (f *file) connect(patience time.Duration) *shared {
	r := f.Redis
	if r == nil {
		return nil
	}
	options := &redis.Options{
		Addr:                  string(r.Address),
		Username:              r.Username,
		Password:              f.Secret(r.Password),
		DB:                    int(r.DB),
		ContextTimeoutEnabled: true, // valetredis requires it
	}
	if r.TLS {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg := valetredis.Config{Key: f.Key(r.Key), Prefix: r.Prefix, Timeout: max(time.Duration(r.Timeout), patience), Logger: f.log}
	if !f.SecretGiven(r.Key) {
		f.Mistake("redis.key_file", "required, or key_env or key")
	}
	if f.Wrong("redis") {
		return nil
	}
	logging.Disable() // go-redis logs each failed connection; valetredis logs the outage once
	client := redis.NewClient(options)
	cfg.Client = client
	made, err := valetredis.New(cfg)
	if err != nil {
		client.Close()
		f.Blame("redis", err, map[string]string{"Key": "key", "Prefix": "prefix", "Timeout": "timeout"})
		return nil
	}
	return &shared{made, client, r.AllowLate}
}
