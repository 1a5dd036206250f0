module github.com/valetkey/valetkey/cmd/valetkey/man

go 1.26.0

require (
	github.com/spf13/cobra v1.10.2
	github.com/valetkey/valetkey/cmd/valetkey v0.0.0
)

require (
	github.com/alexedwards/scs/v2 v2.9.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.6 // indirect
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/goccy/go-json v0.10.6 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jub0bs/cors v0.11.0 // indirect
	github.com/lestrrat-go/blackmagic v1.0.4 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc v1.0.6 // indirect
	github.com/lestrrat-go/iter v1.0.2 // indirect
	github.com/lestrrat-go/jwx/v2 v2.1.7 // indirect
	github.com/lestrrat-go/option v1.0.1 // indirect
	github.com/patrickmn/go-cache v2.1.0+incompatible // indirect
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/segmentio/asm v1.2.1 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	github.com/valetkey/valetkey v0.0.0 // indirect
	github.com/valetkey/valetkey/adapters/valetforward v0.0.0 // indirect
	github.com/valetkey/valetkey/adapters/valetredis v0.0.0 // indirect
	github.com/valetkey/valetkey/authserver v0.0.0 // indirect
	github.com/valetkey/valetkey/internal/config v0.0.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
)

replace (
	github.com/valetkey/valetkey => ../..
	github.com/valetkey/valetkey/adapters/valetforward => ../../adapters/valetforward
	github.com/valetkey/valetkey/adapters/valetopenapi => ../../adapters/valetopenapi
	github.com/valetkey/valetkey/adapters/valetredis => ../../adapters/valetredis
	github.com/valetkey/valetkey/authserver => ../../authserver
	github.com/valetkey/valetkey/cmd/valetkey => ../../cmd/valetkey
	github.com/valetkey/valetkey/internal/config => ../../internal/config
)
