package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

// reloading is a role whose settings a test changes.
type reloading struct {
	*reloader
	t     *testing.T
	path  string
	level *slog.LevelVar
	out   strings.Builder
	set   map[string]string // what was put in force
}

func newReloading(t *testing.T, name, text string, args ...string) *reloading {
	t.Helper()
	withoutSettings(t)
	r, _ := roleNamed(name)
	x := &reloading{t: t, path: filepath.Join(t.TempDir(), "signpost.yaml"), level: new(slog.LevelVar), set: make(map[string]string)}
	s, err := r.resolve(aboveRole(r), args, configText(t, x.path, text))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&x.out, &slog.HandlerOptions{Level: x.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	note := func(name string) func(*cli.Context) {
		return func(c *cli.Context) { x.set[name] = c.String(name) }
	}
	x.reloader = newReloader(s, log, live{flagLogLevel: changeLevel(x.level), flagTopic: note(flagTopic), flagListenP2P: note(flagListenP2P)})
	return x
}

// with reads another text, and returns what was logged of it.
func (x *reloading) with(text string) string {
	x.t.Helper()
	if err := os.WriteFile(x.path, []byte(text), 0o600); err != nil {
		x.t.Fatal(err)
	}
	x.out.Reset()
	x.reload()
	return strings.ReplaceAll(x.out.String(), x.path, "FILE")
}

func (x *reloading) want(text string, lines ...string) {
	x.t.Helper()
	if diff := cmp.Diff(strings.Join(lines, "\n")+"\n", x.with(text)); diff != "" {
		x.t.Errorf("after\n%s (-want +got):\n%s", text, diff)
	}
}

func TestEachDifferenceIsToldAndWhatCanBeIsChanged(t *testing.T) {
	x := newReloading(t, "indexer", "indexer:\n  data: d\n  topic: a\n  listen-p2p: none\n", "--listen-p2p=:1")
	unchanged := `level=INFO msg="settings read again" file=FILE changed=0`
	x.want("indexer:\n  data: d\n  topic: a\n", `level=INFO msg="setting changed in the file only: it is given before that" setting=listen-p2p running=:1 from=flag`, unchanged)
	restart := `level=WARN msg="setting differs: it needs a restart" setting=store-memory running=1GiB new=2GiB from=FILE:4`
	x.want("indexer:\n  data: d\n  topic: b\n  store-memory: 2GiB\n",
		restart,
		`level=INFO msg="setting changed" setting=topic old=a new=b from=FILE:3`,
		`level=INFO msg="settings read again" file=FILE changed=1`)
	x.want("indexer:\n  data: d\n  topic: b\n  store-memory: 2GiB\n", restart, unchanged)
	x.want("indexer:\n  data: d\n  topic: b\n", unchanged)
	x.want("indexer:\n  data: d\n",
		`level=INFO msg="setting changed" setting=topic old=b new=/indexer/ingest/mainnet from=default`,
		`level=INFO msg="settings read again" file=FILE changed=1`)
	x.want("indexer:\n  data: d\n  # as before\n", unchanged)
	if diff := cmp.Diff(map[string]string{flagTopic: "/indexer/ingest/mainnet"}, x.set); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

func TestABrokenFileChangesNothing(t *testing.T) {
	x := newReloading(t, "indexer", "indexer:\n  data: d\n  topic: a\n")
	for text, want := range map[string]string{
		"indexer:\n  data: d\n  topic: b\n  freze-at: 90\n":            "FILE:4: unknown key",
		"indexer:\n  data: d\n  topic: b\n  freeze-at: 101\n":          "give a percentage above 0",
		"indexer:\n  data: d\n  topic: b\n  freeze-at: lots\n":         "FILE:4: indexer.freeze-at",
		"indexer:\n  topic: b\n":                                       "--data is required",
		"indexer:\n  topic: b\n  data: [\n":                            "FILE:3: ",
		"indexer:\n  data: d\n  topic: b\nfrontend:\n  no-such-key: 1": "FILE:5: unknown key",
	} {
		got := x.with(text)
		if !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "the running ones stay") || !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("after\n%s: %s", text, got)
		}
	}
	if err := os.Remove(x.path); err != nil {
		t.Fatal(err)
	}
	x.out.Reset()
	if x.reload(); !strings.Contains(x.out.String(), "no such file") {
		t.Errorf("without a file: %s", x.out.String())
	}
	if len(x.set) > 0 {
		t.Errorf("%v were changed", x.set)
	}
}

// TestAChangedLevelIsTold whichever of the two is the lower.
func TestAChangedLevelIsTold(t *testing.T) {
	x := newReloading(t, "indexer", "indexer: {data: d}\n")
	for _, level := range []string{"error", "debug", "warn", "info"} {
		if got := x.with("indexer: {data: d, log-level: " + level + "}\n"); !strings.Contains(got, `setting=log-level`) || !strings.Contains(got, "new="+level) {
			t.Errorf("%s: %q", level, got)
		}
		if got := strings.ToLower(x.level.Level().String()); got != level {
			t.Errorf("the level is %s, want %s", got, level)
		}
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	x := newReloading(t, "indexer", "indexer:\n  data: d\n  mirror-from: s3://b/p?endpoint=https://me:first@a.example\n")
	got := x.with("indexer:\n  data: d\n  mirror-from: s3://b/p?endpoint=https://me:second@a.example\n")
	if !strings.Contains(got, "setting=mirror-from") || strings.Contains(got, "first") || strings.Contains(got, "second") {
		t.Errorf("logged: %s", got)
	}
}
