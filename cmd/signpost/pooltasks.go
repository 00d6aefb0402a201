package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/assigner"
)

func tasksCommand() *cli.Command {
	change := func(do string) func(*wish) (assigner.Done, error) {
		return func(w *wish) (assigner.Done, error) {
			if len(w.args) == 0 || len(w.args) > 1 && (do == "pause" || do == "resume" || do == "end") || len(w.args) > 2 {
				return assigner.Done{}, misused("%s takes %s, got %d arguments", w.Command.HelpName, w.Command.ArgsUsage, len(w.args))
			}
			indexer := ""
			if len(w.args) == 2 {
				indexer = w.args[1]
			}
			if do == "skip" && strings.TrimSpace(w.why.Reason) == "" {
				return assigner.Done{}, misused("--%s: say why the step is skipped", flagReason)
			}
			return w.client.ChangeTask(w.Context.Context, w.args[0], do, indexer, w.why)
		}
	}
	return &cli.Command{
		Name:  "tasks",
		Usage: "show upgrades, re-indexes, drains, and older ads being fetched; pause them, go on, retry or skip a step",
		Description: "Example:\n" +
			"  signpost pool tasks\n" +
			"  signpost pool tasks pause upgrade-3\n" +
			"  signpost pool tasks skip upgrade-3 12D3KooW... --reason 'its disk is being replaced'",
		OnUsageError: usageError,
		Flags:        assignerFlags(boolFlag(flagJSON, "print JSON")),
		Action:       runTasks,
		Subcommands: []*cli.Command{
			wishCommand("pause", "have no other indexer begin its part, or a drain stop", "TASK", change("pause")),
			wishCommand("resume", "end a pause", "TASK", change("resume")),
			wishCommand("retry", "try the step again that has failed", "TASK [INDEXER]", change("retry")),
			wishCommand("skip", "go on without a step, for a reason", "TASK [INDEXER]", change("skip")),
			wishCommand("end", "end an upgrade or a re-index before it is done", "TASK", change("end")),
		},
	}
}

func runTasks(c *cli.Context) error {
	if c.Args().Present() {
		return misused("unknown command %q; signpost pool tasks --help lists them", "pool tasks "+c.Args().First())
	}
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	page, err := client.Tasks(c.Context)
	if err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(page)
	}
	fmt.Fprint(c.App.Writer, taskLines(page, time.Now()))
	return nil
}

// taskLines are tasks with their steps below them.
func taskLines(p assigner.TasksPage, now time.Time) string {
	var b strings.Builder
	line := func(indent, format string, args ...any) {
		fmt.Fprintln(&b, indent+strings.TrimRight(api.PlainText(fmt.Sprintf(format, args...), 0), " "))
	}
	for _, t := range p.Tasks {
		line("", "%s  %s%s", t.ID, t.State, whyText(t.Wish, now))
		for _, s := range t.Steps {
			since := ""
			if !s.Since.IsZero() {
				since = ", since " + ago(s.Since, now)
			}
			line("  ", "%s  %s%s  %s", s.Indexer, s.State, since, s.Text)
		}
	}
	if len(p.Tasks) == 0 {
		line("", "no upgrade, no re-index, no drain, and no older ads are being fetched")
	}
	if !p.Kept {
		line("", "Upgrades and re-indexes are not kept when the assigner ends: it has no --intents file.")
	}
	return b.String()
}

// hostOf is the host of a URL.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
