package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
)

const flagAdmin = "admin"

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show what a pool or node has indexed, and what is in the way",
		Description: "Example:\n" +
			"  signpost status\n" +
			"  signpost status --publisher 12D3KooW... --json\n" +
			"  signpost status --publisher 12D3KooW... --admin http://localhost:3002 --watch\n" +
			"  signpost status --find http://localhost:3000 --admin http://localhost:3002",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagFind, defaultFindURL, "`URL` of a frontend or indexer"),
			stringFlag(flagAdmin, "", "admin `URL` of an indexer: adds its state, usage and assignments"),
			stringFlag(flagAdminToken, "", "`FILE` with the token of the admin API"),
			stringFlag(flagPublisher, "", "show only this publisher or provider (`PEERID`)"),
			boolFlag(flagWatch, "with --publisher and --admin: show every change, until interrupted"),
			boolFlag(flagJSON, "print JSON"),
		},
		Action: runStatus,
	}
}

// statusReport is what status prints with --json.
type statusReport struct {
	Node      *admin.Status      `json:",omitempty"`
	Assigned  []admin.Assignment `json:",omitempty"`
	Providers []find.ProviderInfo
	Stats     *find.Stats `json:",omitempty"`
	Missing   []string    `json:",omitempty"`
}

func runStatus(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	publisher, err := onlyPeer(c)
	if err != nil {
		return err
	}
	if publisher != "" && c.String(flagAdmin) != "" {
		return runProgress(c, publisher)
	}
	if c.Bool(flagWatch) {
		return misused("--%s needs --%s and --%s", flagWatch, flagPublisher, flagAdmin)
	}
	report, err := collectStatus(c)
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(report)
	}
	printStatus(c, report)
	return nil
}

func collectStatus(c *cli.Context) (report statusReport, err error) {
	client, err := find.NewClient(c.String(flagFind), api.NewHTTPClient())
	if err != nil {
		return report, misused("--%s: %v", flagFind, err)
	}
	only, err := onlyPeer(c)
	if err != nil {
		return report, err
	}
	var partial *find.PartialError
	infos, err := client.Providers(c.Context)
	if err != nil && !errors.As(err, &partial) {
		return report, fmt.Errorf("ask %s: %w; is a frontend or indexer running at --%s?", c.String(flagFind), err, flagFind)
	}
	if partial != nil {
		report.Missing = partial.Missing
	}
	report.Providers = []find.ProviderInfo{}
	for _, p := range infos {
		if only == "" || p.AddrInfo.ID == only || (p.Publisher != nil && p.Publisher.ID == only) {
			report.Providers = append(report.Providers, p)
		}
	}
	if st, err := client.Stats(c.Context); err == nil {
		report.Stats = &st
	}
	if c.String(flagAdmin) != "" {
		err = nodeStatus(c, &report)
		return report, err
	}
	return report, nil
}

func onlyPeer(c *cli.Context) (peer.ID, error) {
	text := c.String(flagPublisher)
	if text == "" {
		return "", nil
	}
	id, err := peer.Decode(text)
	if err != nil {
		return "", misused("--%s %q: give a peer ID, such as 12D3KooW...", flagPublisher, text)
	}
	return id, nil
}

func nodeStatus(c *cli.Context, report *statusReport) error {
	token, err := readToken(c.String(flagAdminToken))
	if err != nil {
		return err
	}
	client, err := admin.NewClient(c.String(flagAdmin), api.NewHTTPClient(), token)
	if err != nil {
		return misused("--%s: %v", flagAdmin, err)
	}
	st, err := client.Status(c.Context)
	if err != nil {
		return err
	}
	report.Node = &st
	assigned, err := client.Assigned(c.Context)
	if errors.Is(err, admin.ErrNotAssigner) {
		return nil
	}
	report.Assigned = assigned
	return err
}

func printStatus(c *cli.Context, r statusReport) {
	out := c.App.Writer
	if r.Node != nil {
		state := "active"
		if r.Node.Frozen {
			state = "frozen"
		}
		fmt.Fprintf(out, "indexer %s: %s, disk usage %.1f %%, %d publishers assigned\n", r.Node.ID, state, r.Node.Usage, len(r.Assigned))
	}
	if r.Stats != nil {
		fmt.Fprintf(out, "about %d index entries\n", r.Stats.EntriesEstimate)
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"provider", "publisher", "last advertisement", "age", "lag", "state", "last error"})
	for _, p := range r.Providers {
		publisher, last := "", ""
		if p.Publisher != nil && p.Publisher.ID != p.AddrInfo.ID {
			publisher = p.Publisher.ID.String()
		}
		if p.LastAdvertisement.Defined() {
			last = p.LastAdvertisement.String()
		}
		t.AppendRow(table.Row{p.AddrInfo.ID, publisher, last, age(p.LastAdvertisementTime), p.Lag, providerState(p), p.LastError})
	}
	fmt.Fprintln(out, t.Render())
	if len(r.Missing) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "the list may be incomplete: no answer from %v\n", r.Missing)
	}
}

func providerState(p find.ProviderInfo) string {
	switch {
	case p.Inactive:
		return "inactive"
	case !p.FrozenAtTime.IsZero():
		return "frozen"
	default:
		return "active"
	}
}

func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Round(time.Second).String()
}
