package interop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipni/go-libipni/announce"
	"github.com/ipni/go-libipni/announce/gossiptopic"
	"github.com/ipni/go-libipni/announce/p2psender"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

const topicName = "/indexer/ingest/mainnet"

// gossiper is a reference peer on gossip.
type gossiper struct {
	host  host.Host
	topic *pubsub.Topic
}

// joinGossip makes a host with the key that takes part in the topic the way the
// reference does.
func joinGossip(t *testing.T, key crypto.PrivKey) *gossiper {
	t.Helper()
	h := newHost(t, libp2p.Identity(key))
	topic, cancel, err := gossiptopic.MakeTopic(h, topicName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topic.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("close topic: %v", err)
		}
		cancel()
	})
	return &gossiper{host: h, topic: topic}
}

// newHost makes a libp2p host on loopback.
func newHost(t *testing.T, options ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append([]libp2p.Option{libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	return h
}

// meet connects to the node and waits until it can be sent to. That it is in
// the topic is not enough: until the stream to it is open, pubsub drops what is
// published, and tells nobody when that is over.
func (g *gossiper) meet(t *testing.T, node peer.AddrInfo) {
	t.Helper()
	if err := g.host.Connect(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	eventually(t, "meet on gossip", func(context.Context) error {
		if !slices.Contains(g.topic.ListPeers(), node.ID) {
			return fmt.Errorf("%s is not among the peers", node.ID)
		}
		return nil
	})
}

// TestReferenceGossipLeadsToIndexedAd: an announce over gossip alone, by the
// publisher itself or relayed by a reference indexer, to an indexer and to an
// assigner.
func TestReferenceGossipLeadsToIndexedAd(t *testing.T) {
	t.Parallel()
	pool := startPool(t, true)
	_, single := startIndexer(t, "127.0.0.1:0")
	nodes := []struct {
		name, find string
		node       peer.AddrInfo
	}{
		{"indexer", single.Find, single.peerInfo(t)},
		{"assigner", pool.frontend.HTTP, pool.assigner.peerInfo(t)},
	}
	for _, n := range nodes {
		t.Run(n.name+"/publisher", func(t *testing.T) {
			pub, addr := startSilent(t)
			g := joinGossip(t, pub.key) // the sender of the message is the publisher
			g.meet(t, n.node)
			sender, err := p2psender.New(g.host, "", p2psender.WithTopic(g.topic), p2psender.WithExtraData([]byte("f01234")))
			if err != nil {
				t.Fatal(err)
			}
			want := content{"gossiped", multihashes(t.Name(), 10), overBitswap}
			head := pub.put(want.contextID, want.mhs, want.md)
			if err := announce.Send(t.Context(), head, addr.Addrs, sender); err != nil {
				t.Fatal(err)
			}
			c := findClient(t, n.find)
			waitIndexed(t, c, pub.id, head)
			checkContents(t, c, pub.id, want)
		})
		t.Run(n.name+"/relay", func(t *testing.T) {
			relayKey, _ := newIdentity(t)
			g := joinGossip(t, relayKey)
			g.meet(t, n.node)
			relay, err := announce.NewReceiver(g.host, "", announce.WithTopic(g.topic), announce.WithResend(true))
			if err != nil {
				t.Fatal(err)
			}
			defer relay.Close()
			pub, addr := startSilent(t)
			want := content{"relayed", multihashes(t.Name(), 10), overBitswap}
			head := pub.put(want.contextID, want.mhs, want.md)
			if err := relay.Direct(t.Context(), head, addr); err != nil {
				t.Fatal(err)
			}
			c := findClient(t, n.find)
			waitIndexed(t, c, pub.id, head)
			checkContents(t, c, pub.id, want)
		})
	}
}
