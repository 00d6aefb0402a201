package main

import "runtime/debug"

// version is stamped by the linker: -X main.version=v1.2.3. Without a stamp main
// makes it what the go command knows, for which there is unstamped.
var version = unstamped

const unstamped = "dev"

// builtFrom is the stamp, or without one the version of the module, which go build
// takes from git and go install from its argument, or the commit.
func builtFrom(stamp string, info *debug.BuildInfo) string {
	if stamp != unstamped || info == nil {
		return stamp
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return stamp
	}
	revision = revision[:min(len(revision), 12)]
	if settings["vcs.modified"] == "true" {
		revision += "-dirty"
	}
	return revision
}
