package ipnisync

import (
	"sync"
	"time"
)

// How long the first byte of an answer is waited for. The lower bound leaves
// room for one lost packet and a garbage collection on the other side; the
// upper is three times the 10 s after which the reference gives up, as some
// publishers make entries anew when asked.
const (
	minAnswerTimeout     = 2 * time.Second
	maxAnswerTimeout     = 30 * time.Second
	unknownAnswerTimeout = 10 * time.Second // the reference's (sync.md, section 5)
	maxDoubledTimeout    = 60 * time.Second
)

// pace is what is known about how fast one address of a publisher answers.
// Safe for concurrent use.
//
// The time-out is srtt + 4*rttvar as in RFC 6298, within bounds, and doubles
// with each time-out in a row.
type pace struct {
	mu      sync.Mutex
	known   bool
	srtt    time.Duration // smoothed time from the request to the answer's head
	rttvar  time.Duration // its smoothed deviation
	doubled int           // time-outs in a row
}

// timeout is how long to wait for the next answer.
func (p *pace) timeout() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timeoutLocked()
}

func (p *pace) timeoutLocked() time.Duration {
	d := unknownAnswerTimeout
	if p.known {
		d = min(max(p.srtt+4*p.rttvar, minAnswerTimeout), maxAnswerTimeout)
	}
	for range p.doubled {
		d = min(2*d, maxDoubledTimeout)
	}
	return d
}

// answered takes note of an answer that took rtt.
func (p *pace) answered(rtt time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubled = 0
	if !p.known {
		p.known, p.srtt, p.rttvar = true, rtt, rtt/2
		return
	}
	p.rttvar = (3*p.rttvar + (p.srtt - rtt).Abs()) / 4
	p.srtt = (7*p.srtt + rtt) / 8
}

// timedOut takes note that nothing came within waited. Of many requests that
// were waiting at the same time only the first doubles the time-out.
func (p *pace) timedOut(waited time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.timeoutLocked(); d <= waited && d < maxDoubledTimeout {
		p.doubled++
	}
}

// rtt is the smoothed round trip, zero while unknown.
func (p *pace) rtt() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.srtt
}

// isKnown reports whether there ever was an answer.
func (p *pace) isKnown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}
