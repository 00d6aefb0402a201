package indexer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/shirou/gopsutil/v4/disk"
)

// How often usage is measured: often when close to the limit, since a disk
// fills fastest where it matters most.
const (
	diskCheckFar  = 10 * time.Second
	diskCheckNear = time.Second
	nearPercent   = 15 // points below the limit
)

// diskWatch measures usage and freezes the node when it reaches the limit.
type diskWatch struct {
	ix    *Indexer
	usage atomic.Uint64 // percent times 1000, plus 1; 0 is not measured
	gauge prometheus.Gauge
}

func newDiskWatch(ix *Indexer) *diskWatch {
	d := &diskWatch{ix: ix, gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "signpost_indexer_disk_usage_percent",
		Help: "Larger of file system use and data directory over quota, 0 to 100.",
	})}
	ix.registry.MustRegister(d.gauge)
	return d
}

// measure returns the larger of file-system use and data/quota, percent.
func (d *diskWatch) measure() (float64, error) {
	u, err := disk.Usage(d.ix.cfg.DataDir)
	if err != nil {
		return 0, fmt.Errorf("measure disk usage of %s: %w", d.ix.cfg.DataDir, err)
	}
	percent := u.UsedPercent
	if q := d.ix.cfg.DiskQuotaBytes; q > 0 {
		percent = max(percent, 100*float64(d.ix.store.DiskUsage())/float64(q))
	}
	d.usage.Store(uint64(percent*1000) + 1)
	d.gauge.Set(percent)
	return percent, nil
}

// percent is the last measurement; -1 if there is none.
func (d *diskWatch) percent() float64 {
	if u := d.usage.Load(); u > 0 {
		return float64(u-1) / 1000
	}
	return -1
}

func shouldFreeze(percent, limit float64) bool { return limit >= 0 && percent >= limit }

// run measures until ctx ends.
func (d *diskWatch) run(ctx context.Context) error {
	failed := false
	for {
		wait := diskCheckFar
		percent, err := d.check()
		if err != nil && !failed {
			d.ix.log.Error("disk watch", "err", err)
		}
		failed = err != nil
		if percent >= d.ix.cfg.FreezePercent-nearPercent {
			wait = diskCheckNear
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// check measures once and freezes the node if it is time to.
func (d *diskWatch) check() (float64, error) {
	percent, err := d.measure()
	if err != nil {
		return 0, err
	}
	limit := d.ix.cfg.FreezePercent
	if d.ix.store.Frozen() || !shouldFreeze(percent, limit) {
		return percent, nil
	}
	if err := d.ix.store.Freeze(time.Now()); err != nil {
		return percent, errors.Join(errors.New("freeze; will be tried again"), err)
	}
	d.ix.log.Warn("frozen: no new content is stored, removals and lookups go on", "usage", percent, "limit", limit)
	return percent, nil
}
