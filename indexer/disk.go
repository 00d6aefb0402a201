package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/shirou/gopsutil/v4/disk"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest/mirror"
)

// latch is what the watch decides about; a store is one.
type latch interface {
	Frozen() bool
	FreezeFor(at time.Time, why string) error
	Unfreeze() error
	DiskUsage() int64
}

// diskWatch measures usage and freezes the node when it reaches the limit. It
// is the only one that sets or lifts the latch.
type diskWatch struct {
	latch   latch
	log     *slog.Logger
	stat    func(dir string) (diskUsage, error)
	metrics *diskMetrics

	mu      sync.Mutex // one measurement or decision at a time
	limit   float64    // percent; negative: none
	volumes []*volume
	near    bool
	broken  bool // the last check failed
	hold    hold

	last atomic.Pointer[diskReport] // nil: not measured yet
	why  atomic.Pointer[string]     // the last check failed; nil: it did not
}

// diskReport is what a check has found. It is not changed any more.
type diskReport struct {
	percent float64 // of the fullest
	volumes []volume
	limit   float64
	near    bool
	left    time.Duration // until the limit
	growing bool          // left is foreseen
}

func newDiskWatch(ix *Indexer) (*diskWatch, error) {
	data := []string{ix.cfg.DataDir, filepath.Join(ix.cfg.DataDir, "store")}
	var others []string
	if dir := mirror.Dir(ix.cfg.MirrorTo); dir != "" {
		others = append(others, dir)
	}
	volumes, err := volumesOf(data, others, uint64(ix.store.MinFree()), deviceOf)
	if err != nil {
		return nil, fmt.Errorf("find file systems: %w", err)
	}
	if q := ix.cfg.DiskQuotaBytes; q > 0 {
		volumes = append(volumes, &volume{dirs: []string{ix.cfg.DataDir}, quota: true, usage: diskUsage{total: uint64(q)}})
	}
	d := &diskWatch{latch: ix.store, limit: ix.cfg.FreezePercent, log: ix.log, stat: statDisk, volumes: volumes, metrics: newDiskMetrics(ix.registry)}
	if d.hold, err = readHold(filepath.Join(ix.cfg.DataDir, holdFile)); err != nil {
		return nil, err
	}
	d.metrics.limit.Set(d.limit)
	return d, nil
}

func statDisk(dir string) (diskUsage, error) {
	u, err := disk.Usage(dir)
	if err != nil {
		return diskUsage{}, fmt.Errorf("measure disk usage of %s: %w", dir, err)
	}
	return diskUsage{used: u.Used, free: u.Free, total: u.Total}, nil
}

// setLimit holds from the next check on; what is frozen stays so.
func (d *diskWatch) setLimit(percent float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = percent
	d.metrics.limit.Set(percent)
	if d.last.Load() != nil {
		d.report()
	}
}

// run measures until ctx ends, more often the sooner the limit may be reached.
func (d *diskWatch) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			timer.Reset(d.check())
		}
	}
}

// diskRetry is when a latch that could not be written is tried again.
const diskRetry = time.Second

// check measures once, freezes the node if it is time to, and says when to
// check again. Trouble is logged when it begins.
func (d *diskWatch) check() (wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.measure()
	wait = nextCheck(d.volumes, d.limit)
	if why := d.full(); why != "" && !d.latch.Frozen() {
		if ferr := d.freeze(why); ferr != nil {
			err = errors.Join(err, fmt.Errorf("freeze; will be tried again: %w", ferr))
			wait = max(wait, diskRetry)
		}
	}
	if err != nil && !d.broken {
		d.log.Error("disk watch", "err", err)
	}
	d.broken = err != nil
	d.why.Store(nil)
	if err != nil {
		d.why.Store(new(err.Error()))
	}
	d.metrics.failed.Set(flag(d.broken))
	if d.latch.Frozen() {
		return diskCheckMax
	}
	return wait
}

