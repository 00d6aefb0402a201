package announce

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func TestLostPeerIsDialledAgain(t *testing.T) {
	receiver, sender, _ := pair(t)
	events, err := receiver.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := receiver.host.Network().ClosePeer(sender.ID()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []network.Connectedness{network.NotConnected, network.Connected} {
		select {
		case e := <-events.Out():
			if got := e.(event.EvtPeerConnectednessChanged); got.Peer != sender.ID() || got.Connectedness != want {
				t.Fatalf("got %+v, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never %s", want)
		}
	}
}

// gate is a TCP listener that slams the door until it is opened, and then
// passes connections on.
type gate struct {
	net.Listener
	refused chan struct{} // a token for each connection turned away
	open    chan struct{}
	conns   sync.WaitGroup
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l, refused: make(chan struct{}, 1000), open: make(chan struct{})}
	g.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case <-g.open:
				g.conns.Go(func() { forward(c, target) })
			default:
				c.Close()
				g.refused <- struct{}{}
			}
		}
	})
	t.Cleanup(func() { l.Close(); g.conns.Wait() })
	return g
}

func forward(c net.Conn, target string) {
	defer c.Close()
	d, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer d.Close()
	var back sync.WaitGroup
	back.Go(func() { io.Copy(c, d); c.Close() })
	io.Copy(d, c)
	d.Close()
	back.Wait()
}

// lines is a log target that can be read while it is written, line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestUnreachablePeerIsDialledUntilItIsThere(t *testing.T) {
	receiver := openTest(t, GossipConfig{Listen: []string{loopback}})
	received := runTest(t, receiver)
	target := receiver.host.Addrs()[0]
	port, err := target.ValueForProtocol(multiaddr.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	gate := newGate(t, "127.0.0.1:"+port)
	_, gatePort, err := net.SplitHostPort(gate.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	log := make(lines, 100)
	sender := openTest(t, GossipConfig{
		Peers:  []peer.AddrInfo{{ID: receiver.ID(), Addrs: mustAddrs(t, "/ip4/127.0.0.1/tcp/"+gatePort)}},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	for range 3 { // dials that fail
		<-gate.refused
	}
	close(gate.open)
	waitForPeer(t, sender)
	if err := sender.Publish(t.Context(), &Message{Cid: testCID(t, 1)}); err != nil {
		t.Fatal(err)
	}
	receive(t, received)
	// One line when it was not reached, however often, and one when it was.
	for _, want := range []string{"gossip peer unreachable", "gossip peer connected"} {
		if line := <-log; !strings.Contains(line, want) {
			t.Errorf("logged %s instead of %q", line, want)
		}
	}
}
