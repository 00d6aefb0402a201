package assigner

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// journalCase is a journal in a directory of its own, opened again and again.
type journalCase struct {
	t       *testing.T
	dir     string
	max     int
	metrics *announceMetrics
	log     bytes.Buffer
	*journal
	seq uint64
}

func newJournalCase(t *testing.T) *journalCase {
	return &journalCase{t: t, dir: t.TempDir(), max: 1 << 20, metrics: newAnnounceMetrics(nil)}
}

// open opens the journal and returns what is in it, as "publisher@head" with
// publishers by their place in ids.
func (c *journalCase) open(ids []peer.ID) []string {
	c.t.Helper()
	j, found, err := openJournal(c.dir, c.max, slog.New(slog.NewTextHandler(&c.log, nil)), c.metrics)
	if err != nil {
		c.t.Fatal(err)
	}
	c.journal = j
	var words []string
	for _, e := range found {
		words = append(words, fmt.Sprintf("%d@%s", slices.Index(ids, e.Publisher.ID), headWord(e.Head)))
		c.seq = max(c.seq, e.seq)
	}
	return words
}

// add puts an announce and returns its batch.
func (c *journalCase) add(publisher peer.ID, word string) *batch {
	c.t.Helper()
	payload, err := encodePut(announceOf(publisher, word), time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	c.seq++
	return c.put(publisher, payload, c.seq, false)
}

// mustKeep waits until an announce is on disk.
func (c *journalCase) mustKeep(publisher peer.ID, word string) {
	c.t.Helper()
	b := c.add(publisher, word)
	<-b.done
	if b.err != nil {
		c.t.Fatal(b.err)
	}
}

// file is what kill -9 would leave now.
func (c *journalCase) file() []byte {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, journalName))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func openedWith(t *testing.T, file []byte, ids []peer.ID) (*journalCase, []string) {
	t.Helper()
	c := newJournalCase(t)
	if err := os.WriteFile(filepath.Join(c.dir, journalName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	got := c.open(ids)
	c.close()
	return c, got
}

func TestJournalKeepsTheNewestOfEachPublisherUntilDelivered(t *testing.T) {
	ids := publisherIDs(t, 1, 3)
	c := newJournalCase(t)
	if got := c.open(ids); got != nil {
		t.Fatalf("a new journal has %v", got)
	}
	for i, id := range ids {
		c.mustKeep(id, fmt.Sprint("old ", i))
	}
	c.mustKeep(ids[0], "new 0")
	c.drop(ids[1], c.seq)                              // delivered
	c.drop(ids[0], c.seq-1)                            // of the one before: says nothing
	c.close()                                          // writes what nobody waits for
	for _, when := range []string{"first", "second"} { // opening changes nothing of it
		if got := c.open(ids); !slices.Equal(got, []string{"2@old 2", "0@new 0"}) {
			t.Errorf("%s time: found %v", when, got)
		}
		c.close()
	}
}

func TestJournalledAnnounceComesBackAsItWas(t *testing.T) {
	c := newJournalCase(t)
	c.open(nil)
	an, at := announceOf(realID(t, 1), "h"), time.Unix(1_700_000_000, 5)
	for _, direct := range []bool{true, false} {
		an.Direct = direct
		payload, err := encodePut(an, at)
		if err != nil {
			t.Fatal(err)
		}
		<-c.put(an.Publisher.ID, payload, 7, direct).done
		c.close()
		j, found, err := openJournal(c.dir, c.max, c.journal.log, c.metrics)
		if err != nil {
			t.Fatal(err)
		}
		c.journal = j
		e := found[0]
		if e.Key() != an.Key() || e.Direct != direct || e.stranger != direct || e.seq != 7 || !e.at.Equal(at) {
			t.Errorf("got %+v, want %+v", e, an)
		}
	}
	c.close()
}

func TestJournalTornAtAnyByteKeepsAllWholeRecords(t *testing.T) {
	ids := publisherIDs(t, 1, 5)
	c := newJournalCase(t)
	c.open(ids)
	ends := []int{journalHeader} // of whole records
	var words []string
	for i, id := range ids {
		word := fmt.Sprint("head ", i)
		c.mustKeep(id, word)
		ends, words = append(ends, len(c.file())), append(words, fmt.Sprintf("%d@%s", i, word))
	}
	file := c.file()
	c.close()
	for cut := journalHeader; cut <= len(file); cut++ {
		whole := 0
		for _, end := range ends[1:] {
			if end <= cut {
				whole++
			}
		}
		_, got := openedWith(t, file[:cut], ids)
		if !slices.Equal(got, words[:whole]) {
			t.Fatalf("cut at %d of %d: found %v, want %v", cut, len(file), got, words[:whole])
		}
	}
}

func TestDamageOfTheJournalCostsOnlyTheRecordThatItHits(t *testing.T) {
	ids := publisherIDs(t, 1, 4)
	c := newJournalCase(t)
	c.open(ids)
	var ends []int
	for i, id := range ids {
		c.mustKeep(id, fmt.Sprint("head ", i))
		ends = append(ends, len(c.file()))
	}
	file := c.file()
	c.close()
	for at := ends[0]; at < ends[2]; at++ { // the second and third record
		hit := slices.Clone(file)
		hit[at] ^= 0x55
		lost := 1
		if at >= ends[1] {
			lost = 2
		}
		dc, got := openedWith(t, hit, ids)
		if len(got) != 3 || slices.Contains(got, fmt.Sprintf("%d@head %d", lost, lost)) {
			t.Fatalf("damaged at %d: found %v, want all but %d", at, got, lost)
		}
		if n := testutil.ToFloat64(dc.metrics.journalDamaged); n != 1 || !bytes.Contains(dc.log.Bytes(), []byte("damaged records")) {
			t.Fatalf("damaged at %d: counted %v, logged %s", at, n, dc.log.String())
		}
	}
}

func TestHostileRecordsAreSkipped(t *testing.T) {
	ids := publisherIDs(t, 1, 1)
	s := newSalt()
	good, err := encodePut(announceOf(ids[0], "good"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	setSeq(good, 3, false)
	file := s.appendHeader(nil)
	for _, payload := range [][]byte{nil, good[:10], good[:30], append(slices.Clone(good[:17]), 0xff), bytes.Repeat([]byte{7}, 5000)} {
		file = s.appendRecord(file, recordPut, payload)
	}
	file = s.appendRecord(file, recordDone, nil)
	file = s.appendRecord(file, 77, good)
	file = s.appendRecord(file, recordPut, good)
	c, got := openedWith(t, file, ids)
	if !slices.Equal(got, []string{"0@good"}) {
		t.Errorf("found %v", got)
	}
	if n := testutil.ToFloat64(c.metrics.journalDamaged); n != 7 {
		t.Errorf("counted %v damaged records, want 7", n)
	}
}

func TestAnnounceCannotHoldWhatPassesForARecord(t *testing.T) {
	// Somebody puts a record into an announce, and then that announce's own
	// record is damaged.
	ids := publisherIDs(t, 1, 2)
	other := newSalt()
	inner, err := encodePut(announceOf(ids[1], "forged"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := newSalt()
	file := s.appendRecord(s.appendHeader(nil), recordPut, other.appendRecord(nil, recordPut, inner))
	file[journalHeader+5] ^= 1
	if _, got := openedWith(t, file, ids); got != nil {
		t.Errorf("found %v", got)
	}
}

func TestUnreadableJournalIsSetAside(t *testing.T) {
	for name, file := range map[string][]byte{
		"empty": nil, "short": []byte("signp"), "other": bytes.Repeat([]byte("x"), 1000),
	} {
		c, got := openedWith(t, file, nil)
		kept, err := os.ReadFile(c.path() + ".damaged")
		if got != nil || err != nil || !bytes.Equal(kept, file) {
			t.Errorf("%s: found %v, set aside %q %v", name, got, kept, err)
		}
		if !bytes.Contains(c.log.Bytes(), []byte("set aside")) || testutil.ToFloat64(c.metrics.journalDamaged) != 1 {
			t.Errorf("%s: logged %s", name, c.log.String())
		}
	}
}

func TestJournalOfALaterVersionIsLeftAlone(t *testing.T) {
	c := newJournalCase(t)
	s := newSalt()
	file := s.appendHeader(nil)
	file[11]++
	sum := binary.BigEndian.AppendUint32(file[:journalHeader-4], crc32.Checksum(file[:journalHeader-4], castagnoli))
	if err := os.WriteFile(filepath.Join(c.dir, journalName), sum, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(c.dir, c.max, slog.New(slog.DiscardHandler), c.metrics); !errors.Is(err, errNewerJournal) {
		t.Errorf("opened: %v", err)
	}
	if !bytes.Equal(c.file(), sum) {
		t.Error("the file was changed")
	}
}

func TestJournalHasOneAssigner(t *testing.T) {
	c := newJournalCase(t)
	c.open(nil)
	if _, _, err := openJournal(c.dir, c.max, c.journal.log, c.metrics); err == nil {
		t.Error("opened twice")
	}
	c.close()
	c.open(nil)
	c.close()
}

func TestJournalStaysWithinItsBounds(t *testing.T) {
	ids := publisherIDs(t, 1, 60)
	c := newJournalCase(t)
	c.max = 16 << 10
	c.open(ids)
	defer c.close()
	size := func() (n int64) {
		entries, err := os.ReadDir(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil { // else renamed meanwhile
				n += info.Size()
			}
		}
		return n
	}
	kept := make(map[peer.ID]bool)
	for i := range 600 {
		id := ids[i%len(ids)]
		payload, err := encodePut(announceOf(id, fmt.Sprint("head ", i)), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !c.fits(id, len(payload), false) {
			if kept[id] {
				t.Fatalf("no room for a newer announce of a publisher that is in it, after %d", i)
			}
			continue
		}
		kept[id] = true
		c.seq++
		<-c.put(id, payload, c.seq, false).done
		if n := size(); n > int64(c.max) {
			t.Fatalf("%d bytes on disk, more than %d", n, c.max)
		}
	}
	if len(kept) == len(ids) || len(kept) < 10 {
		t.Errorf("%d publishers kept: the bound was not tried", len(kept))
	}
}

func TestStrangersLeaveTheOthersRoomInTheJournal(t *testing.T) {
	c := newJournalCase(t)
	c.max = 64 << 10
	c.open(nil)
	defer c.close()
	ids := publisherIDs(t, 1, 400)
	payload := func(id peer.ID) []byte {
		b, err := encodePut(announceOf(id, "h"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	strangers := 0
	for _, id := range ids[:200] {
		if b := payload(id); c.fits(id, len(b), true) {
			strangers++
			c.seq++
			c.put(id, b, c.seq, true)
		}
	}
	// One that an indexer has now makes room for another stranger.
	if c.fits(ids[199], len(payload(ids[199])), true) {
		t.Fatal("strangers were not full")
	}
	c.known(ids[0])
	if !c.fits(ids[199], len(payload(ids[199])), true) {
		t.Error("no room after a stranger became known")
	}
	known := 0
	for _, id := range ids[200:] {
		if b := payload(id); c.fits(id, len(b), false) {
			known++
			c.add(id, "h")
		}
	}
	if strangers == 200 || known < strangers {
		t.Errorf("%d strangers and %d others have room", strangers, known)
	}
}

func TestJournalRecoversFromADiskThatFails(t *testing.T) {
	ids := publisherIDs(t, 1, 3)
	c := newJournalCase(t)
	c.open(ids)
	c.mustKeep(ids[0], "before")
	errDisk := errors.New("disk is on fire")
	failing := make(chan bool, 1)
	failing <- true
	c.close()
	// The writer's fields may be set only while it does not run.
	c.journal.closing, c.journal.done = make(chan struct{}), make(chan struct{})
	var err error
	if c.journal.file, err = os.OpenFile(c.path(), os.O_WRONLY|os.O_APPEND, 0); err != nil {
		t.Fatal(err)
	}
	c.journal.fsync = func(f *os.File) error {
		on := <-failing
		failing <- on
		if on {
			return errDisk
		}
		return f.Sync()
	}
	b := c.add(ids[1], "during")
	now := time.Now()
	c.flush(now)
	if <-b.done; !errors.Is(b.err, errDisk) {
		t.Fatalf("batch ended with %v", b.err)
	}
	b = c.add(ids[2], "at once")
	c.flush(now)
	if <-b.done; !errors.Is(b.err, errDisk) {
		t.Fatalf("second batch ended with %v", b.err)
	}
	<-failing
	failing <- false
	c.flush(now.Add(journalRetry))
	_ = c.journal.file.Close()
	if got := c.open(ids); !slices.Equal(got, []string{"0@before", "1@during", "2@at once"}) {
		t.Errorf("found %v", got)
	}
	c.close()
	if n := testutil.ToFloat64(c.metrics.journalFailures); n != 1 || !bytes.Contains(c.log.Bytes(), []byte("written again")) {
		t.Errorf("%v failures, log %s", n, c.log.String())
	}
}

func FuzzJournal(f *testing.F) {
	s := salt{1, 2, 3, 4, 5, 6, 7, 8}
	id := peer.ID("publisher")
	f.Add([]byte{})
	f.Add(s.appendRecord(nil, recordDone, encodeDone(id, 7)))
	f.Fuzz(func(t *testing.T, b []byte) {
		found := 0
		damaged, torn := s.scan(b, func(kind byte, payload []byte) {
			found++
			if kind == recordPut {
				if e, err := decodePut(payload); err == nil && e.Publisher.ID == "" {
					t.Error("an announce of nobody")
				}
			}
		})
		if damaged > found || torn > len(b) {
			t.Errorf("%d damaged, %d torn, %d found", damaged, torn, found)
		}
		// What is behind any rubbish is found.
		whole := s.appendRecord(slices.Clone(b), recordDone, encodeDone(id, 9))
		last := false
		s.scan(whole, func(kind byte, payload []byte) {
			p, seq, ok := decodeDone(payload)
			last = kind == recordDone && ok && p == id && seq == 9
		})
		if !last {
			t.Error("a whole record behind rubbish was not found")
		}
		_, _ = decodePut(b) // must not panic
	})
}
