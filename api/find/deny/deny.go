// Package deny keeps a denylist in force: a text file of what a node does not
// answer for, as somebody wants it taken down.
//
//	# comment                                     a line each; a reason may follow
//	multihash   bafy... takedown 2026-114         a multihash, or a CID that has it
//	double-hash Vc...                             the same, not told in clear
//	provider    12D3KooW... spam                  all results of a provider
//	context     12D3KooW... YmFn malware          its results under a context ID, base64
//
// [List.Finder] applies it to a [find.Finder]: a denied key is a
// *find.DeniedError, and nobody is asked about it; results of denied providers
// and contexts are left out, and if nothing else remains that is a
// *find.DeniedError too. Multihashes come first, then double hashes, providers,
// contexts; of several entries for the same thing the first in the file counts.
//
// What it promises:
//
//   - A list that does not parse is not taken, as a whole: at start that is an
//     error, and later the list before it stays in force.
//   - A change of the file is in force within 5 s ([List.Run]), for all lookups
//     that begin then; one under way goes on as it began.
//   - The file is bounded (256 MiB, 4 KiB a line, 5 million entries), and so is
//     what lookups write to the log: ten a minute, and the sum.
package deny

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is the time between two looks at the file. It is read once it
	// was the same at two looks: one half written is none.
	lookEvery = time.Second
	// sumEvery is the time between two sums of denied lookups in the log.
	sumEvery = time.Minute
	// restlessAfter is how many looks in a row may see another file.
	restlessAfter = 60
	// ticking is how long after a change another one may leave the same time on
	// the file, generously.
	ticking = 2 * time.Second
)

// Config is what a List is made of.
type Config struct {
	File string
	// Taken, if not nil, is called after a list was taken, but for the first.
	Taken func()
	// Logger may be nil.
	Logger *slog.Logger
}

// List is a denylist in force. It is safe for concurrent use, and a
// prometheus.Collector of its own figures. A nil List denies nothing.
type List struct {
	file    string
	taken   func()
	log     *slog.Logger
	now     atomic.Pointer[set]
	metrics *metrics
	audit   audit

	mu       sync.Mutex  // of those below; one reading at a time
	read     os.FileInfo // of the file that was read, or could not be; nil: read it again
	seen     os.FileInfo // at the last look
	restless int         // looks in a row that saw another file
	problem  string      // with the file, logged and not over; "" for none
}

// Open reads the file of cfg. An error names file, line and remedy.
func Open(cfg Config) (*List, error) {
	l := &List{file: cfg.File, log: cfg.Logger, metrics: newMetrics()}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.audit.log = l.log
	l.now.Store(&set{})
	if err := l.Reload(); err != nil {
		return nil, err
	}
	l.taken = cfg.Taken
	return l, nil
}

// Run looks at the file again and again, and tells the log what lookups were
// denied, until ctx ends.
func (l *List) Run(ctx context.Context) error {
	look, sum := time.NewTicker(lookEvery), time.NewTicker(sumEvery)
	defer look.Stop()
	defer sum.Stop()
	defer l.audit.sum()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			l.look()
		case <-sum.C:
			l.audit.sum()
		}
	}
}

// Reload reads the file now. After an error what was read before is in force.
func (l *List) Reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.reload(); err != nil {
		l.problem = err.Error() // the caller logs it
		return err
	}
	if age := time.Since(l.read.ModTime()); 0 <= age && age < ticking {
		l.read = nil // it may change and look the same
	}
	return nil
}

// reload is Reload for who holds l.mu.
func (l *List) reload() error {
	next, info, err := readFile(l.file)
	if errors.Is(err, errChanging) {
		l.read = nil
		return err
	}
	l.read = info
	if err != nil {
		l.metrics.failed()
		return err
	}
	was := l.problem
	l.problem = ""
	l.metrics.read(next)
	before := l.now.Swap(next)
	if before.sum == next.sum {
		if was != "" {
			l.log.Info("denylist is read again, and is the one in force", "file", l.file, "sha256", next.sum)
		}
		return nil
	}
	added, removed, changed := before.changes(next)
	l.log.Info("denylist in force", "file", l.file, "sha256", next.sum, slog.Any("entries", next.counts()),
		slog.Any("added", added), slog.Any("removed", removed), "reasons_changed", changed)
	if l.taken != nil {
		l.taken()
	}
	return nil
}

// look reads the file if it is not the one read last, and was the same at the
// look before.
func (l *List) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := os.Stat(l.file)
	if err != nil {
		l.seen, l.read = nil, nil // once it is there, it is another
		l.lost(fmt.Errorf("denylist: %w; put the file back, an empty one to deny nothing", err))
		return
	}
	settled := same(info, l.seen)
	l.seen = info
	if !settled {
		if l.restless++; l.restless == restlessAfter {
			l.lost(fmt.Errorf("denylist %s: it has changed at each of %d looks; change it once in some seconds at most", l.file, restlessAfter))
		}
		return
	}
	l.restless = 0
	if same(info, l.read) {
		return
	}
	if err := l.reload(); err != nil && !errors.Is(err, errChanging) {
		l.say(err)
	}
}

// lost notes that there is no file to read.
func (l *List) lost(err error) {
	if l.problem != err.Error() {
		l.metrics.failed()
	}
	l.say(err)
}

// say logs a problem, once.
func (l *List) say(err error) {
	if l.problem == err.Error() {
		return
	}
	l.problem = err.Error()
	l.log.Error("denylist not read; the one read before stays in force", "err", err, "sha256", cmp.Or(l.now.Load().sum, "none"))
}

// same tells whether two looks saw the same file with the same content, for
// nearly all purposes.
func same(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// MemoryBytes is about what the list takes in memory; twice that while it is read
// anew.
func (l *List) MemoryBytes() int64 {
	if l == nil {
		return 0
	}
	return l.now.Load().bytes()
}
