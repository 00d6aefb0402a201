package assigner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// brokenSource breaks off every close, as an indexer that is killed does.
type brokenSource struct {
	client
	err error
}

func (s brokenSource) Close(context.Context, []peer.ID) ([]admin.Offer, error) { return nil, s.err }

// TestSourceThatBreaksOffIsNoDoubtAboutTheTarget: when the source of a handoff dies
// before it has answered, the target was not told anything. It is neither waited
// for nor kept from steps; the source is asked again after a pause.
func TestSourceThatBreaksOffIsNoDoubtAboutTheTarget(t *testing.T) {
	for name, broken := range map[string]error{
		"refused":  syscall.ECONNREFUSED,
		"cut off":  io.ErrUnexpectedEOF,
		"too late": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			p := newPool(poolConfig{pollInterval: time.Second, callTimeout: time.Second, metrics: newMetrics(nil), log: slog.New(slog.DiscardHandler)})
			source, target := newNode(now), newNode(now)
			source.facts, target.facts = &facts{id: "source"}, &facts{id: "target"}
			p.nodes = []*node{source, target}
			s := Step{Kind: Handoff, Publisher: "publisher", Indexer: "target", From: "source"}
			target.underway[s.Publisher] = &underway{Step: s}
			task := task{kind: Handoff, steps: []Step{s}, from: brokenSource{err: fmt.Errorf("call: %w", broken)}, handoff: admin.Handoff{FrozenID: "source"}}
			a := &Assigner{cfg: Config{CallTimeout: time.Second}}
			out, err := a.call(t.Context(), nil, task)
			if !errors.Is(err, broken) {
				t.Fatalf("call: %v, want %v", err, broken)
			}
			p.finishTask(target, task, out, err, now)
			if u := target.underway[s.Publisher]; u != nil {
				t.Errorf("the step is still waited for: %+v", u)
			}
			if now.Before(target.stepsAfter) || target.refused[s.Publisher] != nil {
				t.Errorf("the target is held responsible: no steps for %v, refusal %+v", target.stepsAfter.Sub(now), target.refused[s.Publisher])
			}
			if r := source.refused[s.Publisher]; r == nil || !now.Before(r.until) {
				t.Errorf("the source is asked again at once: %+v", r)
			}
		})
	}
}
