package proxy

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/valetkey/valetkey/adapters/valetredis"
)

// A shared is what proxies share through redis.
type shared struct {
	*valetredis.Redis
	client *redis.Client
	allow  bool // requests before its revocations are known
}

// redis makes what is shared, and does no I/O. It returns nil if nothing is, or with mistakes. patience is the least
// timeout; zero: that of valetredis.
func (n node) redis(patience time.Duration, log *slog.Logger) *shared {
	if n.Node == nil {
		return nil
	}
	before := len(n.doc.mistakes)
	f := n.fields("address", "username", "password", "password_file", "password_env", "tls", "db",
		"key", "key_file", "key_env", "prefix", "timeout", "allow_before_caught_up")
	n.require(f, "address")
	options := &redis.Options{
		Addr:                  f["address"].address(),
		Username:              f["username"].given(),
		DB:                    f["db"].number(),
		ContextTimeoutEnabled: true, // valetredis requires it
	}
	options.Password, _ = secret(f, "password")
	if f["tls"].flag() {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg := valetredis.Config{Prefix: f["prefix"].given(), Timeout: max(f["timeout"].duration(), patience), Logger: log}
	allow := f["allow_before_caught_up"].flag()
	var given bool
	if cfg.Key, given = randomKey(f); !given {
		n.mistake("key_file: required, or key_env or key")
	}
	if len(n.doc.mistakes) > before {
		return nil
	}
	logging.Disable() // it logs each connection that it does not get; valetredis says so once
	client := redis.NewClient(options)
	cfg.Client = client
	r, err := valetredis.New(cfg)
	if err != nil {
		client.Close()
		n.mistake("%v", err)
		return nil
	}
	return &shared{r, client, allow}
}
