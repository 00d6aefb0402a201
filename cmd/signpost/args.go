package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of a subcommand in front of its arguments, so
// that `publish DIR --wait` means what `publish --wait DIR` does: the flag
// parser stops at the first argument. Everything after `--` stays as it is.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	cmd, depth := app.Command(args[1]), 2
	if cmd == nil {
		return args
	}
	for len(args) > depth {
		sub := slices.IndexFunc(cmd.Subcommands, func(s *cli.Command) bool { return s.HasName(args[depth]) })
		if sub < 0 {
			break
		}
		cmd = cmd.Subcommands[sub]
		depth++
	}
	takesValue := make(map[string]bool)
	for _, f := range cmd.Flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			takesValue[name] = !isBool
		}
	}
	var flags, rest []string
	in := args[depth:]
	for n := 0; n < len(in); n++ {
		a := in[n]
		if a == "--" {
			rest = append(rest, in[n:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		flags = append(flags, a)
		name := strings.TrimLeft(a, "-")
		if takesValue[name] && n+1 < len(in) {
			n++
			flags = append(flags, in[n])
		}
	}
	return append(append(append([]string{}, args[:depth]...), flags...), rest...)
}
