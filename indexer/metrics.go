package indexer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/store"
)

// pollMetrics are those of the book of publishers.
type pollMetrics struct {
	publishers     *prometheus.GaugeVec
	polls, removed prometheus.Counter
}

func newPollMetrics() *pollMetrics {
	return &pollMetrics{
		publishers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signpost_indexer_publishers", Help: "Publishers known, by state.",
		}, []string{"state"}),
		polls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_indexer_polls_total", Help: "Silent publishers asked.",
		}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_indexer_publishers_removed_total", Help: "Publishers removed because they were silent for too long.",
		}),
	}
}

func (m *pollMetrics) register(r prometheus.Registerer) {
	r.MustRegister(m.publishers, m.polls, m.removed)
}

func (m *pollMetrics) show(phases map[store.Phase]int) {
	for p := store.PhaseActive; p <= store.PhaseReturning; p++ {
		m.publishers.WithLabelValues(p.String()).Set(float64(phases[p]))
	}
}
