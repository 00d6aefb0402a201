package assigner

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// announceMetrics count what becomes of announces between their coming and the
// indexers.
type announceMetrics struct {
	refused           prometheus.Counter
	unavailable       *prometheus.CounterVec // by reason
	expired           prometheus.Counter
	journalPublishers prometheus.Gauge
	journalBytes      prometheus.Gauge
	journalDamaged    prometheus.Counter
	journalFailures   prometheus.Counter
	passed            *prometheus.CounterVec // by to, result
	polls             *prometheus.CounterVec // by result
	passive           prometheus.Gauge
	takenSeconds      prometheus.Histogram
}

func newAnnounceMetrics(r prometheus.Registerer) *announceMetrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help})
	}
	return &announceMetrics{
		refused: counter("announces_refused_total", "Announces of publishers that policy keeps out."),
		unavailable: counters("announces_unavailable_total",
			"Announces answered 503, by reason: no_room, journal_full, not_taken (no indexer in time, no journal), passive.", "reason"),
		expired:           counter("announces_expired_total", "Kept announces given up: no owner took them, and their room was needed."),
		journalPublishers: gauge("journal_publishers", "Publishers with an announce in the journal that no owner has taken yet."),
		journalBytes:      gauge("journal_live_bytes", "Bytes of those announces."),
		journalDamaged:    counter("journal_damaged_total", "Damaged records of the journal that were skipped."),
		journalFailures:   counter("journal_failures_total", "Writes of the journal that failed."),
		passed: counters("announces_passed_on_total",
			"Announces passed on outside the pool, by way (gossip or url) and result: accepted, failed (a retry counts again), dropped.", "way", "result"),
		polls: counters("polls_total", "Publishers that owners were asked to poll after the start, by result: asked, running, heard (an announce was there first), failed.", "result"),
		takenSeconds: f.NewHistogram(prometheus.HistogramOpts{Namespace: "signpost", Subsystem: "assigner", Name: "announce_taken_seconds",
			Help: "From hearing an announce until an owner has taken it, assigning its publisher included.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}),
		passive: gauge("passive", "1 while this assigner stands by for another, else 0."),
	}
}
