package announce

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// pauses between dials of one gossip peer: they grow from first to most by half
// each time, each varied by up to half, and begin anew after a connection that
// lasted.
type pauses struct {
	first, most time.Duration
	lasting     time.Duration // a connection shorter than this does not reset the pauses
}

var defaultPauses = pauses{first: time.Second, most: time.Minute, lasting: time.Minute}

// dialTimeout bounds one attempt over all addresses of a peer.
const dialTimeout = 30 * time.Second

// keepPeers starts one goroutine a peer that keeps us connected to it, and one
// that tells them when a connection came or went. All end with g.ctx.
func (g *Gossip) keepPeers(peers []peer.AddrInfo, pauses pauses) error {
	changed := make(map[peer.ID]chan struct{}) // a token: look again
	for _, p := range peers {
		if p.ID == g.host.ID() {
			continue // the same list of peers may serve a whole pool
		}
		g.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
		g.host.ConnManager().Protect(p.ID, "gossip-peer")
		changed[p.ID] = make(chan struct{}, 1)
	}
	if len(changed) == 0 {
		return nil
	}
	events, err := g.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged))
	if err != nil {
		return err
	}
	g.dialers.Go(func() {
		defer events.Close()
		for {
			select {
			case e := <-events.Out():
				select {
				case changed[e.(event.EvtPeerConnectednessChanged).Peer] <- struct{}{}:
				default: // not one of ours (a nil channel), or already told
				}
			case <-g.ctx.Done():
				return
			}
		}
	})
	for id, changed := range changed {
		g.dialers.Go(func() { g.keepConnected(id, changed, pauses) })
	}
	return nil
}

// keepConnected dials one peer whenever it is not connected, until g.ctx ends.
// It logs when that state flips.
func (g *Gossip) keepConnected(id peer.ID, changed <-chan struct{}, pauses pauses) {
	pause := &backoff.ExponentialBackOff{
		InitialInterval: pauses.first, MaxInterval: pauses.most,
		Multiplier:          backoff.DefaultMultiplier,
		RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	pause.Reset()
	unreachable := false // and logged so
	for g.ctx.Err() == nil {
		err := g.dial(id)
		switch {
		case g.ctx.Err() != nil:
			return
		case err == nil:
			unreachable = false
			since := time.Now()
			g.log.Info("gossip peer connected", "peer", id)
			if !g.waitWhile(network.Connected, id, changed, nil) {
				return
			}
			g.metrics.losses.Inc()
			g.log.Warn("gossip peer lost", "peer", id, "elapsed", time.Since(since))
			if time.Since(since) >= pauses.lasting {
				pause.Reset()
			}
		default:
			g.metrics.dialFailures.Inc()
			if !unreachable {
				g.log.Warn("gossip peer unreachable, dialling goes on", "peer", id, "err", err)
				unreachable = true
			}
		}
		timer := time.NewTimer(pause.NextBackOff())
		g.waitWhile(network.NotConnected, id, changed, timer.C)
		timer.Stop()
	}
}

// waitWhile returns true once the peer's state is not the given one or the
// timer fires, and false when g.ctx ends.
func (g *Gossip) waitWhile(state network.Connectedness, id peer.ID, changed <-chan struct{}, timer <-chan time.Time) bool {
	for g.host.Network().Connectedness(id) == state {
		select {
		case <-changed:
		case <-timer:
			return true
		case <-g.ctx.Done():
			return false
		}
	}
	return true
}

func (g *Gossip) dial(id peer.ID) error {
	ctx, cancel := context.WithTimeout(g.ctx, dialTimeout)
	defer cancel()
	if s, ok := g.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id) // the pauses here are the only ones
	}
	return g.host.Connect(ctx, peer.AddrInfo{ID: id})
}
