package valetredis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
)

// A follower must not skip a revocation that it does not understand: it rejects more than was meant, and reports it.
func TestRecordsOfAnotherVersion(t *testing.T) {
	const issuer = "https://as.example.com"
	for name, text := range map[string]string{
		"a later version":                         `{"v":2,"Issuer":"` + issuer + `","Subject":"alice"}`,
		"a later version with a new kind":         `{"v":2,"Issuer":"` + issuer + `","Grant":"g"}`,
		"a later version with another type":       `{"v":2,"Issuer":"` + issuer + `","Subject":["alice","bob"]}`,
		"this version, but nothing selects":       `{"v":1,"Issuer":"` + issuer + `"}`,
		"this version, but two members select":    `{"v":1,"Issuer":"` + issuer + `","ID":"a","Subject":"alice"}`,
		"this version, but a member is malformed": `{"v":1,"Issuer":"` + issuer + `","Subject":"alice","Until":"tomorrow"}`,
	} {
		t.Run(name+" rejects all older tokens of the issuer, and is reported", func(t *testing.T) {
			s := startServer(t)
			r, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
			begin := time.Now()
			require.NoError(t, r.PublishText(context.Background(), text))
			publish(t, r, "known")
			f := follow(t, r)
			eventually(t, "it is reported", f.says("missing", "1 records in redis are of a later version"))
			f.mu.Lock()
			defer f.mu.Unlock()
			require.Len(t, f.applied, 2)
			wide := f.applied[0]
			assert.Equal(t, valetkey.Revocation{Issuer: issuer, All: true, At: wide.At, Until: wide.Until}, wide)
			assert.WithinDuration(t, begin, wide.At, time.Minute)
			assert.WithinDuration(t, begin.Add(24*time.Hour), wide.Until, time.Hour)
			assert.Equal(t, "known", f.applied[1].ID, "the others are applied as they are")
		})
	}
	for name, text := range map[string]string{
		"no version": `{"Issuer":"` + issuer + `","Subject":"alice","Until":%q}`,
		"version 1":  `{"v":1,"Issuer":"` + issuer + `","Subject":"alice","Until":%q}`,
		"version 1 and a member that may be ignored": `{"v":1,"Issuer":"` + issuer + `","Subject":"alice","Note":"x","Until":%q}`,
	} {
		t.Run("a record with "+name+" is applied as it is", func(t *testing.T) {
			s := startServer(t)
			r, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
			require.NoError(t, r.PublishText(context.Background(), fmt.Sprintf(text, time.Now().Add(time.Hour).Format(time.RFC3339))))
			f := follow(t, r)
			eventually(t, "it has caught up", f.says("true", ""))
			f.mu.Lock()
			defer f.mu.Unlock()
			require.Len(t, f.applied, 1)
			assert.Equal(t, "alice", f.applied[0].Subject)
		})
	}
	t.Run("a record without an issuer is counted as one that cannot be opened", func(t *testing.T) {
		s := startServer(t)
		r, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
		require.NoError(t, r.PublishText(context.Background(), `{"v":2,"Iss":"x"}`))
		publish(t, r, "known")
		f := follow(t, r)
		eventually(t, "it is reported", f.says("missing", "1 entries in redis cannot be opened"))
	})
}
