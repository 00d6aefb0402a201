package sim

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

const (
	bytesPerMultihash = 8.41           // doc/benchmarks.md: settled, of 1e9
	freezeAt          = 0.95           // of the disk
	fade              = 12 * time.Hour // as package indexer
)

var (
	errFrozen   = errors.New("the indexer is frozen")
	errNotFound = errors.New("the indexer is nothing to the publisher")
)

// node is an indexer as it is: its methods are what its admin API does.
type node struct {
	w        *World
	id       peer.ID
	disk     float64 // bytes
	used     float64
	capacity float64 // multihashes a second it can take in
	frozen   bool
	up       bool
	silent   bool // while it is down, calls get no answer, not a refusal
	lost     bool // for good
	started  time.Duration
	at       time.Duration // what it took in is right until then
	roles    map[peer.ID]*role
	list     []*role // the same, in the order of their making
	version  int     // grows with each change of roles
}

// steadyAds may wait of a publisher that is followed as it publishes.
const steadyAds = 64

// role is what a node is to a publisher.
type role struct {
	p         *publisher
	owner     bool
	continued peer.ID
	ranges    []admin.Range // replaced, never edited; named by number of ads
	done      float64       // multihashes of the chain at or below the mark
	has       float64       // multihashes stored
	sum       float64       // multihashes a second while steady, faded
	weight    float64       // how much of the last hour it was steady, faded
	steady    bool          // it was at the last advance
	filling   bool
	fill      float64 // multihashes still to fetch
}

// height is in whole ads; done may be a little less than a multiple of perAd.
func (r *role) height() uint64 { return uint64(r.done/r.p.perAd + 1e-6) }

func (r *role) mark() string {
	if h := r.height(); h > 0 {
		return strconv.FormatUint(h, 10)
	}
	return ""
}

// advance lets the node take in what was published until now, as fast as it can.
func (n *node) advance() {
	passed := (n.w.now - n.at).Seconds()
	n.at = n.w.now
	if passed <= 0 || !n.up {
		return
	}
	var need float64
	for _, r := range n.list {
		if r.owner && !n.frozen {
			need += r.p.chain(n.w.now) - r.done
		}
		if r.filling {
			need += r.fill
		}
	}
	share := 1.0
	if can := n.capacity * passed; need > can {
		share = can / need
	}
	kept := math.Exp(-passed / fade.Seconds())
	for _, r := range n.list {
		got := 0.0
		if r.owner && !n.frozen {
			got = share * (r.p.chain(n.w.now) - r.done)
			r.done += got
			r.has += got
		}
		// As an indexer does, what is caught up with is not counted.
		r.sum, r.weight = kept*r.sum, kept*r.weight
		steady := r.owner && !n.frozen && !r.filling && r.p.chain(n.w.now)-r.done < steadyAds*r.p.perAd
		if steady && r.steady {
			r.sum += (1 - kept) * got / passed
			r.weight += 1 - kept
		}
		r.steady = steady
		if r.filling {
			f := share * r.fill
			r.fill -= f
			r.has += f
			got += f
			if r.fill < 1 {
				r.filling, r.ranges = false, []admin.Range{{}}
				n.version++
			}
		}
		n.used += got * bytesPerMultihash
	}
	if !n.frozen && n.used >= freezeAt*n.disk {
		n.freeze()
	}
}

func (n *node) freeze() {
	n.frozen = true
	n.version++
	n.w.watch.froze++
	for _, r := range n.list {
		r.filling = false
		if r.owner {
			r.stop()
		}
	}
}

// thaw gives the node so many times the disk; what it owns still, it goes on with.
func (n *node) thaw(times float64) {
	n.advance()
	n.disk *= times
	n.frozen = false
	n.version++
	for _, r := range n.list {
		if r.owner {
			r.open()
		}
	}
}

// stop ends what is held at the mark.
func (r *role) stop() {
	last := len(r.ranges) - 1
	if last < 0 || r.ranges[last].To != "" {
		return
	}
	mark := r.mark()
	r.done = float64(r.height()) * r.p.perAd
	r.ranges = slices.Clone(r.ranges)
	if r.ranges[last].To = mark; mark == r.ranges[last].From { // nothing came
		r.ranges = r.ranges[:last]
	}
}

