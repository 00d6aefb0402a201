package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// role is a command whose settings may stand in a file.
type role struct {
	name string
	make func() *cli.Command
	// terminal: it may be run by hand, and ends with its terminal, by SIGHUP, unless
	// it has a file to read again.
	terminal bool
	// check finds what is wrong with the values without making, opening or
	// announcing anything.
	check func(*cli.Context) error
}

func roles() []role {
	return []role{
		{name: "indexer", make: indexerCommand, check: checkIndexer},
		{name: "assigner", make: assignerCommand, check: checkAssigner},
		{name: "frontend", make: frontendCommand, check: checkFrontend},
		{name: "dev", make: devCommand, check: checkDev, terminal: true},
		{name: "publish", make: publishCommand, check: checkPublish, terminal: true},
	}
}

func roleNames() []string {
	var names []string
	for _, r := range roles() {
		names = append(names, r.name)
	}
	return names
}

func roleNamed(name string) (role, bool) {
	all := roles()
	n := slices.IndexFunc(all, func(r role) bool { return r.name == name })
	if n < 0 {
		return role{}, false
	}
	return all[n], true
}

// names are those of the role's flags, in the order of its help.
func (r role) names() []string {
	var names []string
	for _, f := range r.make().Flags {
		names = append(names, f.Names()[0])
	}
	return names
}

func (r role) flags() map[string]cli.Flag {
	flags := make(map[string]cli.Flag)
	for _, f := range r.make().Flags {
		flags[f.Names()[0]] = f
	}
	return flags
}

// source is where a value is from. The zero value is the default.
type source struct {
	flag bool
	env  string // the variable
	file string // path:line
}

func (s source) String() string {
	switch {
	case s.flag:
		return "flag"
	case s.env != "":
		return "env " + s.env
	case s.file != "":
		return s.file
	}
	return "default"
}

// settings are the values in force for a role, and where each is from: the
// flag before the environment, that before the file, that before the default.
type settings struct {
	role    role
	parent  *cli.Context // of ctx: that of the command line
	command *cli.Command
	ctx     *cli.Context // has the values
	args    []string     // flags and arguments, as given
	file    *configFile  // nil: none
	sources map[string]source
	values  map[string]value // at the start
}

// resolve takes args, which are those after the command's name, the environment
// and the file together. extra are flags of a command about the role.
func (r role) resolve(parent *cli.Context, args []string, file *configFile, extra ...cli.Flag) (*settings, error) {
	cmd := r.make()
	cmd.HelpName = parent.Command.HelpName
	s := &settings{role: r, parent: parent, command: cmd, args: args, file: file, sources: make(map[string]source)}
	set := flag.NewFlagSet(r.name, flag.ContinueOnError)
	set.SetOutput(parent.App.ErrWriter)
	set.Usage = func() {}
	for _, f := range append(append(slices.Clone(cmd.Flags), configFlag()), extra...) {
		if err := f.Apply(set); err != nil {
			return nil, usageError(parent, err, false)
		}
		if f.IsSet() {
			s.sources[f.Names()[0]] = source{env: envOf(f)}
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, usageError(parent, err, false)
	}
	set.Visit(func(f *flag.Flag) { s.sources[f.Name] = source{flag: true} })
	s.ctx = cli.NewContext(parent.App, set, parent)
	s.ctx.Command = cmd
	if err := s.takeFile(); err != nil {
		return nil, err
	}
	s.values = make(map[string]value)
	for _, f := range cmd.Flags {
		s.values[f.Names()[0]] = s.value(f)
	}
	return s, nil
}

// envOf is the variable that has set a flag.
func envOf(f cli.Flag) string {
	for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
		if _, found := os.LookupEnv(name); found {
			return name
		}
	}
	return ""
}

// takeFile sets what the file gives and nothing before it has given.
func (s *settings) takeFile() error {
	if s.file == nil {
		return nil
	}
	var errs []error
	for _, f := range s.command.Flags {
		name := f.Names()[0]
		v, given := s.file.sections[s.role.name][name]
		if _, set := s.sources[name]; !given || set {
			continue
		}
		where := s.file.at(v.line)
		for _, text := range v.texts {
			if err := s.ctx.Set(name, text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s.%s %q: give %s", where, s.role.name, name, text, valueKind(f)))
			}
		}
		s.sources[name] = source{file: where}
	}
	if len(errs) > 0 {
		return misuse{errors.Join(errs...).Error()}
	}
	return nil
}

// texts is the value of a flag as text; a list has any number of them.
func (s *settings) texts(f cli.Flag) []string {
	name := f.Names()[0]
	if _, list := f.(*cli.StringSliceFlag); list {
		return s.ctx.StringSlice(name)
	}
	return []string{fmt.Sprint(s.ctx.Value(name))}
}

// value is one setting's value, as it is and as it may be told.
type value struct{ texts, shown []string }

func (s *settings) value(f cli.Flag) value { return value{s.texts(f), s.shown(f)} }

func (v value) String() string { return strings.Join(v.shown, ",") }

// shown is texts without what is secret.
func (s *settings) shown(f cli.Flag) []string {
	var out []string
	for _, text := range s.texts(f) {
		if text != "" && carriesSecret(f) {
			text = hidden
		}
		out = append(out, withoutSecrets(text))
	}
	return out
}

const hidden = "(hidden)"

// carriesSecret tells of a flag whose value is itself secret. Ours name files
// with secrets; a flag that is named for a secret and takes no file hides it.
func carriesSecret(f cli.Flag) bool {
	usage := f.(cli.DocGenerationFlag).GetUsage()
	return secretName.MatchString(f.Names()[0]) && !strings.Contains(usage, "`FILE`")
}

var (
	secretName = regexp.MustCompile(`(^|-)(token|secret|password|key)(-|$)`)
	// userInfo is what stands before the host in a URL, also in one within another.
	userInfo    = regexp.MustCompile(`(?i)(://|%3A%2F%2F)[^/@\s?#]*?(@|%40)`)
	secretQuery = regexp.MustCompile(`(?i)([?&][^=&]*(?:token|secret|password|key|signature)[^=&]*=)[^&]*`)
)

func withoutSecrets(text string) string {
	return secretQuery.ReplaceAllString(userInfo.ReplaceAllString(text, "${1}"+hidden+"${2}"), "${1}"+hidden)
}

// explain adds to an error that names flags where their values are from, if not
// from the command line.
func (s *settings) explain(err error) error {
	if err == nil {
		return nil
	}
	var notes []string
	for _, name := range namedFlag.FindAllStringSubmatch(err.Error(), -1) {
		from := s.sources[name[1]]
		if note := fmt.Sprintf("--%s is from %s", name[1], from); (from.env != "" || from.file != "") && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	if len(notes) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(notes, ", "))
}

var namedFlag = regexp.MustCompile(`--([a-z0-9]+(?:-[a-z0-9]+)*)`)
