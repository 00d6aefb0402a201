package health

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var conditionDesc = prometheus.NewDesc("signpost_health_condition", "1 while a condition is present, by its code.", []string{"code", "severity"}, nil)

// Describe and Collect make a Board a prometheus.Collector: each code it checks is
// a series.
func (b *Board) Describe(ch chan<- *prometheus.Desc) { ch <- conditionDesc }

// Collect gives the conditions as they are now.
func (b *Board) Collect(ch chan<- prometheus.Metric) {
	present := make(map[Code]bool)
	for _, c := range b.Report().Conditions {
		present[c.Code] = true
	}
	for _, check := range b.checks {
		d, _ := Of(check.Code)
		v := 0.0
		if present[d.Code] {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(conditionDesc, prometheus.GaugeValue, v, string(d.Code), string(d.Severity))
	}
}

// Growth tells how much counters have grown lately. It is for one Check.
type Growth struct {
	Within   time.Duration // what is lately
	Counters []prometheus.Collector

	mu    sync.Mutex
	known bool
	last  float64
	steps []growthStep // that are not over, ascending
}

type growthStep struct {
	at time.Time
	by float64
}

// maxSteps bounds what is remembered: steps close to each other are one.
const maxSteps = 64

// Lately returns by how much the counters have grown within the time; what they
// had when it is first called does not count.
func (g *Growth) Lately(now time.Time) float64 {
	sum := 0.0
	for _, c := range g.Counters {
		sum += Sum(c)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if by := sum - g.last; g.known && by > 0 {
		if n := len(g.steps); n > 0 && now.Sub(g.steps[n-1].at) < g.Within/maxSteps {
			g.steps[n-1].by += by
		} else {
			g.steps = append(g.steps, growthStep{now, by})
		}
	}
	g.known, g.last = true, sum
	for len(g.steps) > 0 && now.Sub(g.steps[0].at) >= g.Within {
		g.steps = g.steps[1:]
	}
	lately := 0.0
	for _, s := range g.steps {
		lately += s.by
	}
	return lately
}

// Sum adds up the counters and gauges of a collector.
func Sum(c prometheus.Collector) float64 {
	ch := make(chan prometheus.Metric)
	go func() {
		defer close(ch)
		c.Collect(ch)
	}()
	sum := 0.0
	for m := range ch {
		var out dto.Metric
		if m.Write(&out) == nil {
			sum += out.GetCounter().GetValue() + out.GetGauge().GetValue()
		}
	}
	return sum
}

// Said is a Check's Look: what has grown lately, in words with one verb for the
// number.
func (g *Growth) Said(format string) func(now time.Time) string {
	return func(now time.Time) string {
		by := g.Lately(now)
		if by == 0 {
			return ""
		}
		return fmt.Sprintf(format, by)
	}
}

// Alone says in words that there is nobody on gossip.
func Alone(peers int) string {
	if peers > 0 {
		return ""
	}
	return "no peer on the announce topic"
}