// open has it grow again where it stopped. Where that was is remembered, as
// another may have gone on from there.
func (r *role) open() {
	r.owner = true
	if len(r.ranges) == 0 {
		r.ranges = []admin.Range{{}}
		r.done = 0
		return
	}
	if last := r.ranges[len(r.ranges)-1]; last.To != "" {
		r.ranges = append(slices.Clone(r.ranges), admin.Range{From: last.To})
	}
}

func (n *node) roleOf(id peer.ID) *role {
	r := n.roles[id]
	if r == nil {
		r = &role{p: n.w.byID[id]}
		n.roles[id] = r
		n.list = append(n.list, r)
	}
	return r
}

func (n *node) open(id peer.ID) error {
	if n.frozen {
		return errFrozen
	}
	n.advance()
	r := n.roleOf(id)
	if !r.owner {
		r.open()
		n.version++
		n.w.watch.assigned++
	}
	return nil
}

// offer is what a target needs to go on.
type offer struct {
	mark string
	done float64
}

func (n *node) close(id peer.ID) (offer, error) {
	n.advance()
	r := n.roles[id]
	if r == nil {
		return offer{}, errNotFound
	}
	if r.owner {
		r.stop()
		r.owner, r.filling = false, false
		n.version++
	}
	return offer{r.mark(), float64(r.height()) * r.p.perAd}, nil
}

func (n *node) takeOver(s assigner.Step, o offer) error {
	if n.frozen {
		return errFrozen
	}
	n.advance()
	r := n.roleOf(s.Publisher)
	if r.owner {
		return nil
	}
	r.owner, r.continued, r.done = true, s.From, o.done
	r.ranges = append(slices.Clip(r.ranges), admin.Range{From: o.mark})
	n.version++
	n.w.watch.took(s, n.w.now)
	return nil
}

func (n *node) backfill(id peer.ID) error {
	n.advance()
	r := n.roles[id]
	switch {
	case r == nil || len(r.ranges) == 0:
		return errNotFound
	case n.frozen:
		return errFrozen
	case !r.filling && !slices.Contains(r.ranges, admin.Range{}):
		r.filling = true
		r.fill = max(r.done-r.has, 0)
		n.w.watch.fills++
	}
	return nil
}

func (n *node) release(id peer.ID) error {
	r := n.roles[id]
	if r == nil {
		return nil
	}
	n.used -= r.has * bytesPerMultihash
	delete(n.roles, id)
	n.list = slices.DeleteFunc(n.list, func(o *role) bool { return o == r })
	n.version++
	return nil
}

// held are its roles as facts.
func (n *node) held() []assigner.Held {
	hs := make([]assigner.Held, 0, len(n.list))
	for _, r := range n.list {
		h := assigner.Held{
			Publisher: r.p.id, Role: admin.RoleHolder, Continued: r.continued, Ranges: r.ranges,
			Height: r.height(), Filling: r.filling, Load: r.sum / max(r.weight, 1e-9), Weight: r.weight,
		}
		if r.owner {
			h.Role = admin.RoleOwner
		}
		hs = append(hs, h)
	}
	return hs
}

// load is the sum of the rates of what it owns.
func (n *node) load() (sum float64) {
	for _, r := range n.list {
		if r.owner {
			sum += r.p.rate
		}
	}
	return sum
}

// lag are ads published and not taken in.
func (n *node) lag() (ads float64) {
	for _, r := range n.list {
		if r.owner && !n.frozen {
			ads += math.Floor((r.p.chain(n.w.now) - r.done) / r.p.perAd)
		}
	}
	return ads
}

func (n *node) crash(silent bool) {
	n.advance()
	n.up, n.silent = false, silent
}

// start is a new process on the same disk: its meters begin anew.
func (n *node) start() {
	n.up, n.started, n.at = true, n.w.now, n.w.now
	for _, r := range n.list {
		r.sum, r.weight, r.steady = 0, 0, false
	}
}
