package assigner

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// doubtPool is a pool of two indexers with roles, of which the first was given a
// publisher and has not answered.
func doubtPool(t *testing.T, kind Kind, now time.Time) (p *pool, hung *node) {
	t.Helper()
	p = newPool(poolConfig{replication: 1, pollInterval: time.Second, callTimeout: time.Second, grace: time.Hour,
		metrics: newMetrics(nil), log: slog.New(slog.DiscardHandler)})
	for _, id := range []peer.ID{"hung", "other", "source"} {
		n := newNode(now)
		n.facts = &facts{id: id}
		p.nodes = append(p.nodes, n)
	}
	hung = p.nodes[0]
	s := Step{Kind: kind, Publisher: "publisher", Indexer: "hung"}
	if kind == Handoff {
		s.From = "source"
	}
	hung.underway[s.Publisher] = &underway{Step: s}
	hung.queued = 1
	p.finishTask(hung, task{kind: kind, steps: []Step{s}}, nil, context.DeadlineExceeded, now)
	return p, hung
}

// TestNobodyWaitsForAStepAtAnIndexerThatHangs: a publisher given to an indexer that
// did not answer, and does not answer looks either, can go to another at once. If
// the indexer answers again it is waited for until it says that it has it or not.
func TestNobodyWaitsForAStepAtAnIndexerThatHangs(t *testing.T) {
	for _, kind := range []Kind{Assign, Handoff} {
		t.Run(kind.String(), func(t *testing.T) {
			now := time.Now()
			p, hung := doubtPool(t, kind, now)
			hung.err = context.DeadlineExceeded
			v := p.viewNow(now)
			if slices.Contains(v.Busy, "publisher") || slices.Contains(v.Indexers[0].Expected, "publisher") {
				t.Errorf("the pool waits for an indexer that hangs: busy %v, expected %v", v.Busy, v.Indexers[0].Expected)
			}
			hung.err, hung.stepsAfter = nil, time.Time{}
			if v := p.viewNow(now); !slices.Contains(v.Busy, "publisher") {
				t.Error("the publisher is given away although the indexer answers and may have it")
			}
			before := hung.looks
			p.finishLook(hung, before, &facts{id: "hung"}, nil, now)
			if hung.underway["publisher"] == nil {
				t.Error("a look that began before the call ended has decided that it came to nothing")
			}
			look, _, _, _ := p.startLook(hung)
			p.finishLook(hung, look, &facts{id: "hung"}, nil, now)
			if hung.underway["publisher"] != nil {
				t.Error("the indexer says that it does not have the publisher, and is waited for")
			}
		})
	}
}

// TestIndexerThatIsSlowToBeReadGetsNothingNew, from long before its look fails.
func TestIndexerThatIsSlowToBeReadGetsNothingNew(t *testing.T) {
	p, hung := doubtPool(t, Assign, time.Now())
	hung.underway, hung.stepsAfter = make(map[peer.ID]*underway), time.Time{}
	look, _, _, _ := p.startLook(hung)
	for after, reachable := range map[time.Duration]bool{0: true, slowLook / 2: true, slowLook: false, time.Minute: false} {
		if got := p.viewNow(hung.looking.Add(after)).Indexers[0].Reachable; got != reachable {
			t.Errorf("with a look under way for %v the indexer counts as reachable: %v, want %v", after, got, reachable)
		}
	}
	p.finishLook(hung, look, hung.facts, nil, time.Now())
	if !p.viewNow(time.Now().Add(time.Minute)).Indexers[0].Reachable {
		t.Error("it is not reachable although the look has ended well")
	}
}
