// Command signpost runs and uses a content index for the decentralised web.
//
// The daemons are indexer, assigner and frontend; dev runs a whole pool in one
// process. publish, announce, find and status are the hands-on tools over the
// same packages. This package holds what touches the outside of a process:
// flags and their environment variables, signals, exit codes, the ready line
// and the identity key file; one file a subcommand.
//
// Exit codes: 0 done, 1 failed, 2 misused; of check: 2 not checked; those of signpost health
// URL say what is wrong there.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"slices"

	"github.com/urfave/cli/v2"
)

const (
	exitFailed  = 1
	exitMisused = 2
)

// misuse is an error of the person at the keyboard; it names the flag and the
// remedy and makes the exit code 2.
type misuse struct{ text string }

func (m misuse) Error() string { return m.text }

func misused(format string, args ...any) error { return misuse{fmt.Sprintf(format, args...)} }

func main() {
	info, _ := debug.ReadBuildInfo()
	version = builtFrom(version, info)
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main with its outside passed in.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	app := newApp(stdout, stderr)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) && exit.err == nil {
		return exit.code
	}
	fmt.Fprintf(stderr, "signpost: %v\n", err)
	if errors.As(err, &exit) {
		return exit.code
	}
	var m misuse
	var u unchecked
	if errors.As(err, &m) || errors.As(err, &u) {
		return exitMisused
	}
	return exitFailed
}

func newApp(stdout, stderr io.Writer) *cli.App {
	cli.VersionPrinter = func(c *cli.Context) { fmt.Fprintf(c.App.Writer, "signpost %s\n", c.App.Version) }
	return &cli.App{
		Name:                   "signpost",
		Usage:                  "the content index of the decentralised web: who provides this CID?",
		Version:                version,
		Writer:                 stdout,
		ErrWriter:              stderr,
		HideHelpCommand:        true,
		UseShortOptionHandling: false,
		ExitErrHandler:         func(*cli.Context, error) {}, // run decides
		OnUsageError:           usageError,
		CommandNotFound:        nil,
		Description: "Start here:  signpost dev --demo .\n" +
			"runs a whole pool, publishes a directory into it and finds it again.",
		Commands: slices.Concat([]*cli.Command{
			configurable("dev"), configurable("indexer"), configurable("assigner"), configurable("frontend"), configurable("publish"),
		}, askOverTLS(
			findCommand(), announceCommand(), statusCommand(), adCommand(), storeCommand(), policyCommand(), poolCommand(),
			snapshotCommand(), restoreCommand(), checkCommand(), healthCommand(),
			freezeCommand(), unfreezeCommand(),
		), []*cli.Command{configCommand()}),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost --help lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
}

func usageError(c *cli.Context, err error, _ bool) error {
	return misused("%v%s; see %s --help", err, remedy(c, err), c.Command.HelpName)
}

// remedy says what the flag takes whose value could not be read.
func remedy(c *cli.Context, err error) string {
	name := badFlag.FindStringSubmatch(err.Error())
	if name == nil {
		return ""
	}
	for _, f := range c.Command.Flags {
		if f.Names()[0] == name[1] {
			return "; give " + valueKind(f)
		}
	}
	return ""
}

// badFlag finds the flag in errors of flag parsers: of the command line, and of
// the environment.
var badFlag = regexp.MustCompile(`for (?:flag )?-{0,2}([a-z0-9-]+): `)

// noArgs refuses stray arguments to commands that take none.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return misused("%s takes no arguments, got %q; see signpost %s --help", c.Command.Name, c.Args().First(), c.Command.Name)
	}
	return nil
}
