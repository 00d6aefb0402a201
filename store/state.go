package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Phase is whether a publisher is heard from.
type Phase uint8

const (
	// PhaseActive: it answers, or has not been silent for long.
	PhaseActive Phase = iota
	// PhaseInactive: it has been silent for long; its providers are hidden.
	PhaseInactive
	// PhaseRemoved: it was silent for too long, and what it published is gone.
	PhaseRemoved
	// PhaseReturning: it was removed and answers again; its chain is to be
	// indexed from its first ad.
	PhaseReturning
)

var phaseNames = [...]string{"active", "inactive", "removed", "returning"}

// String returns the phase's name as the admin API shows it.
func (p Phase) String() string {
	if int(p) >= len(phaseNames) {
		return "unknown"
	}
	return phaseNames[p]
}

// PublisherState is what the polling of a publisher goes by. What it means is
// the caller's; the store keeps it, and changes it together with a removal.
type PublisherState struct {
	Phase   Phase
	Contact time.Time     // its signed head was fetched last
	Tried   time.Time     // it could not be reached last
	Silent  time.Duration // how long it counts as silent
	// PollInterval and PollRetry replace the node's for this publisher; 0: the
	// node's, negative: it is not polled.
	PollInterval, PollRetry time.Duration
	// What remains of a removed publisher: when, how often by now, where it was
	// reached and its last ad.
	Removed  time.Time
	Removals uint64
	Addrs    []string
	LastAd   cid.Cid
}

// stateRow is a publisher's state; the publisher is in the key.
type stateRow PublisherState

func (w stateRow) encode() []byte {
	b := []byte{byte(w.Phase)}
	b = appendTime(appendTime(b, w.Contact), w.Tried)
	for _, d := range []time.Duration{w.Silent, w.PollInterval, w.PollRetry} {
		b = binary.AppendVarint(b, int64(d))
	}
	b = appendTime(b, w.Removed)
	b = binary.AppendUvarint(b, w.Removals)
	b = appendStrings(b, w.Addrs)
	return appendCID(b, w.LastAd)
}

func decodeState(b []byte) (stateRow, error) {
	r := &reader{b: b}
	w := stateRow{Phase: Phase(r.byte()), Contact: r.time(), Tried: r.time(),
		Silent: time.Duration(r.varint()), PollInterval: time.Duration(r.varint()), PollRetry: time.Duration(r.varint()),
		Removed: r.time(), Removals: r.uvarint(), Addrs: r.strings(), LastAd: r.cid()}
	if int(w.Phase) >= len(phaseNames) {
		r.fail()
	}
	return w, r.done("publisher state")
}

// PublisherStates returns the states that were stored, by publisher.
func (s *Store) PublisherStates() (map[peer.ID]PublisherState, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	states := make(map[peer.ID]PublisherState)
	err := scanPrefix(s.db, []byte{prefixState}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixState, k)
		if err != nil {
			return err
		}
		w, err := decodeState(v)
		states[id] = PublisherState(w)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list publisher states: %w", err)
	}
	return states, nil
}

// UpdatePublisherState has change change the state of a publisher, which is
// zero if none was stored, and returns what it is then. Changes of one
// publisher come one after the other. It is durable with the next sync.
func (s *Store) UpdatePublisherState(publisher peer.ID, change func(*PublisherState)) (st PublisherState, err error) {
	if err := s.enterWrite(); err != nil {
		return st, err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return st, err
	}
	_, err = s.update(func(t *tx) error {
		st, err = t.state(publisher)
		if err != nil {
			return err
		}
		change(&st)
		return t.setState(publisher, st)
	})
	if err != nil {
		return st, fmt.Errorf("update state of publisher %s: %w", publisher, err)
	}
	return st, nil
}

func (t *tx) state(publisher peer.ID) (PublisherState, error) {
	var w stateRow
	err := loadRow(t.b, peerKey(prefixState, publisher), decodeState, &w)
	return PublisherState(w), err
}

func (t *tx) setState(publisher peer.ID, st PublisherState) error {
	if err := checkAddrs(st.Addrs); err != nil {
		return err
	}
	return t.set(peerKey(prefixState, publisher), stateRow(st).encode())
}

// PublisherError returns the last error met with a publisher, see SetError.
func (s *Store) PublisherError(publisher peer.ID) (text string, at time.Time) {
	s.view.RLock()
	defer s.view.RUnlock()
	info := s.publisher(publisher).info
	return info.lastError, info.lastErrorTime
}
