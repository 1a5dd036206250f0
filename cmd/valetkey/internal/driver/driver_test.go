package driver

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMissing(t *testing.T) {
	const clone = "CEL is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey"
	for _, c := range []struct{ name, version, want string }{
		{"a build without a recorded version", "(devel)", clone},
		{"a revision of a clone", "8dee9f2a1c1d4a2b8e6f0d6b1f0a5f0c8d7e6b5a+dirty", clone},
		{"a version that the go command derived from a clone", "v0.0.0-20261129211608-8dee9f2a1c1d", clone},
		{"the same after a tag", "v0.1.1-0.20261129211608-8dee9f2a1c1d+dirty", clone},
		{"a release", "v0.1.0", "CEL is not part of this build of valetkey: install the full one: go install " + Full + "@v0.1.0"},
		{"a release candidate", "v1.0.0-rc.1", "CEL is not part of this build of valetkey: install the full one: go install " + Full + "@v1.0.0-rc.1"},
	} {
		t.Run(c.name, func(t *testing.T) { assert.EqualError(t, missing("CEL", c.version), c.want) })
	}
}
