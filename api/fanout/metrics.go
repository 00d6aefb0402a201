package fanout

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts what the backends do.
type metrics struct {
	backends prometheus.Gauge
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
	open     *prometheus.GaugeVec
	spare    prometheus.Gauge
	spared   prometheus.Counter
	again    *prometheus.CounterVec
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	return &metrics{
		backends: auto.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_fanout_backends",
			Help: "Backends asked for every question.",
		}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_fanout_backend_seconds",
			Help:    "Time a backend took for its part of an answer, failed or not.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}, []string{"backend"}),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_fanout_backend_failures_total",
			Help: "Answers a backend did not give or not in time.",
		}, []string{"backend"}),
		spare: auto.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_fanout_spare_backends",
			Help: "Frozen backends any one of which may be silent without making answers partial: all it said that it holds is on others.",
		}),
		again: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_fanout_again_total",
			Help: "Answers for which nobody was asked: kept from before, or shared with another lookup under way.",
		}, []string{"answer"}),
		spared: auto.NewCounter(prometheus.CounterOpts{
			Name: "signpost_fanout_spared_total",
			Help: "Questions that backends were not asked as they lack the key.",
		}),
		open: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signpost_fanout_backend_open",
			Help: "1 while a backend that failed is asked once a second only.",
		}, []string{"backend"}),
	}
}

// tripped notes that a backend is not asked for now, or is again.
func (m *metrics) tripped(backend string, open bool) {
	v := 0.0
	if open {
		v = 1
	}
	m.open.WithLabelValues(backend).Set(v)
}

// observe counts one answer of a backend.
func (m *metrics) observe(backend string, elapsed time.Duration, failed bool) {
	m.seconds.WithLabelValues(backend).Observe(elapsed.Seconds())
	if failed {
		m.failures.WithLabelValues(backend).Inc()
	}
}

// forget drops the series of a backend that is no longer asked.
func (m *metrics) forget(backend string) {
	m.seconds.DeleteLabelValues(backend)
	m.failures.DeleteLabelValues(backend)
	m.open.DeleteLabelValues(backend)
}
