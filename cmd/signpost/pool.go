package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

const (
	flagDryRun = "dry-run"
	flagSince  = "since"
	flagLimit  = "limit"

	defaultAssignerAdmin = "http://localhost:3004"
	defaultEventLimit    = 50
)

func poolCommand() *cli.Command {
	return &cli.Command{
		Name:  "pool",
		Usage: "tell an assigner what its pool should be: members, drains, copies, who goes where",
		Description: "Example:\n" +
			"  signpost pool list\n" +
			"  signpost pool add find=10.0.0.3:3000 ingest=10.0.0.3:3001 admin=10.0.0.3:3002\n" +
			"  signpost pool drain 12D3KooW... --reason 'disk is dying'\n" +
			"  signpost pool events\n\n" +
			"These are wishes; the assigner carries them out as it can, and keeps them in its\n" +
			"--intents file. An INDEXER is named by its peer ID or its admin URL.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost pool --help lists them", "pool "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list the indexers, and what was asked for", OnUsageError: usageError,
				Flags: assignerFlags(boolFlag(flagJSON, "print JSON")), Action: runPoolList},
			{Name: "events", Usage: "show what happened: what was asked for and what was done", OnUsageError: usageError,
				Flags: assignerFlags(
					&cli.Uint64Flag{Name: flagSince, EnvVars: env(flagSince), Usage: "only events after number `N`"},
					stringFlag(flagPublisher, "", "only those about this `PEERID`"),
					stringFlag(flagIndexerID, "", "only those of the indexer with this `PEERID`"),
					&cli.IntFlag{Name: flagLimit, Value: defaultEventLimit, EnvVars: env(flagLimit), Usage: "the newest `N`; 0 for all that are remembered"},
					boolFlag(flagJSON, "print JSON")), Action: runPoolEvents},
			{Name: "plan", Usage: "show what the assigner would do now, and why", OnUsageError: usageError,
				Flags: assignerFlags(boolFlag(flagJSON, "print JSON")), Action: runPoolPlan},
			{Name: "explain", Usage: "show where a publisher is, since when, why, and what is to come", ArgsUsage: "PUBLISHER", OnUsageError: usageError,
				Flags: assignerFlags(boolFlag(flagJSON, "print JSON")), Action: runPoolExplain},
			wishCommand("add", "add an indexer, or the addresses of a DNS name, as a line of the pool file", "LINE", wishAdd),
			wishCommand("remove", "take an indexer out of the pool; refused while it has what too few others have", "INDEXER", wishRemove,
				boolFlag(flagDryRun, "only say whether it would be done")),
			wishCommand("drain", "have an indexer's publishers go to others", "INDEXER", wishDrain),
			wishCommand("undrain", "end a drain; what was given away stays where it is", "INDEXER", wishUndrain),
			upgradeCommand(),
			reindexCommand(),
			tasksCommand(),
			wishCommand("freeze", "have an indexer take no new content", "INDEXER", wishFreeze),
			wishCommand("unfreeze", "have a frozen indexer take content again", "INDEXER", wishUnfreeze),
			wishCommand("assign", "bind a publisher to indexers and to no other; without an indexer, to none", "PUBLISHER [INDEXER...]", wishAssign),
			wishCommand("move", "move a publisher from one indexer to another, and bind it there", "PUBLISHER FROM TO", wishMove),
			wishCommand("replication", "set how many indexers have a publisher; 0 for the pool's setting", "PUBLISHER COPIES", wishReplication),
			wishCommand("allow", "take announces of a publisher, or of all", "PUBLISHER|all",
				func(w *wish) (assigner.Done, error) { return w.allow(true) }),
			wishCommand("deny", "refuse announces of a publisher, or of all; what is indexed stays", "PUBLISHER|all",
				func(w *wish) (assigner.Done, error) { return w.allow(false) }),
			wishCommand("clean", "free what indexers hold although as many others as wished do too", "", wishClean,
				boolFlag(flagDryRun, "only say what would be freed")),
			wishCommand("rebalance", "say whether publishers are moved to even out load", "on|off", wishRebalance),
		},
	}
}

// assignerFlags are the flags of a command that asks an assigner's admin API.
func assignerFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		stringFlag(flagAdmin, defaultAssignerAdmin, "admin `URL` of the assigner"),
		stringFlag(flagAdminToken, "", "`FILE` with the token of the admin API"),
	}, more...)
}

// assignerClient is a client of the assigner that --admin names.
func assignerClient(c *cli.Context) (*assigner.Client, error) {
	token, err := readToken(c.String(flagAdminToken))
	if err != nil {
		return nil, err
	}
	client, err := assigner.NewClient(c.String(flagAdmin), api.NewHTTPClient(), token)
	if err != nil {
		return nil, misused("--%s: %v", flagAdmin, err)
	}
	return client, nil
}

// askedAssigner adds to an error what to do about it.
func askedAssigner(c *cli.Context, err error) error {
	var status *api.StatusError
	unknown := errors.As(err, &status) && status.Status == http.StatusNotFound && strings.HasPrefix(status.Body, "404 page not found")
	if unknown || errors.Is(err, admin.ErrUnavailable) && status == nil {
		return fmt.Errorf("ask %s: %w; is an assigner running with its --%s at --%s?", c.String(flagAdmin), err, flagListenAdmin, flagAdmin)
	}
	return err
}

