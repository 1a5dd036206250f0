package issuer

import (
	"reflect"
	"regexp"
	"strings"

	"github.com/valetkey/valetkey/jwks"
)

// Errors of the packages name settings as Go programs spell them. These replace the names by those of files and flags.
var (
	allowed = regexp.MustCompile(`Profile\.Allow\w+|\bAllowPaddedSegments\b`)
	inFiles = strings.NewReplacer(
		"InsecureHTTP", "insecure_http: true",
		"CertFile", "cert_file",
		"KeyFile", "key_file",
		"AudienceByIssuer", "audience_by_issuer",
		"JWTIssuers", "jwt_issuers",
		"Origins", "status_list.origins",
		"RequireScope", "require_scope",
		"AudienceClaim", "audience_claim",
		"AudienceHeader", "audience_header",
		"ClientIDClaim", "client_id_claim",
		"ClientIDHeader", "client_id_header",
		"IssuerAliases", "issuer_aliases",
	)
	allow   = regexp.MustCompile(`\ballow: (\w+)`)
	inFlags = strings.NewReplacer("insecure_http: true", "--insecure-http", "InsecureHTTP", "--insecure-http")
)

// InFiles returns the text of an error with the names that settings have in configuration files.
func InFiles(text string) string {
	return inFiles.Replace(allowed.ReplaceAllStringFunc(text, func(setting string) string {
		return "allow: " + Allowance(strings.TrimPrefix(setting, "Profile."))
	}))
}

// InFlags returns the text of an error with the names of flags. The text may have those of files already.
func InFlags(text string) string {
	return inFlags.Replace(allow.ReplaceAllString(InFiles(text), "--allow $1"))
}

// Allowance returns the value of allow for a field of jwks.Profile, such as "untyped" for "AllowUntyped". If there is none, it returns
// field.
func Allowance(field string) string {
	for name, setting := range allowances {
		var c jwks.Config
		*setting(&c) = true
		for _, v := range []reflect.Value{reflect.ValueOf(c.Profile), reflect.ValueOf(c)} {
			if f := v.FieldByName(field); f.IsValid() && f.Kind() == reflect.Bool && f.Bool() {
				return name
			}
		}
	}
	return field
}
