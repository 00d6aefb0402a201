package ingest

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/store"
)

type metrics struct {
	ads                        *prometheus.CounterVec // by verdict
	adsDelayed, adsKnown, gaps prometheus.Counter
	adsWalked, blocksFetched   prometheus.Counter
	fetchSeconds               prometheus.Histogram
	multihashes                atomic.Uint64
	multihashesSkipped         prometheus.Counter
	bytesFetched               prometheus.Counter
	syncsDone, syncsFailed     prometheus.Counter
	syncSeconds                prometheus.Histogram
	stageSeconds               *prometheus.HistogramVec
	mirrorFiles, mirrorFailed  prometheus.Counter
	mirrorBlocks, mirrorUnread prometheus.Counter
	overAllowance              prometheus.Counter
	maybeRepeated              prometheus.Counter
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
		ads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_ingest_ads_total", Help: "Advertisements that got their verdict.",
		}, []string{"verdict"}),
		adsDelayed:         counter("signpost_ingest_ads_delayed_total", "Failed tries of an advertisement that will be tried again."),
		adsKnown:           counter("signpost_ingest_ads_known_total", "Advertisements not fetched because the same one stands as part of another publisher's chain."),
		adsWalked:          counter("signpost_ingest_ads_walked_total", "Advertisements passed by walks back along chains."),
		blocksFetched:      counter("signpost_ingest_fetched_blocks_total", "Blocks fetched from publishers and mirrors."),
		overAllowance:      counter("signpost_ingest_over_allowance_total", "Times a publisher was paused because it had used what one may have."),
		maybeRepeated:      counter("signpost_ingest_maybe_repeated_multihashes_total", "Multihashes of contexts new here, in chains taken over in the middle: an update that repeats what the other indexer holds is among them."),
		gaps:               counter("signpost_ingest_gaps_total", "Walks back along a chain that ended at a missing or undecodable advertisement."),
		mirrorFiles:        counter("signpost_ingest_mirror_files_total", "Advertisements written to the mirror."),
		mirrorFailed:       counter("signpost_ingest_mirror_failed_total", "Advertisements that could not be written to the mirror."),
		mirrorBlocks:       counter("signpost_ingest_mirror_blocks_total", "Blocks read from a mirror instead of the publisher."),
		mirrorUnread:       counter("signpost_ingest_mirror_unread_total", "Reads of a mirror that failed for another reason than that it had nothing."),
		multihashesSkipped: counter("signpost_ingest_multihashes_skipped_total", "Multihashes dropped because they do not decode or are out of bounds."),
		bytesFetched:       counter("signpost_ingest_fetched_bytes_total", "Bytes of blocks fetched from publishers."),
		syncsDone:          counter("signpost_ingest_syncs_done_total", "Sessions with a publisher that ended without an error."),
		syncsFailed:        counter("signpost_ingest_syncs_failed_total", "Sessions with a publisher that ended with an error."),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signpost_ingest_sync_seconds", Help: "Duration of a session with a publisher.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}),
		fetchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signpost_ingest_fetch_seconds", Help: "Time it took to fetch a block, until it was all here.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}),
		stageSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "signpost_ingest_stage_seconds", Help: "Time an advertisement took from one stage to another.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 12),
		}, []string{"stage"}),
	}
	if reg != nil {
		reg.MustRegister(m.syncSeconds, m.fetchSeconds, m.stageSeconds, m.ads, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "signpost_ingest_multihashes_total", Help: "Multihashes taken from entries.",
		}, func() float64 { return float64(m.multihashes.Load()) }))
	}
	return m
}

// applied counts an ad with its verdict.
func (m *metrics) applied(v store.Verdict) { m.ads.WithLabelValues(v.String()).Inc() }

// MirrorFailures count advertisements not written to the mirror, and reads of one
// that failed.
func (i *Ingester) MirrorFailures() []prometheus.Collector {
	return []prometheus.Collector{i.metrics.mirrorFailed, i.metrics.mirrorUnread}
}

// Multihashes is how many were taken from entries since Open.
func (i *Ingester) Multihashes() uint64 { return i.metrics.multihashes.Load() }
