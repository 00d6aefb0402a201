package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

const unitDir = "deploy/systemd"

// TestUnitsStartOurDaemons: each unit parses, is shut in, and starts its role with
// flags that are there, writing only where the unit lets it; and its settings file
// has variables of that role only.
func TestUnitsStartOurDaemons(t *testing.T) {
	for _, role := range []string{"indexer", "assigner", "frontend"} {
		f, err := os.Open(filepath.Join(unitDir, "signpost-"+role+".service"))
		if err != nil {
			t.Fatal(err)
		}
		options, err := unit.DeserializeOptions(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		service := make(map[string]string)
		for _, o := range options {
			if o.Section == "Service" {
				service[o.Name] = o.Value
			}
		}
		for name, want := range map[string]string{
			"User": "signpost", "EnvironmentFile": "-/etc/signpost/" + role + ".env", "Restart": "on-failure", "KillSignal": "SIGTERM",
			"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "",
			"MemoryDenyWriteExecute": "yes", "ExecReload": "/bin/kill -HUP $MAINPID", "LimitNOFILE": "1048576",
		} {
			if got, ok := service[name]; !ok || got != want {
				t.Errorf("%s: %s=%s, want %s", role, name, got, want)
			}
		}
		if service["TimeoutStopSec"] == "" {
			t.Errorf("%s: no TimeoutStopSec", role)
		}
		args := strings.Fields(service["ExecStart"])
		if len(args) < 2 || args[0] != "/usr/bin/signpost" || args[1] != role {
			t.Fatalf("%s: starts %q", role, args)
		}
		for name, value := range parsedFlags(t, args[1:]) {
			if strings.HasPrefix(value, "/var/") && service["StateDirectory"] != strings.Split(strings.TrimPrefix(value, "/var/lib/"), "/")[0] {
				t.Errorf("%s: --%s %s is not in the StateDirectory %q", role, name, value, service["StateDirectory"])
			}
		}
		checkSettings(t, role)
	}
}

// TestThePackageDependsOnWhatItRuns: kill of the units, and what makes the user.
func TestThePackageDependsOnWhatItRuns(t *testing.T) {
	control, err := os.ReadFile("deploy/debian/control")
	if err != nil {
		t.Fatal(err)
	}
	depends := regexp.MustCompile(`(?m)^Depends: (.*)$`).FindSubmatch(control)
	if depends == nil {
		t.Fatal("no Depends")
	}
	for _, name := range []string{"procps", "adduser"} {
		if !slices.Contains(strings.Split(string(depends[1]), ", "), name) {
			t.Errorf("the package does not depend on %s", name)
		}
	}
}

// checkSettings holds the settings file of a role, comments too, against its flags.
func checkSettings(t *testing.T, role string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(unitDir, role+".env"))
	if err != nil {
		t.Fatal(err)
	}
	known := commandVariables(role)
	found := regexp.MustCompile(`(?m)^#?(SIGNPOST_\w+)=`).FindAllSubmatch(text, -1)
	if len(found) == 0 {
		t.Errorf("%s.env has no example", role)
	}
	for _, m := range found {
		if !slices.Contains(known, string(m[1])) {
			t.Errorf("%s.env: %s is no variable of signpost %s", role, m[1], role)
		}
	}
}
