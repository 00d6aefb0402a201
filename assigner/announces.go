package assigner

import (
	"container/list"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
)

const (
	// keepUntaken is how long an announce that no indexer has taken is safe
	// from being pushed out: publishers that every indexer refuses must not
	// fill the memory for good.
	keepUntaken = 10 * time.Minute
	// evictTries bounds the search for an announce to push out.
	evictTries = 64
)

// keptAnnounce is the newest announce of a publisher.
type keptAnnounce struct {
	announce.Announce
	key    announce.Key
	at     time.Time
	queued int  // forward queues that hold it
	taken  bool // an indexer accepted it
}

// keptAnnounces holds the newest announce of each publisher, of max publishers
// at most. When it is full, the publisher longest not heard of whose announce
// has been delivered makes room. Guarded by pool.mu.
type keptAnnounces struct {
	max  int
	by   map[peer.ID]*list.Element
	list *list.List // of *keptAnnounce, the last heard of in front
}

func newKeptAnnounces(maxPublishers int) *keptAnnounces {
	return &keptAnnounces{max: maxPublishers, by: make(map[peer.ID]*list.Element), list: list.New()}
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

// put keeps an in place of the publisher's last. It reports false if there is
// no room.
func (ks *keptAnnounces) put(an announce.Announce, key announce.Key, now time.Time) bool {
	publisher := an.Publisher.ID
	if el := ks.by[publisher]; el != nil {
		k := el.Value.(*keptAnnounce)
		k.Announce, k.key, k.at, k.taken = an, key, now, false
		ks.list.MoveToFront(el)
		return true
	}
	if len(ks.by) >= ks.max && !ks.evict(now) {
		return false
	}
	ks.by[publisher] = ks.list.PushFront(&keptAnnounce{Announce: an, key: key, at: now})
	return true
}

// evict makes room for one announce, if it can.
func (ks *keptAnnounces) evict(now time.Time) bool {
	el := ks.list.Back()
	for range evictTries {
		if el == nil {
			return false
		}
		k := el.Value.(*keptAnnounce)
		if k.taken && k.queued == 0 || now.Sub(k.at) > keepUntaken {
			delete(ks.by, k.Publisher.ID)
			ks.list.Remove(el)
			return true
		}
		el = el.Prev()
	}
	return false
}

// keep takes an announce: it will be forwarded to the indexers that have its
// publisher, now and when others get it. It reports false if there is no room.
func (p *pool) keep(an announce.Announce, key announce.Key, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.kept.put(an, key, now) {
		return false
	}
	placed := false
	for _, n := range p.nodes {
		if n.has(an.Publisher.ID) {
			placed = true
			p.enqueueForward(n, an.Publisher.ID, now)
		}
	}
	if !placed {
		wake(p.changed)
	}
	return true
}
