package ingest

import (
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
)

// maxNotices bounds the announces one sync answers for; of more, the oldest are
// reported as failed, so that they can be made again.
const maxNotices = 64

// notice is one announce, as Notify got it.
type notice struct {
	addrs []multiaddr.Multiaddr
	head  cid.Cid
}

// target is what a worker is asked to reach: the signed head, whatever was
// announced. Waiting targets are merged, never replaced, since an announce may
// come from anybody: a false one must not push a true one aside.
type target struct {
	addrs    []multiaddr.Multiaddr // of all announces, each once, oldest first
	notices  []notice
	since    time.Time // when the oldest of it was asked for
	depth    int
	explicit bool
	// announcedFirst prefers the announced addresses to those known. The first
	// try does not, so that a stranger's announce costs a known publisher
	// nothing; a second one does, as a publisher may have moved and left an
	// old head behind.
	announcedFirst bool
}

// merge adds a newer target to t and returns the announces there is no room for.
func (t *target) merge(newer target) (over []notice) {
	t.addrs = mergeAddrs(t.addrs, newer.addrs)
	t.addrs = t.addrs[:min(len(t.addrs), maxAnnouncedAddrs)]
	t.notices = append(t.notices, newer.notices...)
	if n := len(t.notices) - maxNotices; n > 0 {
		over, t.notices = t.notices[:n:n], t.notices[n:]
	}
	if t.since.IsZero() {
		t.since = newer.since
	}
	if newer.explicit {
		t.explicit, t.depth = true, newer.depth
	}
	return over
}

// heads are the announced CIDs, for the log.
func (t *target) heads() []cid.Cid {
	var out []cid.Cid
	for _, n := range t.notices {
		out = append(out, n.head)
	}
	return out
}

// retry is a target that was not reached and waits for its next try.
type retry struct {
	target
	waiting bool
	failed  time.Time // last
	at      time.Time // not before; an announce may hasten it
	tries   int
	delays  *backoff.ExponentialBackOff
}
