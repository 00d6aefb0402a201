package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Table is a table of a report, written as Markdown.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Add adds a row of values.
func (t *Table) Add(cells ...any) {
	row := make([]string, 0, len(cells))
	for _, c := range cells {
		switch c := c.(type) {
		case float64:
			row = append(row, fmt.Sprintf("%.3g", c))
		case time.Duration:
			row = append(row, short(c))
		default:
			row = append(row, fmt.Sprint(c))
		}
	}
	t.Rows = append(t.Rows, row)
}

func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	s := d.Round(time.Second).String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "m") || strings.HasSuffix(s, "h") {
		return s
	}
	return d.Round(time.Second).String()
}

func (t *Table) String() string {
	var b strings.Builder
	row := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	row(t.Columns)
	b.WriteString(strings.Repeat("|---", len(t.Columns)) + "|\n")
	for _, r := range t.Rows {
		row(r)
	}
	return b.String()
}

// rates are those of the publishers of each node that is up, empty ones included.
func (w *World) rates() [][]owned {
	at := make(map[peer.ID]int)
	var up []*node
	for _, n := range w.nodes {
		if n.up && !n.frozen {
			at[n.id] = len(up)
			up = append(up, n)
		}
	}
	loads := make([][]owned, len(up))
	for i, n := range up {
		for _, r := range n.list {
			if !r.owner {
				continue
			}
			o := owned{rate: r.p.rate, came: -1}
			if left, ok := w.watch.left[r.p.id]; ok {
				if from, ok := at[left.from]; ok {
					o.came = from
				}
			}
			loads[i] = append(loads[i], o)
		}
	}
	return loads
}

// even tells whether load is as even as Plan promises, at the last sample.
func (w *World) even() bool { s := w.watch.last(); return s.maxToMean <= s.goal() }

// owned tells whether each publisher has an owner who takes ads.
func (w *World) owned() bool { return w.watch.waits == 0 }
