package store

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// figure is one row of one column of the table. Its name has its unit.
type figure struct {
	Name  string
	Value float64
	Good  good
}

// good says which way a figure is better, for the ratio to the base line.
type good int

const (
	noMatter good = iota
	more
	less
)

// figures are one column: what one case measured, in order.
type figures []figure

func (f *figures) add(g good, value float64, format string, args ...any) {
	*f = append(*f, figure{fmt.Sprintf(format, args...), value, g})
}

func (f figures) find(name string) (figure, bool) {
	i := slices.IndexFunc(f, func(g figure) bool { return g.Name == name })
	if i < 0 {
		return figure{}, false
	}
	return f[i], true
}

// column of the table: figures with a heading.
type column struct {
	head []string
	figures
	ratio bool
}

// ratios is how many times better base's figures are in f.
func ratios(f, base figures) (r figures) {
	for _, a := range f {
		b, ok := base.find(a.Name)
		switch {
		case !ok || a.Good == noMatter:
		case a.Good == more:
			r.add(noMatter, a.Value/b.Value, "%s", a.Name)
		case a.Good == less:
			r.add(noMatter, b.Value/a.Value, "%s", a.Name)
		}
	}
	return r
}

// rowNames are the names of all columns' figures, each column's in its order.
func rowNames(cols []column) (names []string) {
	for _, c := range cols {
		at := 0
		for _, f := range c.figures {
			if i := slices.Index(names, f.Name); i >= 0 {
				at = i + 1
				continue
			}
			names = slices.Insert(names, at, f.Name)
			at++
		}
	}
	return names
}

// table renders columns side by side, aligned.
func table(cols []column) string {
	var cells [][]string
	for line := range slices.MaxFunc(cols, func(a, b column) int { return len(a.head) - len(b.head) }).head {
		row := []string{""}
		for _, c := range cols {
			text := ""
			if line < len(c.head) {
				text = c.head[line]
			}
			row = append(row, text)
		}
		cells = append(cells, row)
	}
	for _, name := range rowNames(cols) {
		row := []string{name}
		for _, c := range cols {
			text := "-"
			if f, ok := c.find(name); ok {
				text = number(f.Value)
				if c.ratio {
					text += "x"
				}
			}
			row = append(row, text)
		}
		cells = append(cells, row)
	}
	return aligned(cells)
}

// aligned has the first column flush left and the others flush right.
func aligned(cells [][]string) string {
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], len(c))
		}
	}
	var b strings.Builder
	for _, row := range cells {
		fmt.Fprintf(&b, "%-*s", widths[0], row[0])
		for i, c := range row[1:] {
			fmt.Fprintf(&b, "  %*s", widths[i+1], c)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// number has three digits that matter, or all before the point, in groups.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	digits := 0
	if a := math.Abs(v); a > 0 && a < 100 {
		digits = min(2-int(math.Floor(math.Log10(a))), 4)
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, part, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if part != "" {
		whole += "." + part
	}
	return whole
}
