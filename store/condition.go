package store

import "time"

// Condition is what may be wrong with a store, as far as it knows without
// reading.
type Condition struct {
	// Failed is why it takes no writes: it wraps ErrFailed. Nil: it does.
	Failed error
	// NoSpace is why it takes no content: it wraps ErrNoSpace. Nil: there is room.
	NoSpace error
	// LostShare is that of Stats.
	LostShare float64
	// DurableLag is the age of the oldest commit that is not durable.
	DurableLag time.Duration
}

// Condition returns what is wrong now. Of a closed store it is zero.
func (s *Store) Condition() (c Condition) {
	c.NoSpace = s.space.err()
	err := s.enter()
	if err != nil {
		s.life.RLock()
		c.Failed = s.down
		s.life.RUnlock()
		return c
	}
	defer s.exit()
	c.Failed = s.disk.err()
	c.DurableLag = s.syncer.lag()
	c.LostShare = s.index.LostShare()
	return c
}
