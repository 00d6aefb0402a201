package find

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts what a handler answers.
type metrics struct {
	seconds   *prometheus.HistogramVec
	results   prometheus.Counter
	missed    prometheus.Counter
	partial   prometheus.Counter
	undecided prometheus.Counter
	failed    prometheus.Counter
	oversized prometheus.Counter
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_find_request_seconds",
			Help:    "Time to answer a find API request in full.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}, []string{"endpoint"}),
		results:   counter("signpost_find_results_total", "Results sent in answers to finds."),
		missed:    counter("signpost_find_missed_total", "Finds answered 404: everyone who could know said no."),
		partial:   counter("signpost_find_partial_total", "Answers sent without what some backends may know."),
		undecided: counter("signpost_find_undecided_total", "Requests answered 503: nothing found, and some backends did not answer."),
		failed:    counter("signpost_find_failed_total", "Requests answered 500 or cut off: this node failed."),
		oversized: counter("signpost_find_oversized_total", "Results left out of a stream: longer than a line may be."),
	}
}

// measured times h under the name of its endpoint.
func (m *metrics) measured(endpoint string, h http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(endpoint)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := prometheus.NewTimer(seconds)
		defer timer.ObserveDuration()
		h.ServeHTTP(w, r)
	})
}
