package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/assigner"
)

// Config of a World. Zero values are the assigner's defaults where it has some.
type Config struct {
	Seed        uint64
	Nodes       int
	DiskBytes   float64 // of each node
	Capacity    float64 // multihashes a second a node can take in
	Replication int
	Network     Network
	Poll        time.Duration // between two looks at a node
	Tick        time.Duration // between two plans while nothing changes
	CallTimeout time.Duration
	Grace       time.Duration
	Moves       int           // for balance, an hour; negative: none
	Assigners   int           // at once
	Sample      time.Duration // between two measurements
	// Plan makes the steps: assigner.Plan, or what it is compared with.
	Plan func(assigner.View) []assigner.Step
}

// Network is what lies between assigners and nodes.
type Network struct {
	// A call and its answer take from Least to Most, all magnitudes alike.
	Least, Most time.Duration
	// Lost is the share of calls that get no answer. Half of them are done.
	Lost float64
}

// World is the truth.
type World struct {
	clock
	cfg        Config
	rand       *rand.Rand
	publishers []*publisher
	byID       map[peer.ID]*publisher
	nodes      []*node
	assigners  []*Assigner
	watch      *watch
	planning   []time.Duration // what each plan took on this machine
}

// NewWorld makes a pool of empty nodes and its assigners, at time 0.
func NewWorld(cfg Config) *World {
	setDefault(&cfg.Poll, assigner.DefaultPollInterval)
	setDefault(&cfg.Tick, cfg.Poll)
	setDefault(&cfg.CallTimeout, assigner.DefaultCallTimeout)
	setDefault(&cfg.Grace, assigner.DefaultGrace)
	setDefault(&cfg.Moves, assigner.DefaultMoves)
	setDefault(&cfg.Replication, 1)
	setDefault(&cfg.Assigners, 1)
	setDefault(&cfg.Sample, cfg.Poll)
	setDefault(&cfg.Network.Least, 20*time.Millisecond)
	setDefault(&cfg.Network.Most, 2*time.Second)
	setDefault(&cfg.DiskBytes, 1e15)
	setDefault(&cfg.Capacity, 1e6)
	if cfg.Plan == nil {
		cfg.Plan = assigner.Plan
	}
	w := &World{cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 1)), byID: make(map[peer.ID]*publisher)}
	w.watch = newWatch(w)
	for range cfg.Nodes {
		w.Join()
	}
	for range cfg.Assigners {
		w.assigners = append(w.assigners, newAssigner(w))
	}
	w.after(cfg.Sample, w.watch.tick)
	return w
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Join adds an empty node.
func (w *World) Join() *node {
	n := &node{
		w: w, id: peer.ID(fmt.Sprintf("node %04d", len(w.nodes))), disk: w.cfg.DiskBytes, capacity: w.cfg.Capacity,
		up: true, started: w.now, at: w.now, roles: make(map[peer.ID]*role),
	}
	w.nodes = append(w.nodes, n)
	for _, a := range w.assigners {
		a.add(n)
	}
	return n
}

// Lose takes a node away for good.
func (w *World) Lose(n *node) {
	n.crash(true)
	n.lost = true
	w.watch.lose(n)
}

// RestartAssigner replaces the i-th by one that knows nothing.
func (w *World) RestartAssigner(i int) {
	w.assigners[i].dead = true
	w.assigners[i] = newAssigner(w)
}

// Run goes on for d.
func (w *World) Run(d time.Duration) { w.run(w.now + d) }

// RunUntil goes on until it is so, judged at every sample, for at most limit,
// and returns how long it took; false: it never was.
func (w *World) RunUntil(limit time.Duration, so func() bool) (time.Duration, bool) {
	start := w.now
	for w.now-start < limit {
		if so() {
			return w.now - start, true
		}
		w.Run(w.cfg.Sample)
	}
	return w.now - start, so()
}

type answer int

const (
	answered answer = iota
	notSent         // nothing listens there
	noAnswer        // it may have been done
)

// call has do done at the node, unless it is down or the call is lost, and then
// told with what the caller sees, within the time-out.
func (w *World) call(n *node, timeout time.Duration, do func(), then func(answer)) {
	d := w.cfg.Network.delay(w.rand)
	lost, before := w.rand.Float64() < w.cfg.Network.Lost, w.rand.IntN(2) == 0
	if lost && before {
		w.after(timeout, func() { then(noAnswer) })
		return
	}
	w.after(d/2, func() {
		switch {
		case !n.up && !n.silent:
			w.after(min(d, timeout)-d/2, func() { then(notSent) })
		case !n.up:
			w.after(timeout-d/2, func() { then(noAnswer) })
		default:
			do()
			if lost || d > timeout {
				w.after(timeout-d/2, func() { then(noAnswer) })
				return
			}
			w.after(d-d/2, func() { then(answered) })
		}
	})
}

func (n Network) delay(r *rand.Rand) time.Duration {
	return time.Duration(float64(n.Least) * math.Pow(float64(n.Most)/float64(n.Least), r.Float64()))
}
