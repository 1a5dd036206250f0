package doctor

import (
	"context"
	"errors"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/introspect"
)

// introspection examines a verifier that introspects, by asking about a made-up token and, if there is one, about the token.
func (x *examination) introspection(ctx context.Context, about *token) {
	cfg := *x.target.Introspection
	cfg.SharedCache = nil
	v, err := introspect.New(cfg)
	if err != nil {
		x.add(Finding{Level: Fail, Check: "introspection", Cause: err.Error()})
		return
	}
	defer v.Close()
	if err := v.Ready(ctx); err != nil {
		f := Finding{Level: Fail, Check: "introspection", Cause: err.Error()}
		var status *fetch.Error
		if errors.As(err, &status) && (status.Status == 400 || status.Status == 401 || status.Status == 403) {
			f.Cause = status.Error()
			f.Fix = "the client id or the secret is wrong, or the endpoint expects them in another form"
			f.YAML, f.Go = "auth: basic_raw, or auth: post", "Auth: introspect.RawBasicAuth(id, secret), or introspect.PostAuth(id, secret)"
		}
		x.add(f)
		return
	}
	x.ok("introspection", "the endpoint answers about a made-up token")
	if about == nil {
		return
	}
	t, err := v.Verify(ctx, about.raw)
	var refusal *valetkey.Error
	switch {
	case err == nil:
		x.ok("token", "accepted: subject %.200q, client %.200q", t.Subject(), t.ClientID())
		return
	case !errors.As(err, &refusal):
		x.add(Finding{Level: Fail, Check: "token", Cause: err.Error()})
		return
	}
	f := Finding{Level: Fail, Check: "token", Cause: refusal.Reason.Description()}
	if refusal.Err != nil {
		f.Cause += ": " + refusal.Err.Error()
	}
	switch refusal.Reason {
	case valetkey.ReasonInactive:
		f.Fix = "it has expired or was revoked, is of another issuer, or the issuer reports it as active to its audience only"
	case valetkey.ReasonNoAudience:
		f.YAML, f.Go = "audience_by_issuer: true", "AudienceByIssuer: true"
		f.If = "the issuer reports a token as active only to the APIs that it is for"
	case valetkey.ReasonAudience:
		f.If = "the audience of the response is this API"
		f.YAML, f.Go = "audience: [...]", "Audience: []string{...}"
	case valetkey.ReasonIssuer:
		f.YAML, f.Go = "issuer, as in the response", "Issuer, as in the response"
	}
	x.add(f)
}
