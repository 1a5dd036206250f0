package authserver

import (
	"context"
	"log/slog"

	"github.com/valetkey/valetkey/authserver/internal/engine"
)

// An audit is the log of everything that the server has granted and refused. All parts of the server write to it. It contains no
// secrets: no part passes one to it.
type audit struct{ log *slog.Logger }

// record logs an action of a client or an operator.
func (a audit) record(ctx context.Context, name string, attrs ...slog.Attr) {
	a.log.LogAttrs(ctx, slog.LevelInfo, name, attrs...)
}

// event logs an event of the engine, with the address that caused it.
func (a audit) event(ctx context.Context, e engine.Event) {
	attrs := e.Attrs()
	if from := senderIn(ctx).address; from != "" {
		attrs = append(attrs, slog.String("address", from))
	}
	a.record(ctx, e.Name, attrs...)
}

// A split is a log handler that sends errors to the failure log and all other records, which are actions of users, to the audit
// log.
type split struct{ audit, failures slog.Handler }

func (s split) of(level slog.Level) slog.Handler {
	if level >= slog.LevelError {
		return s.failures
	}
	return s.audit
}

func (s split) Enabled(ctx context.Context, level slog.Level) bool {
	return s.of(level).Enabled(ctx, level)
}

func (s split) Handle(ctx context.Context, r slog.Record) error { return s.of(r.Level).Handle(ctx, r) }

func (s split) WithAttrs(attrs []slog.Attr) slog.Handler {
	return split{s.audit.WithAttrs(attrs), s.failures.WithAttrs(attrs)}
}

func (s split) WithGroup(name string) slog.Handler {
	return split{s.audit.WithGroup(name), s.failures.WithGroup(name)}
}
