package page

import (
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// maxText is how many characters of a text from elsewhere are shown.
const maxText = 300

// words are the functions of the template.
var words = template.FuncMap{
	"comma":  func(n int) string { return humanize.Comma(int64(n)) },
	"bytes":  func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
	"rate":   func(r float64) string { return strings.TrimSpace(humanize.SIWithDigits(r, 1, "")) },
	"cut":    cut,
	"short":  short,
	"span":   span,
	"ago":    ago,
	"clock":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"acts":   func(a Access, list []Action) offered { return offered{a == Operate, list} },
	"states": states,
	"next":   func(n int) int { return n + 1 },
	"before": func(n int) int { return n - 1 },
	"about":  about,
}

// offered are actions, and whether the reader may ask for them.
type offered struct {
	May  bool
	List []Action
}

// cut is a text from elsewhere, which may be of any length, in one line.
func cut(s string) string { return api.PlainText(s[:min(len(s), utf8.UTFMax*maxText)], maxText) }

// short is a peer ID that people can tell from others, as it is in running text.
func short(id peer.ID) string {
	s := id.String()
	if len(s) <= 16 {
		return s
	}
	return s[:8] + "…" + s[len(s)-6:]
}

// span is a length of time, of one unit.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", max(d, 0)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d < 3*365*24*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return "years"
}

func ago(t, now time.Time) string {
	d := now.Sub(t)
	if d < time.Second {
		return "now"
	}
	return span(d) + " ago"
}

// states counts nodes by state, in the order in which states come.
func states(nodes []Node) string {
	var order []string
	count := make(map[string]int)
	for _, n := range nodes {
		if count[n.State]++; count[n.State] == 1 {
			order = append(order, n.State)
		}
	}
	for i, s := range order {
		order[i] = humanize.Comma(int64(count[s])) + " " + s
	}
	return strings.Join(order, ", ")
}

// about is whom an event concerns, as far as its text does not say.
func about(e Event) string {
	var parts []string
	for _, a := range []struct {
		word string
		id   peer.ID
	}{{"from", e.From}, {"indexer", e.Indexer}} {
		if a.id != "" && !strings.Contains(e.Text, a.id.String()) {
			parts = append(parts, a.word+" "+short(a.id))
		}
	}
	return strings.Join(parts, " ")
}
