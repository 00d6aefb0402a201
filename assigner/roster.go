package assigner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// fileEvery is the time between two looks at the pool file.
const fileEvery = 2 * time.Second

// rosterConfig is what a roster needs of the assigner.
type rosterConfig struct {
	file    string // pool file; empty: lines come from setLines
	ask     resolver
	intents *intentStore
	// apply makes members the pool. It is called by one goroutine at a time.
	apply func([]admin.PoolMember) error
	// known is the ID of the member at an admin URL, empty if that was never read;
	// waited says whether the pool still waits for it to be read.
	known  func(adminURL string) (id peer.ID, waited bool)
	events *events
	log    *slog.Logger
	// failures counts look-ups of names that failed.
	failures interface{ Inc() }
}

// roster is who is in the pool: the lines of the pool file, or those it was
// given, and the members the operator added, each name with every address that it
// had since the start, without the members the operator removed. An address that
// vanishes from DNS stays, as an indexer that is down would, until nothing is known
// of it; a look-up that fails changes nothing.
type roster struct {
	cfg rosterConfig
	// unresolved is how many names have had no answer yet, since when some had not
	// is in unresolvedSince: Unix time in nanoseconds.
	unresolved      atomic.Int32
	unresolvedSince atomic.Int64

	applying sync.Mutex         // held while members are worked out and applied
	applied  []admin.PoolMember // guarded by applying, as is refused
	refused  string             // why the members wanted could not be applied

	mu      sync.Mutex // guards what is below
	lines   []admin.PoolLine
	stamp   fileStamp // of the file the lines are from
	odd     fileStamp // the file had this stamp at the last look, and it is not read
	seen    answers   // remembered
	fresh   answers   // of the last look-up that succeeded, name by name
	failing map[string]bool
	left    int  // addresses there was no room for
	force   bool // apply even if the members are the same
}

// fileStamp tells one content of a file from another, for nearly all purposes.
type fileStamp struct {
	size int64
	time time.Time
}

func newRoster(cfg rosterConfig) *roster {
	return &roster{cfg: cfg, failing: make(map[string]bool)}
}

// setLines replaces the lines, and the pool accordingly. After an error the pool
// is as before.
func (r *roster) setLines(lines []admin.PoolLine) error {
	r.mu.Lock()
	old := r.lines
	r.lines, r.force = lines, true
	r.mu.Unlock()
	if err := r.update(); err != nil {
		r.mu.Lock()
		r.lines = old
		r.mu.Unlock()
		return err
	}
	return nil
}

// reload reads the pool file and the tokens again, changed or not.
func (r *roster) reload() error {
	if r.cfg.file == "" {
		return errors.New("there is no pool file")
	}
	stamp, err := stampOf(r.cfg.file)
	if err != nil {
		return fmt.Errorf("pool file: %w", err)
	}
	lines, err := admin.ReadPoolLines(r.cfg.file)
	if err != nil {
		return err
	}
	if err := r.setLines(lines); err != nil {
		return err
	}
	r.mu.Lock()
	r.stamp, r.odd = stamp, stamp
	r.mu.Unlock()
	return nil
}

func stampOf(file string) (fileStamp, error) {
	info, err := os.Stat(file)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{info.Size(), info.ModTime()}, nil
}

// look reads the pool file if it has changed and then stayed the same from one
// look to the next: a file half written must not empty the pool. What is wrong
// with it is logged once.
func (r *roster) look() {
	stamp, err := stampOf(r.cfg.file)
	r.mu.Lock()
	settled := stamp == r.odd
	isNew := stamp != r.stamp
	r.odd = stamp
	r.mu.Unlock()
	if !isNew || !settled {
		return
	}
	if err == nil {
		err = r.reload()
	}
	if err != nil {
		r.cfg.log.Error("pool file has changed and cannot be used; what was read before stays in force", "file", r.cfg.file, "err", err)
		r.cfg.events.add(Event{Kind: EventPoolFile, Text: "the pool file cannot be used; what was read before stays in force", Error: err.Error()})
		r.mu.Lock()
		r.stamp = stamp // said once
		r.mu.Unlock()
		return
	}
	r.cfg.log.Info("pool file read again", "file", r.cfg.file)
	r.cfg.events.add(Event{Kind: EventPoolFile, Text: "the pool file was read again"})
}

