package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Role is what this store is to a publisher.
type Role uint8

const (
	// RoleOwner takes new content.
	RoleOwner Role = iota + 1
	// RoleHolder keeps what it has: Put refuses, removals and updates go on.
	RoleHolder
	// roleLeft: it was told to follow the publisher no more, and has what it had.
	roleLeft
)

// Range is a part of a publisher's chain: the ads after From, up to and with
// To. From undefined: from the genesis on. To undefined: up to the newest, and
// growing.
type Range struct{ From, To cid.Cid }

// Stand is an ad with nothing undone at or below it, and how many there are.
type Stand struct {
	Ad     cid.Cid // undefined: none
	Pos    Position
	Height uint64
}

func (s Stand) append(b []byte) []byte {
	return binary.AppendUvarint(appendPos(appendCID(b, s.Ad), s.Pos), s.Height)
}

func (r *reader) stand() Stand {
	s := Stand{Ad: r.cid(), Pos: r.pos(), Height: r.uvarint()}
	if s.Ad.Defined() != (s.Pos != 0) {
		r.fail()
	}
	return s
}

// Assignment is a publisher this indexer owns or holds. Continued names the
// indexer it was taken over from last, "" if none. Ranges that begin where the
// one before ends are one run: the ads in between are those at which it was
// closed, from which another indexer may have gone on.
type Assignment struct {
	Publisher peer.ID
	Continued peer.ID
	Time      time.Time // of the role
	Role      Role
	Ranges    []Range // the oldest first; not to be changed

	tail    Position  // of the last run's From here; 0: the genesis, or not known
	stop    Stand     // where it was closed, if it was
	applied []cid.Cid // above stop, when it was closed; of an owner: above the freeze
	lacks   []Lack    // within the ranges
	legacy  bool      // of format 5: the row has no role
}

// Lack is content of ads within the ranges that only the indexer has they were
// taken over from: it had applied them above the mark. A backfill ends it.
type Lack struct {
	From peer.ID
	Ads  []cid.Cid
}

// Lacks are not to be changed.
func (a Assignment) Lacks() []Lack { return a.lacks }

// Also are ads after the last range whose content is held, as this was closed
// above them. They are not to be changed.
func (a Assignment) Also() []cid.Cid {
	if a.Role != RoleHolder {
		return nil
	}
	return a.applied
}

// lacking is the number of ads of all lacks.
func (a Assignment) lacking() (n int) {
	for _, l := range a.lacks {
		n += len(l.Ads)
	}
	return n
}

// withLack is the assignment with ads that only from has.
func (a Assignment) withLack(from peer.ID, ads []cid.Cid) Assignment {
	if len(ads) > 0 {
		a.lacks = append(slices.Clip(a.lacks), Lack{from, slices.Clone(ads)})
	}
	return a
}

// open tells whether the last range grows.
func (a Assignment) open() bool {
	n := len(a.Ranges)
	return n > 0 && !a.Ranges[n-1].To.Defined()
}

// run are the ranges at the end that make one stretch of the chain.
func (a Assignment) run() []Range {
	n := max(len(a.Ranges)-1, 0)
	for n > 0 && a.Ranges[n-1].before(a.Ranges[n]) {
		n--
	}
	return a.Ranges[n:]
}

// before tells whether next begins where r ends.
func (r Range) before(next Range) bool { return r.To.Defined() && r.To.Equals(next.From) }

// whole tells whether all of the chain is held.
func (a Assignment) whole() bool {
	run := a.run()
	return len(run) > 0 && !run[0].From.Defined() && len(a.lacks) == 0
}

// maxRanges bounds the ranges of a publisher. Beyond it the two oldest that make
// one stretch are joined; if none do, the oldest is forgotten.
const maxRanges = 256

// withRange is the assignment with another range at the end, which begins at a
// position.
func (a Assignment) withRange(r Range, from Position) Assignment {
	if n := len(a.Ranges); n == 0 || !a.Ranges[n-1].before(r) {
		a.tail = from
	}
	a.Ranges = append(slices.Clone(a.Ranges), r)
	if len(a.Ranges) <= maxRanges {
		return a
	}
	drop, n := 0, 1
	for n < len(a.Ranges) && !a.Ranges[n-1].before(a.Ranges[n]) {
		n++
	}
	if n < len(a.Ranges) {
		a.Ranges[n].From, drop = a.Ranges[n-1].From, n-1
	}
	a.Ranges = slices.Delete(a.Ranges, drop, drop+1)
	return a
}

// ended is the assignment with a last range that grows no more, nor is there if
// nothing came into it.
func (a Assignment) ended(at Stand) Assignment {
	if !a.open() {
		return a
	}
	n := len(a.Ranges) - 1
	last := a.Ranges[n]
	if at.Ad.Defined() && !at.Ad.Equals(last.From) {
		a.Ranges = append(a.Ranges[:n:n], Range{From: last.From, To: at.Ad})
		return a
	}
	if n == 0 || !a.Ranges[n-1].before(last) {
		a.tail = 0
	}
	a.Ranges = a.Ranges[:n:n]
	return a
}

