package proxy

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
)

// A carried holds what a configuration hands over to the next one. The zero value is for the first configuration.
type carried struct {
	previous *Proxy   // nil: none
	memory   *memory  // nil: a new one
	fixed    settings // of the previous configuration; nil: none
	sockets  settings // addresses beside listen and probe, of this configuration
}

// A memory holds what is known about DPoP proofs. It belongs to the process: a configuration that forgot it would accept a proof twice,
// or refuse the nonces that clients have.
type memory struct {
	replays *dpop.MemoryReplayStore
	nonces  *dpop.Nonces // of a random key; nil until one is needed
}

// replayStore returns the store of used proofs in memory.
func (f *file) replayStore() *dpop.MemoryReplayStore {
	if f.memory == nil {
		f.memory = new(memory)
	}
	if f.memory.replays == nil {
		f.memory.replays = dpop.NewReplayStore(0)
	}
	return f.memory.replays
}

// randomNonces returns the nonces of the random key.
func (f *file) randomNonces() (*dpop.Nonces, error) {
	f.replayStore()
	if f.memory.nonces != nil {
		return f.memory.nonces, nil
	}
	made, err := dpop.NewNonces(dpop.NoncesConfig{})
	f.memory.nonces = made
	return made, err
}

// settings are the values of fields that a reload cannot change, by name.
type settings map[string]string

// checkFixed adds a mistake for each setting that differs from that of the running process. The rule: sockets belong to the process,
// Redis holds its revocations and used proofs, the receiver of signals has a stream, and the period in which a proof counts determines how long used ones are remembered.
func (f *file) checkFixed() settings {
	now := settings{
		"listen": string(f.Listen), "probe": string(f.Probe), "tls": fmt.Sprint(f.TLS != nil), "redis": fmt.Sprintf("%x", f.fingerprint(f.Redis)),
		"header_timeout": fmt.Sprint(f.HeaderTimeout), "idle_timeout": fmt.Sprint(f.IdleTimeout), "max_header_bytes": fmt.Sprint(f.MaxHeaderBytes),
		"revocations": fmt.Sprint(f.Revocations), "signals": fmt.Sprintf("%x", f.fingerprint(f.Signals)),
	}
	maps.Copy(now, f.sockets)
	if s := f.DPoP; s != nil {
		now["dpop.replay_store"], now["dpop.nonce"] = s.Replays, s.Nonce
		now["dpop.window"], now["dpop.leeway"] = fmt.Sprint(s.Window), fmt.Sprint(s.Leeway)
	}
	for _, name := range slices.Sorted(maps.Keys(f.fixed)) {
		value, given := now[name]
		if !given { // proofs are not accepted for now
			now[name] = f.fixed[name]
		} else if value != f.fixed[name] {
			f.Mistake(name, "cannot be changed by a reload: restart to apply it")
		}
	}
	return now
}

// A verifierPart is a verifier with what decides which tokens it may have accepted.
type verifierPart struct {
	keys    *jwks.Verifier
	listed  *statuslist.Verifier // keys combined with a status list; nil: there is none
	asks    *introspect.Verifier // nil: it has keys
	apiKeys *apikey.Verifier     // nil: it is for tokens

	issuers []string // of its tokens
	any     bool     // tokens of any issuer
}

// A part is a verifier that successive configurations share, with its keys and its results, while its settings do not change. It is
// closed with the last of them.
type part[T any] struct {
	print [sha256.Size]byte
	value T
	close func()
	users atomic.Int64
}

func (p *part[T]) release() {
	if p.users.Add(-1) == 0 {
		p.close()
	}
}

// reuse returns the verifier of the previous configuration that has the same settings, and closes made. If there is none, it returns
// made.
func (l *list) reuse(section any, made verifierPart, end func()) verifierPart {
	p := &part[verifierPart]{print: l.fingerprint(l.Resource, l.MaxTokenBytes, section), value: made, close: end}
	if l.previous != nil {
		if i := slices.IndexFunc(l.previous.verifiers, func(old *part[verifierPart]) bool { return old.print == p.print }); i >= 0 {
			end()
			p = l.previous.verifiers[i]
		}
	}
	p.users.Add(1)
	l.parts = append(l.parts, p)
	return p.value
}

