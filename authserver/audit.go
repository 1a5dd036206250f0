package authserver

import (
	"context"
	"log/slog"

	"github.com/valetkey/valetkey/authserver/internal/engine"
)

// An audit is the log of what the server has granted and refused: every part of it writes here, and nothing else does. There
// is no secret in it: no part gives one away.
type audit struct{ log *slog.Logger }

// record is told of what clients and operators do.
func (a audit) record(ctx context.Context, name string, attrs ...slog.Attr) {
	a.log.LogAttrs(ctx, slog.LevelInfo, name, attrs...)
}

// event is told of what the engine does, and says where that was asked from.
func (a audit) event(ctx context.Context, e engine.Event) {
	attrs := e.Attrs()
	if from := senderIn(ctx).address; from != "" {
		attrs = append(attrs, slog.String("address", from))
	}
	a.record(ctx, e.Name, attrs...)
}

// A split is the handler of a logger that is told both what people do, which is for the audit log, and of errors, which are
// not.
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
