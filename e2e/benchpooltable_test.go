package e2e

import (
	"fmt"
	"strings"
	"time"
)

// The targets that are no pool.
const (
	rowStatic = "static handler"
	rowDirect = "one indexer, directly"
)

// poolFigures are one row.
type poolFigures struct {
	loadFigures
	name          string
	nodes         int
	hits          float64
	busy          int           // indexers that ingest meanwhile
	servers       time.Duration // CPU of all indexers, about that of ingest taken off
	frontend      time.Duration
	own           time.Duration // of this process, which asks and publishes
	asked, stored float64       // find requests, multihashes looked up, at all indexers
	puts          float64       // multihashes ingested meanwhile
	memory        int64         // peak of the frontend, bytes
}

func (f poolFigures) rate() float64 { return float64(len(f.took)) / f.elapsed.Seconds() }

// cost is the CPU of indexers and frontend for a lookup, microseconds.
func (f poolFigures) cost() float64 { return perUnit(f.servers+f.frontend, len(f.took)) }

func (f poolFigures) serverCost() float64 { return perUnit(f.servers, len(f.took)) }

func (f poolFigures) isPool() bool { return f.name != rowStatic && f.name != rowDirect }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

const poolHead = "| indexers | asked | hits | ingest mhs/s | finds/s | p50 ms | p99 ms | us CPU/find: indexers | frontend | together |" +
	" indexers asked a lookup | store lookups a lookup | undecided | frontend peak MiB | us CPU/find of the load |\n" +
	"|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"

// String is the row in Markdown.
func (f poolFigures) String() string {
	n := float64(len(f.took))
	about, frontend, asked, stored, memory := "", "–", "–", "–", "–"
	if f.busy > 0 {
		about = "~"
	}
	if f.isPool() {
		frontend, memory = fmt.Sprintf("%.0f", perUnit(f.frontend, len(f.took))), fmt.Sprint(f.memory>>20)
	}
	if f.name != rowStatic {
		asked, stored = fmt.Sprintf("%.2f", f.asked/n), fmt.Sprintf("%.2f", f.stored/n)
	}
	return fmt.Sprintf("| %d | %s | %s | %.0f | %.0f | %.2f | %.2f | %s%.0f | %s | %s%.0f | %s | %s | %d | %s | %.0f |", f.nodes, f.name,
		percent(f.hits), f.puts/f.elapsed.Seconds(), f.rate(), milliseconds(f.at(0.5)), milliseconds(f.at(0.99)),
		about, f.serverCost(), frontend, about, f.cost(), asked, stored, f.undecided, memory, perUnit(f.own, len(f.took)))
}

// poolTable is the figures in Markdown.
func poolTable(rows []poolFigures) string {
	var b strings.Builder
	b.WriteString(poolHead)
	for _, f := range rows {
		fmt.Fprintln(&b, f)
	}
	b.WriteString("\n~ is about: of the CPU of all indexers, what the same number of multihashes took to ingest just before, without lookups, is taken off\n")
	return b.String()
}

// poolRatios holds pools against one node behind a frontend, and against the one
// asked directly beside them, without ingest; and that against the static handler.
func poolRatios(rows []poolFigures) string {
	find := func(nodes int, name string, of poolFigures) *poolFigures {
		for i, f := range rows {
			if f.nodes == nodes && f.name == name && f.hits == of.hits && (f.busy > 0) == (of.busy > 0) {
				return &rows[i]
			}
		}
		return nil
	}
	ratio := func(a *poolFigures, b *poolFigures, of func(poolFigures) float64) string {
		if a == nil || b == nil || of(*b) == 0 {
			return "–"
		}
		return fmt.Sprintf("%.2f", of(*a)/of(*b))
	}
	var b strings.Builder
	b.WriteString("| indexers | asked | hits | of them ingest | CPU a find / that of one node behind a frontend |" +
		" of the indexers alone | of the indexers alone / one asked directly | finds/s / one asked directly | one asked directly, finds/s / static | CPU a find / static |\n" +
		"|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range rows {
		if !f.isPool() {
			continue
		}
		one := find(1, poolVariants[0].name, f)
		quiet := f
		quiet.busy = 0
		direct, static := find(f.nodes, rowDirect, quiet), find(f.nodes, rowStatic, quiet)
		fmt.Fprintf(&b, "| %d | %s | %s | %d | %s | %s | %s | %s | %s | %s |\n", f.nodes, f.name, percent(f.hits), f.busy,
			ratio(&f, one, poolFigures.cost), ratio(&f, one, poolFigures.serverCost), ratio(&f, direct, poolFigures.serverCost),
			ratio(&f, direct, poolFigures.rate), ratio(direct, static, poolFigures.rate), ratio(direct, static, poolFigures.serverCost))
	}
	return b.String()
}
