package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/assigner"
)

const flagIndexerID = "indexer"

type indexerCall = func(ctx context.Context, indexer string, w assigner.Wish) (assigner.Done, error)

// poolList is what signpost pool list --json prints.
type poolList struct {
	Pool   assigner.PoolPage
	Wishes assigner.IntentsPage
}

func runPoolList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	var l poolList
	if l.Pool, err = client.Pool(c.Context); err != nil {
		return askedAssigner(c, err)
	}
	if l.Wishes, err = client.Intents(c.Context); err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(l)
	}
	fmt.Fprint(c.App.Writer, memberTable(l.Pool))
	fmt.Fprint(c.App.Writer, wishLines(l.Wishes, time.Now()))
	return nil
}

// memberTable lists the indexers below a line that counts publishers.
func memberTable(p assigner.PoolPage) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"indexer", "admin", "state", "owns", "holds", "mhs/s", "lag", "disk", "full in", "last error"})
	for _, m := range p.Members {
		id, state, usage := "(not read yet)", api.PlainText(string(m.State), maxStateShown), ""
		if m.ID != "" {
			id = m.ID.String()
		}
		if m.Usage >= 0 {
			usage = fmt.Sprintf("%.1f %%", m.Usage)
		}
		problem := m.Error
		if problem == "" && m.LostShare > 0 {
			problem = fmt.Sprintf("%.2g %% of its postings may be lost: signpost pool reindex", 100*m.LostShare)
		}
		if problem == "" {
			problem = m.FrozenWhy
		}
		t.AppendRow(table.Row{id, api.PlainText(m.Admin, 0), state, humanize.Comma(int64(m.Owned)), humanize.Comma(int64(m.Publishers - m.Owned)),
			humanize.SIWithDigits(m.MultihashesPerSecond, 1, ""), humanize.Comma(int64(m.PendingAds)), usage, fullIn(m.FreezeSeconds), api.PlainText(problem, maxErrorShown)})
	}
	unplaced := ""
	if p.Unplaced > 0 {
		unplaced = fmt.Sprintf(", and %s that no indexer has or can take now", humanize.Comma(int64(p.Unplaced)))
	}
	return fmt.Sprintf("%s indexers, %s publishers%s\n%s\n", humanize.Comma(int64(len(p.Members))), humanize.Comma(int64(p.Publishers)), unplaced, t.Render())
}

// fullIn is the time until an indexer freezes if it goes on growing.
func fullIn(seconds *float64) string {
	if seconds == nil || *seconds > 10*365*24*3600 {
		return ""
	}
	d := time.Duration(*seconds * float64(time.Second))
	if d > 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return d.Round(time.Second).String()
}

// wishLines tells what was asked for, a line each; nothing if nothing was.
func wishLines(p assigner.IntentsPage, now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintln(&b, api.PlainText(fmt.Sprintf(format, args...), 0)) }
	in := p.Intents
	for _, l := range in.Added {
		line("added      %s", l)
	}
	for _, r := range in.Removed {
		line("removed    %s%s", strings.TrimSpace(r.Admin+" "+idText(r.Indexer)), whyText(r.Wish, now))
	}
	for _, d := range in.Drains {
		paused := ""
		if d.Paused {
			paused = ", paused"
		}
		line("draining   %s%s%s", d.Indexer, paused, whyText(d.Wish, now))
	}
	for _, w := range in.Copies {
		line("copies     %s has %d", w.Publisher, w.Copies)
	}
	for _, w := range in.Pins {
		line("assigned   %s to %s", w.Publisher, joinIDs(w.Indexers))
	}
	if in.Policy.Deny {
		line("policy     publishers are refused")
	}
	for _, id := range in.Policy.Except {
		line("policy     but not %s", id)
	}
	if in.NoRebalance {
		line("rebalance  off")
	}
	if b.Len() > 0 && !p.Kept {
		line("None of this is kept when the assigner ends: it has no --intents file.")
	}
	return b.String()
}

func idText(id peer.ID) string {
	if id == "" {
		return ""
	}
	return id.String()
}

func joinIDs(ids []peer.ID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, ", ")
}

// whyText is when, by whom and why, in words.
func whyText(w assigner.Wish, now time.Time) string {
	var parts []string
	if !w.Since.IsZero() {
		parts = append(parts, ago(w.Since, now))
	}
	if w.By != "" {
		parts = append(parts, "by "+w.By)
	}
	text := ""
	if len(parts) > 0 {
		text = ", " + strings.Join(parts, " ")
	}
	if w.Reason != "" {
		text += ": " + w.Reason
	}
	return text
}

func runPoolEvents(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	q := assigner.EventQuery{Since: c.Uint64(flagSince), Limit: c.Int(flagLimit)}
	if q.Limit < 0 {
		return misused("--%s %d: give a number, or 0 for all", flagLimit, q.Limit)
	}
	for flag, to := range map[string]*peer.ID{flagPublisher: &q.Publisher, flagIndexerID: &q.Indexer} {
		if text := c.String(flag); text != "" {
			id, err := peer.Decode(text)
			if err != nil {
				return misused("--%s %q: give a peer ID, such as 12D3KooW...", flag, text)
			}
			*to = id
		}
	}
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	page, err := client.Events(c.Context, q)
	if err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(page)
	}
	fmt.Fprint(c.App.Writer, eventLines(page.Events))
	return nil
}

// eventLines are the events, oldest first, a line each.
func eventLines(events []assigner.Event) string {
	kind := 0
	for _, e := range events {
		kind = max(kind, len(api.PlainText(e.Kind, maxStateShown)))
	}
	var b strings.Builder
	for _, e := range events {
		words := []string{e.Text}
		for _, about := range []struct {
			word string
			id   peer.ID
		}{{"publisher", e.Publisher}, {"from", e.From}, {"indexer", e.Indexer}} {
			if id := idText(about.id); id != "" && !strings.Contains(e.Text, id) {
				words = append(words, about.word+" "+id)
			}
		}
		if e.Error != "" {
			words = append(words, "failed: "+e.Error)
		}
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
		fmt.Fprintf(&b, "%d  %s  %-*s  %s\n", e.Seq, e.Time.UTC().Format(time.RFC3339), kind, api.PlainText(e.Kind, maxStateShown), api.PlainText(strings.Join(words, ", "), 0))
	}
	return b.String()
}
