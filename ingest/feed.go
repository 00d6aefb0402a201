package ingest

import (
	"sync"
	"time"

	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

const (
	// backlogPage is how many ads of the backlog are read from the store at once.
	backlogPage = 512
	// maxFresh and maxFreshBytes bound the decoded ads that wait in memory
	// between scan and apply. What is above is read from the backlog later.
	maxFresh      = 4096
	maxFreshBytes = 16 << 20
)

// job is one ad to be applied.
type job struct {
	store.PendingAd
	ad    *schema.Advertisement // nil: to be fetched
	raw   []byte                // its block, if it is to be mirrored
	bytes int                   // of its block; 0 if ad is nil
}

// feed chooses which ad of a publisher is applied next: first those a scan has
// just passed, so that new content does not wait behind a backlog, then the
// backlog on disk, oldest first. Ads whose next try is in the future are
// passed over. Safe for concurrent use by a session's scanner and lanes.
type feed struct {
	read func(again bool, after store.Position, limit int) ([]store.PendingAd, error)
	over func() bool // the session has had its time

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced when a waiting lane should look again
	fresh      []job
	freshBytes int
	page       []store.PendingAd
	again      bool           // the pass has come to the ads to be applied again
	after      store.Position // last of the page
	passed     bool           // the pass has come to its end
	dirty      bool           // something came on disk that the pass may have missed
	busy       map[feedKey]bool
	coming     map[feedKey]bool
	handled    map[feedKey]bool // since the page was read
	scanning   bool
	closed     bool // nothing is given any more
	drained    chan struct{}
	err        error

	// later is the earliest next try of what the pass has left on disk.
	later time.Time
	left  bool
}

// feedKey names an ad of the backlog: one position can stand in both lists.
type feedKey struct {
	pos   store.Position
	again bool
}

func keyOf(a store.PendingAd) feedKey { return feedKey{a.Pos, a.Again} }

func newFeed(read func(bool, store.Position, int) ([]store.PendingAd, error), over func() bool) *feed {
	return &feed{
		read: read, over: over,
		changed: make(chan struct{}), drained: make(chan struct{}),
		busy: make(map[feedKey]bool), handled: make(map[feedKey]bool), coming: make(map[feedKey]bool),
		scanning: true,
	}
}

// expect announces ads that are about to be written to disk and then pushed:
// a pass over the disk leaves them alone.
func (f *feed) expect(jobs []job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range jobs {
		f.coming[keyOf(j.PendingAd)] = true
	}
}

// push offers expected ads that are on disk now, in the order they should be
// applied: before those that wait already, or behind.
func (f *feed) push(jobs []job, before bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.coming)
	n := 0
	for ; n < len(jobs) && len(f.fresh)+n < maxFresh && f.freshBytes+jobs[n].bytes <= maxFreshBytes; n++ {
		f.freshBytes += jobs[n].bytes
	}
	f.dirty = f.dirty || n < len(jobs)
	if before {
		f.fresh = append(jobs[:n:n], f.fresh...)
	} else {
		f.fresh = append(f.fresh, jobs[:n]...)
	}
	f.tell()
}

// look says that ads came on disk which were not pushed.
func (f *feed) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = true
	f.tell()
}

// setScanning says whether the scanner may still find ads. It returns false if
// the feed is closed already: the scanner is too late.
func (f *feed) setScanning(scanning bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.scanning = scanning
	f.tell()
	return true
}

// next returns an ad to be applied, to be given back with done. When there is
// none, wait is closed once there may be one, or nil when the session has come
// to its end.
func (f *feed) next() (j job, ok bool, wait <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.over() {
		f.close()
		return job{}, false, nil
	}
	for len(f.fresh) > 0 {
		j, f.fresh = f.fresh[0], f.fresh[1:]
		f.freshBytes -= j.bytes
		if f.begin(j.PendingAd) {
			return j, true, nil
		}
	}
	a, ok, err := f.fromBacklog()
	switch {
	case err != nil:
		f.err = err
		f.close()
		return job{}, false, nil
	case ok:
		return job{PendingAd: a}, true, nil
	case len(f.busy) > 0 || f.scanning:
		return job{}, false, f.changed
	}
	f.close()
	return job{}, false, nil
}

// more says whether another lane would have something to do at once.
func (f *feed) more() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.closed && (len(f.fresh) > 0 || len(f.page) > 0 || !f.passed)
}

func (f *feed) begin(a store.PendingAd) bool {
	k := keyOf(a)
	if f.busy[k] || f.handled[k] {
		return false
	}
	f.busy[k] = true
	return true
}

// fromBacklog goes on with the pass over what is on disk.
func (f *feed) fromBacklog() (store.PendingAd, bool, error) {
	for {
		for len(f.page) > 0 {
			a := f.page[0]
			f.page = f.page[1:]
			if k := keyOf(a); f.handled[k] || f.busy[k] || f.coming[k] {
				continue
			}
			if at := a.Trouble.Next; at.After(time.Now()) {
				f.waits(at)
				continue
			}
			if f.begin(a) {
				return a, true, nil
			}
		}
		if f.passed {
			if !f.dirty {
				return store.PendingAd{}, false, nil
			}
			f.passed, f.dirty, f.again, f.after = false, false, false, 0
			f.left, f.later = false, time.Time{}
		}
		if err := f.readPage(); err != nil {
			return store.PendingAd{}, false, err
		}
	}
}

func (f *feed) readPage() error {
	page, err := f.read(f.again, f.after, backlogPage)
	if err != nil {
		return err
	}
	clear(f.handled)
	if len(page) > 0 {
		f.page = page
		f.after = page[len(page)-1].Pos
	}
	if len(page) < backlogPage { // nothing behind it
		f.passed, f.again, f.after = f.again, true, 0
	}
	return nil
}

// waits notes when something left on disk is due.
func (f *feed) waits(at time.Time) {
	if !f.left || at.Before(f.later) {
		f.left, f.later = true, at
	}
}

// done gives an ad back. again is when it is due if it was not applied, zero
// if it was.
func (f *feed) done(j job, again time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, keyOf(j.PendingAd))
	f.handled[keyOf(j.PendingAd)] = true
	f.forgetHandled()
	if !again.IsZero() {
		f.waits(again)
	}
	f.tell()
}

// forgetHandled drops what cannot be given again. The next page is read long
// after a chain of millions of ads has begun to pass by.
func (f *feed) forgetHandled() {
	if len(f.handled) < 2*(len(f.page)+len(f.fresh)+backlogPage) {
		return
	}
	kept := make(map[feedKey]bool)
	keep := func(a store.PendingAd) {
		if k := keyOf(a); f.handled[k] {
			kept[k] = true
		}
	}
	for _, a := range f.page {
		keep(a)
	}
	for _, j := range f.fresh {
		keep(j.PendingAd)
	}
	f.handled = kept
}

// settle ends the feed if nobody works on it.
func (f *feed) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.busy) == 0 {
		f.close()
	}
}

// stop ends the feed before everything was given.
func (f *feed) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
}

func (f *feed) close() {
	if f.closed {
		return
	}
	f.closed = true
	close(f.drained)
	f.tell()
}

func (f *feed) tell() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// rest returns when what is left is due; at once if the feed was ended early.
func (f *feed) rest() (later time.Time, left bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.fresh) > 0 || len(f.page) > 0 || !f.passed || f.dirty || len(f.busy) > 0 {
		return time.Time{}, true, f.err
	}
	return f.later, f.left, f.err
}
