package assigner

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// journalBytes bounds the journal's files together. The file may grow to a
	// half of it, since it is written anew beside the old one, and what is not
	// delivered may fill three quarters of the file, so that most of what is
	// written is announces and not copies of them.
	journalBytes = 64 << 20
	// strangersShare is the part of the room that announces of publishers no
	// indexer has may take: one in so many.
	strangersShare = 3
	// journalGather is how long a flush waits for more announces: at thousands a
	// second many share one fsync.
	journalGather = 2 * time.Millisecond
	// journalIdle is when at the latest written is what nobody waits for.
	journalIdle = time.Second
	// journalRetry is the time between two attempts of a journal that cannot be
	// written.
	journalRetry = time.Second

	journalName = "announces.journal"
)

// journal keeps announces that no owner has taken yet on disk: of each
// publisher the newest. What it promises:
//
//   - a batch that is done without an error is on disk, fsynced, and what is in
//     it is there after kill -9 and power loss until it is delivered, dropped or
//     replaced;
//   - the files together do not exceed max bytes: what has no room is refused;
//   - a torn tail is cut off when it is opened, and damage costs the records
//     that it hits; both are logged and counted;
//   - after a write that failed the file is written anew from memory, until that
//     succeeds; meanwhile batches end with the error.
//
// One goroutine writes; all other methods do no I/O. Safe for concurrent use.
type journal struct {
	dir     string
	max     int
	salt    salt
	log     *slog.Logger
	metrics *announceMetrics
	fsync   func(*os.File) error

	mu        sync.Mutex
	live      map[peer.ID]*journalEntry
	bytes     int // of the live records
	strangers int // of those, of strangers
	pending   []byte
	batch     *batch // of the puts in pending; nil without any

	lock    *os.File
	file    *os.File // the writer's, as are these
	size    int
	broken  error
	retryAt time.Time

	wake    chan struct{}
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
}

type journalEntry struct {
	seq      uint64
	payload  []byte
	stranger bool
	batch    *batch
}

func (e *journalEntry) bytes() int { return recordHeader + len(e.payload) }

// batch is announces that share one fsync. err may be read when done is closed.
type batch struct {
	done chan struct{}
	err  error
}

