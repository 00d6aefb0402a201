package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
			"  signpost status --admin http://localhost:3002\n" +
			"  signpost status --publisher 12D3KooW... --json\n" +
			"  signpost status --publisher 12D3KooW... --admin http://localhost:3002 --watch\n" +
			"  signpost status --find http://localhost:3000 --admin http://localhost:3002\n\n" +
			"With --admin it lists the node's publishers, and the providers only if --find\n" +
			"is given too; with --publisher as well, it tells all about that publisher.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagFind, defaultFindURL, "`URL` of a frontend or indexer, to list its providers"),
			stringFlag(flagAdmin, "", "admin `URL` of an indexer: its state, usage, assignments and publishers"),
			stringFlag(flagAdminToken, "", "`FILE` with the token of the admin API"),
			stringFlag(flagPublisher, "", "show only this publisher or provider (`PEERID`)"),
			boolFlag(flagWatch, "with --admin: show every change, until interrupted"),
			boolFlag(flagJSON, "print JSON"),
		},
		Action: runStatus,
	}
}

// statusReport is what status prints with --json.
type statusReport struct {
	Node       *admin.Status       `json:",omitempty"`
	Assigned   []admin.Assignment  `json:",omitempty"`
	Publishers []admin.Publisher   `json:",omitzero"` // of the node; nil: not asked
	Providers  []find.ProviderInfo `json:",omitzero"` // nil: not asked
	Stats      *find.Stats         `json:",omitempty"`
	Missing    []string            `json:",omitempty"`
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
	if c.Bool(flagWatch) && c.String(flagAdmin) == "" {
		return misused("--%s needs --%s", flagWatch, flagAdmin)
	}
	from, err := openStatus(c, publisher)
	if err != nil {
		return err
	}
	var shown statusReport
	return follow(c, func() error {
		report, err := from.collect(c)
		if err != nil {
			return err
		}
		if c.Bool(flagJSON) {
			return json.NewEncoder(c.App.Writer).Encode(report)
		}
		if !report.same(shown) {
			printStatus(c, report)
			shown = report
		}
		return nil
	})
}

// follow shows something once, or with --watch again and again.
func follow(c *cli.Context, show func() error) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := show(); err != nil {
			if c.Bool(flagWatch) && c.Context.Err() != nil {
				return nil
			}
			return err
		}
		if !c.Bool(flagWatch) {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.Context.Done():
			return nil
		}
	}
}

// same says whether nothing has changed but what does so by the clock alone.
func (r statusReport) same(o statusReport) bool { return reflect.DeepEqual(r.timeless(), o.timeless()) }

func (r statusReport) timeless() statusReport {
	if r.Node != nil {
		node := *r.Node
		node.Usage = 0
		r.Node = &node
	}
	r.Publishers = slices.Clone(r.Publishers)
	for n := range r.Publishers {
		p := &r.Publishers[n]
		p.Lag, p.Silent, p.NextPoll = 0, 0, time.Time{}
	}
	return r
}

// statusSource is whom status asks.
type statusSource struct {
	find *find.Client  // nil: nobody
	node *admin.Client // nil: nobody
	only peer.ID       // of the providers; empty: all
}

func openStatus(c *cli.Context, only peer.ID) (from statusSource, err error) {
	from.only = only
	if c.String(flagAdmin) != "" {
		if from.node, err = adminClient(c); err != nil {
			return from, err
		}
	}
	if from.node == nil || c.IsSet(flagFind) {
		if from.find, err = find.NewClient(c.String(flagFind), api.NewHTTPClient()); err != nil {
			return from, misused("--%s: %v", flagFind, err)
		}
	}
	return from, nil
}

func (s statusSource) collect(c *cli.Context) (r statusReport, err error) {
	if s.find != nil {
		err = s.pool(c, &r)
	}
	if err == nil && s.node != nil {
		err = s.nodeStatus(c, &r)
	}
	return r, err
}

func (s statusSource) pool(c *cli.Context, r *statusReport) error {
	var partial *find.PartialError
	infos, err := s.find.Providers(c.Context)
	if err != nil && !errors.As(err, &partial) {
		return fmt.Errorf("ask %s: %w; is a frontend or indexer running at --%s?", c.String(flagFind), err, flagFind)
	}
	if partial != nil {
		r.Missing = partial.Missing
	}
	r.Providers = []find.ProviderInfo{}
	for _, p := range infos {
		if s.only == "" || p.AddrInfo.ID == s.only || (p.Publisher != nil && p.Publisher.ID == s.only) {
			r.Providers = append(r.Providers, p)
		}
	}
	if st, err := s.find.Stats(c.Context); err == nil {
		r.Stats = &st
	}
	return nil
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

// nodeStatus asks the node. One of the reference does not list its publishers.
func (s statusSource) nodeStatus(c *cli.Context, r *statusReport) error {
	st, err := s.node.Status(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	r.Node = &st
	r.Assigned, err = s.node.Assigned(c.Context)
	if err != nil && !errors.Is(err, admin.ErrNotAssigner) {
		return err
	}
	r.Publishers, err = s.node.Publishers(c.Context)
	if err != nil && !errors.Is(err, admin.ErrNotFound) {
		return err
	}
	return nil
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
	if r.Publishers != nil {
		fmt.Fprint(out, publisherTable(r.Publishers, time.Now()))
	}
	if r.Stats != nil {
		fmt.Fprintf(out, "about %d index entries\n", r.Stats.EntriesEstimate)
	}
	if r.Providers != nil {
		fmt.Fprintln(out, providerTable(r.Providers))
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "the list may be incomplete: no answer from %s\n", api.PlainText(fmt.Sprint(r.Missing), 0))
	}
}

func providerTable(all []find.ProviderInfo) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"provider", "publisher", "last advertisement", "age", "lag", "state", "last error"})
	for _, p := range all {
		publisher, last := "", ""
		if p.Publisher != nil && p.Publisher.ID != p.AddrInfo.ID {
			publisher = p.Publisher.ID.String()
		}
		if p.LastAdvertisement.Defined() {
			last = p.LastAdvertisement.String()
		}
		t.AppendRow(table.Row{p.AddrInfo.ID, publisher, last, age(p.LastAdvertisementTime), p.Lag, providerState(p), api.PlainText(p.LastError, 0)})
	}
	return t.Render()
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
