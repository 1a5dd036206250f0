module github.com/valetkey/valetkey/authserver/ldaplogin

go 1.26.0

require (
	github.com/go-ldap/ldap/v3 v3.4.15
	github.com/jimlambrt/gldap v0.1.14
	github.com/stretchr/testify v1.12.1
	github.com/valetkey/valetkey v0.0.0
	github.com/valetkey/valetkey/authserver v0.0.0
)

require (
	github.com/Azure/go-ntlmssp v0.1.1 // indirect
	github.com/fatih/color v1.17.0 // indirect
	github.com/go-asn1-ber/asn1-ber v1.5.8 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/go-hclog v1.6.3 // indirect
	github.com/mattn/go-colorable v0.1.13 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	github.com/valetkey/valetkey => ../../
	github.com/valetkey/valetkey/authserver => ../
	github.com/valetkey/valetkey/internal/config => ../../internal/config
)