// filled is the assignment once all that is older than its last run is held.
func (a Assignment) filled() Assignment {
	run := slices.Clone(a.run())
	switch {
	case len(run) == maxRanges:
		run[0].From = cid.Undef
	case run[0].From.Defined():
		run = append([]Range{{To: run[0].From}}, run...)
	}
	a.Ranges, a.tail, a.lacks = run, 0, nil
	return a
}

// assignmentRow is the value of an assignment; the publisher is in the key.
type assignmentRow Assignment

func (w assignmentRow) encode() []byte {
	b := appendTime(appendString(nil, string(w.Continued)), w.Time)
	if w.legacy {
		return b
	}
	b = append(b, byte(w.Role))
	b = w.stop.append(appendPos(b, w.tail))
	b = binary.AppendUvarint(b, uint64(len(w.applied)))
	for _, ad := range w.applied {
		b = appendCID(b, ad)
	}
	b = binary.AppendUvarint(b, uint64(len(w.Ranges)))
	for _, g := range w.Ranges {
		b = appendCID(appendCID(b, g.From), g.To)
	}
	b = binary.AppendUvarint(b, uint64(len(w.lacks)))
	for _, l := range w.lacks {
		b = binary.AppendUvarint(appendString(b, string(l.From)), uint64(len(l.Ads)))
		for _, ad := range l.Ads {
			b = appendCID(b, ad)
		}
	}
	return b
}

func decodeAssignment(b []byte) (assignmentRow, error) {
	r := &reader{b: b}
	w := assignmentRow{Continued: r.peer(), Time: r.time(), Role: RoleOwner}
	if !r.bad && len(r.b) == 0 {
		w.legacy = true
		return w, r.done("assignment")
	}
	w.Role, w.tail, w.stop = Role(r.byte()), r.pos(), r.stand()
	for range r.count(1) {
		w.applied = append(w.applied, r.cid())
	}
	for range r.count(2) {
		w.Ranges = append(w.Ranges, Range{From: r.cid(), To: r.cid()})
	}
	for range r.count(2) {
		l := Lack{From: r.peer()}
		for range r.count(1) {
			l.Ads = append(l.Ads, r.cid())
		}
		w.lacks = append(w.lacks, l)
	}
	if w.Role < RoleOwner || w.Role > roleLeft {
		r.fail()
	}
	return w, r.done("assignment")
}

func (s *Store) loadAssignments() error {
	s.held, s.stops.closed = make(map[peer.ID]bool), make(map[peer.ID]bool)
	return scanPrefix(s.db, []byte{prefixAssignment}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixAssignment, k)
		if err != nil {
			return err
		}
		row, err := decodeAssignment(v)
		row.Publisher = id
		s.assignments[id] = Assignment(row)
		if row.Role == RoleHolder {
			s.held[id], s.stops.closed[id] = true, true
		}
		return err
	})
}

// upgradeAssignments gives assignments of format 5 their ranges. One taken over
// begins at the ad it stands at, as nobody knows where it began. Until it has
// succeeded each opening tries it again.
func (s *Store) upgradeAssignments() {
	_, err := s.update(func(t *tx) error {
		for id, a := range s.assignments {
			if !a.legacy {
				continue
			}
			mark := t.peek(id).mark
			g := Range{}
			from := Position(0)
			if a.Continued != "" {
				g.From, from = mark.Ad, mark.Pos
			}
			a.legacy = false
			a = a.withRange(g, from)
			if err := t.setAssignment(a); err != nil {
				return err
			}
			t.after(func() { s.assignments[id] = a })
		}
		return nil
	})
	if err != nil {
		s.cfg.Logger.Warn("assignments have no ranges yet", "err", err)
	}
}

func (t *tx) setAssignment(a Assignment) error {
	t.setClosed(a.Publisher, a.Role == RoleHolder)
	return t.set(peerKey(prefixAssignment, a.Publisher), assignmentRow(a).encode())
}

// Assignments returns the publishers this store owns or holds, in no order.
func (s *Store) Assignments() []Assignment {
	s.view.RLock()
	defer s.view.RUnlock()
	as := make([]Assignment, 0, len(s.assignments))
	for _, a := range s.assignments {
		if a.Role != roleLeft {
			as = append(as, a)
		}
	}
	return as
}

// Assignment returns the assignment of one publisher, or false.
func (s *Store) Assignment(publisher peer.ID) (Assignment, bool) {
	s.view.RLock()
	defer s.view.RUnlock()
	a, ok := s.assignments[publisher]
	return a, ok && a.Role != roleLeft
}

// PutCount is how many multihashes were put of a publisher since the store was
// made. Steady says that it is owned, takes content, and is followed as it
// publishes: what is put now is what it publishes now, and no backlog.
type PutCount struct {
	Multihashes uint64
	Steady      bool
}

// steadyPending is how many ads may wait of a publisher that is followed as it
// publishes.
const steadyPending = 64

