package announce

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of a gossiped message, values of the metric's label.
const (
	outcomeTaken     = "taken"     // the receiver took it
	outcomeRefused   = "refused"   // the receiver returned an error
	outcomeOwn       = "own"       // our own re-publication
	outcomeMalformed = "malformed" // neither delivered nor relayed
)

// gossipMetrics count from the start and are visible between register and
// unregister.
type gossipMetrics struct {
	messages     *prometheus.CounterVec
	dropped      prometheus.Counter
	dialFailures prometheus.Counter
	losses       prometheus.Counter
	peers        prometheus.GaugeFunc

	registerer prometheus.Registerer
	registered []prometheus.Collector
}

// newGossipMetrics takes what counts the topic's peers.
func newGossipMetrics(peers func() int) *gossipMetrics {
	m := &gossipMetrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_announce_gossip_messages_total",
			Help: "Announce messages received by gossip, by outcome.",
		}, []string{"outcome"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_announce_gossip_dropped_messages_total",
			Help: "Announce messages dropped because the receiver was busy.",
		}),
		dialFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_announce_gossip_dial_failures_total",
			Help: "Attempts to connect to a configured gossip peer that failed.",
		}),
		losses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_announce_gossip_lost_connections_total",
			Help: "Connections to configured gossip peers that were lost.",
		}),
		peers: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signpost_announce_gossip_peers",
			Help: "Connected peers that take part in the announce topic.",
		}, func() float64 { return float64(peers()) }),
	}
	for _, outcome := range []string{outcomeTaken, outcomeRefused, outcomeOwn, outcomeMalformed} {
		m.messages.WithLabelValues(outcome)
	}
	return m
}

// register makes the metrics visible on r, which may be nil. What is registered
// when an error comes stays so until unregister.
func (m *gossipMetrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	m.registerer = r
	for _, c := range []prometheus.Collector{m.messages, m.dropped, m.dialFailures, m.losses, m.peers} {
		if err := r.Register(c); err != nil {
			return err
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *gossipMetrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}

func (m *gossipMetrics) count(outcome string) { m.messages.WithLabelValues(outcome).Inc() }

// Dropped counts the announces that were dropped because the receiver was busy.
func (g *Gossip) Dropped() prometheus.Collector { return g.metrics.dropped }

// Peers is how many connected peers take part in the topic.
func (g *Gossip) Peers() int { return len(g.topic.ListPeers()) }
