package assigner

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// view is the pool as Plan wants it.
func (p *pool) view(now time.Time) View {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		n.expire(now)
	}
	v := p.viewNow(now)
	v.Moves = 0
	if !p.wishes().NoRebalance && len(v.Busy) == 0 {
		v.Moves = p.moves.left(now, p.cfg.movesAnHour)
	}
	p.noteHolding(v)
	return v
}

// viewNow is view without limits to moves.
func (p *pool) viewNow(now time.Time) View {
	wishes := p.wishes()
	v := View{Replication: p.cfg.replication, Wanted: p.kept.publishers(), Fills: maxFills, Moves: -1, MaxStrangers: maxUnproven}
	if wishes.NoRebalance {
		v.Moves = 0
	}
	if p.cfg.absent != nil {
		v.Unread = p.cfg.absent(now)
	}
	for _, n := range p.nodes {
		v.Bound = append(v.Bound, n.member.Preset...)
		if n.facts == nil {
			if n.awaited(now, p.cfg.grace) { // else it holds what another one does, or is not waited for
				v.Unread++
			}
			continue
		}
		for publisher, u := range n.underway {
			if !n.doubted(u, now) {
				v.Busy = append(v.Busy, publisher)
			}
		}
		ix := n.view(now, p.cfg.grace)
		paused := wishes.drainPaused(ix.ID)
		ix.Draining, ix.NoNew = wishes.Drained(ix.ID) && !paused, paused
		for _, h := range ix.Held {
			if h.Filling {
				v.Fills--
			}
		}
		v.Indexers = append(v.Indexers, ix)
	}
	v.Fills = max(v.Fills, 0)
	wishes.into(&v)
	return v
}

func (p *pool) wishes() Intents {
	if p.cfg.intents == nil {
		return Intents{}
	}
	return p.cfg.intents()
}

// into adds the operator's wishes about publishers to a view.
func (in Intents) into(v *View) {
	v.Copies = make(map[peer.ID]int, len(in.Copies))
	for _, c := range in.Copies {
		v.Copies[c.Publisher] = c.Copies
	}
	for _, pin := range in.Pins {
		v.Bound = append(v.Bound, pin.Publisher)
		for i := range v.Indexers {
			if ix := &v.Indexers[i]; slices.Contains(pin.Indexers, ix.ID) {
				ix.Presets = append(slices.Clip(ix.Presets), pin.Publisher)
			}
		}
	}
	if in.Policy.Deny {
		for _, p := range v.Wanted {
			if !in.Policy.Allows(p) {
				v.Denied = append(v.Denied, p)
			}
		}
		for _, ix := range v.Indexers {
			for _, h := range ix.Held {
				if !in.Policy.Allows(h.Publisher) {
					v.Denied = append(v.Denied, h.Publisher)
				}
			}
		}
		return
	}
	v.Denied = in.Policy.Except
}

// maxUnproven is how many publishers a pool has of whom nothing ever came.
// Whoever makes up publishers can use that up until they are stale (see
// staleAfter); whose publishers the pool knows, he cannot keep out.
const maxUnproven = 10_000

// maxFills is how many backfills run in a pool at once: each reads a whole
// chain.
const maxFills = 64

// moveBudget bounds moves for balance: so many an hour, a sixtieth of them at
// once at least one.
type moveBudget struct {
	have float64
	at   time.Time
}

func (b *moveBudget) left(now time.Time, anHour int) int {
	most := max(float64(anHour)/60, 1)
	if b.at.IsZero() {
		b.have = most
	} else {
		b.have = min(b.have+now.Sub(b.at).Hours()*float64(anHour), most)
	}
	b.at = now
	if anHour <= 0 {
		return 0
	}
	return int(b.have)
}

// noteHolding tells the operator, once each way, that members never read hold
// up new publishers.
func (p *pool) noteHolding(v View) {
	holding := v.Unread > 0 && len(v.Wanted) > 0
	if holding == p.holding {
		return
	}
	p.holding = holding
	if holding {
		p.cfg.log.Warn("new publishers wait until every indexer of the pool has been read",
			"unread", v.Unread, "grace", p.cfg.grace)
		return
	}
	p.cfg.log.Info("new publishers no longer wait for indexers not read yet")
}