// openJournal reads the journal in dir, which it makes if it is not there, and
// locks it. It returns what is to be delivered, the oldest first. Close it.
func openJournal(dir string, limit int, log *slog.Logger, m *announceMetrics) (*journal, []journalled, error) {
	j := &journal{
		dir: dir, max: limit, salt: newSalt(), log: log, metrics: m, fsync: (*os.File).Sync,
		live: make(map[peer.ID]*journalEntry),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	var err error
	if j.lock, err = lockJournal(filepath.Join(dir, "lock")); err != nil {
		return nil, nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	found, err := j.load()
	if err == nil {
		err = j.rewrite(j.snapshot())
	}
	if err != nil {
		_ = j.lock.Close()
		return nil, nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	go j.run()
	return j, found, nil
}

func (j *journal) path() string { return filepath.Join(j.dir, journalName) }

// load reads the file, if there is one, into live.
func (j *journal) load() ([]journalled, error) {
	info, err := os.Stat(j.path())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > int64(max(j.max, journalBytes)) {
		return nil, fmt.Errorf("%s has %d bytes, which no journal has: move it away", j.path(), info.Size())
	}
	b, err := os.ReadFile(j.path())
	if err != nil {
		return nil, err
	}
	s, err := readJournalHeader(b)
	if errors.Is(err, errNewerJournal) {
		return nil, err
	}
	if err != nil {
		return nil, j.setAside(err)
	}
	return j.loadRecords(s, b[journalHeader:]), nil
}

// setAside keeps a file that says nothing any more for a person to look at.
func (j *journal) setAside(cause error) error {
	aside := j.path() + ".damaged"
	if err := os.Rename(j.path(), aside); err != nil {
		return err
	}
	j.metrics.journalDamaged.Inc()
	j.log.Error("journal cannot be read and was set aside; the announces in it are lost until their publishers repeat them",
		"file", aside, "err", cause)
	return nil
}

func (j *journal) loadRecords(s salt, b []byte) []journalled {
	found := make(map[peer.ID]journalled)
	bad := 0
	damaged, torn := s.scan(b, func(kind byte, payload []byte) {
		switch kind {
		case recordPut:
			e, err := decodePut(payload)
			if err != nil {
				bad++
				return
			}
			found[e.Publisher.ID] = e
			j.replace(e.Publisher.ID, &journalEntry{seq: e.seq, payload: bytes.Clone(payload), stranger: e.stranger})
		case recordDone:
			publisher, seq, ok := decodeDone(payload)
			if !ok {
				bad++
				return
			}
			if e := j.live[publisher]; e != nil && e.seq <= seq {
				j.replace(publisher, nil)
				delete(found, publisher)
			}
		default:
			bad++
		}
	})
	if damaged+bad > 0 {
		j.metrics.journalDamaged.Add(float64(damaged + bad))
		j.log.Error("damaged records of the journal were skipped; announces may be lost until their publishers repeat them",
			"file", j.path(), "damaged", damaged+bad)
	}
	if torn > 0 {
		j.log.Info("torn tail of the journal cut off", "file", j.path(), "bytes", torn)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b journalled) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
}

// replace puts e, or nothing, in place of the publisher's entry.
func (j *journal) replace(publisher peer.ID, e *journalEntry) {
	if old := j.live[publisher]; old != nil {
		j.bytes -= old.bytes()
		if old.stranger {
			j.strangers -= old.bytes()
		}
		delete(j.live, publisher)
	}
	if e == nil {
		return
	}
	j.live[publisher] = e
	j.bytes += e.bytes()
	if e.stranger {
		j.strangers += e.bytes()
	}
}

// room is how many bytes of records may be live.
func (j *journal) room() int { return j.max * 3 / 8 }

// fits reports whether there is room for a payload of so many bytes in place of
// what the publisher has here.
func (j *journal) fits(publisher peer.ID, payloadBytes int, stranger bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	more, moreStrange := recordHeader+payloadBytes, recordHeader+payloadBytes
	if old := j.live[publisher]; old != nil {
		more -= old.bytes()
		if old.stranger {
			moreStrange -= old.bytes()
		}
	}
	return j.bytes+more <= j.room() &&
		(!stranger || j.strangers+moreStrange <= j.room()/strangersShare)
}

// put has an announce, encoded by encodePut, written in place of the publisher's
// last. The batch ends when it is on disk.
func (j *journal) put(publisher peer.ID, payload []byte, seq uint64, stranger bool) *batch {
	setSeq(payload, seq, stranger)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.batch == nil {
		j.batch = &batch{done: make(chan struct{})}
	}
	j.replace(publisher, &journalEntry{seq: seq, payload: payload, stranger: stranger, batch: j.batch})
	j.pending = j.salt.appendRecord(j.pending, recordPut, payload)
	wake(j.wake)
	return j.batch
}

// batchOf is the batch of the publisher's announce, or nil if none is here.
func (j *journal) batchOf(publisher peer.ID) *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.live[publisher]; e != nil {
		return e.batch
	}
	return nil
}

// drop takes the publisher's announces up to seq out: an owner has one of them
// or a newer one, or they are given up.
func (j *journal) drop(publisher peer.ID, seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.live[publisher]
	if e == nil || e.seq > seq {
		return
	}
	j.replace(publisher, nil)
	j.pending = j.salt.appendRecord(j.pending, recordDone, encodeDone(publisher, seq))
}

// known notes that an indexer has the publisher now.
func (j *journal) known(publisher peer.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.live[publisher]; e != nil && e.stranger {
		j.strangers -= e.bytes()
		e.stranger = false
	}
}

// close writes what is pending and lets go of the files. It is safe to call
// twice.
func (j *journal) close() {
	j.once.Do(func() { close(j.closing) })
	<-j.done
}

// run is the writer.
func (j *journal) run() {
	defer close(j.done)
	idle := time.NewTicker(journalIdle)
	defer idle.Stop()
	gather := time.NewTimer(journalGather)
	defer gather.Stop()
	for {
		select {
		case <-j.closing:
			j.flush(time.Now())
			if j.file != nil {
				_ = j.file.Close() // what was promised has been synced
			}
			_ = j.lock.Close()
			return
		case <-idle.C:
		case <-j.wake:
			gather.Reset(journalGather)
			select {
			case <-j.closing:
			case <-gather.C:
			}
		}
		j.flush(time.Now())
	}
}

// flush writes what is pending, and ends its batch.
func (j *journal) flush(now time.Time) {
	j.mu.Lock()
	pending, b := j.pending, j.batch
	j.pending, j.batch = nil, nil
	held := j.broken != nil && now.Before(j.retryAt)
	anew := !held && (j.broken != nil || j.size+len(pending) > j.max/2)
	var all []byte
	if anew {
		all = j.snapshot()
	}
	j.metrics.journalBytes.Set(float64(j.bytes))
	j.metrics.journalPublishers.Set(float64(len(j.live)))
	j.mu.Unlock()

	var err error
	switch {
	case held:
		err = j.broken
	case anew:
		err = j.noteOutcome(j.rewrite(all), now)
	case len(pending) > 0:
		err = j.noteOutcome(j.append(pending, b != nil), now)
	}
	if b != nil {
		b.err = err
		close(b.done)
	}
}

// noteOutcome logs when the journal begins or ceases to fail.
func (j *journal) noteOutcome(err error, now time.Time) error {
	if err != nil {
		j.metrics.journalFailures.Inc()
		if j.broken == nil {
			j.log.Error("journal cannot be written: announces are answered when an indexer has them, and otherwise 503; see to the disk",
				"dir", j.dir, "err", err)
		}
		j.retryAt = now.Add(journalRetry)
	} else if j.broken != nil {
		j.log.Info("journal is written again", "dir", j.dir)
	}
	j.broken = err
	return err
}

func (j *journal) append(records []byte, durably bool) error {
	n, err := j.file.Write(records)
	j.size += n
	if err == nil && durably {
		err = j.fsync(j.file)
	}
	return err
}

// snapshot is a whole file with the live records, the oldest first.
func (j *journal) snapshot() []byte {
	b := make([]byte, 0, journalHeader+j.bytes)
	b = j.salt.appendHeader(b)
	entries := slices.SortedFunc(maps.Values(j.live), func(a, b *journalEntry) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	for _, e := range entries {
		b = j.salt.appendRecord(b, recordPut, e.payload)
	}
	return b
}

// rewrite puts a new file in place of the old one, which stays as it is until
// the new one is on disk.
func (j *journal) rewrite(all []byte) error {
	tmp := j.path() + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(all); err == nil {
		err = j.fsync(f)
	}
	if err == nil {
		err = os.Rename(tmp, j.path())
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.size = f, len(all)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
