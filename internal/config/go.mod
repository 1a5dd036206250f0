module github.com/valetkey/valetkey/internal/config

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1
	github.com/valetkey/valetkey v0.0.0
	go.yaml.in/yaml/v3 v3.0.6
)

replace github.com/valetkey/valetkey => ../../
