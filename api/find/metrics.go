package find

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts what a handler answers.
type metrics struct {
	seconds   *prometheus.HistogramVec
	line      prometheus.Observer // of seconds; likewise cid and multihash
	cid       prometheus.Observer
	multihash prometheus.Observer
	results   prometheus.Counter
	missed    prometheus.Counter
	partial   prometheus.Counter
	undecided prometheus.Counter
	failed    prometheus.Counter
	oversized prometheus.Counter
	denied    prometheus.Counter
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
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
		denied:    counter("signpost_find_denied_total", "Keys answered 410, or cut off in a stream: a denylist, here or at a backend, forbids the answer."),
	}
	m.line, m.cid, m.multihash = m.seconds.WithLabelValues("line"), m.seconds.WithLabelValues("cid"), m.seconds.WithLabelValues("multihash")
	return m
}

// measured times h under the name of its endpoint.
func (m *metrics) measured(endpoint string, h http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(endpoint)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer observe(seconds, time.Now())
		h.ServeHTTP(w, r)
	})
}

func observe(seconds prometheus.Observer, since time.Time) {
	seconds.Observe(time.Since(since).Seconds())
}
