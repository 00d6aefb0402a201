package assigner

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// isOwner reports whether the publisher's new ads go to n: an announce that it
// has taken will be followed.
func (n *node) isOwner(publisher peer.ID) bool {
	if n.facts == nil || n.facts.frozen {
		return false
	}
	if r := n.facts.role(publisher); r != nil && r.Role == admin.RoleOwner {
		return true
	}
	return n.given(publisher)
}

// owned returns the publishers whose new ads go to n, or nil if n has not been
// read.
func (n *node) owned() []peer.ID {
	if n.facts == nil || n.hinted || n.facts.frozen {
		return nil
	}
	ids := make([]peer.ID, 0, len(n.facts.roles))
	for _, r := range n.facts.roles {
		if r.Role == admin.RoleOwner {
			ids = append(ids, r.Publisher)
		}
	}
	return ids
}

// useJournal has announces kept on disk too, and takes those that are there
// already, the oldest first. Some may be refused.
func (p *pool) useJournal(j *journal, found []journalled, allowed func(peer.ID) error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.journal = j
	for _, e := range found {
		p.kept.seq = max(p.kept.seq, e.seq)
	}
	for _, e := range found {
		// No indexer has been read yet. It was admitted once, so it is no
		// stranger to us.
		if allowed(e.Publisher.ID) != nil || p.kept.put(e.Announce, e.Key(), true, now) == nil {
			j.drop(e.Publisher.ID, e.seq)
			p.cfg.metrics.expired.Inc()
			continue
		}
		k := p.kept.get(e.Publisher.ID)
		k.seq, k.at = e.seq, e.at
	}
}

// notePassive sets how long an announce that nobody takes is safe: while another
// assigner delivers them, not for long.
func (p *pool) notePassive(passive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept.keepFor = keepUntaken
	if p.journal != nil && !passive {
		p.kept.keepFor = keepJournalled
	}
}

// pushedOut is called with an announce that made way for another.
func (p *pool) pushedOut(k *keptAnnounce) {
	for _, n := range p.nodes {
		n.forwards.remove(k.Publisher.ID)
	}
	if k.taken {
		return
	}
	p.cfg.forget(k.key)
	p.cfg.metrics.expired.Inc()
	if p.journal != nil {
		p.journal.drop(k.Publisher.ID, k.seq)
	}
	p.cfg.log.Debug("announce given up: no owner has taken it", "publisher", k.Publisher.ID, "head", k.Head)
}

// admission is how an announce was kept.
type admission struct {
	seq   uint64
	fresh bool   // it did not come before
	known bool   // some indexer has the publisher
	taken bool   // an owner has it, or a newer one of its publisher
	batch *batch // that writes it to the journal; nil without one
}

// keep takes an announce: it will be forwarded to the indexers that have its
// publisher, now and when others get it. payload is what the journal writes,
// nil without a journal. The error says why there is no room.
func (p *pool) keep(an announce.Announce, key announce.Key, payload []byte, now time.Time) (admission, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	publisher := an.Publisher.ID
	if !p.cfg.remember(key) {
		return p.repeated(publisher), nil
	}
	ad, err := p.keepNew(an, key, payload, now)
	if err != nil {
		p.cfg.forget(key)
		return ad, err
	}
	for _, n := range p.nodes {
		if n.has(publisher) {
			p.enqueueForward(n, publisher, now)
		}
	}
	if !ad.known {
		wake(p.changed)
	}
	return ad, nil
}

func (p *pool) keepNew(an announce.Announce, key announce.Key, payload []byte, now time.Time) (admission, error) {
	publisher := an.Publisher.ID
	ad := admission{fresh: true}
	for _, n := range p.nodes {
		ad.known = ad.known || n.has(publisher)
	}
	if payload != nil && !p.journalRoom(publisher, len(payload), ad.known, now) {
		return ad, errJournalFull
	}
	k := p.kept.put(an, key, ad.known, now)
	if k == nil {
		return ad, errNoRoom
	}
	ad.seq = k.seq
	if payload != nil {
		ad.batch = p.journal.put(publisher, payload, k.seq, !ad.known)
	}
	return ad, nil
}

// repeated is how an announce that came before stands. One that is not kept any
// more was delivered: what is pushed out otherwise is forgotten.
func (p *pool) repeated(publisher peer.ID) admission {
	k := p.kept.get(publisher)
	if k == nil || k.taken {
		return admission{taken: true}
	}
	ad := admission{seq: k.seq}
	if p.journal != nil {
		ad.batch = p.journal.batchOf(publisher)
	}
	return ad
}

// journalRoom reports whether the journal has room, having pushed out what may
// go.
func (p *pool) journalRoom(publisher peer.ID, payloadBytes int, known bool, now time.Time) bool {
	for range evictTries {
		if p.journal.fits(publisher, payloadBytes, !known) {
			return true
		}
		if !p.kept.evictUntaken(p.kept.roomFor(known), now) {
			return false
		}
	}
	return p.journal.fits(publisher, payloadBytes, !known)
}

// awaitTaken returns a channel that is closed when an owner has taken the
// announce of seq or a newer one of the publisher, and what ends the wait.
func (p *pool) awaitTaken(publisher peer.ID, seq uint64) (taken <-chan struct{}, stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &wait{seq: seq, taken: make(chan struct{})}
	k := p.kept.get(publisher)
	if k == nil { // pushed out: nobody will
		return w.taken, func() {}
	}
	if k.takenSeq >= seq {
		close(w.taken)
		return w.taken, func() {}
	}
	if k.waits == nil {
		k.waits = make(map[*wait]struct{})
	}
	k.waits[w] = struct{}{}
	return w.taken, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(k.waits, w)
	}
}

// delivered records that n has taken the publisher's announce of seq.
func (p *pool) delivered(n *node, publisher peer.ID, seq uint64) {
	k := p.kept.get(publisher)
	if k == nil || !n.isOwner(publisher) {
		return
	}
	if !k.taken && k.seq == seq {
		p.cfg.metrics.takenSeconds.Observe(time.Since(k.at).Seconds())
	}
	k.takenSeq = max(k.takenSeq, seq)
	k.taken = k.taken || k.seq == seq
	k.release(seq)
	if p.journal != nil {
		p.journal.drop(publisher, seq)
	}
}

// known notes that an indexer has the publisher of k now.
func (p *pool) known(k *keptAnnounce, now time.Time) {
	p.kept.makeKnown(k, now)
	if p.journal != nil {
		p.journal.known(k.Publisher.ID)
	}
}
