package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

const (
	flagDetach      = "detach"
	flagForce       = "force"
	defaultAdminURL = "http://127.0.0.1:3002"
	// jobPoll is how often a job that is waited for is asked about.
	jobPoll = 500 * time.Millisecond
)

var errDamaged = errors.New("the store is damaged")

func storeCommand() *cli.Command {
	detach := boolFlag(flagDetach, "do not wait for the end; store status tells how it goes")
	return &cli.Command{
		Name:  "store",
		Usage: "look after an indexer's store: its size and garbage, compaction, checks, removing a provider",
		Description: "Example:\n" +
			"  signpost store status\n" +
			"  signpost store compact\n" +
			"  signpost store check --admin http://localhost:3002\n" +
			"  signpost store remove-provider 12D3KooW...\n\n" +
			"Space of removed content comes back by itself when a fifth of the index is\n" +
			"garbage; compact gives back all of it now. check exits with 1 if something is\n" +
			"damaged; a damaged index is brought back by repair, reindex and, when all\n" +
			"publishers are synced, mark-whole.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return misused("unknown command %q; signpost store --help lists them", "store "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			{Name: "status", Usage: "show size, garbage and the last job", OnUsageError: usageError,
				Flags: adminFlags(boolFlag(flagJSON, "print JSON")), Action: runStoreStatus},
			{Name: "compact", Usage: "drop all garbage and rewrite the index into its smallest form", OnUsageError: usageError,
				Flags: adminFlags(detach), Action: func(c *cli.Context) error { return runStoreJob(c, admin.JobCompact) }},
			{Name: "check", Usage: "read everything and name what is damaged", OnUsageError: usageError,
				Flags: adminFlags(detach), Action: func(c *cli.Context) error { return runStoreJob(c, admin.JobCheck) }},
			{Name: "repair", Usage: "take damaged parts of the index away, so that it works on", OnUsageError: usageError,
				Flags: adminFlags(detach), Action: func(c *cli.Context) error { return runStoreJob(c, admin.JobRepair) }},
			{Name: "reindex", Usage: "apply all advertisements again, for what a repair has lost", OnUsageError: usageError,
				Flags: adminFlags(), Action: runReindex},
			{Name: "mark-whole", Usage: "end that lookups fail where postings were lost: after a reindex", OnUsageError: usageError,
				Flags: adminFlags(boolFlag(flagForce, "also while publishers are still being synced")), Action: runMarkWhole},
			{Name: "remove-provider", Usage: "remove a provider and all its content", ArgsUsage: "PEERID", OnUsageError: usageError,
				Flags: adminFlags(), Action: runRemoveProvider},
		},
	}
}

// adminFlags are those that name an indexer's admin API, and more.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		stringFlag(flagAdmin, defaultAdminURL, "admin `URL` of the indexer"),
		stringFlag(flagAdminToken, "", "`FILE` with the token of the admin API"),
	}, more...)
}

// adminClient is a client of the indexer that --admin names.
func adminClient(c *cli.Context) (*admin.Client, error) {
	token, err := readToken(c.String(flagAdminToken))
	if err != nil {
		return nil, err
	}
	client, err := admin.NewClient(c.String(flagAdmin), api.NewHTTPClient(), token)
	if err != nil {
		return nil, misused("--%s: %v", flagAdmin, err)
	}
	return client, nil
}

// askedAdmin adds to an error what to do about it.
func askedAdmin(c *cli.Context, err error) error {
	if errors.Is(err, admin.ErrUnavailable) {
		return fmt.Errorf("ask %s: %w; is an indexer running with its admin API at --%s?", c.String(flagAdmin), err, flagAdmin)
	}
	return err
}

func runStoreStatus(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	status, err := client.Store(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(status)
	}
	printStoreStatus(c, status)
	return nil
}

func printStoreStatus(c *cli.Context, s admin.StoreStatus) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendRow(table.Row{"postings", humanize.Comma(int64(s.Postings)), "multihashes put and not removed"})
	t.AppendRow(table.Row{"multihashes", humanize.Comma(int64(s.Multihashes)), fmt.Sprintf("distinct, estimated to %.1f %%", 100*s.MultihashesError)})
	t.AppendRow(table.Row{"records", humanize.Comma(int64(s.Records)), "of a provider and context ID"})
	t.AppendRow(table.Row{"garbage", humanize.Comma(int64(s.Garbage)), garbageNote(s)})
	t.AppendSeparator()
	for _, row := range []struct {
		name, note string
		bytes      int64
	}{
		{"on disk", perPosting(s), s.Bytes.Total},
		{"  postings", "", s.Bytes.Postings},
		{"  rows", "", s.Bytes.Rows},
		{"    records", "estimated", s.Bytes.Records},
		{"    ledger", "estimated", s.Bytes.Ledger},
		{"  log", "", s.Bytes.Log},
		{"obsolete", "part of the above, removed in a moment", s.Bytes.Obsolete},
	} {
		t.AppendRow(table.Row{row.name, bytesText(row.bytes), row.note})
	}
	fmt.Fprintln(c.App.Writer, t.Render())
	if s.LostShare > 0 {
		fmt.Fprintf(c.App.Writer, "damage has cost postings of %.4f %% of all multihashes: lookups that find nothing there fail;\n"+
			"signpost store reindex brings them back\n", 100*s.LostShare)
	}
	if s.Job != nil {
		fmt.Fprintln(c.App.Writer, jobText(s.Job))
	}
}

