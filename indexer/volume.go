package indexer

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/signpost-index/signpost/api/admin"
)

// diskUsage is the state of a file system in bytes. free is what this process
// may still write.
type diskUsage struct{ used, free, total uint64 }

// volume is a file system the node writes to, or the quota of its data
// directory, and how fast it fills.
type volume struct {
	dirs    []string // on it; the first one names it
	quota   bool
	minFree uint64 // bytes to stay free; not of a quota

	usage  diskUsage
	known  bool // usage was measured
	failed bool // not at the last try
	growth forecast
}

// size is what percent are of.
func (v *volume) size() float64 {
	if v.quota {
		return float64(v.usage.total)
	}
	return float64(v.usage.used) + float64(v.usage.free)
}

// percent is the part in use; above 100 only of a quota.
func (v *volume) percent() float64 {
	if v.size() == 0 {
		return 100
	}
	return 100 * float64(v.usage.used) / v.size()
}

// room is how many bytes more make the node freeze at limit percent; 0 or less:
// it is time to.
func (v *volume) room(limit float64) float64 {
	if limit < 0 {
		return math.Inf(1)
	}
	room := v.size()*limit/100 - float64(v.usage.used)
	if v.minFree > 0 {
		room = min(room, float64(v.usage.free)-float64(v.minFree))
	}
	return room
}

// full says why the node has to freeze because of v, after an admin.FrozenBy and
// a colon, as it is kept with the latch; "" if it need not.
func (v *volume) full(limit float64) string {
	switch {
	case !v.known || v.room(limit) > 0:
		return ""
	case v.quota:
		return fmt.Sprintf("%s: %s are stored, %.1f %% of the quota of %s, and the limit is %g %%", admin.FrozenByQuota,
			humanize.IBytes(v.usage.used), v.percent(), humanize.IBytes(v.usage.total), limit)
	case float64(v.usage.used) >= v.size()*limit/100:
		return fmt.Sprintf("%s: %.1f %% of the file system of %s are in use, and the limit is %g %%", admin.FrozenByPercent,
			v.percent(), v.dirs[0], limit)
	}
	return fmt.Sprintf("%s: %s are free on the file system of %s, and %s must be", admin.FrozenByFree,
		humanize.IBytes(v.usage.free), v.dirs[0], humanize.IBytes(v.minFree))
}

// How often usage is measured. Measuring takes microseconds.
const (
	diskCheckMax = 10 * time.Second
	diskCheckMin = 100 * time.Millisecond
	// checksToLimit is how many times at least usage is measured before the
	// limit is reached at the rate seen.
	checksToLimit = 4
	// fastestFill is what a disk is thought to take at the most, bytes a second,
	// so that growth which begins between two checks is seen in time.
	fastestFill = 1 << 30
)

// nextCheck is how long the next measurement may wait.
func nextCheck(volumes []*volume, limit float64) time.Duration {
	wait := diskCheckMax
	for _, v := range volumes {
		if v.known && !v.failed {
			seconds := v.room(limit) / max(checksToLimit*v.growth.pace(), fastestFill)
			if seconds < wait.Seconds() {
				wait = time.Duration(seconds * float64(time.Second))
			}
		}
	}
	return max(wait, diskCheckMin)
}

// When the node is said to be near its limit, and when no more.
const (
	nearPart  = 0.10 // of the size, left until the limit
	nearTime  = 10 * time.Minute
	clearPart = 0.12
	clearTime = 20 * time.Minute
)

// near says whether v comes close to the limit; was, whether it was so before.
func (v *volume) near(limit float64, was bool) bool {
	part, patience := nearPart, nearTime
	if was {
		part, patience = clearPart, clearTime
	}
	if !v.known || limit < 0 {
		return false
	}
	left, growing := v.growth.until(v.room(limit))
	return v.room(limit) < part*v.size() || growing && left < patience
}

// volumesOf groups directories by file system. Those given first are of the
// data, where minFree must stay free; others need room for a file of a mirror.
func volumesOf(data, others []string, minFree uint64, device func(dir string) (string, error)) ([]*volume, error) {
	var all []*volume
	byDevice := make(map[string]*volume)
	var errs []error
	add := func(dir string, minFree uint64) {
		id, err := device(dir)
		if err != nil {
			errs = append(errs, err)
			return
		}
		v := byDevice[id]
		if v == nil {
			v = &volume{}
			byDevice[id] = v
			all = append(all, v)
		}
		v.dirs = append(v.dirs, dir)
		v.minFree = max(v.minFree, minFree)
	}
	for _, dir := range data {
		add(dir, minFree)
	}
	for _, dir := range others {
		add(dir, mirrorMinFree)
	}
	return all, errors.Join(errs...)
}

// mirrorMinFree is what must be free where a mirror is, bytes.
const mirrorMinFree = 256 << 20
