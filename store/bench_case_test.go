package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// benchCase is one column of the table, measured in a process of its own, so
// that memory is its own.
type benchCase struct {
	Kind        string // store, plain or ads
	Name        string
	AdMHs, Ads  uint64
	MemoryBytes int64
	Writers     int

	Finds  int           // lookups measured, a goroutine and kind
	Beside time.Duration // how long lookups are measured beside ingest
	Quiet  time.Duration // without a change on disk: settled
	Every  time.Duration // progress is said
}

// parseCase reads KIND/SIZE[/MEMORY[/WRITERS]]. KIND is store or plain and
// SIZE a number of multihashes, or KIND is ads and a number of multihashes an
// ad has and SIZE a number of ads. Memory is 1GiB and there is one writer
// unless said otherwise.
func parseCase(text string) (c benchCase, err error) {
	c = benchCase{Name: text, AdMHs: benchAdMHs, MemoryBytes: 1 << 30, Writers: 1,
		Finds: findSamples, Beside: 20 * time.Second, Quiet: 2 * time.Second, Every: 30 * time.Second}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 4 {
		return c, fmt.Errorf("case %q is not KIND/SIZE[/MEMORY[/WRITERS]]", text)
	}
	size, err := parseSize(parts[1])
	if err != nil {
		return c, fmt.Errorf("case %q: %w", text, err)
	}
	c.Kind = parts[0]
	if adMHs, ok := strings.CutPrefix(c.Kind, "ads"); ok {
		if c.AdMHs, err = parseSize(adMHs); err != nil {
			return c, fmt.Errorf("case %q: %w", text, err)
		}
		c.Kind, size = "ads", size*c.AdMHs
	}
	c.Ads = (size + c.AdMHs - 1) / c.AdMHs
	if c.Kind != "store" && c.Kind != "plain" && c.Kind != "ads" {
		return c, fmt.Errorf("case %q: kind %q is not store, plain or ads", text, c.Kind)
	}
	if len(parts) > 2 {
		memory, err := parseSize(parts[2])
		if err != nil {
			return c, fmt.Errorf("case %q: %w", text, err)
		}
		c.MemoryBytes = int64(memory)
	}
	if len(parts) > 3 {
		if c.Writers, err = strconv.Atoi(parts[3]); err != nil || c.Writers < 1 || c.Writers > 100 {
			return c, fmt.Errorf("case %q: %q writers", text, parts[3])
		}
	}
	return c, nil
}

// parseSize reads a number such as 20M, 1e9 or 64MiB; not 0.
func parseSize(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kMGiB")
	unit, ok := map[string]float64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "MiB": 1 << 20, "GiB": 1 << 30}[text[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	if n *= unit; !ok || err != nil || !(n >= 1 && n <= 1e12) || n != math.Trunc(n) {
		return 0, fmt.Errorf("size %q", text)
	}
	return uint64(n), nil
}

// heading is the top of the case's column.
func (c benchCase) heading() []string {
	size, unit := float64(c.Ads*c.AdMHs), "M mhs"
	if c.Kind == "ads" {
		size, unit = float64(c.Ads)*1e3, fmt.Sprintf("k ads of %d", c.AdMHs)
	}
	writers := "1 writer"
	if c.Writers > 1 {
		writers = fmt.Sprintf("%d writers", c.Writers)
	}
	return []string{strings.Replace(c.Kind, "ads", "store", 1), number(math.Round(size/1e4)/100) + unit,
		fmt.Sprintf("%d MiB", c.MemoryBytes>>20), writers}
}

// needs is a generous guess of the space and the time a case takes.
func (c benchCase) needs() (diskBytes uint64, elapsed time.Duration) {
	mhs := float64(c.Ads * c.AdMHs)
	switch c.Kind {
	case "plain":
		return uint64(100*mhs) + 1<<30, time.Duration(mhs/0.3e6*1e9) + 2*c.Beside
	case "ads":
		return uint64(20*mhs+2000*float64(c.Ads)) + 1<<30, time.Duration(float64(c.Ads) / 20e3 * 1e9)
	}
	// 10 bytes each, twice while all is rewritten; the log; and what is put
	// beside lookups.
	const besidePerSecond = 4e6
	disk := 20*(mhs+besidePerSecond*c.Beside.Seconds()) + float64(c.MemoryBytes) + 1<<30
	return uint64(disk), time.Duration((mhs/2e6+mhs/8e6)*1e9) + time.Minute + 2*c.Beside
}

// benchRun is a case being measured.
type benchRun struct {
	benchCase
	dir string
	mhs uint64
	fs  *countingFS
	db  benchDB
	out figures
	*progressReport
}

// run measures the case in dir, which must be empty.
func (c benchCase) run(ctx context.Context, dir string, say func(format string, args ...any)) (_ figures, err error) {
	r := &benchRun{benchCase: c, dir: dir, mhs: c.Ads * c.AdMHs, fs: newCountingFS()}
	r.progressReport = startProgress(c, dir, say)
	defer r.stop()
	if c.Kind == "plain" {
		r.db, err = openBenchPlain(dir, r.fs, c.MemoryBytes)
	} else {
		r.db, err = openBenchStore(dir, r.fs, c.MemoryBytes)
	}
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if c.Kind == "ads" {
		err = r.benchAds(ctx, r.db.(benchStore))
	} else {
		err = r.benchAll(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.phaseName(), err), r.db.close())
	}
	r.out.add(noMatter, float64(peakBytes())/(1<<20), "peak memory MiB (VmHWM), at the end")
	r.out.add(noMatter, time.Since(start).Seconds(), "seconds this all took")
	r.phase("close", nil)
	return r.out, r.db.close()
}

func (r *benchRun) benchAll(ctx context.Context) error {
	g := newIngest(r.db, r.AdMHs, r.Writers)
	mhsPerSecond, err := r.benchPuts(ctx, g, r.Ads)
	if err != nil {
		return err
	}
	if err := r.benchFinds(ctx, "settled"); err != nil {
		return err
	}
	r.phase("compact", nil)
	start := time.Now()
	if err := r.db.compact(ctx); err != nil {
		return err
	}
	quiet, err := r.fs.settle(ctx, r.Quiet, r.db.busy)
	if err != nil {
		return err
	}
	r.out.add(noMatter, max(quiet.Sub(start), 0).Seconds(), "seconds to compact fully")
	if err := r.addDiskBytes("fully compacted"); err != nil {
		return err
	}
	if err := r.benchFinds(ctx, "fully compacted"); err != nil {
		return err
	}
	return r.benchBeside(ctx, g, mhsPerSecond/2)
}
