package postings

import "github.com/prometheus/client_golang/prometheus"

// metrics of one index.
type metrics struct {
	flushed          prometheus.Counter
	flushErrors      prometheus.Counter
	splits           prometheus.Counter
	throttled        prometheus.Counter
	backgroundErrors prometheus.Counter
	salvages         prometheus.Counter
	all              []prometheus.Collector
}

func newMetrics() *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "signpost_postings_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	m.flushed = counter("flushed_total", "Postings written from memory to buckets.")
	m.flushErrors = counter("flush_errors_total", "Flushes and splits that failed and are tried again.")
	m.splits = counter("splits_total", "Regions that got wider bucket keys.")
	m.throttled = counter("throttled_seconds_total", "Time flushes waited for compaction.")
	m.salvages = counter("salvages_total", "Times damaged buckets were taken away.")
	m.backgroundErrors = counter("background_errors_total", "Failed background work of the database.")
	return m
}

func (m *metrics) register(r prometheus.Registerer, x *Index) error {
	if r == nil {
		return nil
	}
	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_postings_bytes", Help: "Bytes of the buckets on disk.",
	}, func() float64 { return float64(x.DiskBytes()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "signpost_postings_paced_seconds_total", Help: "Time puts, flushes and compactions gave way to lookups.",
		}, x.pace.pausedSeconds))
	m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_postings_lost_ratio", Help: "Part of the hash space where postings were lost to damage.",
	}, x.LostShare))
	for i, c := range m.all {
		if err := r.Register(c); err != nil {
			for _, c := range m.all[:i] {
				r.Unregister(c)
			}
			return err
		}
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if r == nil {
		return
	}
	for _, c := range m.all {
		r.Unregister(c)
	}
}

// DiskBytes returns the bytes of the index on disk; 0 when closed.
func (x *Index) DiskBytes() uint64 {
	if x.enter() != nil {
		return 0
	}
	defer x.leave()
	return x.db.Metrics().DiskSpaceUsage()
}

// LostShare is the part of the hash space, 0 to 1, where postings were lost.
func (x *Index) LostShare() float64 { return x.meta.Load().lost.share() }
