package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

const (
	// maxErrorShown keeps a row on a screen; status --publisher tells all of it.
	maxErrorShown = 60
	// maxCIDShown is enough of a CID's end to tell two apart.
	maxCIDShown = 12
	// maxStateShown is more than any of our states.
	maxStateShown = 20
)

// publisherTable lists a node's publishers, in the order given, below a line
// that counts them.
func publisherTable(all []admin.Publisher, now time.Time) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"publisher", "state", "heard from", "last ad", "last done", "pending", "lag", "last error"})
	for _, p := range all {
		t.AppendRow(table.Row{
			p.ID, publisherState(p), agoOrNever(p.LastContact, now), cidEnd(p.LastAd), agoOrNever(p.MarkTime, now),
			humanize.Comma(int64(p.Pending)), lagText(p), lastError(p, now),
		})
	}
	return fmt.Sprintf("%s\n%s\n", publisherCounts(all), t.Render())
}

// publisherCounts says how many publishers are in which state.
func publisherCounts(all []admin.Publisher) string {
	count := make(map[string]int)
	var states []string
	for _, p := range all {
		s := publisherState(p)
		if count[s]++; count[s] == 1 {
			states = append(states, s)
		}
	}
	slices.Sort(states)
	parts := make([]string, len(states))
	for n, s := range states {
		parts[n] = fmt.Sprintf("%s %s", humanize.Comma(int64(count[s])), s)
	}
	line := fmt.Sprintf("%s publishers", humanize.Comma(int64(len(all))))
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	return line
}

// publisherState is the state the node says; one that it may not follow, by
// policy or as it is not assigned, says so.
func publisherState(p admin.Publisher) string {
	state := api.PlainText(p.State, maxStateShown)
	if !p.Allowed {
		state += " (not followed)"
	}
	return state
}

func agoOrNever(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return ago(t, now)
}

func lagText(p admin.Publisher) string {
	if p.Lag == 0 {
		return ""
	}
	return p.Lag.String()
}

// cidEnd is the end of a CID: all begin alike.
func cidEnd(text string) string {
	if len(text) <= maxCIDShown {
		return api.PlainText(text, 0)
	}
	return "…" + api.PlainText(text[len(text)-maxCIDShown:], 0)
}

func lastError(p admin.Publisher, now time.Time) string {
	if p.LastError == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s", ago(p.LastErrorTime, now), api.PlainText(p.LastError, maxErrorShown))
}