// all are the lines of the pool file and the operator's.
func (r *roster) all() []admin.PoolLine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.lines, r.cfg.intents.Current().Added)
}

// resolve looks the names up and remembers what came. It takes up to
// lookUpTimeout.
func (r *roster) resolve(ctx context.Context) {
	lines := r.all()
	fresh, errs := lookUp(ctx, r.cfg.ask, lines)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteFailures(errs, fresh)
	var left int
	r.seen, left = r.seen.with(fresh, lines, maxAddresses)
	if left > 0 && r.left == 0 {
		r.cfg.log.Error("the names of the pool have too many addresses; the rest is left out", "room", maxAddresses, "left", left)
	}
	r.left = left
	if r.fresh.names == nil {
		r.fresh.names = make(map[string][]endpoint)
	}
	for name, es := range fresh.names {
		for _, e := range r.fresh.names[name] {
			if !slices.Contains(es, e) {
				r.cfg.log.Warn("address has vanished from DNS; its indexer stays in the pool", "name", name, "addr", e)
				r.cfg.events.add(Event{Kind: EventMember, Text: fmt.Sprintf("%s is no longer an address of %s; its indexer stays in the pool", e, name)})
			}
		}
		r.fresh.names[name] = es
	}
	for name := range r.fresh.names {
		if !slices.ContainsFunc(lines, func(l admin.PoolLine) bool { return l.Name() == name }) {
			delete(r.fresh.names, name)
		}
	}
}

// noteFailures logs when the look-up of a name begins to fail and when it ends.
func (r *roster) noteFailures(errs map[string]error, fresh answers) {
	for name, err := range errs {
		r.cfg.failures.Inc()
		if !r.failing[name] {
			r.failing[name] = true
			r.cfg.log.Warn("name of the pool cannot be looked up; its last addresses stay in force", "name", name, "err", err)
			r.cfg.events.add(Event{Kind: EventMember, Text: name + " cannot be looked up; its last addresses stay in force", Error: err.Error()})
		}
	}
	for name := range fresh.names {
		if r.failing[name] {
			delete(r.failing, name)
			r.cfg.log.Info("name of the pool is looked up again", "name", name)
		}
	}
}

// elsewhere reports whether something besides a member that the operator added by
// its URLs brings a member at adminURL.
func (r *roster) elsewhere(adminURL string) bool {
	r.mu.Lock()
	lines, seen := slices.Clone(r.lines), r.seen
	r.mu.Unlock()
	for _, l := range r.cfg.intents.Current().Added {
		if l.Name() != "" {
			lines = append(lines, l)
		}
	}
	return slices.ContainsFunc(resolve(lines, seen), func(m admin.PoolMember) bool { return m.Admin == adminURL })
}

// membersOf are the members that a name among the operator's lines brings.
func (r *roster) membersOf(name string) (members []admin.PoolMember) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.cfg.intents.Current().Added {
		if l.Name() == name {
			for _, e := range r.seen.names[name] {
				members = append(members, memberAt(l, e))
			}
		}
	}
	return members
}

// hasName reports whether the name of a line is one of the pool file's.
func (r *roster) hasName(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.lines, func(l admin.PoolLine) bool { return l.Name() == name })
}

// namesTokenFile reports whether a line of the pool file has that token file.
func (r *roster) namesTokenFile(file string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.lines, func(l admin.PoolLine) bool { return l.TokenFile == file })
}

// update works out the members and makes them the pool, if they have changed.
func (r *roster) update() error {
	r.applying.Lock()
	defer r.applying.Unlock()
	lines := r.all()
	r.forget()
	r.mu.Lock()
	seen, force := r.seen, r.force
	r.mu.Unlock()
	r.countUnresolved(lines, seen)
	members := r.wanted(resolve(lines, seen))
	if !force && slices.EqualFunc(members, r.applied, sameMember) {
		return nil
	}
	if err := r.cfg.apply(members); err != nil {
		return err
	}
	r.tell(members)
	r.mu.Lock()
	r.force = false
	r.mu.Unlock()
	r.applied = members
	return nil
}

