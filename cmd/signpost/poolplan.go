package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

func runPoolPlan(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	p, err := client.Plan(c.Context)
	if err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(p)
	}
	fmt.Fprint(c.App.Writer, planText(p))
	return nil
}

func planText(p assigner.PlanPage) string {
	var b strings.Builder
	if p.Unread > 0 {
		fmt.Fprintf(&b, "%d indexers have not been read yet: new publishers wait for them\n", p.Unread)
	}
	if p.Unplaced > 0 {
		fmt.Fprintf(&b, "%s publishers have no indexer that takes their ads, and none can\n", humanize.Comma(int64(p.Unplaced)))
	}
	for _, s := range p.Underway {
		fmt.Fprintln(&b, "under way:", stepText(s))
	}
	for _, s := range p.Steps {
		fmt.Fprintln(&b, stepText(s))
	}
	if len(p.Steps) == 0 {
		fmt.Fprintln(&b, "nothing to do")
	}
	return b.String()
}

// stepText is a step in a line, with why.
func stepText(s assigner.PlannedStep) string {
	text := fmt.Sprintf("%s %s", api.PlainText(s.Kind, maxStateShown), s.Publisher)
	if s.From != "" {
		text += fmt.Sprintf(" from %s", s.From)
	}
	return text + fmt.Sprintf(" to %s: %s", s.Indexer, api.PlainText(s.Why, 0))
}

func runPoolExplain(c *cli.Context) error {
	if c.NArg() != 1 {
		return misused("%s takes a PUBLISHER, got %d arguments", c.Command.HelpName, c.NArg())
	}
	id, err := peer.Decode(c.Args().First())
	if err != nil {
		return misused("%q: give the peer ID of a publisher, such as 12D3KooW...", c.Args().First())
	}
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	x, err := client.Explain(c.Context, id)
	if err != nil {
		return askedAssigner(c, err)
	}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(x)
	}
	fmt.Fprint(c.App.Writer, explainText(x, time.Now()))
	return nil
}

func explainText(x assigner.Explanation, now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintln(&b, api.PlainText(fmt.Sprintf(format, args...), 0)) }
	whole := fmt.Sprintf("%d whole copies of its chain", x.Whole)
	if x.Whole < 0 {
		whole = "copies of its chain not known, as some indexer tells no ranges"
	}
	line("publisher %s: %d owners wished, %s", x.Publisher, x.Wished, whole)
	if len(x.Bound) > 0 {
		line("bound to %s", joinIDs(x.Bound))
	}
	for _, p := range x.Places {
		line("%s %s, which is %s%s", p.Role, p.Indexer, p.State, sinceText(p.Since, now))
		if p.Continued != "" {
			line("  goes on from %s", p.Continued)
		}
		line("  holds %s; %s ads up to its mark, %s waiting, %s multihashes a second",
			rangesText(p.Ranges), humanize.Comma(int64(p.Height)), humanize.Comma(int64(p.Pending)), humanize.SIWithDigits(p.Load, 1, ""))
		if p.Filling {
			line("  fetches older ads")
		}
		if p.LastError != "" {
			line("  last error: %s", p.LastError)
		}
	}
	for _, r := range x.Refused {
		line("not asked of %s for another %s: %s", r.Indexer, r.Until.Sub(now).Round(time.Second), r.Why)
	}
	for _, s := range x.Underway {
		line("under way: %s", stepText(s))
	}
	for _, s := range x.Steps {
		line("next: %s", stepText(s))
	}
	if x.Waiting != "" {
		line("waiting: %s", x.Waiting)
	}
	if len(x.Events) > 0 {
		line("events:")
		b.WriteString(eventLines(x.Events))
	}
	return b.String()
}

func sinceText(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", since " + ago(t, now)
}

// rangesText is what of a chain is held.
func rangesText(ranges []admin.Range) string {
	if len(ranges) == 0 {
		return "nothing"
	}
	var texts []string
	for _, r := range ranges {
		from, to := "the genesis", "the newest ad"
		if r.From != "" {
			from = "after " + r.From
		}
		if r.To != "" {
			to = r.To
		}
		texts = append(texts, from+" to "+to)
	}
	return strings.Join(texts, ", ")
}

func wishClean(w *wish) (assigner.Done, error) {
	if err := w.want(0); err != nil {
		return assigner.Done{}, err
	}
	return w.client.Clean(w.Context.Context, w.Bool(flagDryRun), w.why)
}
