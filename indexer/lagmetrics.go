package indexer

import (
	"github.com/prometheus/client_golang/prometheus"
)

// lagBuckets are seconds, from what nobody minds to a week.
var lagBuckets = []float64{1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}

var (
	lagDesc = prometheus.NewDesc("signpost_indexer_publisher_lag_seconds",
		"How long the mark of a publisher has not moved while ads wait: the 20 with the longest lag.", []string{"publisher"}, nil)
	lagsDesc = prometheus.NewDesc("signpost_indexer_publishers_lag_seconds",
		"The lags of all publishers as they are now, 0 if nothing waits.", nil, nil)
	waitingDesc = prometheus.NewDesc("signpost_indexer_pending_ads",
		"Advertisements of all publishers that are known and have no verdict.", nil, nil)
	gapsDesc = prometheus.NewDesc("signpost_indexer_publishers_with_gap",
		"Publishers whose chains break off at an advertisement that cannot be had.", nil, nil)
)

// Describe and Collect make a surveyor a prometheus.Collector. However many
// publishers there are, it names laggardsShown of them.
func (s *surveyor) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagDesc, lagsDesc, waitingDesc, gapsDesc} {
		ch <- d
	}
}

// Collect gives the last survey.
func (s *surveyor) Collect(ch chan<- prometheus.Metric) {
	v := s.result()
	for _, b := range v.behind[:min(len(v.behind), laggardsShown)] {
		ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, b.lag.Seconds(), b.publisher.String())
	}
	sum, counts := 0.0, make(map[float64]uint64, len(lagBuckets))
	for _, le := range lagBuckets {
		counts[le] = uint64(v.publishers - len(v.behind))
	}
	for _, b := range v.behind {
		sum += b.lag.Seconds()
		for _, le := range lagBuckets {
			if b.lag.Seconds() <= le {
				counts[le]++
			}
		}
	}
	ch <- prometheus.MustNewConstHistogram(lagsDesc, uint64(v.publishers), sum, counts)
	ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(v.pending))
	ch <- prometheus.MustNewConstMetric(gapsDesc, prometheus.GaugeValue, float64(v.gaps))
}
