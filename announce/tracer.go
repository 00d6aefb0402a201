package announce

import (
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

// tracer hears from pubsub what its public API does not tell: that a peer can
// be sent to, and that a message was dropped because Run is too slow. A peer
// is announced as a member of the topic some time before a message to it has a
// queue to go to; what is published in between is lost.
//
// Its methods are called from pubsub's event loop and must not call back.
type tracer struct {
	dropped prometheus.Counter

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when topic peers may have changed; guarded by mu
}

func newTracer(dropped prometheus.Counter) *tracer {
	return &tracer{dropped: dropped, changed: make(chan struct{})}
}

// peersChanged returns a channel that is closed when the peers that can be sent
// to may have changed.
func (t *tracer) peersChanged() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

func (t *tracer) notify() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tracer) OnNewOutboundStream(peer.ID, protocol.ID) { t.notify() }
func (t *tracer) RecvRPC(rpc *pubsub.RPC) {
	if len(rpc.GetSubscriptions()) > 0 {
		t.notify()
	}
}
func (t *tracer) UndeliverableMessage(*pubsub.Message) { t.dropped.Inc() }

// The rest of pubsub.RawTracer is of no interest here.

func (*tracer) OnClosedOutboundStream(peer.ID)        {}
func (*tracer) Join(string)                           {}
func (*tracer) Leave(string)                          {}
func (*tracer) Graft(peer.ID, string)                 {}
func (*tracer) Prune(peer.ID, string)                 {}
func (*tracer) ValidateMessage(*pubsub.Message)       {}
func (*tracer) DeliverMessage(*pubsub.Message)        {}
func (*tracer) RejectMessage(*pubsub.Message, string) {}
func (*tracer) DuplicateMessage(*pubsub.Message)      {}
func (*tracer) ThrottlePeer(peer.ID)                  {}
func (*tracer) SendRPC(*pubsub.RPC, peer.ID)          {}
func (*tracer) DropRPC(*pubsub.RPC, peer.ID)          {}