// measure looks at all volumes. After an error what was seen before holds of
// those that cannot be measured. The caller holds mu.
func (d *diskWatch) measure() error {
	now := time.Now()
	var errs []error
	for _, v := range d.volumes {
		u := diskUsage{used: uint64(max(d.latch.DiskUsage(), 0)), total: v.usage.total}
		if v.quota {
			u.free = u.total - min(u.used, u.total)
		} else {
			var err error
			if u, err = d.stat(v.dirs[0]); err != nil {
				v.failed = true
				errs = append(errs, err)
				continue
			}
		}
		v.usage, v.known, v.failed = u, true, false
		v.growth.see(now, float64(u.used))
	}
	d.report()
	return errors.Join(errs...)
}

// report makes what was measured known. The caller holds mu.
func (d *diskWatch) report() {
	r := &diskReport{percent: -1, limit: d.limit}
	var nearest *volume
	for _, v := range d.volumes {
		if !v.known {
			continue
		}
		r.percent = max(r.percent, v.percent())
		r.volumes = append(r.volumes, *v)
		if v.near(d.limit, d.near) && (nearest == nil || v.room(d.limit) < nearest.room(d.limit)) {
			nearest = v
		}
		if left, ok := v.growth.until(v.room(d.limit)); ok && d.limit >= 0 && (!r.growing || left < r.left) {
			r.left, r.growing = left, true
		}
	}
	r.near = nearest != nil
	switch {
	case r.near && !d.near && !d.latch.Frozen():
		left := "not foreseen"
		if r.growing {
			left = r.left.Round(time.Second).String()
		}
		d.log.Warn("disk comes close to the limit: the node will freeze", "dir", nearest.dirs[0], "usage", nearest.percent(),
			"limit", d.limit, "room", humanize.IBytes(uint64(max(nearest.room(d.limit), 0))), "left", left)
	case d.near && !r.near:
		d.log.Info("disk is no longer close to the limit", "usage", r.percent, "limit", d.limit)
	}
	d.near = r.near
	d.last.Store(r)
	d.metrics.show(r)
}

// full says why the node has to freeze; "" if it need not. The caller holds mu.
func (d *diskWatch) full() string {
	for _, v := range d.volumes {
		if why := v.full(d.limit); why != "" {
			return why
		}
	}
	return ""
}

// freeze sets the latch. The caller holds mu.
func (d *diskWatch) freeze(why string) error {
	if err := d.latch.FreezeFor(time.Now(), why); err != nil {
		return err
	}
	d.log.Warn("frozen: no new content is stored, removals and lookups go on", "why", why)
	return nil
}

// freezeOnRequest sets the latch unless it is set.
func (d *diskWatch) freezeOnRequest() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.latch.Frozen() {
		return nil
	}
	return d.freeze(string(admin.FrozenByRequest) + ": an operator asked for it")
}

// unfreeze lifts the latch, unless the node would freeze again at once.
func (d *diskWatch) unfreeze() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.latch.Frozen() {
		return nil
	}
	if left := d.hold.left(time.Now()); left > 0 {
		return fmt.Errorf("%w for another %v, as frontends were told (%s): try again then", admin.ErrHeld, left.Round(time.Second), d.hold.Reason)
	}
	if err := d.measure(); err != nil {
		return fmt.Errorf("%w: the node stays frozen, as nobody knows whether there is room: %w", admin.ErrUnavailable, err)
	}
	if why := d.full(); why != "" {
		_, text, _ := strings.Cut(why, ": ")
		return fmt.Errorf("%w: %s: the node would freeze again at once; make room (signpost store compact, store remove-provider, "+
			"a larger disk), or give it another limit", admin.ErrDiskFull, text)
	}
	if err := d.latch.Unfreeze(); err != nil {
		return err
	}
	d.log.Warn("unfrozen on request: content is taken again")
	return nil
}

// percent is the last measurement; -1 if there is none.
func (d *diskWatch) percent() float64 {
	if r := d.last.Load(); r != nil {
		return r.percent
	}
	return -1
}
