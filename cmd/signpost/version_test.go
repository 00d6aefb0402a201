package main

import (
	"runtime/debug"
	"testing"
)

func TestWithoutAStampTheVersionIsWhatWasBuilt(t *testing.T) {
	vcs := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}}
	dirty := append(vcs, debug.BuildSetting{Key: "vcs.modified", Value: "true"})
	for name, tc := range map[string]struct {
		stamp string
		info  *debug.BuildInfo
		want  string
	}{
		"a stamp":             {"v1.2.3", &debug.BuildInfo{Main: debug.Module{Version: "v9.9.9"}}, "v1.2.3"},
		"nothing known":       {unstamped, nil, unstamped},
		"no git":              {unstamped, &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, unstamped},
		"a module":            {unstamped, &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: vcs}, "v1.2.3"},
		"a commit":            {unstamped, &debug.BuildInfo{Settings: vcs}, "0123456789ab"},
		"a commit with edits": {unstamped, &debug.BuildInfo{Settings: dirty}, "0123456789ab-dirty"},
	} {
		if got := builtFrom(tc.stamp, tc.info); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
