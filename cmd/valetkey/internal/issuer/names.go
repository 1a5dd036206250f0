package issuer

import (
	"regexp"
	"strings"
)

// Errors of the packages name settings as Go programs spell them. These replace the names by those of files and flags.
var (
	allowed = regexp.MustCompile(`Profile\.Allow\w+`) // all of them are one profile here
	inFiles = strings.NewReplacer(
		"InsecureHTTP", "insecure_http: true",
		"AudienceByIssuer", "audience_by_issuer",
		"JWTIssuers", "jwt_issuers",
		"Origins", "status_list.origins",
	)
	inFlags = strings.NewReplacer("insecure_http: true", "--insecure-http", "InsecureHTTP", "--insecure-http")
)

// InFiles returns the text of an error with the names that settings have in configuration files.
func InFiles(text string) string {
	return inFiles.Replace(allowed.ReplaceAllLiteralString(text, "profile: lenient"))
}

// InFlags returns the text of an error with the names of flags. The text may have those of files already.
func InFlags(text string) string {
	return inFlags.Replace(strings.ReplaceAll(allowed.ReplaceAllLiteralString(text, "profile: lenient"), "profile: lenient", "--profile lenient"))
}
