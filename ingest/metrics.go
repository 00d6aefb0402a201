package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	adsApplied, adsRejected, adsSkippedFrozen prometheus.Counter
	multihashes, multihashesSkipped           prometheus.Counter
	bytesFetched                              prometheus.Counter
	syncsDone, syncsFailed                    prometheus.Counter
	syncSeconds                               prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		adsApplied:         counter("signpost_ingest_ads_applied_total", "Advertisements applied."),
		adsRejected:        counter("signpost_ingest_ads_rejected_total", "Advertisements rejected for good."),
		adsSkippedFrozen:   counter("signpost_ingest_ads_skipped_frozen_total", "Content advertisements whose entries were left alone because the node is frozen."),
		multihashes:        counter("signpost_ingest_multihashes_total", "Multihashes taken from entries."),
		multihashesSkipped: counter("signpost_ingest_multihashes_skipped_total", "Multihashes dropped because they do not decode or are out of bounds."),
		bytesFetched:       counter("signpost_ingest_fetched_bytes_total", "Bytes of blocks fetched from publishers."),
		syncsDone:          counter("signpost_ingest_syncs_done_total", "Syncs that reached the publisher's head."),
		syncsFailed:        counter("signpost_ingest_syncs_failed_total", "Syncs that ended with an error."),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signpost_ingest_sync_seconds", Help: "Duration of a sync.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.syncSeconds)
	}
	return m
}