// issuersOf returns the issuers of the tokens that a verifier with keys accepts.
func issuersOf(cfg jwks.Config) (issuers []string, any bool) {
	issuers = append(issuers, cfg.Issuer)
	if cfg.Profile.AllowMissingIssuer {
		issuers = append(issuers, "")
	}
	return append(issuers, cfg.IssuerAliases...), strings.Contains(cfg.Issuer, "{")
}

// askedIssuers is issuersOf for an introspection.
func askedIssuers(cfg introspect.Config) (issuers []string, any bool) {
	return append([]string{cfg.Issuer}, cfg.JWTIssuers...), cfg.Issuer == "" || slices.Contains(cfg.JWTIssuers, introspect.AnyIssuer)
}

// unchanged returns the function that reports whether the new verifiers accept a token that the old ones have accepted, with the same
// result: the verifiers that may have a say about its issuer are the same.
func unchanged(old, now []*part[verifierPart]) func(*valetkey.Token) bool {
	known := map[string]bool{} // by issuer; as large as the number of issuers with cached tokens
	return func(t *valetkey.Token) bool {
		iss := t.Issuer()
		same, asked := known[iss]
		if !asked {
			same = slices.Equal(concerned(old, iss), concerned(now, iss))
			known[iss] = same
		}
		return same
	}
}

// concerned returns the verifiers that may have a say about tokens of an issuer: those that accept them, and an introspection before
// another one that does, because it is asked about opaque tokens first.
func concerned(all []*part[verifierPart], iss string) (prints [][sha256.Size]byte) {
	accepts := func(p *part[verifierPart]) bool { return p.value.any || slices.Contains(p.value.issuers, iss) }
	last := -1
	for i, p := range all {
		if accepts(p) {
			last = i
		}
	}
	for i, p := range all {
		if accepts(p) || p.value.asks != nil && i < last {
			prints = append(prints, p.print)
		}
	}
	return prints
}

// inherit sets what the guard takes over from that of the previous configuration.
func (f *file) inherit(cfg *middleware.Config, parts []*part[verifierPart]) {
	if f.previous == nil {
		return
	}
	cfg.Previous, cfg.Revocations = f.previous.guard, middleware.Revocations{}
	if f.Profile == "" && f.previous.profile == "" { // a profile makes its own verifiers
		cfg.KeepCached = unchanged(f.previous.verifiers, parts)
	}
}

// fingerprint returns a digest of sections of the file, with the secrets and the key sets that they name. Other files, such as
// certificates, are read again by their users.
func (f *file) fingerprint(sections ...any) [sha256.Size]byte {
	h := sha256.New()
	for _, s := range sections {
		f.write(h, reflect.ValueOf(s), "")
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// write writes v, the field with the given name in files, so that different values have different texts.
func (f *file) write(h hash.Hash, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			io.WriteString(h, "nil;")
			return
		}
		io.WriteString(h, "&")
		f.write(h, v.Elem(), name)
	case reflect.Struct:
		if secret, ok := v.Interface().(config.Secret); ok {
			secret.File = f.Path(secret.File)
			text, err := secret.Read()
			fmt.Fprintf(h, "%q %v;", text, err)
			return
		}
		io.WriteString(h, "{")
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				tag, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
				fmt.Fprintf(h, "%s:", field.Name)
				f.write(h, v.Field(i), tag)
			}
		}
		io.WriteString(h, "}")
	case reflect.Slice:
		fmt.Fprintf(h, "[%d:", v.Len())
		for i := range v.Len() {
			f.write(h, v.Index(i), "")
		}
		io.WriteString(h, "]")
	case reflect.String:
		fmt.Fprintf(h, "%q;", v.String())
		if (name == "file" || name == "initial_file") && v.String() != "" {
			text, err := config.Content(f.Path(v.String()), maxKeySet)
			fmt.Fprintf(h, "%q %v;", text, err)
		}
	default:
		fmt.Fprintf(h, "%#v;", v.Interface()) // a map is printed in the order of its keys
	}
}

const maxKeySet = 16 << 20 // bytes; larger than any that a verifier accepts
