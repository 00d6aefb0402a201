package deny

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api/find"
)

// journal is a log to read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// take is what was logged since the last take.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.text.String()
	j.text.Reset()
	return s
}

// bench is a list that runs in a bubble's time, over a real file whose times are
// those of the bubble.
type bench struct {
	t    *testing.T
	list *List
	log  *journal
	file string
}

func (b *bench) write(lines ...string) {
	b.t.Helper()
	next := b.file + ".new"
	err := os.WriteFile(next, []byte(strings.Join(lines, "\n")), 0o600)
	if err = errors.Join(err, os.Chtimes(next, time.Now(), time.Now()), os.Rename(next, b.file)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) denies(text string) bool {
	return b.list.now.Load().key(mhOf(text)) != nil
}

// watched runs a list of lines while do changes its file.
func watched(t *testing.T, lines []string, do func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, log: &journal{}, file: filepath.Join(t.TempDir(), "deny.txt")}
		b.write(lines...)
		list, err := Open(Config{File: b.file, Logger: slog.New(slog.NewTextHandler(b.log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b.list = list
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- list.Run(ctx) }()
		do(b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// within is the promise for a change.
func within() { pass(5 * time.Second) }

// pass lets time pass in a bubble, and what is due then be done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestAChangeIsInForceWithinFiveSeconds: replaced, written in place, or touched; and the
// log has what changed.
func TestAChangeIsInForceWithinFiveSeconds(t *testing.T) {
	watched(t, []string{multihashLine("a", "one"), providerLine("P", "")}, func(b *bench) {
		log := b.log.take()
		for _, part := range []string{`msg="denylist in force"`, "file=" + b.file, "sha256=", "entries.multihash=1 entries.provider=1", "added.multihash=1 added.provider=1", "removed=0"} {
			if !strings.Contains(log, part) {
				t.Errorf("at start: log lacks %s: %s", part, log)
			}
		}
		within()
		b.write(multihashLine("a", "two"), multihashLine("b", ""), doubleLine("c", ""))
		within()
		if !b.denies("a") || !b.denies("b") || !b.denies("c") {
			t.Error("the new list is not in force")
		}
		log = b.log.take()
		if !strings.Contains(log, "entries.multihash=2 entries.double-hash=1 added.multihash=1 added.double-hash=1 removed.provider=1 reasons_changed=1") {
			t.Errorf("log: %s", log)
		}
		// In place, of the same size.
		if err := os.WriteFile(b.file, []byte(multihashLine("z", "two")+"\n"+multihashLine("b", "")+"\n"+doubleLine("c", "")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(b.file, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		within()
		if b.denies("a") || !b.denies("z") {
			t.Error("a change in place is not in force")
		}
		b.log.take()
		if err := os.Chtimes(b.file, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		within()
		if log := b.log.take(); log != "" {
			t.Errorf("nothing changed, and the log says %s", log)
		}
		b.write()
		within()
		if b.denies("b") || b.list.now.Load().len() != 0 {
			t.Error("an empty list denies something")
		}
	})
}

// TestABrokenListChangesNothing: the one before stays in force, the log says so once with
// line and remedy, and the figures until it is mended. So it is with one that is gone.
func TestABrokenListChangesNothing(t *testing.T) {
	watched(t, []string{multihashLine("a", "")}, func(b *bench) {
		reg := prometheus.NewRegistry()
		reg.MustRegister(b.list)
		within()
		b.log.take()
		for n, breakIt := range []func(){
			func() { b.write(multihashLine("b", ""), "multihash oops") },
			func() { b.write(providerLine("P", ""), "# "+strings.Repeat("x", maxLine)) },
			func() { b.write(strings.Repeat("\x00", 4000)) },
			func() {
				if err := os.Remove(b.file); err != nil {
					t.Fatal(err)
				}
			},
		} {
			breakIt()
			pass(time.Minute)
			if !b.denies("a") || b.denies("b") {
				t.Errorf("%d: the list before is not in force", n)
			}
			log := b.log.take()
			if strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, b.file) || !strings.Contains(log, ";") || !strings.Contains(log, "stays in force") {
				t.Errorf("%d: log: %s", n, log)
			}
			if n == 0 && !strings.Contains(log, b.file+":2: ") {
				t.Errorf("%d: log: %s", n, log)
			}
			if stale, failures := testutil.ToFloat64(b.list.metrics.stale), testutil.ToFloat64(b.list.metrics.failures); stale != 1 || failures != float64(n+1) {
				t.Errorf("%d: stale %v, failures %v", n, stale, failures)
			}
			b.write(multihashLine("a", ""))
			within()
			if log := b.log.take(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "is the one in force") {
				t.Errorf("%d: mended: %s", n, log)
			}
			if testutil.ToFloat64(b.list.metrics.stale) != 0 {
				t.Errorf("%d: still stale", n)
			}
		}
		if n, err := testutil.GatherAndCount(reg, "signpost_denylist_entries"); err != nil || n != int(kinds) {
			t.Errorf("%d series of entries, %v", n, err)
		}
	})
}

// TestAListHalfWrittenIsNotRead: while the file changes, what is in force does not.
func TestAListHalfWrittenIsNotRead(t *testing.T) {
	watched(t, []string{multihashLine("a", "")}, func(b *bench) {
		within()
		b.log.take()
		for n := range 20 {
			b.write(multihashLine("b", ""), strings.Repeat("x", n+1))
			pass(700 * time.Millisecond)
		}
		if log := b.log.take(); log != "" || !b.denies("a") || b.denies("b") {
			t.Errorf("log: %s", log)
		}
		b.write(multihashLine("b", ""))
		within()
		if b.denies("a") || !b.denies("b") {
			t.Error("the whole list is not in force")
		}
	})
}

// TestAListThatNeverRestsIsToldOf: it is not read, and the operator knows, once; when it
// rests it is in force.
func TestAListThatNeverRestsIsToldOf(t *testing.T) {
	watched(t, []string{multihashLine("a", "")}, func(b *bench) {
		within()
		b.log.take()
		for n := range 200 {
			b.write(multihashLine("b", ""), "# "+fmt.Sprint(n))
			pass(lookEvery)
		}
		if log := b.log.take(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "it has changed at each of 60 looks; change it") || !b.denies("a") {
			t.Errorf("log: %s", log)
		}
		if stale := testutil.ToFloat64(b.list.metrics.stale); stale != 1 {
			t.Errorf("stale %v", stale)
		}
		within()
		if stale := testutil.ToFloat64(b.list.metrics.stale); stale != 0 || !b.denies("b") || b.denies("a") {
			t.Errorf("stale %v, and the list is not in force", stale)
		}
	})
}

// TestReloadIsAtOnce, and its error is told to who asked and not again.
func TestReloadIsAtOnce(t *testing.T) {
	watched(t, nil, func(b *bench) {
		b.write(multihashLine("b", ""))
		if err := b.list.Reload(); err != nil || !b.denies("b") {
			t.Errorf("%v", err)
		}
		b.write("oops")
		if err := b.list.Reload(); err == nil || !strings.Contains(err.Error(), b.file+":1: ") || !b.denies("b") {
			t.Errorf("%v", err)
		}
		b.log.take()
		pass(time.Minute)
		if log := b.log.take(); log != "" {
			t.Errorf("log: %s", log)
		}
	})
}

// TestAListReadAsItChangesIsReadAgain: the second of two changes within a tick of the file
// system's clock is not missed, though the file looks as it did when it was read.
func TestAListReadAsItChangesIsReadAgain(t *testing.T) {
	watched(t, nil, func(b *bench) {
		at := time.Now()
		change := func(text string) {
			if err := os.WriteFile(b.file, []byte(multihashLine(text, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(b.file, at, at); err != nil {
				t.Fatal(err)
			}
		}
		change("a")
		if err := b.list.Reload(); err != nil {
			t.Fatal(err)
		}
		change("b")
		within()
		if b.denies("a") || !b.denies("b") {
			t.Error("the second change was missed")
		}
	})
}

// TestClientsCannotFillTheLog: ten lookups a minute are in it, and the sum of all; each
// counts in the figures. What a double hash hides stays hidden.
func TestClientsCannotFillTheLog(t *testing.T) {
	watched(t, []string{multihashLine("a", "one"), doubleLine("b", "two"), providerLine("P", "three")}, func(b *bench) {
		b.log.take()
		x := &index{results: map[string][]find.ProviderResult{string(mhOf("c")): {result("P", "1"), result("P", "2")}}}
		f := b.list.Finder(x, true)
		for n := range 1000 {
			for range f.Find(t.Context(), mhOf([]string{"a", "b", "c"}[n%3])) {
			}
		}
		log := b.log.take()
		if strings.Count(log, "\n") != 10 || strings.Contains(log, mhOf("b").B58String()) {
			t.Errorf("log: %s", log)
		}
		for _, part := range []string{
			"kind=multihash denied=" + mhOf("a").B58String() + " reason=one",
			fmt.Sprintf("kind=double-hash denied=%x reason=two", []byte(saltedOf(mhOf("b")))[2:]),
			"kind=provider denied=" + peerOf("P").String() + " reason=three",
		} {
			if !strings.Contains(log, part) {
				t.Errorf("log lacks %s: %s", part, log)
			}
		}
		pass(time.Minute)
		if log := b.log.take(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "lookups.multihash=334 lookups.double-hash=333 lookups.provider=333") {
			t.Errorf("sum: %s", log)
		}
		pass(time.Hour)
		if log := b.log.take(); log != "" {
			t.Errorf("without lookups: %s", log)
		}
		if denied, left := testutil.ToFloat64(b.list.metrics.denied[ofProvider]), testutil.ToFloat64(b.list.metrics.leftOut[ofProvider]); denied != 333 || left != 666 {
			t.Errorf("%v denied, %v results left out", denied, left)
		}
	})
}

// TestAListIsSwappedUnderLookups: while it changes, each lookup has one list or the other.
func TestAListIsSwappedUnderLookups(t *testing.T) {
	l := listOf(t, multihashLine("a", ""))
	x := &index{results: map[string][]find.ProviderResult{}}
	stop := make(chan struct{})
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			f := l.Finder(&index{results: x.results}, false)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, err := range f.Find(t.Context(), mhOf("a")) {
					if denied := (*find.DeniedError)(nil); err != nil && !errors.As(err, &denied) {
						t.Error(err)
					}
				}
			}
		})
	}
	for n := range 50 {
		line := multihashLine([]string{"a", "b"}[n%2], "")
		if err := os.WriteFile(l.file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.Reload(); err != nil && !errors.Is(err, errChanging) {
			t.Fatal(err)
		}
	}
	close(stop)
	g.Wait()
}
