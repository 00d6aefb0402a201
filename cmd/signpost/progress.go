package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

const (
	flagReason = "reason"
	flagDepth  = "depth"
	flagWatch  = "watch"
	// followEvery is how often a followed publisher is looked at.
	followEvery = time.Second
)

// adCommand is what an operator tells a node about single advertisements.
func adCommand() *cli.Command {
	return &cli.Command{
		Name:  "ad",
		Usage: "decide about advertisements an indexer could not apply: try again, skip, apply all again",
		Description: "Example:\n" +
			"  signpost status --publisher 12D3KooW... --admin http://localhost:3002\n" +
			"  signpost ad requeue baguqeera...\n" +
			"  signpost ad skip --publisher 12D3KooW... --reason 'history lost' baguqeera...\n" +
			"  signpost ad resync --depth 100 12D3KooW...\n\n" +
			"status tells which ads wait and why. A rejected ad is tried again by requeue;\n" +
			"one that waits, or a gap of the chain, is given up by skip, with a reason that\n" +
			"is kept; resync applies a publisher's newest ads again.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost ad --help lists them", "ad "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			{Name: "requeue", Usage: "apply a rejected advertisement after all", ArgsUsage: "CID", OnUsageError: usageError,
				Flags: adminFlags(), Action: runRequeue},
			{Name: "skip", Usage: "give up an advertisement that waits, or a gap of the chain", ArgsUsage: "CID", OnUsageError: usageError,
				Flags: adminFlags(stringFlag(flagPublisher, "", "`PEERID` of the publisher of the chain (required)"),
					stringFlag(flagReason, "", "`TEXT` kept with the advertisement (required)")), Action: runSkip},
			{Name: "resync", Usage: "apply a publisher's advertisements again", ArgsUsage: "PEERID", OnUsageError: usageError,
				Flags: adminFlags(&cli.IntFlag{Name: flagDepth, EnvVars: env(flagDepth), Usage: "`NUMBER` of advertisements, from the newest; 0 for all"}), Action: runResync},
		},
	}
}

// oneArg is a command's only argument.
func oneArg(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", misused("give %s; signpost %s --help shows how", what, c.Command.HelpName)
	}
	return c.Args().First(), nil
}

func adArg(c *cli.Context) (cid.Cid, error) {
	text, err := oneArg(c, "the CID of an advertisement")
	if err != nil {
		return cid.Undef, err
	}
	ad, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, misused("%q is not a CID: %v", text, err)
	}
	return ad, nil
}

func runRequeue(c *cli.Context) error {
	ad, err := adArg(c)
	if err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.Requeue(c.Context, ad); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s will be tried again\n", ad)
	return nil
}

func runSkip(c *cli.Context) error {
	ad, err := adArg(c)
	if err != nil {
		return err
	}
	publisher, err := onlyPeer(c)
	if err != nil {
		return err
	}
	if publisher == "" || c.String(flagReason) == "" {
		return misused("--%s and --%s are required", flagPublisher, flagReason)
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.Skip(c.Context, publisher, ad, c.String(flagReason)); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s is skipped\n", ad)
	return nil
}

func runResync(c *cli.Context) error {
	text, err := oneArg(c, "the peer ID of a publisher")
	if err != nil {
		return err
	}
	publisher, err := peer.Decode(text)
	if err != nil {
		return misused("%q: give a peer ID, such as 12D3KooW...", text)
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	depth := c.Int(flagDepth)
	if depth < 0 {
		return misused("--%s %d: give a number of advertisements, or 0 for all", flagDepth, depth)
	}
	if err := client.Sync(c.Context, publisher, admin.SyncOptions{Depth: depth, Resync: true}); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "resync of %s started; signpost status --publisher %s --admin %s tells how it goes\n", publisher, publisher, c.String(flagAdmin))
	return nil
}

// runProgress tells a publisher's story at one indexer, and follows it with --watch.
func runProgress(c *cli.Context, publisher peer.ID) error {
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	shown := ""
	return follow(c, func() error {
		p, err := client.Progress(c.Context, publisher)
		if err != nil {
			return askedAdmin(c, err)
		}
		if c.Bool(flagJSON) {
			return json.NewEncoder(c.App.Writer).Encode(p)
		}
		if text := progressStory(p, time.Now()); text != shown {
			fmt.Fprint(c.App.Writer, text)
			shown = text
		}
		return nil
	})
}

// progressStory tells how far a publisher's chain is applied, in lines.
func progressStory(p admin.Progress, now time.Time) string {
	var b strings.Builder
	state := "everything that is known of its chain is done"
	if p.Pending > 0 || len(p.Gaps) > 0 {
		state = fmt.Sprintf("%s ads wait", humanize.Comma(int64(p.Pending)))
		if len(p.Gaps) > 0 {
			state += fmt.Sprintf(", the chain has %d gaps", len(p.Gaps))
		}
	}
	fmt.Fprintf(&b, "publisher %s: %s\n", p.Publisher, state)
	if len(p.Addrs) > 0 {
		fmt.Fprintf(&b, "  reached at  %s\n", api.PlainText(strings.Join(p.Addrs, " "), 0))
	}
	if p.Mark != "" {
		fmt.Fprintf(&b, "  done up to  %s, %s\n", api.PlainText(p.Mark, 0), ago(p.MarkTime, now))
	}
	if p.Durable != p.Mark && p.Durable != "" {
		fmt.Fprintf(&b, "  on disk to  %s\n", api.PlainText(p.Durable, 0))
	}
	if p.Above > 0 {
		fmt.Fprintf(&b, "  beyond it   %s newer ads are done\n", humanize.Comma(int64(p.Above)))
	}
	if s := p.Running; s != nil {
		fmt.Fprintf(&b, "  working     since %s: %s ads passed, %s done, %d failed tries, %s multihashes in %s\n",
			ago(s.Since, now), humanize.Comma(int64(s.Scanned)), humanize.Comma(int64(s.Done)), s.Failed,
			humanize.Comma(int64(s.Multihashes)), humanize.IBytes(uint64(max(s.Bytes, 0))))
	}
	for _, g := range p.Gaps {
		writeTrouble(&b, "gap", "the chain breaks off at", g, now)
	}
	for _, d := range p.Delayed {
		writeTrouble(&b, "delayed", "ad", d, now)
	}
	if p.LastError != "" {
		fmt.Fprintf(&b, "  last error  %s: %s\n", ago(p.LastErrorTime, now), api.PlainText(p.LastError, 0))
	}
	return b.String()
}

func writeTrouble(b io.Writer, label, what string, t admin.Trouble, now time.Time) {
	next := "now"
	if t.Next.After(now) {
		next = "in " + t.Next.Sub(now).Round(time.Second).String()
	}
	fmt.Fprintf(b, "  %-10s  %s %s: tried %d times since %s, again %s: %s\n", label, what, api.PlainText(t.Ad, 0), t.Attempts, ago(t.Since, now), next, api.PlainText(t.Reason, 0))
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return humanize.RelTime(t, now, "ago", "from now")
}
