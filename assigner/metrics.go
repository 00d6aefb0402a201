package assigner

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the assigner's counters. All names begin with signpost_assigner_.
type metrics struct {
	*announceMetrics
	announces         *prometheus.CounterVec // by source
	duplicates        prometheus.Counter
	forwards          *prometheus.CounterVec // by result
	steps             *prometheus.CounterVec // by step and result
	spentHandoffs     prometheus.Counter
	indexers          *prometheus.GaugeVec // by state
	publishers        prometheus.Gauge
	unplaced          prometheus.Gauge
	lookFailures      prometheus.Counter
	preferredFailures prometheus.Counter
	lookSeconds       prometheus.Histogram
	planSeconds       prometheus.Histogram
	lookUpFailures    prometheus.Counter
	eventsDropped     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help})
	}
	counters := func(name, label, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Namespace: "signpost", Subsystem: "assigner", Name: name, Help: help, Buckets: buckets})
	}
	return &metrics{
		announceMetrics: newAnnounceMetrics(r),
		announces:       counters("announces_received_total", "source", "Announces received, by source: direct (HTTP) or gossip."),
		duplicates:      counter("announces_duplicate_total", "Announces dropped because they were received before."),
		forwards:        counters("announces_forwarded_total", "result", "Announces sent to indexers, by result: accepted or failed. A retry counts again."),
		steps: f.NewCounterVec(prometheus.CounterOpts{Namespace: "signpost", Subsystem: "assigner", Name: "steps_total",
			Help: "Steps that indexers were told, by step (assign, handoff, close, backfill, release) and result."}, []string{"step", "result"}),
		spentHandoffs: counter("handoffs_spent_total", "Handoffs that were accepted and left nothing assigned."),
		indexers: f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "signpost", Subsystem: "assigner", Name: "indexers",
			Help: "Members of the pool, by state."}, []string{"state"}),
		publishers:        gauge("publishers", "Publishers assigned to some indexer."),
		unplaced:          gauge("publishers_unplaced", "Known publishers that have no active indexer and that none can take now."),
		lookFailures:      counter("look_failures_total", "Looks at an indexer that failed."),
		preferredFailures: counter("preferred_failures_total", "Looks at an indexer that did not get its preferred publishers."),
		lookSeconds:       histogram("look_seconds", "Time one look at one indexer took.", prometheus.ExponentialBuckets(0.001, 4, 8)),
		lookUpFailures:    counter("dns_failures_total", "Look-ups of a name in the pool that failed."),
		eventsDropped:     counter("events_dropped_total", "Events that could not be written to the events file."),
		planSeconds:       histogram("plan_seconds", "Time to plan and hand out the steps.", prometheus.ExponentialBuckets(0.0001, 4, 8)),
	}
}

func (m *metrics) received(direct bool) {
	source := "gossip"
	if direct {
		source = "direct"
	}
	m.announces.WithLabelValues(source).Inc()
}

func (m *metrics) forwarded(err error) {
	result := "accepted"
	if err != nil {
		result = "failed"
	}
	m.forwards.WithLabelValues(result).Inc()
}

func (m *metrics) step(k Kind, r stepResult) {
	m.steps.WithLabelValues(k.String(), string(r)).Inc()
}

// setPool sets the gauges.
func (m *metrics) setPool(states map[State]int, publishers, unplaced int) {
	for _, s := range []State{StateActive, StateFrozen, StateResting, StateStandby, StateDraining, StateDown, StateCrashing, StateLost, StateUnknown} {
		m.indexers.WithLabelValues(string(s)).Set(float64(states[s]))
	}
	m.publishers.Set(float64(publishers))
	m.unplaced.Set(float64(unplaced))
}
