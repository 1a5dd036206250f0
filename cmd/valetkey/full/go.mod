module github.com/valetkey/valetkey/cmd/valetkey/full

go 1.26.0

require (
	github.com/envoyproxy/go-control-plane/envoy v1.37.0
	github.com/prometheus/common v0.66.1
	github.com/stretchr/testify v1.12.1
	github.com/valetkey/valetkey v0.0.0
	github.com/valetkey/valetkey/adapters/valetcel v0.0.0
	github.com/valetkey/valetkey/adapters/valetenvoy v0.0.0
	github.com/valetkey/valetkey/adapters/valetopenapi v0.0.0
	github.com/valetkey/valetkey/authserver v0.0.0
	github.com/valetkey/valetkey/authserver/ldaplogin v0.0.0
	github.com/valetkey/valetkey/authserver/pgstore v0.0.0
	github.com/valetkey/valetkey/authserver/sqlitestore v0.0.0
	github.com/valetkey/valetkey/cmd/valetkey v0.0.0
	go.yaml.in/yaml/v3 v3.0.6
	golang.org/x/crypto/x509roots/fallback v0.0.0-20261030153154-30a33513ff6d
	google.golang.org/grpc v1.83.2
	google.golang.org/protobuf v1.36.12
)

require (
	cel.dev/cel-go v0.32.0 // indirect
	cel.dev/expr v0.25.2 // indirect
	github.com/Azure/go-ntlmssp v0.1.1 // indirect
	github.com/alexedwards/scs/v2 v2.9.0 // indirect
	github.com/antlr4-go/antlr/v4 v4.13.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cncf/xds/go v0.0.0-20260202195803-dba9d589def2 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/envoyproxy/protoc-gen-validate v1.3.3 // indirect
	github.com/getkin/kin-openapi v0.152.0 // indirect
	github.com/go-asn1-ber/asn1-ber v1.5.8 // indirect
	github.com/go-ldap/ldap/v3 v3.4.15 // indirect
	github.com/go-openapi/jsonpointer v0.22.5 // indirect
	github.com/go-openapi/swag/jsonname v0.25.5 // indirect
	github.com/goccy/go-json v0.10.6 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.12.0 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/jub0bs/cors v0.11.0 // indirect
	github.com/lestrrat-go/blackmagic v1.0.4 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc v1.0.6 // indirect
	github.com/lestrrat-go/iter v1.0.2 // indirect
	github.com/lestrrat-go/jwx/v2 v2.1.7 // indirect
	github.com/lestrrat-go/option v1.0.1 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.0.0 // indirect
	github.com/oasdiff/yaml v0.1.1 // indirect
	github.com/oasdiff/yaml3 v0.0.14 // indirect
	github.com/patrickmn/go-cache v2.1.0+incompatible // indirect
	github.com/planetscale/vtprotobuf v0.6.1-0.20240319094008-0393e58bdf10 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3 // indirect
	github.com/segmentio/asm v1.2.1 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	github.com/valetkey/valetkey/adapters/valetforward v0.0.0 // indirect
	github.com/valetkey/valetkey/adapters/valetredis v0.0.0 // indirect
	github.com/valetkey/valetkey/internal/config v0.0.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v2 v2.4.2 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/exp v0.0.0-20240823005443-9b4947da3948 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	modernc.org/libc v1.77.1 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
	modernc.org/sqlite v1.60.0 // indirect
)

replace (
	github.com/valetkey/valetkey => ../../../
	github.com/valetkey/valetkey/adapters/valetcel => ../../../adapters/valetcel
	github.com/valetkey/valetkey/adapters/valetenvoy => ../../../adapters/valetenvoy
	github.com/valetkey/valetkey/adapters/valetforward => ../../../adapters/valetforward
	github.com/valetkey/valetkey/adapters/valetopenapi => ../../../adapters/valetopenapi
	github.com/valetkey/valetkey/adapters/valetredis => ../../../adapters/valetredis
	github.com/valetkey/valetkey/authserver => ../../../authserver
	github.com/valetkey/valetkey/authserver/ldaplogin => ../../../authserver/ldaplogin
	github.com/valetkey/valetkey/authserver/pgstore => ../../../authserver/pgstore
	github.com/valetkey/valetkey/authserver/sqlitestore => ../../../authserver/sqlitestore
	github.com/valetkey/valetkey/cmd/valetkey => ../
)

replace github.com/valetkey/valetkey/internal/config => ../../../internal/config
