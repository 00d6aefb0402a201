package filter

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Behind is how many of all nodes are asked in every lookup, as what they lack is
// not known now.
func (p *Pool) Behind() (behind, all int) {
	followed, _, _ := p.sums()
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.nodes)-int(followed), 0), len(p.nodes)
}

type metrics struct {
	received prometheus.Counter
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer, p *Pool) *metrics {
	auto := promauto.With(reg)
	gauge := func(name, help string, of func(followed, keys, bytes float64) float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of(p.sums()) })
	}
	gauge("signpost_filter_backends", "Backends that are asked only for what they may have.", func(followed, _, _ float64) float64 { return followed })
	gauge("signpost_filter_keys", "Keys in the sets of all backends.", func(_, keys, _ float64) float64 { return keys })
	gauge("signpost_filter_bytes", "Memory of the sets of all backends.", func(_, _, bytes float64) float64 { return bytes })
	return &metrics{
		received: auto.NewCounter(prometheus.CounterOpts{
			Name: "signpost_filter_received_bytes_total",
			Help: "Bytes of keys that were put at backends and followed, without what is read of each at first.",
		}),
	}
}
