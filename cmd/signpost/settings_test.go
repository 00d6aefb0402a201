package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

// aboveRole is the context of the command line with the command of a role.
func aboveRole(r role) *cli.Context {
	app := newApp(io.Discard, io.Discard)
	app.Metadata = make(map[string]any)
	c := cli.NewContext(app, flag.NewFlagSet("", flag.ContinueOnError), nil)
	c.Command = &cli.Command{Name: r.name, HelpName: "signpost " + r.name}
	return c
}

// configText writes a file for --config.
func configText(t *testing.T, file, text string) *configFile {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := readConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// withoutSettings unsets the variables of all flags until the test ends.
func withoutSettings(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "SIGNPOST_") {
			t.Setenv(name, "") // is put back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// samples are three values a flag takes, none of which is its default.
func samples(t *testing.T, f cli.Flag) [3]string {
	switch f.(type) {
	case *cli.BoolFlag:
		return [3]string{"true", "false", "true"}
	case *cli.IntFlag, *cli.Int64Flag:
		return [3]string{"31", "32", "33"}
	case *cli.Float64Flag:
		return [3]string{"31.5", "32.5", "33.5"}
	case *cli.DurationFlag:
		return [3]string{"31s", "32s", "33s"}
	case *cli.StringFlag, *cli.StringSliceFlag:
		return [3]string{"from: file", "from env", "from flag"}
	}
	t.Fatalf("--%s is a %T: say what it takes here and in valueKind", f.Names()[0], f)
	return [3]string{}
}

// TestFlagBeforeEnvironmentBeforeFileBeforeDefault of each flag of each role.
func TestFlagBeforeEnvironmentBeforeFileBeforeDefault(t *testing.T) {
	withoutSettings(t)
	path := filepath.Join(t.TempDir(), "signpost.yaml")
	for _, r := range roles() {
		if len(r.names()) < 10 {
			t.Errorf("%s has %d flags: are they all seen?", r.name, len(r.names()))
		}
		for _, name := range r.names() {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				f := r.flags()[name]
				sample := samples(t, f)
				file := configText(t, path, fmt.Sprintf("%s:\n  %s: %q\n", r.name, name, sample[0]))
				check := func(args []string, file *configFile, want, from string) {
					t.Helper()
					s, err := r.resolve(aboveRole(r), args, file)
					if err != nil {
						t.Fatal(err)
					}
					if got := s.texts(f); !slices.Equal(got, []string{want}) || s.sources[name].String() != from || s.ctx.IsSet(name) != (from != "default") {
						t.Errorf("%q from %s, set %v, want %q from %s", got, s.sources[name], s.ctx.IsSet(name), want, from)
					}
				}
				s, err := r.resolve(aboveRole(r), nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.sources[name].String(); got != "default" {
					t.Errorf("from %s with nothing given", got)
				}
				if slices.Equal(s.texts(f), sample[:1]) {
					t.Errorf("the sample is the default")
				}
				check(nil, file, sample[0], path+":2")
				variable := env(name)[0]
				t.Setenv(variable, sample[1])
				check(nil, file, sample[1], "env "+variable)
				check([]string{"--" + name + "=" + sample[2]}, file, sample[2], "flag")
				check([]string{"--" + name + "=" + sample[1]}, file, sample[1], "flag")
			})
		}
	}
}

func TestListsOfTheFileAreListsOfTheFlag(t *testing.T) {
	withoutSettings(t)
	r, _ := roleNamed("publish")
	file := configText(t, filepath.Join(t.TempDir(), "f"), "publish:\n  announce: [http://a, http://b]\n  publisher-addr:\n    - /ip4/1.2.3.4/tcp/1\n")
	s, err := r.resolve(aboveRole(r), []string{"--provider-addr", "x", "--provider-addr", "y", "dir"}, file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{"args": s.ctx.Args().Slice()}
	for _, name := range []string{flagAnnounce, flagPublisherAddr, flagProviderAddr, flagRemove} {
		got[name] = s.ctx.StringSlice(name)
	}
	want := map[string][]string{
		"args": {"dir"}, flagAnnounce: {"http://a", "http://b"}, flagPublisherAddr: {"/ip4/1.2.3.4/tcp/1"},
		flagProviderAddr: {"x", "y"}, flagRemove: nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWhatIsShownGivesTheSameValues when it is read again.
func TestWhatIsShownGivesTheSameValues(t *testing.T) {
	withoutSettings(t)
	path := filepath.Join(t.TempDir(), "shown.yaml")
	for _, r := range roles() {
		var text strings.Builder
		fmt.Fprintf(&text, "%s:\n", r.name)
		for name, f := range r.flags() {
			fmt.Fprintf(&text, "  %s: %q\n", name, samples(t, f)[0])
		}
		for _, given := range []string{r.name + ":", text.String()} {
			first, err := r.resolve(aboveRole(r), nil, configText(t, path, given))
			if err != nil {
				t.Fatal(err)
			}
			var shown strings.Builder
			if err := writeYAML(&shown, []*settings{first}); err != nil {
				t.Fatal(err)
			}
			second, err := r.resolve(aboveRole(r), nil, configText(t, path, shown.String()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first.values, second.values, cmp.AllowUnexported(value{})); diff != "" {
				t.Errorf("%s (-first +second):\n%s", r.name, diff)
			}
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	for in, want := range map[string]string{
		"https://me:sesame@a.example/x":                           "https://(hidden)@a.example/x",
		"https://sesame@a.example":                                "https://(hidden)@a.example",
		"s3://bucket/prefix?endpoint=https://me:sesame@b.example": "s3://bucket/prefix?endpoint=https://(hidden)@b.example",
		"s3://b/p?endpoint=https%3A%2F%2Fme%3Asesame%40b.example": "s3://b/p?endpoint=https%3A%2F%2F(hidden)%40b.example",
		"https://a.example/?x=1&access_token=sesame&y=2":          "https://a.example/?x=1&access_token=(hidden)&y=2",
		"https://a.example/@home":                                 "https://a.example/@home",
		"/ip4/127.0.0.1/tcp/3003":                                 "/ip4/127.0.0.1/tcp/3003",
		"/etc/signpost/token":                                     "/etc/signpost/token",
		"http://[::1]:3000":                                       "http://[::1]:3000",
	} {
		if got := withoutSecrets(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, c := range []struct {
		flag cli.Flag
		want bool
	}{
		{stringFlag("admin-token-file", "", "`FILE` with the token"), false},
		{stringFlag(flagIndexSecret, "", "`FILE` with the secret"), false},
		{stringFlag("admin-token", "", "the `TOKEN`"), true},
		{stringFlag("s3-secret-key", "", ""), true},
		{stringFlag("data", "", "`DIR`"), false},
	} {
		if got := carriesSecret(c.flag); got != c.want {
			t.Errorf("--%s is a secret: %v, want %v", c.flag.Names()[0], got, c.want)
		}
	}
}

// TestTheExampleOfTheDocsIsGood for what it names: only its pool file is not here.
func TestTheExampleOfTheDocsIsGood(t *testing.T) {
	withoutSettings(t)
	doc, err := os.ReadFile(filepath.Join("..", "..", "doc", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("doc/operations.md has no example in yaml")
	}
	dir := t.TempDir()
	pool := filepath.Join(dir, "pool.txt")
	if err := os.WriteFile(pool, []byte("find=127.0.0.1:1 ingest=127.0.0.1:2 admin=127.0.0.1:3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := configText(t, filepath.Join(dir, "signpost.yaml"), strings.ReplaceAll(example, "/etc/signpost/pool.txt", pool))
	for _, name := range []string{"indexer", "assigner", "frontend"} {
		r, _ := roleNamed(name)
		s, err := r.resolve(aboveRole(r), nil, file)
		if err == nil {
			err = s.explain(r.check(s.ctx))
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if s.given() == 0 {
			t.Errorf("the example has nothing for %s", name)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{"indexer:\n  data: d\n", "a: &a [*a]\n", "indexer: {data: {}}", "publish:\n  announce: [[x]]", "? [a]\n: b", "", "\x00", "indexer:\n  ? {a: b}\n  : c"} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "f")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if file, err := readConfigFile(path); err == nil {
			for _, r := range roles() {
				_, _ = r.resolve(aboveRole(r), nil, file)
			}
		}
	})
}
