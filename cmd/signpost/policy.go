package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api/admin"
)

const flagReset = "reset"

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "say whom an indexer takes content from, and who may publish for whom",
		Description: "Example:\n" +
			"  signpost policy show\n" +
			"  signpost policy block 12D3KooW...\n" +
			"  signpost policy publish 12D3KooWprovider... 12D3KooWpublisher...\n\n" +
			"What is set here is kept across restarts. A provider may always publish for\n" +
			"itself, unless it is blocked; who else may is up to the policy. Advertisements\n" +
			"rejected before are taken again by POST /ingest/sync/PEERID?resync=true.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost policy --help lists them", "policy "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "show the policy", OnUsageError: usageError,
				Flags: adminFlags(boolFlag(flagJSON, "print JSON, as PUT /signpost/v1/policy takes it")), Action: runPolicyShow},
			{Name: "allow", Usage: "take content from a peer, as publisher and provider", ArgsUsage: "PEERID", OnUsageError: usageError,
				Flags: adminFlags(), Action: func(c *cli.Context) error { return runPolicyAllow(c, true) }},
			{Name: "block", Usage: "take nothing more from a peer, end its sync and hide it; what is stored of it stays", ArgsUsage: "PEERID", OnUsageError: usageError,
				Flags: adminFlags(), Action: func(c *cli.Context) error { return runPolicyAllow(c, false) }},
			{Name: "publish", Usage: "let the publishers named, and no others, publish for a provider besides itself", ArgsUsage: "PROVIDER [PUBLISHER...]", OnUsageError: usageError,
				Flags: adminFlags(boolFlag(flagReset, "forget the provider's list: what holds for all holds for it")), Action: runPolicyPublish},
		},
	}
}

// peerArgs reads the arguments as peer IDs.
func peerArgs(c *cli.Context) ([]peer.ID, error) {
	var ids []peer.ID
	for _, text := range c.Args().Slice() {
		id, err := peer.Decode(text)
		if err != nil {
			return nil, misused("%q: give a peer ID, such as 12D3KooW...", text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func runPolicyShow(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	p, err := client.Policy(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(p)
	}
	printPolicy(c, p)
	return nil
}

func printPolicy(c *cli.Context, p admin.Policy) {
	word := map[bool]string{true: "yes", false: "no"}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"who", "taken", "may publish for others"})
	t.AppendRow(table.Row{"everybody", word[p.Allow], word[p.Publish]})
	var named []peer.ID
	named = append(append(named, p.AllowExcept...), p.PublishExcept...)
	slices.Sort(named)
	for _, id := range slices.Compact(named) {
		t.AppendRow(table.Row{id, word[p.Allow != slices.Contains(p.AllowExcept, id)], word[p.Publish != slices.Contains(p.PublishExcept, id)]})
	}
	fmt.Fprintln(c.App.Writer, t.Render())
	for _, l := range p.Publishers {
		fmt.Fprintf(c.App.Writer, "for %s besides itself: %v\n", l.Provider, l.Publishers)
	}
}

func runPolicyAllow(c *cli.Context, allow bool) error {
	ids, err := peerArgs(c)
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return misused("%s takes one peer ID, got %d; see %s --help", c.Command.HelpName, len(ids), c.Command.HelpName)
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	set, done := client.Block, "blocked"
	if allow {
		set, done = client.Allow, "allowed"
	}
	if err := set(c.Context, ids[0]); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s %s\n", done, ids[0])
	return nil
}

func runPolicyPublish(c *cli.Context) error {
	ids, err := peerArgs(c)
	if err != nil {
		return err
	}
	if len(ids) == 0 || (c.Bool(flagReset) && len(ids) > 1) {
		return misused("policy publish takes a provider and the publishers for it, or a provider and --%s", flagReset)
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	p, err := client.Policy(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	p.Publishers = slices.DeleteFunc(p.Publishers, func(l admin.PublisherList) bool { return l.Provider == ids[0] })
	if !c.Bool(flagReset) {
		p.Publishers = append(p.Publishers, admin.PublisherList{Provider: ids[0], Publishers: ids[1:]})
	}
	if err := client.SetPolicy(c.Context, p); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s: besides itself, %d publishers are named for it\n", ids[0], len(ids)-1)
	return nil
}
