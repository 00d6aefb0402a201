package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// publisher has a chain that grows at a steady rate.
type publisher struct {
	id     peer.ID
	at     int           // place in World.publishers
	rate   float64       // multihashes a second
	born   time.Duration // when it is announced first
	before float64       // multihashes in its chain by then
	perAd  float64
}

// adEvery is how often each publisher has an ad.
const adEvery = time.Minute

// chain is how many multihashes have been published.
func (p *publisher) chain(now time.Duration) float64 {
	return p.before + p.rate*max(now-p.born, 0).Seconds()
}

// zipf are n rates with a sum of total, the k-th largest as 1/k^s.
func zipf(n int, s, total float64) []float64 {
	rates := make([]float64, n)
	sum := 0.0
	for k := range rates {
		rates[k] = math.Pow(float64(k+1), -s)
		sum += rates[k]
	}
	for k := range rates {
		rates[k] *= total / sum
	}
	return rates
}

// AddPublishers has count publishers announced, evenly over a time from now on.
// Their rates are Zipf's with exponent s and make total multihashes a second,
// each has history seconds of them in its chain already, and which is large is
// chance.
func (w *World) AddPublishers(count int, s, total float64, history, over time.Duration) {
	rates := zipf(count, s, total)
	w.rand.Shuffle(count, func(i, j int) { rates[i], rates[j] = rates[j], rates[i] })
	for i, rate := range rates {
		n := len(w.publishers)
		p := &publisher{
			id: peer.ID(fmt.Sprintf("publisher %06d", n)), at: n, rate: rate,
			born: w.now + over*time.Duration(i)/time.Duration(count), perAd: max(rate*adEvery.Seconds(), 1),
		}
		p.before = rate * history.Seconds()
		w.publishers = append(w.publishers, p)
		w.byID[p.id] = p
		w.after(p.born-w.now, func() { w.announce(p) })
	}
	w.watch.grow(len(w.publishers))
}

// announceEvery is how often a publisher is announced.
const announceEvery = 10 * time.Minute

// announce tells every assigner of p, again and again. One that is lost is
// repeated sooner.
func (w *World) announce(p *publisher) {
	next := announceEvery
	for _, a := range w.assigners {
		if w.rand.Float64() < w.cfg.Network.Lost {
			next = time.Minute
			continue
		}
		a.hear(p.id)
	}
	w.after(next, func() { w.announce(p) })
}
