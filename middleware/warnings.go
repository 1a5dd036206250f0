package middleware

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"unicode"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/ratelog"
)

// suspicious lists the reasons for refusals that a working client with a token for this API never causes: the configuration of
// the guard, the issuer or a proxy in front is wrong, or a clock is, or the token is a stranger's. Expired tokens, missing scopes
// and the like are not listed, because working clients cause them.
var suspicious = []valetkey.Reason{
	valetkey.ReasonNotJWT, valetkey.ReasonJWT,
	valetkey.ReasonClaimMalformed, valetkey.ReasonNotAccessToken, valetkey.ReasonUnknownTokenType,
	valetkey.ReasonUntrustedIssuer, valetkey.ReasonIssuer,
	valetkey.ReasonAudience, valetkey.ReasonNoAudience, valetkey.ReasonClient, valetkey.ReasonClaimRule,
	valetkey.ReasonAlgorithm, valetkey.ReasonNoKeyID, valetkey.ReasonUnknownKey, valetkey.ReasonSignature,
	valetkey.ReasonNotYetValid, valetkey.ReasonLivesTooLong, valetkey.ReasonFarDate,
	valetkey.ReasonNoStatusList, valetkey.ReasonStatusListOrigin,
	valetkey.ReasonNotBound, valetkey.ReasonUnknownBinding, valetkey.ReasonBindingMissing, valetkey.ReasonBindingType,
	valetkey.ReasonDPoPNotAccepted, valetkey.ReasonNotForwarded, valetkey.ReasonProofAlgorithm, valetkey.ReasonProofURL,
}

const maxWarning = 1 << 10 // bytes of the cause

// warnings limits the log lines about suspicious refusals to one per reason and minute. Its size is fixed. Anyone can cause a
// line, and so use up the one of a reason for the minute: the values of other tokens that are refused for the same reason appear
// in a later minute. The line counts them.
type warnings map[valetkey.Reason]*ratelog.Limit

func newWarnings() warnings {
	w := make(warnings, len(suspicious))
	for _, reason := range suspicious {
		w[reason] = new(ratelog.Limit)
	}
	return w
}

// warn logs the cause of a suspicious refusal, unless it has done so for the same reason within the last minute.
func (w warnings) warn(ctx context.Context, log *slog.Logger, err error) {
	var refusal *valetkey.Error
	if !errors.As(err, &refusal) {
		return
	}
	limit := w[refusal.Reason]
	if limit == nil || !log.Enabled(ctx, slog.LevelWarn) {
		return
	}
	if refusals := limit.Permit(); refusals > 0 {
		log.LogAttrs(ctx, slog.LevelWarn, "requests refused, perhaps because of the configuration",
			slog.String("reason", string(refusal.Reason)), slog.String("err", loggable(refusal.Error())), slog.Int("refusals", refusals))
	}
}

// loggable returns a bounded prefix of s, quoted if it contains characters that could forge a line or control a terminal. Not all
// verifiers escape the text of a token, and not all handlers escape values.
func loggable(s string) string {
	if len(s) > maxWarning {
		s = strings.ToValidUTF8(s[:maxWarning], "") + " ..."
	}
	if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar }) {
		return strconv.QuoteToGraphic(s)
	}
	return s
}
