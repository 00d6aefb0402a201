package store

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the numbers of one store. They count whether or not there is a
// registerer.
type metrics struct {
	puts             prometheus.Counter
	commits          *prometheus.CounterVec // by verdict
	finds            *prometheus.CounterVec // by result, which are the next three
	hits             prometheus.Counter
	misses           prometheus.Counter
	findErrors       prometheus.Counter
	readErrors       prometheus.Counter
	backgroundErrors prometheus.Counter
	stalls           prometheus.Counter
	reclaimed        prometheus.Counter
	failed           prometheus.Gauge
	recoveries       prometheus.Counter
	noSpace          prometheus.Gauge
	syncSeconds      prometheus.Histogram
	durableSeconds   prometheus.Histogram
	followSeconds    prometheus.Histogram

	registered []prometheus.Collector
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "signpost_store_" + name, Help: help})
	}
	m := &metrics{
		puts: counter("puts_total", "Multihashes put, distinct within a batch."),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signpost_store_commits_total",
			Help: "Advertisements committed, by verdict."}, []string{"verdict"}),
		finds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signpost_store_finds_total",
			Help: "Multihashes looked up, by result: hit, miss or error."}, []string{"result"}),
		readErrors:       counter("read_errors_total", "Reads that failed where no error could be returned."),
		backgroundErrors: counter("background_errors_total", "Flushes and compactions that failed, and corrupt files."),
		reclaimed:        counter("reclaimed_total", "Postings of removed records whose space was given back."),
		stalls:           counter("write_stalls_total", "Times writes waited for the database to catch up."),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "signpost_store_failed",
			Help: "1 after a failed write: the store takes no writes until the disk is well."}),
		recoveries: counter("recoveries_total", "Times the store went on after a failed write."),
		noSpace: prometheus.NewGauge(prometheus.GaugeOpts{Name: "signpost_store_no_space",
			Help: "1 while less than the reserve is free on the disk: no content is taken."}),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "signpost_store_sync_seconds",
			Help: "Time one sync of the write-ahead log took.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		durableSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "signpost_store_durable_seconds",
			Help: "Age of the oldest commit of a sync when it became durable.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		followSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "signpost_store_follow_seconds",
			Help: "Time a sync waited for all frontends that follow the keys to have them.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	m.hits, m.misses, m.findErrors = m.finds.WithLabelValues("hit"), m.finds.WithLabelValues("miss"), m.finds.WithLabelValues("error")
	return m
}

// register registers all metrics on the store's registerer, if it has one.
func (m *metrics) register(s *Store) error {
	if s.cfg.Registerer == nil {
		return nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "signpost_store_" + name, Help: help}, f)
	}
	all := []prometheus.Collector{
		m.puts, m.commits, m.finds, m.readErrors, m.backgroundErrors, m.stalls, m.reclaimed, m.failed, m.recoveries, m.noSpace, m.syncSeconds, m.durableSeconds, m.followSeconds,
		gauge("disk_bytes", "Bytes on disk, write-ahead log included.", func() float64 { return float64(s.DiskUsage()) }),
		gauge("durable_lag_seconds", "Age of the oldest commit that is not durable.", func() float64 { return s.syncer.lag().Seconds() }),
		gauge("followers", "Frontends that follow the keys and may go by what they have.", func() float64 { return float64(s.tail.count(time.Now())) }),
		gauge("garbage_postings", "Postings of removed records whose space is not given back yet.", func() float64 { t, _ := s.Counts(); return float64(t.Garbage) }),
		gauge("postings", "Multihashes put by committed ads and not removed.", func() float64 { t, _ := s.Counts(); return float64(t.Postings) }),
		gauge("records", "(provider, context ID) pairs with metadata.", func() float64 { t, _ := s.Counts(); return float64(t.Records) }),
		gauge("frozen", "1 while the latch is set.", func() float64 {
			if s.Frozen() {
				return 1
			}
			return 0
		}),
	}
	for _, c := range all {
		if err := s.cfg.Registerer.Register(c); err != nil {
			m.unregister(s.cfg.Registerer)
			return fmt.Errorf("register store metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	for _, c := range m.registered {
		r.Unregister(c)
	}
	m.registered = nil
}
