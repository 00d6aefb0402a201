package assigner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func seqs(p EventPage) string {
	var out []uint64
	for _, e := range p.Events {
		out = append(out, e.Seq)
	}
	return fmt.Sprint(out)
}

func TestEventsAreFoundByNumberAndWhomTheyConcern(t *testing.T) {
	es := newEvents(nil, 0)
	for i := range 6 {
		es.add(Event{Publisher: peer.ID([]string{"P", "Q"}[i%2]), Indexer: "X", From: peer.ID([]string{"Y", "", "Z"}[i%3])})
	}
	for _, test := range []struct {
		q    EventQuery
		want string
	}{
		{EventQuery{}, "[1 2 3 4 5 6]"},
		{EventQuery{Since: 4}, "[5 6]"},
		{EventQuery{Since: 6}, "[]"},
		{EventQuery{Since: 600}, "[1 2 3 4 5 6]"}, // asked of a process before this one
		{EventQuery{Limit: 2}, "[5 6]"},
		{EventQuery{Publisher: "P"}, "[1 3 5]"},
		{EventQuery{Indexer: "X", Limit: 1}, "[6]"},
		{EventQuery{Indexer: "Y"}, "[1 4]"},
		{EventQuery{Indexer: "Y", Publisher: "Q"}, "[4]"},
	} {
		if got := es.page(test.q); seqs(got) != test.want || got.Newest != 6 {
			t.Errorf("%+v: %s, newest %d, want %s", test.q, seqs(got), got.Newest, test.want)
		}
	}
}

func TestOnlyTheLastEventsAreRemembered(t *testing.T) {
	es := newEvents(nil, 0)
	const over = 7
	for range maxEvents + over {
		es.add(Event{})
	}
	p := es.page(EventQuery{})
	if len(p.Events) != maxEvents || p.Events[0].Seq != over+1 || p.Events[maxEvents-1].Seq != maxEvents+over {
		t.Errorf("%d events from %d", len(p.Events), p.Events[0].Seq)
	}
	for i, e := range p.Events {
		if e.Seq != uint64(over+1+i) {
			t.Fatalf("event %d has number %d", i, e.Seq)
		}
	}
}

// readEvents reads a file of events, every line of which has to be one.
func readEvents(t *testing.T, path string) (all []Event) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %q: %v", path, lines.Text(), err)
		}
		all = append(all, e)
	}
	return all
}

// runEvents has events written to path until stop is called.
func runEvents(t *testing.T, path string, limit int64) (es *events, stop func()) {
	t.Helper()
	file, seq, err := openEventFile(path, prometheus.NewCounter(prometheus.CounterOpts{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if limit > 0 {
		file.limit = limit
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = file.run(ctx) }) // returns nil
	return newEvents(file, seq), func() { cancel(); wg.Wait() }
}

func TestEventsGoOnInTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	es, stop := runEvents(t, path, 0)
	es.add(Event{Kind: EventOperator, Text: "one", Publisher: realID(t, 1)})
	es.add(Event{Kind: EventOperator, Text: "two"})
	stop()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"Seq":900,"Ti`); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	es, stop = runEvents(t, path, 0)
	es.add(Event{Text: "three"})
	stop()
	if p := es.page(EventQuery{}); p.Newest != 3 {
		t.Errorf("newest %d, want 3", p.Newest)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	var last Event
	if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil || last.Seq != 3 || len(lines) != 4 {
		t.Errorf("last of %d lines: %+v, %v", len(lines), last, err)
	}
}

func TestTheEventsFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	es, stop := runEvents(t, path, 2000)
	for range 100 {
		es.add(Event{Text: "something happened"})
	}
	stop()
	old, now := readEvents(t, path+".old"), readEvents(t, path)
	if len(now) == 0 || len(old) == 0 || now[len(now)-1].Seq != 100 || old[len(old)-1].Seq+1 != now[0].Seq {
		t.Errorf("%d old, %d new", len(old), len(now))
	}
	for _, p := range []string{path, path + ".old"} {
		if info, err := os.Stat(p); err != nil || info.Size() > 2000 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
}

// TestASlowDiskCostsEventLinesOnly: nobody writes here at all.
func TestASlowDiskCostsEventLinesOnly(t *testing.T) {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{})
	file, _, err := openEventFile(filepath.Join(t.TempDir(), "events"), dropped, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer file.close()
	es := newEvents(file, 0)
	for range maxEventQueue + 5 {
		es.add(Event{})
	}
	if n := testutil.ToFloat64(dropped); n != 5 {
		t.Errorf("%v dropped, want 5", n)
	}
	if p := es.page(EventQuery{}); len(p.Events) != maxEventQueue+5 {
		t.Errorf("%d in memory", len(p.Events))
	}
}