// PutCounts returns the counts of publishers owned or held.
func (s *Store) PutCounts() map[peer.ID]PutCount {
	s.view.RLock()
	defer s.view.RUnlock()
	frozen := s.frozen.Load()
	counts := make(map[peer.ID]PutCount, len(s.assignments))
	for id, a := range s.assignments {
		p := s.publishers[id]
		if p == nil || a.Role == roleLeft {
			continue
		}
		_, redo := s.redo[id]
		w := p.progress
		counts[id] = PutCount{w.mhs, a.Role == RoleOwner && !frozen && !redo && w.pending <= steadyPending && w.scans == 0}
	}
	return counts
}

// RoleState is an assignment and how far the publisher is, as after a power
// loss.
type RoleState struct {
	Assignment
	Stand
	Pending int // ads known and not done
	Gaps    int // walks that broke off
	Walks   int // walks that have not come to their end, those included
	Filling bool
	// Behind says that ads above Stand are still to be found that were skipped.
	Behind bool
	// Of a frozen store Stand is where an owner stood when the latch fell: the mark
	// goes on over what is skipped. Top is the height of the newest ad that was
	// applied above it, or more, and Unsure says that this is not known yet; 0 and
	// false if there was none.
	Top         uint64
	Unsure      bool
	Multihashes uint64 // put by committed ads
	Addrs       []string
	LastError   string
}

// RoleStates returns the state of all publishers owned or held, and a version,
// which changes with roles and ranges only. If that is still the given one it
// returns no states.
func (s *Store) RoleStates(unless string) (version string, all []RoleState, err error) {
	if err := s.enter(); err != nil {
		return "", nil, err
	}
	defer s.exit()
	err = s.syncer.read(func(r pebble.Reader) error {
		var as []Assignment
		if version, as, err = s.readRoles(r); err != nil || version == unless {
			return err
		}
		for _, a := range as {
			st, err := s.roleState(r, a)
			if err != nil {
				return err
			}
			all = append(all, st)
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("read roles: %w", err)
	}
	return version, all, nil
}

// RoleState returns the state of one publisher; false if it is neither owned
// nor held.
func (s *Store) RoleState(publisher peer.ID) (st RoleState, ok bool, err error) {
	if err := s.enter(); err != nil {
		return st, false, err
	}
	defer s.exit()
	a, ok := s.Assignment(publisher)
	if !ok {
		return st, false, nil
	}
	err = s.syncer.read(func(r pebble.Reader) error {
		st, err = s.roleState(r, a)
		return err
	})
	return st, err == nil, err
}

// stopped has an owner stand where the latch found it. What had been applied above
// is passed by the mark once nothing is pending.
func (st *RoleState) stopped(at Stand, w progressRow) {
	if at.Ad.Defined() && at.Pos == 0 { // of a store of format 5: where is not known
		st.Unsure = true
		return
	}
	if at.Pos < st.Pos {
		st.Stand = at
	}
	if len(st.applied) > 0 {
		st.Top, st.Unsure = w.height, w.pending > 0 || w.scans > 0
	}
}

// readRoles reads the assignments of now, and makes a version of their rows.
func (s *Store) readRoles(r pebble.Reader) (version string, as []Assignment, err error) {
	sum := sha256.New()
	err = scanPrefix(r, []byte{prefixAssignment}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixAssignment, k)
		if err != nil {
			return err
		}
		row, err := decodeAssignment(v)
		if err != nil || row.Role == roleLeft {
			return err
		}
		row.Publisher = id
		if row.legacy { // it is being upgraded
			known, _ := s.Assignment(id)
			row = assignmentRow(known)
			row.Publisher = id
			v = row.encode()
		}
		sum.Write(k)
		sum.Write(binary.AppendUvarint(nil, uint64(len(v))))
		sum.Write(v)
		as = append(as, Assignment(row))
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)[:12]), as, err
}

func (s *Store) roleState(r pebble.Reader, a Assignment) (RoleState, error) {
	var w progressRow
	if err := loadRow(r, peerKey(prefixProgress, a.Publisher), decodeProgress, &w); err != nil {
		return RoleState{}, err
	}
	var wish Revisit
	if err := loadRow(r, peerKey(prefixRevisit, a.Publisher), decodeRevisit, &wish); err != nil {
		return RoleState{}, err
	}
	s.view.RLock()
	info := s.publisher(a.Publisher).info
	s.view.RUnlock()
	st := RoleState{Assignment: a, Stand: Stand{w.mark.Ad, w.mark.Pos, w.height}, Pending: int(w.pending), Walks: int(w.scans), Filling: wish.Fill,
		Multihashes: w.mhs, Addrs: info.addrs, LastError: info.lastError}
	if wish.Skipped && wish.Floor.Pos < st.Pos {
		st.Stand, st.Behind = wish.Floor, true
	}
	if s.frozen.Load() && a.Role == RoleOwner {
		st.stopped(Stand{info.frozenAt, info.frozenPos, info.frozenHeight}, w)
	}
	if w.scans == 0 {
		return st, nil
	}
	scans, err := listScans(r, a.Publisher)
	for _, sc := range scans {
		if sc.Trouble.Attempts > 0 {
			st.Gaps++
		}
	}
	return st, err
}
