package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// progressReport says from time to time how far a case is.
type progressReport struct {
	c     benchCase
	dir   string
	say   func(format string, args ...any)
	quit  chan struct{}
	ended chan struct{}

	mu    sync.Mutex
	name  string
	begun time.Time
	done  *atomic.Uint64 // nil: not counted
	last  uint64         // done when it was said last, or when the phase began
	from  uint64         // done when the phase began
}

func startProgress(c benchCase, dir string, say func(format string, args ...any)) *progressReport {
	p := &progressReport{c: c, dir: dir, say: say, quit: make(chan struct{}), ended: make(chan struct{})}
	p.phase("open", nil)
	go p.report()
	return p
}

func (p *progressReport) stop() {
	close(p.quit)
	<-p.ended
}

// phase begins the next part of the work; done counts multihashes, if it is
// not nil.
func (p *progressReport) phase(name string, done *atomic.Uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name, p.begun, p.done, p.last = name, time.Now(), done, 0
	if done != nil {
		p.last = done.Load()
	}
	p.from = p.last
}

func (p *progressReport) phaseName() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.name
}

func (p *progressReport) report() {
	defer close(p.ended)
	tick := time.NewTicker(p.c.Every)
	defer tick.Stop()
	for said := time.Now(); ; said = time.Now() {
		select {
		case <-p.quit:
			return
		case <-tick.C:
			p.say("%s", p.line(time.Since(said)))
		}
	}
}

// line is what there is to say, interval after the last time.
func (p *progressReport) line(interval time.Duration) string {
	bytes, err := dirBytes(p.dir)
	if err != nil {
		return err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	elapsed := time.Since(p.begun)
	text := fmt.Sprintf("%s: %s for %s", p.c.Name, p.name, elapsed.Round(time.Second))
	if p.done != nil {
		done := p.done.Load()
		text += fmt.Sprintf(", %s mhs done, %s mhs/s, %s mhs/s of late", number(float64(done)),
			number(float64(done-p.from)/elapsed.Seconds()), number(float64(done-p.last)/min(interval, elapsed).Seconds()))
		p.last = done
	}
	return text + fmt.Sprintf(", %s MB on disk, %s MB resident", number(float64(bytes)/1e6), number(float64(residentBytes())/1e6))
}