func garbageNote(s admin.StoreStatus) string {
	note := "of removed records, space not back yet"
	if all := s.Garbage + s.Postings; all > 0 {
		note = fmt.Sprintf("%.1f %% of the index; ", 100*float64(s.Garbage)/float64(all)) + note
	}
	if s.RemovedProviders > 0 {
		note += fmt.Sprintf("; %d removed providers not swept yet", s.RemovedProviders)
	}
	return note
}

func perPosting(s admin.StoreStatus) string {
	if s.Postings == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f bytes a posting", float64(s.Bytes.Total)/float64(s.Postings))
}

func jobText(j *admin.StoreJob) string {
	switch {
	case j.Running():
		return fmt.Sprintf("%s runs since %s", j.Kind, age(j.Started))
	case j.Error != "":
		return fmt.Sprintf("%s failed after %s: %s", j.Kind, j.Ended.Sub(j.Started).Round(time.Millisecond), api.PlainText(j.Error, 0))
	}
	text := fmt.Sprintf("%s done in %s", j.Kind, j.Ended.Sub(j.Started).Round(time.Millisecond))
	if j.Kind != admin.JobCompact {
		text += fmt.Sprintf(", %d damages", j.Damages)
	}
	return text
}

func runStoreJob(c *cli.Context, kind admin.JobKind) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.StartJob(c.Context, kind); err != nil {
		return askedAdmin(c, err)
	}
	if c.Bool(flagDetach) {
		fmt.Fprintf(c.App.ErrWriter, "%s begins; signpost store status tells how it goes\n", kind)
		return nil
	}
	status, err := awaitJob(c.Context, client, kind)
	if err != nil {
		return askedAdmin(c, err)
	}
	for _, line := range status.Job.Damage {
		fmt.Fprintln(c.App.Writer, api.PlainText(line, 0))
	}
	fmt.Fprintln(c.App.ErrWriter, jobText(status.Job))
	switch {
	case status.Job.Error != "":
		return errors.New(api.PlainText(status.Job.Error, 0))
	case status.Job.Damages > 0 && kind == admin.JobCheck:
		return errDamaged
	}
	if kind == admin.JobCompact {
		fmt.Fprintf(c.App.ErrWriter, "%s on disk, %s\n", bytesText(status.Bytes.Total), perPosting(status))
	}
	return nil
}

// awaitJob asks until the job has ended.
func awaitJob(ctx context.Context, client *admin.Client, kind admin.JobKind) (admin.StoreStatus, error) {
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	for {
		status, err := client.Store(ctx)
		if err != nil {
			return status, err
		}
		if status.Job == nil || status.Job.Kind != kind {
			return status, fmt.Errorf("%s was lost: the indexer was started again", kind)
		}
		if !status.Job.Running() {
			return status, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return status, fmt.Errorf("no longer waiting, the %s goes on: %w", kind, ctx.Err())
		}
	}
}

func runReindex(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	done, err := client.Reindex(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%d publishers are synced from their first advertisement; when that is done: signpost store mark-whole\n", done.Publishers)
	if done.PassedOver > 0 {
		fmt.Fprintf(c.App.ErrWriter, "%d publishers are passed over, as they are not assigned or have no known address: what was lost of\n"+
			"these does not come back until they are assigned again; the node's log names them\n", done.PassedOver)
	}
	return nil
}

func runMarkWhole(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.MarkWhole(c.Context, c.Bool(flagForce)); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintln(c.App.ErrWriter, "what is not found is a miss again")
	return nil
}

func runRemoveProvider(c *cli.Context) error {
	if c.NArg() != 1 {
		return misused("store remove-provider takes one peer ID, got %d; see signpost store remove-provider --help", c.NArg())
	}
	id, err := peer.Decode(c.Args().First())
	if err != nil {
		return misused("%q: give a peer ID, such as 12D3KooW...", c.Args().First())
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.RemoveProvider(c.Context, id); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "removed %s; what its publisher announces from now on is taken as before\n", id)
	return nil
}
