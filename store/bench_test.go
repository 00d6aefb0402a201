package store

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The figures of doc/benchmarks.md: `make bench` and `make bench-long` run
//
//	go test -count 1 -timeout 0 -run '^TestFigures$' -v ./store -figures 'store/20M plain/20M'
//
// One case after the other is measured by a process of its own in a directory
// of its own below TMPDIR, and then one table shows all:
//
//	puts → flush → settle → lookups → compact → lookups → lookups beside ingest
//
// plain is the base line; where a size has both, a column shows their ratio.

var figureCases = flag.String("figures", "", "measure these `cases`, KIND/SIZE[/MEMORY[/WRITERS]] each, such as "+
	"'store/20M/1GiB/1 plain/20M ads10/200k', and print a table")

func TestFigures(t *testing.T) {
	if *figureCases == "" {
		t.Skip("no -figures")
	}
	var cases []benchCase
	for _, text := range strings.Fields(*figureCases) {
		c, err := parseCase(text)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	checkNeeds(t, cases)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var measured []column
	for _, c := range cases {
		f, err := c.runApart(ctx)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		measured = append(measured, column{head: c.heading(), figures: f})
	}
	printTables(os.Stdout, measured)
}

// checkNeeds says what the cases will take and fails if the disk has not as
// much.
func checkNeeds(t *testing.T, cases []benchCase) {
	dir := os.TempDir()
	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sum time.Duration
	for _, c := range cases {
		disk, elapsed := c.needs()
		sum += elapsed
		fmt.Printf("%-28s up to %s GB of disk, about %s\n", c.Name, number(float64(disk)/1e9), elapsed.Round(10*time.Second))
		if disk > usage.AvailBytes {
			t.Errorf("%s needs up to %s GB of disk, %s has %s GB free: set TMPDIR", c.Name,
				number(float64(disk)/1e9), dir, number(float64(usage.AvailBytes)/1e9))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	fmt.Printf("about %s in all, one after the other, in %s with %s GB free\n%d x %s, %s GB of memory, %s %s/%s\n",
		sum.Round(time.Minute), dir, number(float64(usage.AvailBytes)/1e9), runtime.NumCPU(), machine(),
		number(float64(procNumber("/proc/meminfo", "MemTotal")<<10)/1e9), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// printTables prints the cases of many multihashes in one table, with ratios,
// and those of small ads in another.
func printTables(w io.Writer, measured []column) {
	var large, small []column
	for _, c := range measured {
		if strings.Contains(c.head[1], "ads") {
			small = append(small, c)
			continue
		}
		large = append(large, c)
		if c.head[0] != "plain" {
			continue
		}
		for _, base := range measured {
			if base.head[0] == "store" && base.head[1] == c.head[1] {
				large = append(large, column{head: []string{"store", "is better", "by"}, figures: ratios(base.figures, c.figures), ratio: true})
				break
			}
		}
	}
	for _, cols := range [][]column{large, small} {
		if len(cols) > 0 {
			fmt.Fprintf(w, "\n%s", table(cols))
		}
	}
}

// benchCaseEnv and benchDirEnv are set for the process that measures a case.
const (
	benchCaseEnv = "STORE_BENCH_CASE"
	benchDirEnv  = "STORE_BENCH_DIR"
)

// runApart measures a case in a process and a directory of its own.
func (c benchCase) runApart(ctx context.Context) (f figures, err error) {
	dir, err := os.MkdirTemp("", "signpost-store-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary)
	// Two malloc arenas and a limit for Go's heap, as signpost indexer has.
	cmd.Env = append(os.Environ(), "MALLOC_ARENA_MAX=2", benchCaseEnv+"="+string(text), benchDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	// The process ends when its input does, which is when this one ends.
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err := errors.Join(err, ctx.Err(), ignoreClosed(in.Close())); err != nil {
		return nil, err
	}
	return f, json.Unmarshal(out, &f)
}

// ignoreClosed passes an error on unless it says that a pipe was closed, which
// waiting for a process does.
func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// runBenchCase measures the case of the environment, prints its figures as
// JSON and ends the process.
func runBenchCase() {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * runtime.NumCPU()) // as signpost indexer does
	}
	var c benchCase
	die(json.Unmarshal([]byte(os.Getenv(benchCaseEnv)), &c))
	if c.Kind != "plain" {
		debug.SetMemoryLimit(c.MemoryBytes - OffHeapBytes(c.MemoryBytes) + 64<<20)
	}
	f, err := c.run(context.Background(), os.Getenv(benchDirEnv), func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	})
	die(err)
	die(json.NewEncoder(os.Stdout).Encode(f))
	os.Exit(0)
}

// TestFiguresOfSmallCases measures what is too small to mean anything.
func TestFiguresOfSmallCases(t *testing.T) {
	var measured []column
	for _, text := range []string{"store/20k/16MiB/2", "plain/20k/16MiB/2", "ads10/200/16MiB"} {
		c, err := parseCase(text)
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind != "ads" {
			c.AdMHs, c.Ads = 2000, 10
		}
		c.Finds, c.Beside, c.Quiet, c.Every = 100, 100*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
		f, err := c.run(t.Context(), filepath.Join(t.TempDir(), "empty"), t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range f {
			if math.IsNaN(g.Value) || math.IsInf(g.Value, 0) || g.Value < 0 && !strings.HasPrefix(g.Name, "CPU") {
				t.Errorf("%s: %s is %v", text, g.Name, g.Value)
			}
		}
		measured = append(measured, column{head: c.heading(), figures: f})
	}
	var b strings.Builder
	printTables(&b, measured)
	t.Logf("\n%s", b.String())
}

func TestParseCase(t *testing.T) {
	for text, want := range map[string]benchCase{
		"store/20M":         {Kind: "store", AdMHs: 81920, Ads: 245, MemoryBytes: 1 << 30, Writers: 1},
		"plain/1M/64MiB":    {Kind: "plain", AdMHs: 81920, Ads: 13, MemoryBytes: 64 << 20, Writers: 1},
		"store/1e9/4GiB/2":  {Kind: "store", AdMHs: 81920, Ads: 12208, MemoryBytes: 4 << 30, Writers: 2},
		"ads10/200k/1GiB/1": {Kind: "ads", AdMHs: 10, Ads: 200_000, MemoryBytes: 1 << 30, Writers: 1},
	} {
		got, err := parseCase(text)
		want.Name, want.Finds, want.Beside, want.Quiet, want.Every = text, got.Finds, got.Beside, got.Quiet, got.Every
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "store", "store/0", "store/1.5", "store/x", "other/1M", "store/1M/0", "store/1M/1GiB/0", "store/1M/1GiB/1/1", "ads/1M", "store/1Mk"} {
		if c, err := parseCase(text); err == nil {
			t.Errorf("%q: %+v", text, c)
		}
	}
}
