package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

const (
	flagFormat = "format"
	formatYAML = "yaml"
	formatJSON = "json"

	// metaSettings is the key in an app's Metadata of the *settings it runs with.
	metaSettings = "settings"
)

// configurable is the command of a role, which takes its settings from flags,
// environment and a file. Its errors say where a wrong value is from.
func configurable(name string) *cli.Command {
	r, _ := roleNamed(name)
	cmd := r.make()
	cmd.Flags = append(cmd.Flags, configFlag())
	action := cmd.Action
	cmd.Action = func(c *cli.Context) error {
		s, err := loadSettings(c, r)
		if err != nil {
			return err
		}
		c.App.Metadata[metaSettings] = s
		return s.explain(action(s.ctx))
	}
	return cmd
}

// loadSettings resolves the settings of a role for the command of c.
func loadSettings(c *cli.Context, r role, extra ...cli.Flag) (*settings, error) {
	file, err := namedFile(c)
	if err != nil {
		return nil, err
	}
	return r.resolve(c, argsAfter(c), file, extra...)
}

// namedFile reads the file of --config; nil if there is none. The flag may stand
// before the name of a role too.
func namedFile(c *cli.Context) (*configFile, error) {
	byEnv := os.Getenv(env(flagConfig)[0])
	for _, at := range c.Lineage() {
		if path := at.String(flagConfig); path != "" && path != byEnv {
			return readConfigFile(path)
		}
	}
	if byEnv == "" {
		return nil, nil
	}
	return readConfigFile(byEnv)
}

// argsAfter are the arguments after the name of the command of c: to the command
// above, name and all are arguments.
func argsAfter(c *cli.Context) []string { return c.Lineage()[1].Args().Tail() }

func configCommand() *cli.Command {
	format := stringFlag(flagFormat, formatYAML, "yaml, which --config reads, or json")
	return &cli.Command{
		Name:  "config",
		Usage: "check a configuration, or show the values in force and where each is from",
		Description: "Example:\n" +
			"  signpost config check --config /etc/signpost.yaml\n" +
			"  signpost config show indexer --config /etc/signpost.yaml\n\n" +
			"A flag goes before the environment, that before the file, that before the default.\n" +
			"The file has a section for each role, in it the names of its flags:\n" +
			"  indexer:\n" +
			"    data: /var/lib/signpost\n" +
			"    store-memory: 4GiB\n" +
			"    gossip-peer: [/dns/a.example/tcp/3003/p2p/12D3..., /dns/b.example/tcp/3003/p2p/12D3...]\n\n" +
			"On SIGHUP a daemon reads it again: doc/operations.md says what can be changed so.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost config --help lists them", "config "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			configRoles("check", "find what is wrong, as the daemon would at its start, and start nothing", runConfigCheck),
			configRoles("show", "print the values in force, and where each is from", runConfigShow, format),
		},
	}
}

// configRoles is a command about all roles in the file, or about the one whose
// name follows; then it takes the flags of that role as well.
func configRoles(name, usage string, do func(*cli.Context, []*settings) error, extra ...cli.Flag) *cli.Command {
	cmd := &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[ROLE [FLAGS OF THE ROLE]]", OnUsageError: usageError,
		Flags: append([]cli.Flag{configFlag()}, extra...),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown role %q; did you mean %q? Roles are %s", c.Args().First(), nearest(roleNames(), c.Args().First()), strings.Join(roleNames(), ", "))
			}
			all, err := sectionSettings(c)
			if err != nil {
				return err
			}
			return do(c, all)
		},
	}
	for _, r := range roles() {
		cmd.Subcommands = append(cmd.Subcommands, &cli.Command{
			Name: r.name, Usage: name + " the settings of signpost " + r.name, OnUsageError: usageError,
			Flags: append(append(r.make().Flags, configFlag()), extra...),
			Action: func(c *cli.Context) error {
				if r.name != "publish" { // which takes paths
					if err := noArgs(c); err != nil {
						return err
					}
				}
				s, err := loadSettings(c, r, extra...)
				if err != nil {
					return err
				}
				return do(c, []*settings{s})
			},
		})
	}
	return cmd
}