func (r *roster) countUnresolved(lines []admin.PoolLine, seen answers) {
	n := int32(0)
	for _, l := range lines {
		if name := l.Name(); name != "" && seen.names[name] == nil {
			n++
		}
	}
	if r.unresolved.Swap(n) == 0 && n > 0 {
		r.unresolvedSince.Store(time.Now().UnixNano())
	}
}

// absent is how many names to wait for before new publishers are assigned: each
// may bring any number of indexers, with any publisher. They are waited for no
// longer than a member that was never read.
func (r *roster) absent(now time.Time, grace time.Duration) int {
	n := int(r.unresolved.Load())
	if n > 0 && now.Sub(time.Unix(0, r.unresolvedSince.Load())) < grace {
		return n
	}
	return 0
}

// wanted are the members the operator did not remove.
func (r *roster) wanted(members []admin.PoolMember) []admin.PoolMember {
	in := r.cfg.intents.Current()
	if len(in.Removed) == 0 {
		return members
	}
	return slices.DeleteFunc(members, func(m admin.PoolMember) bool {
		id, _ := r.cfg.known(m.Admin)
		return in.removes(m.Admin, id)
	})
}

// forget drops addresses that vanished from DNS and of which nothing is known: of
// an indexer that never answered there, or answers elsewhere now, and for which
// nobody waits any more. Otherwise every address a pool ever had would stay.
func (r *roster) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := make(map[string]admin.PoolLine)
	for _, l := range slices.Concat(r.lines, r.cfg.intents.Current().Added) {
		if l.Name() != "" {
			line[l.Name()] = l
		}
	}
	r.seen = r.seen.without(func(name string, e endpoint) bool {
		if r.fresh.names[name] == nil || slices.Contains(r.fresh.names[name], e) {
			return false
		}
		id, waited := r.cfg.known(memberAt(line[name], e).Admin)
		return id == "" && !waited
	})
}

// tell keeps who joined and left.
func (r *roster) tell(members []admin.PoolMember) {
	at := func(m admin.PoolMember) string { return m.Admin }
	for _, m := range members {
		if !slices.ContainsFunc(r.applied, func(o admin.PoolMember) bool { return at(o) == at(m) }) {
			r.cfg.events.add(Event{Kind: EventMember, Text: "indexer at " + m.Admin + " joins the pool"})
		}
	}
	for _, m := range r.applied {
		if !slices.ContainsFunc(members, func(o admin.PoolMember) bool { return at(o) == at(m) }) {
			id, _ := r.cfg.known(m.Admin)
			r.cfg.events.add(Event{Kind: EventMember, Indexer: id, Text: "indexer at " + m.Admin + " leaves the pool"})
		}
	}
}

func sameMember(a, b admin.PoolMember) bool {
	return a.Find == b.Find && a.Ingest == b.Ingest && a.Admin == b.Admin && a.Standby == b.Standby &&
		a.TokenFile == b.TokenFile && slices.Equal(a.Preset, b.Preset)
}

// run follows the pool file, the names and the operator's wishes until ctx ends.
func (r *roster) run(ctx context.Context) error {
	ticker := time.NewTicker(fileEvery)
	defer ticker.Stop()
	resolved := make(chan struct{}, 1)
	var lookUps sync.WaitGroup
	defer lookUps.Wait()
	asking, last := false, time.Time{}
	ask := func() {
		if asking {
			return
		}
		asking, last = true, time.Now()
		lookUps.Go(func() {
			r.resolve(ctx)
			resolved <- struct{}{} // has room: one look-up at a time
		})
	}
	changed := r.cfg.intents.Changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-resolved:
			asking = false
		case <-changed:
			changed = r.cfg.intents.Changed()
			ask()
		case now := <-ticker.C:
			if r.cfg.file != "" {
				r.look()
			}
			if now.Sub(last) >= lookUpEvery || r.unresolved.Load() > 0 {
				ask()
			}
		}
		r.follow()
	}
}

// follow updates and logs, once, what is in the way.
func (r *roster) follow() {
	text := ""
	if err := r.update(); err != nil {
		text = err.Error()
	}
	r.applying.Lock()
	isNew := text != r.refused
	r.refused = text
	r.applying.Unlock()
	if isNew && text != "" {
		r.cfg.log.Error("pool cannot be changed; it stays as it was", "err", text)
	}
}
