package ingest

import (
	"sync/atomic"
	"time"
)

// soon does a thing shortly after it is asked to, at most once every so often
// however often it is asked. What was asked for is done even if nobody asks
// again. Safe for concurrent use.
type soon struct {
	i       *Ingester
	every   time.Duration
	do      func()
	last    atomic.Int64 // nanoseconds since 1970
	pending atomic.Bool  // somebody is about to
}

func newSoon(i *Ingester, every time.Duration, do func()) *soon {
	return &soon{i: i, every: every, do: do}
}

// ask is called by what the ingester waits for when it closes: a worker and its
// lanes.
func (s *soon) ask() {
	if !s.pending.CompareAndSwap(false, true) {
		return
	}
	wait := s.every - time.Duration(time.Now().UnixNano()-s.last.Load())
	if wait <= 0 {
		s.now()
		return
	}
	s.i.wg.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.i.ctx.Done():
		}
		s.now()
	})
}

func (s *soon) now() {
	s.last.Store(time.Now().UnixNano())
	s.pending.Store(false) // before: what is asked for from now on needs another
	s.do()
}