// sectionSettings are those of the roles the file has a section for.
func sectionSettings(c *cli.Context) ([]*settings, error) {
	file, err := namedFile(c)
	if err != nil {
		return nil, err
	}
	var all []*settings
	for _, r := range roles() {
		if file == nil || file.sections[r.name] == nil {
			continue
		}
		s, err := r.resolve(c, nil, file)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, misused("%s: name a role (%s), or a --%s FILE with a section for one", c.Command.HelpName, strings.Join(roleNames(), ", "), flagConfig)
	}
	return all, nil
}

func runConfigCheck(c *cli.Context, all []*settings) error {
	for _, note := range strayVariables(c.App) {
		fmt.Fprintln(c.App.ErrWriter, note)
	}
	for _, s := range all {
		if err := s.explain(s.role.check(s.ctx)); err != nil {
			return fmt.Errorf("%s: %w", s.role.name, err)
		}
		fmt.Fprintf(c.App.Writer, "%s: %d of %d settings are given; all are good\n", s.role.name, s.given(), len(s.command.Flags))
	}
	return nil
}

// strayVariables says which variables look like settings and are none. They are
// not refused: they may be another program's.
func strayVariables(app *cli.App) (notes []string) {
	var known []string
	var walk func([]*cli.Command)
	walk = func(commands []*cli.Command) {
		for _, cmd := range commands {
			for _, f := range cmd.Flags {
				known = append(known, f.(cli.DocGenerationFlag).GetEnvVars()...)
			}
			walk(cmd.Subcommands)
		}
	}
	walk(app.Commands)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) {
			notes = append(notes, fmt.Sprintf("note: %s in the environment is no setting; did you mean %s?", name, nearest(known, name)))
		}
	}
	slices.Sort(notes)
	return notes
}

// given is how many values are not defaults.
func (s *settings) given() (n int) {
	for _, f := range s.command.Flags {
		if _, set := s.sources[f.Names()[0]]; set {
			n++
		}
	}
	return n
}

func runConfigShow(c *cli.Context, all []*settings) error {
	switch format := lineageFormat(c); format {
	case formatYAML:
		return writeYAML(c.App.Writer, all)
	case formatJSON:
		return writeJSON(c.App.Writer, all)
	default:
		return misused("--%s %q: use %s or %s", flagFormat, format, formatYAML, formatJSON)
	}
}

// lineageFormat is --format, after the role's name or before it.
func lineageFormat(c *cli.Context) string {
	for _, at := range c.Lineage() {
		if at.IsSet(flagFormat) {
			return at.String(flagFormat)
		}
	}
	return c.String(flagFormat)
}

// writeYAML writes a file that gives the same values, with where they are from
// as comments.
func writeYAML(w io.Writer, all []*settings) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range all {
		section := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range s.command.Flags {
			name := f.Names()[0]
			value := yamlValue(f, s.shown(f))
			value.LineComment = s.sources[name].String()
			section.Content = append(section.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, value)
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: s.role.name}, section)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return err
	}
	return enc.Close()
}

func yamlValue(f cli.Flag, texts []string) *yaml.Node {
	scalar := func(text string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
		switch f.(type) {
		case *cli.StringFlag, *cli.StringSliceFlag:
			n.Tag = "!!str" // quoted where it would be something else
		}
		return n
	}
	if _, list := f.(*cli.StringSliceFlag); !list {
		return scalar(texts[0])
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, text := range texts {
		n.Content = append(n.Content, scalar(text))
	}
	return n
}

// shownSetting is a setting in JSON; lists have Values.
type shownSetting struct {
	Role   string
	Name   string
	Value  string
	Values []string `json:",omitempty"`
	From   string
}

func writeJSON(w io.Writer, all []*settings) error {
	var out []shownSetting
	for _, s := range all {
		for _, f := range s.command.Flags {
			name := f.Names()[0]
			one := shownSetting{Role: s.role.name, Name: name, From: s.sources[name].String()}
			texts := s.shown(f)
			if _, list := f.(*cli.StringSliceFlag); list {
				one.Values = texts
			} else {
				one.Value = texts[0]
			}
			out = append(out, one)
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
