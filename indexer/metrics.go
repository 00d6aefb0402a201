package indexer

import (
	"math"

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

// diskMetrics are those of the watch over the disk.
type diskMetrics struct {
	usage, limit, left, near, failed prometheus.Gauge
	used, total, free                *prometheus.GaugeVec // by dir
}

func newDiskMetrics(r prometheus.Registerer) *diskMetrics {
	byDir := []string{"dir"}
	m := &diskMetrics{
		usage: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_indexer_disk_usage_percent", Help: "Of the fullest file system, or of the quota if that is more.",
		}),
		limit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_indexer_freeze_percent", Help: "Usage at which the node freezes; negative: never by itself.",
		}),
		left: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_indexer_freeze_forecast_seconds", Help: "Time until the node freezes if it goes on growing as in the last minute; +Inf if it does not grow.",
		}),
		near: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_indexer_freeze_near", Help: "1 when a tenth of the disk or ten minutes are left until the node freezes.",
		}),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_indexer_disk_watch_failed", Help: "1 while usage cannot be measured, or the node cannot be frozen.",
		}),
		used: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signpost_indexer_disk_used_bytes", Help: "In use on a file system the node writes to.",
		}, byDir),
		total: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signpost_indexer_disk_total_bytes", Help: "Size of a file system the node writes to.",
		}, byDir),
		free: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "signpost_indexer_disk_free_bytes", Help: "What the node may still write on a file system.",
		}, byDir),
	}
	m.left.Set(math.Inf(1))
	r.MustRegister(m.usage, m.limit, m.left, m.near, m.failed, m.used, m.total, m.free)
	return m
}

func (m *diskMetrics) show(r *diskReport) {
	m.usage.Set(r.percent)
	m.near.Set(flag(r.near))
	m.left.Set(math.Inf(1))
	if r.growing {
		m.left.Set(r.left.Seconds())
	}
	for _, v := range r.volumes {
		if !v.quota {
			m.used.WithLabelValues(v.dirs[0]).Set(float64(v.usage.used))
			m.total.WithLabelValues(v.dirs[0]).Set(float64(v.usage.total))
			m.free.WithLabelValues(v.dirs[0]).Set(float64(v.usage.free))
		}
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// newAnnounceMetrics count announces that came to this node, by way (direct is
// HTTP) and by what became of them.
func newAnnounceMetrics(r prometheus.Registerer) *prometheus.CounterVec {
	m := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_indexer_announces_total", Help: "Announces heard, by way (direct or gossip) and result: taken, repeated, refused or unavailable.",
	}, []string{"way", "result"})
	for _, way := range []string{"direct", "gossip"} {
		for _, result := range []string{"taken", "repeated", "refused", "unavailable"} {
			m.WithLabelValues(way, result)
		}
	}
	r.MustRegister(m)
	return m
}