// wish is something asked for at the command line.
type wish struct {
	*cli.Context
	client *assigner.Client
	why    assigner.Wish
	args   []string
}

func wishCommand(name, usage, args string, do func(*wish) (assigner.Done, error), flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: args, OnUsageError: usageError,
		Flags: assignerFlags(append(flags, stringFlag(flagReason, "", "`TEXT` kept with it, for whoever asks why"), boolFlag(flagJSON, "print JSON"))...),
		Action: func(c *cli.Context) error {
			client, err := assignerClient(c)
			if err != nil {
				return err
			}
			w := &wish{Context: c, client: client, args: c.Args().Slice(), why: assigner.Wish{By: userName(), Reason: c.String(flagReason)}}
			done, err := do(w)
			if err != nil {
				return askedAssigner(c, err)
			}
			return printDone(c, done)
		},
	}
}

// userName says who asks, as far as the system knows.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

func printDone(c *cli.Context, d assigner.Done) error {
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(d)
	}
	text := api.PlainText(d.Text, 0)
	if d.DryRun {
		text = "would be done: " + text
	}
	if d.Note != "" {
		text += " (" + api.PlainText(d.Note, 0) + ")"
	}
	fmt.Fprintln(c.App.ErrWriter, text)
	return nil
}

// want refuses another number of arguments than n.
func (w *wish) want(n int) error {
	if len(w.args) != n {
		return misused("%s takes %s, got %d arguments; see %s --help", w.Command.HelpName, w.Command.ArgsUsage, len(w.args), w.Command.HelpName)
	}
	return nil
}

// publisher reads the first argument.
func (w *wish) publisher() (peer.ID, error) {
	id, err := peer.Decode(w.args[0])
	if err != nil {
		return "", misused("%q: give the peer ID of a publisher, such as 12D3KooW...", w.args[0])
	}
	return id, nil
}

func wishAdd(w *wish) (assigner.Done, error) {
	l, err := admin.ParsePoolLine(strings.Join(w.args, " "))
	if err != nil {
		return assigner.Done{}, misused("%v", err)
	}
	return w.client.Add(w.Context.Context, l, w.why)
}

func wishRemove(w *wish) (assigner.Done, error) {
	if err := w.want(1); err != nil {
		return assigner.Done{}, err
	}
	return w.client.Remove(w.Context.Context, w.args[0], w.Bool(flagDryRun), w.why)
}

// indexer asks call about the one indexer that is named.
func (w *wish) indexer(call indexerCall) (assigner.Done, error) {
	if err := w.want(1); err != nil {
		return assigner.Done{}, err
	}
	return call(w.Context.Context, w.args[0], w.why)
}

func wishDrain(w *wish) (assigner.Done, error)    { return w.indexer(w.client.Drain) }
func wishUndrain(w *wish) (assigner.Done, error)  { return w.indexer(w.client.Undrain) }
func wishFreeze(w *wish) (assigner.Done, error)   { return w.indexer(w.client.Freeze) }
func wishUnfreeze(w *wish) (assigner.Done, error) { return w.indexer(w.client.Unfreeze) }

func wishAssign(w *wish) (assigner.Done, error) {
	if len(w.args) == 0 {
		return assigner.Done{}, w.want(1)
	}
	id, err := w.publisher()
	if err != nil {
		return assigner.Done{}, err
	}
	return w.client.Pin(w.Context.Context, id, w.args[1:], w.why)
}

func wishMove(w *wish) (assigner.Done, error) {
	if err := w.want(3); err != nil {
		return assigner.Done{}, err
	}
	id, err := w.publisher()
	if err != nil {
		return assigner.Done{}, err
	}
	return w.client.Move(w.Context.Context, id, w.args[1], w.args[2], w.why)
}

func wishReplication(w *wish) (assigner.Done, error) {
	if err := w.want(2); err != nil {
		return assigner.Done{}, err
	}
	id, err := w.publisher()
	if err != nil {
		return assigner.Done{}, err
	}
	n, err := strconv.Atoi(w.args[1])
	if err != nil || n < 0 {
		return assigner.Done{}, misused("%q: give a number of copies, or 0 for the pool's setting", w.args[1])
	}
	return w.client.SetReplication(w.Context.Context, id, n, w.why)
}

func (w *wish) allow(allowed bool) (assigner.Done, error) {
	if err := w.want(1); err != nil {
		return assigner.Done{}, err
	}
	if w.args[0] == "all" {
		return w.client.SetAllowed(w.Context.Context, "", allowed, w.why)
	}
	id, err := w.publisher()
	if err != nil {
		return assigner.Done{}, err
	}
	return w.client.SetAllowed(w.Context.Context, id, allowed, w.why)
}

func wishRebalance(w *wish) (assigner.Done, error) {
	if err := w.want(1); err != nil {
		return assigner.Done{}, err
	}
	if w.args[0] != "on" && w.args[0] != "off" {
		return assigner.Done{}, misused("%q: say on or off", w.args[0])
	}
	return w.client.SetRebalance(w.Context.Context, w.args[0] == "on", w.why)
}
