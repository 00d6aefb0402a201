package ipnisync

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// What a body has to achieve. 16 KiB in 10 s is a fifth of a 64 kbit/s line, so
// no link that could ever carry an index falls below it; a body that trickles
// one byte a second is cut off after one window. The bound over all lets 8 MiB
// through at 28 KB/s.
const (
	stallWindow     = 10 * time.Second
	stallBytes      = 16 << 10
	maxBodyDuration = 5 * time.Minute
	// maxConnectDuration bounds the way to a connection: mostly waiting for one
	// that is in use, as connecting itself has its own time-out.
	maxConnectDuration = 2 * time.Minute
)

// watch cuts one request off that takes too long. Its time is that of the
// publisher: while this program itself holds the request up, it stands still.
//
//	connecting ──▶ asked ──▶ reading ⇄ paused ──▶ done
//
// Safe for concurrent use.
type watch struct {
	cancel context.CancelCauseFunc // ends the request with an error that says why

	mu       sync.Mutex
	phase    phase
	deadline time.Time // of the phase, or of the window while reading
	timer    *time.Timer
	timeout  time.Duration // for the answer
	asked    time.Time

	windowBytes, bytes int64
	left               time.Duration // of the window, while paused
	windows            int           // whole ones behind us
}

type phase int

const (
	phaseConnecting phase = iota
	phaseAsked
	phaseReading
	phasePaused
	phaseDone
)

// newWatch begins in connecting. timeout is for the answer. stop must follow.
func newWatch(timeout time.Duration, cancel context.CancelCauseFunc) *watch {
	w := &watch{cancel: cancel, timeout: timeout, deadline: time.Now().Add(maxConnectDuration)}
	w.timer = time.AfterFunc(maxConnectDuration, w.expired)
	return w
}

// connected says that the request is on its way. Only the first call counts:
// redirects and their connections have to fit in the same time.
func (w *watch) connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase != phaseConnecting {
		return
	}
	w.phase, w.asked = phaseAsked, time.Now()
	w.until(w.timeout)
}

// answered says that the head of the answer is there, and returns how long it
// took.
func (w *watch) answered() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	rtt := time.Duration(0)
	if w.phase == phaseAsked {
		rtt = time.Since(w.asked)
	}
	if w.phase != phaseDone {
		w.phase = phaseReading
		w.until(stallWindow)
	}
	return rtt
}

// progress says that n bytes of the body came.
func (w *watch) progress(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.windowBytes += int64(n)
	w.bytes += int64(n)
}

// hold stops the clock, or lets it go on.
func (w *watch) hold(held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case held && w.phase == phaseReading:
		w.phase, w.left = phasePaused, time.Until(w.deadline)
		w.timer.Stop()
	case !held && w.phase == phasePaused:
		w.phase = phaseReading
		w.until(w.left)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = phaseDone
	w.timer.Stop()
}

func (w *watch) until(d time.Duration) {
	w.deadline = time.Now().Add(d)
	w.timer.Reset(d)
}

// expired is the timer's.
func (w *watch) expired() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := time.Until(w.deadline); left > 0 && w.phase != phasePaused && w.phase != phaseDone {
		w.timer.Reset(left) // the phase changed while the timer fired
		return
	}
	switch w.phase {
	case phaseConnecting:
		w.end(fmt.Errorf("%w: no connection became free within %v", ErrTimeout, maxConnectDuration))
	case phaseAsked:
		w.end(fmt.Errorf("%w: nothing within %v", ErrTimeout, w.timeout))
	case phaseReading:
		w.judge()
	}
}

// judge looks at a window that is over.
func (w *watch) judge() {
	w.windows++
	switch {
	case w.windowBytes < stallBytes:
		w.end(fmt.Errorf("%w: %d bytes in the last %v, %d in all; at least %d are expected in %v",
			ErrStalled, w.windowBytes, stallWindow, w.bytes, stallBytes, stallWindow))
	case time.Duration(w.windows)*stallWindow >= maxBodyDuration:
		w.end(fmt.Errorf("%w: not complete after %v, %d bytes came", ErrStalled, maxBodyDuration, w.bytes))
	default:
		w.windowBytes = 0
		w.until(stallWindow)
	}
}

func (w *watch) end(err error) {
	w.phase = phaseDone
	w.cancel(err)
}
