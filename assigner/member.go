package assigner

import (
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// foundMember is a member of the pool as an operator's request concerns it.
type foundMember struct {
	id         peer.ID // empty if it was never read
	member     admin.PoolMember
	indexer    client
	up         bool
	publishers int // assigned to it
}

// name is how an operator knows it.
func (m foundMember) name() string {
	if m.id == "" {
		return m.member.Admin
	}
	return m.id.String()
}

// find returns the member at an admin URL, or with a peer ID.
func (p *pool) find(adminURL string, id peer.ID) (foundMember, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		m := foundMember{member: n.member, indexer: n.indexer, up: n.up()}
		if n.facts != nil {
			m.id, m.publishers = n.facts.id, len(n.facts.roles)
		}
		if n.member.Admin == adminURL || id != "" && m.id == id {
			return m, true
		}
	}
	return foundMember{}, false
}

// knownID is the ID of the member at an admin URL, empty if nothing is known of it.
// waited says that it was never read and new assignments still wait for it.
func (p *pool) knownID(adminURL string, now time.Time) (id peer.ID, waited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.member.Admin != adminURL {
			continue
		}
		if n.facts != nil {
			return n.facts.id, false
		}
		return "", n.awaited(now, p.cfg.grace)
	}
	return "", false
}

// size is the number of members.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.nodes)
}

// ownersOf are the indexers that own the publisher, ascending, frozen ones left
// out.
func (p *pool) ownersOf(publisher peer.ID) []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []peer.ID
	for _, n := range p.nodes {
		if n.isOwner(publisher) {
			ids = append(ids, n.facts.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// isDuplicate: the last look at n found an indexer that is in the pool already.
func (n *node) isDuplicate() bool {
	var dup *duplicateError
	return errors.As(n.err, &dup)
}
