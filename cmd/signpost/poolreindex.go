package main

import (
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/assigner"
)

const flagThenMarkWhole = "then-mark-whole"

func reindexCommand() *cli.Command {
	return &cli.Command{
		Name:      "reindex",
		Usage:     "have indexers apply all advertisements again, one after the other, for what a repair has lost",
		ArgsUsage: "[INDEXER...]",
		Description: "Example:\n" +
			"  signpost pool reindex --then-mark-whole --reason 'the disk is replaced'\n" +
			"  signpost pool reindex --detach 12D3KooW... 12D3KooX...\n" +
			"  signpost pool reindex --resume\n\n" +
			"Each indexer, of those named or of those that say that they have lost postings, is\n" +
			"asked to apply all ads again, as signpost store reindex does; the next one when it\n" +
			"is done. The first failure stops it. The assigner keeps how far it is: this command\n" +
			"may end at any time, and follows again with --resume, which tries again what has\n" +
			"failed. It follows until the end.",
		OnUsageError: usageError,
		Flags: assignerFlags(
			boolFlag(flagThenMarkWhole, "have each indexer that is done forget that postings were lost, as signpost store mark-whole does"),
			boolFlag(flagDetach, "do not follow; signpost pool tasks tells how far it is"),
			boolFlag(flagResume, "go on with the one that is under way; what failed is tried again"),
			&cli.DurationFlag{Name: flagBackWithin, Value: assigner.DefaultBackWithin, EnvVars: env(flagBackWithin),
				Usage: "`TIME` for which an indexer may be silent"},
			stringFlag(flagReason, "", "`TEXT` kept with it, for whoever asks why")),
		Action: runPoolReindex,
	}
}

func runPoolReindex(c *cli.Context) error {
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	f := newFollower(c, client, assigner.TaskReindex)
	why := assigner.Wish{By: userName(), Reason: c.String(flagReason)}
	if c.Bool(flagResume) {
		if c.Bool(flagDetach) {
			return misused("--%s follows; signpost pool tasks resume and retry do not", flagResume)
		}
		return f.runResume(c, why)
	}
	set := assigner.ReindexSettings{BackWithin: c.Duration(flagBackWithin), MarkWhole: c.Bool(flagThenMarkWhole)}
	done, err := client.Reindex(c.Context, set, c.Args().Slice(), why)
	if err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagDetach) {
		return printDone(c, done)
	}
	return f.followNew(c, done)
}
