package deny

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what a list denies. They belong to no registry: the parts of a
// process that share a list each collect them in theirs.
type metrics struct {
	vecs     []prometheus.Collector
	entries  [kinds]prometheus.Gauge
	denied   [kinds]prometheus.Counter
	leftOut  [kinds]prometheus.Counter
	failures prometheus.Counter
	stale    prometheus.Gauge
	old      atomic.Bool // as stale
}

func newMetrics() *metrics {
	entries := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "signpost_denylist_entries",
		Help: "Entries of the denylist in force, by kind.",
	}, []string{"kind"})
	denied := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_denylist_denied_total",
		Help: "Keys and peers that were asked for and denied, by kind of the entry.",
	}, []string{"kind"})
	leftOut := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_denylist_left_out_results_total",
		Help: "Results left out of answers, by kind of the entry.",
	}, []string{"kind"})
	m := &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_denylist_reload_failures_total",
			Help: "Times that a changed denylist could not be taken.",
		}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_denylist_stale",
			Help: "1 while the denylist in force is not that of the file, which cannot be read or does not parse.",
		}),
	}
	m.vecs = []prometheus.Collector{entries, denied, leftOut, m.failures, m.stale}
	for k, name := range kindNames {
		m.entries[k] = entries.WithLabelValues(string(name))
		m.denied[k] = denied.WithLabelValues(string(name))
		if kind(k) == ofProvider || kind(k) == ofContext {
			m.leftOut[k] = leftOut.WithLabelValues(string(name))
		}
	}
	return m
}

// read notes that a list is in force, and that of the file.
func (m *metrics) read(s *set) {
	for k, n := range s.counts() {
		m.entries[k].Set(float64(n))
	}
	m.stale.Set(0)
	m.old.Store(false)
}

// failed notes that the file could not be taken.
func (m *metrics) failed() {
	m.failures.Inc()
	m.stale.Set(1)
	m.old.Store(true)
}

// Stale says in words that the list in force is not that of the file; empty: it is,
// or there is no list.
func (l *List) Stale() string {
	if l == nil || !l.metrics.old.Load() {
		return ""
	}
	return "what was read of " + l.file + " before is in force"
}

// Describe and Collect make a List a prometheus.Collector.
func (l *List) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range l.metrics.vecs {
		v.Describe(ch)
	}
}

// Collect gives the figures of the list.
func (l *List) Collect(ch chan<- prometheus.Metric) {
	for _, v := range l.metrics.vecs {
		v.Collect(ch)
	}
}
