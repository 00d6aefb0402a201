package assigner

import (
	"fmt"
	"time"
)

// An indexer that has restarted crashLimit times within crashWindow crashes again
// and again: each time it answers it would seem to be back, and nothing would be
// done about it for ever. It is well once it has run for as long as that.
const (
	crashLimit  = 5
	crashWindow = 10 * time.Minute
)

// crashes are the last restarts of an indexer, the oldest first.
type crashes struct {
	at    []time.Time // at most crashLimit
	since time.Time   // when it was noticed; the zero time: it was not
}

// restarted notes a restart, and reports whether it is now noticed that they are
// too many.
func (c *crashes) restarted(now time.Time) (noticed bool) {
	was := c.looping(now)
	c.at = append(c.at, now)
	c.at = c.at[max(0, len(c.at)-crashLimit):]
	if was || len(c.at) < crashLimit || now.Sub(c.at[0]) > crashWindow {
		return false
	}
	c.since = now
	return true
}

// looping: they were too many, and it has not run for long since the last.
func (c *crashes) looping(now time.Time) bool {
	return !c.since.IsZero() && now.Sub(c.at[len(c.at)-1]) < crashWindow
}

// text says what was noticed; empty if nothing was.
func (c *crashes) text() string {
	if c.since.IsZero() {
		return ""
	}
	return fmt.Sprintf("it has restarted %d times within %v", crashLimit, crashWindow)
}
