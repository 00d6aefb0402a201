package assigner

import (
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// leaving is what a member had when it was frozen or drained, as far as this
// assigner saw: from it people tell how far its publishers are gone on elsewhere.
type leaving struct {
	since       time.Time // the zero time: it is neither
	owned, held int       // publishers that it owned; of which it had something
}

// noteLeaving keeps what members that give their publishers away began with.
func (p *pool) noteLeaving(now time.Time) {
	wishes := p.wishes()
	for _, n := range p.nodes {
		f := n.facts
		if f == nil || !f.frozen && !wishes.Drained(f.id) {
			n.leaving = leaving{}
			continue
		}
		if n.leaving.since.IsZero() {
			n.leaving.since = now
		}
		n.leaving.owned = max(n.leaving.owned, f.owned())
		n.leaving.held = max(n.leaving.held, len(f.roles))
	}
}

// owned is how many publishers the indexer owns.
func (f *facts) owned() (n int) {
	for _, r := range f.roles {
		if r.Role == admin.RoleOwner {
			n++
		}
	}
	return n
}
