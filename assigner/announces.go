package assigner

import (
	"container/list"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/announce"
)

const (
	// keepUntaken is how long an announce that no owner has taken is safe from
	// being pushed out: publishers that every indexer refuses must not fill the
	// memory for good. keepJournalled is the same of one whose sender was told
	// that it is kept.
	keepUntaken    = 10 * time.Minute
	keepJournalled = 24 * time.Hour
	// evictTries bounds the search for an announce to push out.
	evictTries = 64

	// maxStrangers and maxKnown are of how many publishers an announce is kept
	// that no indexer has, and that some has; strangerBytes and knownBytes what
	// these may take, in the size of their messages. Strangers have a room of
	// their own because anyone can make them up.
	maxStrangers  = 100_000
	strangerBytes = 32 << 20
	maxKnown      = 500_000
	knownBytes    = 256 << 20

	// maxAddrBytes is how much of the addresses of an announce is kept: several
	// dozens. They are hints; whoever sends more gets the first of them tried.
	maxAddrBytes = 4 << 10
	// announceOverhead is about what an announce takes besides its addresses.
	announceOverhead = 200
)

// keptAnnounce is the newest announce of a publisher.
type keptAnnounce struct {
	announce.Announce
	key    announce.Key
	at     time.Time
	seq    uint64 // grows with every announce kept, of any publisher
	bytes  int
	room   *room
	queued int  // forward queues that hold it
	taken  bool // an owner accepted it
	// takenSeq is the newest of the publisher that an owner accepted in this
	// run, 0 if none.
	takenSeq uint64
	waits    map[*wait]struct{}
}

// wait is for an owner to take the announce of seq or a newer one of the
// publisher.
type wait struct {
	seq   uint64
	taken chan struct{}
}

// release ends the waits for announces up to seq.
func (k *keptAnnounce) release(seq uint64) {
	for w := range k.waits {
		if w.seq <= seq {
			close(w.taken)
			delete(k.waits, w)
		}
	}
}

// room is a bounded part of the kept announces.
type room struct {
	max, maxBytes int
	bytes         int
	list          *list.List // of *keptAnnounce, the last heard of in front
}

func (r *room) full(more int) bool { return r.list.Len() >= r.max || r.bytes+more > r.maxBytes }

// keptAnnounces holds the newest announce of each publisher: of those that some
// indexer has in one room, and of strangers in another, so that a flood of
// made-up publishers leaves the others theirs. When a room is full, the
// publisher longest not heard of whose announce has been delivered makes way.
// Guarded by pool.mu.
type keptAnnounces struct {
	by        map[peer.ID]*list.Element
	known     room
	strangers room
	seq       uint64
	keepFor   time.Duration       // how long an untaken announce is safe
	dropped   func(*keptAnnounce) // called with what was pushed out
}

func newKeptAnnounces(strangers int) *keptAnnounces {
	return &keptAnnounces{
		by:        make(map[peer.ID]*list.Element),
		known:     room{max: maxKnown, maxBytes: knownBytes, list: list.New()},
		strangers: room{max: strangers, maxBytes: strangerBytes, list: list.New()},
		keepFor:   keepUntaken,
		dropped:   func(*keptAnnounce) {},
	}
}

// get returns the announce of the publisher, or nil.
func (ks *keptAnnounces) get(publisher peer.ID) *keptAnnounce {
	el := ks.by[publisher]
	if el == nil {
		return nil
	}
	return el.Value.(*keptAnnounce)
}

// publishers returns those an announce is kept of.
func (ks *keptAnnounces) publishers() []peer.ID {
	ids := make([]peer.ID, 0, len(ks.by))
	for id := range ks.by {
		ids = append(ids, id)
	}
	return ids
}

func (ks *keptAnnounces) roomFor(known bool) *room {
	if known {
		return &ks.known
	}
	return &ks.strangers
}

// put keeps an in place of the publisher's last. It returns nil if there is no
// room.
func (ks *keptAnnounces) put(an announce.Announce, key announce.Key, known bool, now time.Time) *keptAnnounce {
	r, size := ks.roomFor(known), announceBytes(an)
	if k := ks.get(an.Publisher.ID); k != nil {
		if r == k.room && r.bytes-k.bytes+size > r.maxBytes || r != k.room && !ks.makeRoom(r, size, now) {
			return nil
		}
	} else if !ks.makeRoom(r, size, now) {
		return nil
	}
	k := ks.get(an.Publisher.ID) // making room may have pushed it out
	if k == nil {
		k = new(keptAnnounce)
	} else {
		ks.unlink(k)
	}
	ks.seq++
	k.Announce, k.key, k.at, k.seq, k.bytes, k.taken = an, key, now, ks.seq, size, false
	ks.link(k, r)
	return k
}

func (ks *keptAnnounces) link(k *keptAnnounce, r *room) {
	k.room = r
	r.bytes += k.bytes
	ks.by[k.Publisher.ID] = r.list.PushFront(k)
}

func (ks *keptAnnounces) unlink(k *keptAnnounce) {
	k.room.bytes -= k.bytes
	k.room.list.Remove(ks.by[k.Publisher.ID])
	delete(ks.by, k.Publisher.ID)
}

// makeKnown moves a stranger's announce to the other room, if there is space.
func (ks *keptAnnounces) makeKnown(k *keptAnnounce, now time.Time) {
	if k.room == &ks.known || !ks.makeRoom(&ks.known, k.bytes, now) {
		return
	}
	ks.unlink(k)
	ks.link(k, &ks.known)
}

func (ks *keptAnnounces) makeRoom(r *room, more int, now time.Time) bool {
	for range evictTries {
		if !r.full(more) {
			return true
		}
		if !ks.evict(r, now) {
			return false
		}
	}
	return !r.full(more)
}

// evict pushes one announce out, if it can.
func (ks *keptAnnounces) evict(r *room, now time.Time) bool {
	return ks.pushOut(r, func(k *keptAnnounce) bool {
		return k.taken && k.queued == 0 || now.Sub(k.at) > ks.keepFor
	})
}

// evictUntaken is evict of one that no owner has taken, which the journal may
// hold.
func (ks *keptAnnounces) evictUntaken(r *room, now time.Time) bool {
	return ks.pushOut(r, func(k *keptAnnounce) bool { return !k.taken && now.Sub(k.at) > ks.keepFor })
}

// pushOut drops the announce longest not heard of that may go, of the last few.
func (ks *keptAnnounces) pushOut(r *room, may func(*keptAnnounce) bool) bool {
	el := r.list.Back()
	for range evictTries {
		if el == nil {
			return false
		}
		if k := el.Value.(*keptAnnounce); may(k) {
			ks.unlink(k)
			ks.dropped(k)
			return true
		}
		el = el.Prev()
	}
	return false
}

// announceBytes is about what an announce takes.
func announceBytes(an announce.Announce) int {
	n := announceOverhead
	for _, addr := range an.Publisher.Addrs {
		n += len(addr.Bytes()) + 3
	}
	return n
}

// trim cuts an announce to what is kept of one. Gossip and HTTP take messages of
// a MiB, which no honest publisher sends.
func trim(an announce.Announce) announce.Announce {
	size := 0
	for i, addr := range an.Publisher.Addrs {
		size += len(addr.Bytes()) + 3
		if size > maxAddrBytes {
			an.Publisher.Addrs = append([]multiaddr.Multiaddr(nil), an.Publisher.Addrs[:i]...)
			break
		}
	}
	return an
}
