package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What the figures are held against, on a machine with two cores that the
// publishers share.
const (
	targetJSON    = 1_000_000 // mhs/s of a-json
	targetCBOR    = 2_000_000 // mhs/s of a-cbor
	targetCPU     = 1.3       // us of daemon CPU a multihash, a-json
	targetAds     = 5_000     // ads/s of d-0ms
	targetShareRT = 0.8       // of what a-json, or one round trip an ad, gives
)

func (f benchFigures) mhsRate() float64      { return float64(f.mhs()) / f.elapsed.Seconds() }
func (f benchFigures) adsRate() float64      { return float64(f.allAds()) / f.elapsed.Seconds() }
func (f benchFigures) cpuPerMh() float64     { return perUnit(f.cpu, f.mhs()) }
func (f benchFigures) cpuPerAd() float64     { return perUnit(f.cpu, f.allAds()) }
func perUnit(d time.Duration, n int) float64 { return d.Seconds() * 1e6 / float64(n) }

// walkRate is how many ads a second one round trip an ad allows, the walk
// being a chain of links, and nothing else.
func (f benchFigures) walkRate() float64 { return 1 / f.roundTrip.Seconds() }

// linkRate is the most multihashes a second that any indexer can do: every ad
// is named by the one before, and the chunks of the last one follow each other.
func (f benchFigures) linkRate() float64 {
	links := f.ads + 1 + f.chunks
	return float64(f.mhs()) / (float64(links) * f.roundTrip.Seconds())
}

// target says what the case is held against and what share of it is reached;
// of CPU, what share of the allowed is used.
func (f benchFigures) target(all []benchFigures) (target, reached string) {
	base := slices.IndexFunc(all, func(o benchFigures) bool { return o.name == "a-json" })
	against := func(rate float64, what string) (string, string) {
		return fmt.Sprintf("%.0f mhs/s%s", rate, what), percent(f.mhsRate() / rate)
	}
	switch {
	case f.name == "a-json":
		target, reached = against(targetJSON, "")
		return fmt.Sprintf("%s at %.1f us/mh", target, targetCPU), fmt.Sprintf("%s, CPU %s", reached, percent(f.cpuPerMh()/targetCPU))
	case f.name == "a-cbor":
		return against(targetCBOR, "")
	case f.name == "d-0ms":
		return fmt.Sprintf("%d ads/s", targetAds), percent(f.adsRate() / targetAds)
	case f.name == "d-5ms":
		rate := targetShareRT * f.walkRate()
		return fmt.Sprintf("%.0f ads/s: %s of one round trip an ad", rate, percent(targetShareRT)), percent(f.adsRate() / rate)
	case base < 0:
		return "as a-json, which was not run", "?"
	case f.name == "b-25ms":
		return against(targetShareRT*all[base].mhsRate(), fmt.Sprintf(": %s of a-json (round trips allow %.0f)", percent(targetShareRT), f.linkRate()))
	default:
		return against(all[base].mhsRate(), ": as a-json")
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// benchTable is the figures in Markdown.
func benchTable(rows []benchFigures) string {
	var b strings.Builder
	for _, f := range rows {
		fmt.Fprintf(&b, "%s: %d publishers x %d ads x %d chunks x %d = %d multihashes, %s, delay %v, round trip %v\n",
			f.name, f.publishers, f.ads, f.chunks, f.size, f.mhs(), f.codec, f.delay, f.roundTrip.Round(time.Microsecond))
	}
	b.WriteString("\n| case | mhs/s | ads/s | seconds | daemon CPU s | us CPU/mh | us CPU/ad | publisher CPU s |" +
		" peak memory MiB | MB on the wire | bytes/mh on disk | target | reached |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range rows {
		target, reached := f.target(rows)
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.2f | %.2f | %.0f | %.2f | %d | %.0f | %.1f | %s | %s |\n", f.name,
			f.mhsRate(), f.adsRate(), f.elapsed.Seconds(), f.cpu.Seconds(), f.cpuPerMh(), f.cpuPerAd(), f.publisher.Seconds(),
			f.peak>>20, float64(f.wire)/1e6, float64(f.disk)/float64(f.mhs()), target, reached)
	}
	return b.String()
}
