package web_test

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

func TestVersionOf(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123abc"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	for name, c := range map[string]struct {
		info *debug.BuildInfo
		want string
	}{
		"a program without build information":  {nil, "(devel)"},
		"a build without a repository":         {&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "(devel)"},
		"a modified working copy":              {&debug.BuildInfo{Settings: []debug.BuildSetting{revision, modified}}, "0123abc+dirty"},
		"a clean working copy":                 {&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{revision, clean}}, "0123abc"},
		"a released module":                    {&debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "v0.1.0"},
		"a tag, even if the revision is there": {&debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}, Settings: []debug.BuildSetting{revision}}, "v0.1.0"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, web.VersionOf(c.info)) })
	}
}
