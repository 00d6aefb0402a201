package store

import (
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of what is kept of announcements, which anybody may send.
const (
	// MaxAnnounced is the number of publishers of which one is kept. Publishers
	// that have shown a chain, or an address that served one, are let in beyond:
	// announcements of made-up publishers do not keep them out.
	MaxAnnounced = 10_000
	// MaxAnnouncedAddrs and MaxAnnouncedAddrBytes bound the addresses of one,
	// and each of them.
	MaxAnnouncedAddrs     = 16
	MaxAnnouncedAddrBytes = 1 << 10
)

// Announced is the newest head somebody announced for a publisher and that was
// not looked at yet.
type Announced struct {
	Publisher peer.ID
	Head      cid.Cid
	Addrs     []string
	Time      time.Time
}

// announcedRow is an announcement; the publisher is in the key.
type announcedRow struct {
	head  cid.Cid
	time  time.Time
	addrs []string
}

func (w announcedRow) encode() []byte {
	return appendStrings(appendTime(appendCID(nil, w.head), w.time), w.addrs)
}

func decodeAnnounced(b []byte) (announcedRow, error) {
	r := &reader{b: b}
	w := announcedRow{head: r.cid(), time: r.time(), addrs: r.strings()}
	if !w.head.Defined() {
		r.fail()
	}
	return w, r.done("announced head")
}

// loadAnnounced counts the rows.
func (s *Store) loadAnnounced() error {
	s.announced = 0
	return scanPrefix(s.db, []byte{prefixAnnounced}, func(_, _ []byte) error { s.announced++; return nil })
}

// SetAnnounced keeps an announcement in place of the one kept of its publisher.
// It survives power loss when Durable has reached the returned number. ErrFull:
// announcements of MaxAnnounced other publishers are kept, and the store knows
// nothing else of this one.
func (s *Store) SetAnnounced(a Announced) (Seq, error) {
	if err := s.enterWrite(); err != nil {
		return 0, err
	}
	defer s.exit()
	if err := checkAnnounced(a); err != nil {
		return 0, err
	}
	seq, err := s.update(func(t *tx) error {
		key := peerKey(prefixAnnounced, a.Publisher)
		known, err := t.has(key)
		if err != nil {
			return err
		}
		if !known {
			if s.announced >= MaxAnnounced && t.stranger(a.Publisher) {
				return ErrFull
			}
			t.after(func() { s.announced++ })
		}
		return t.set(key, announcedRow{a.Head, a.Time, a.Addrs}.encode())
	})
	if err != nil {
		return 0, fmt.Errorf("keep head %s announced for %s: %w", a.Head, a.Publisher, err)
	}
	return seq, nil
}

// stranger tells whether nothing but an announcement is known of a publisher.
func (t *tx) stranger(pub peer.ID) bool {
	w := t.peek(pub)
	return !w.mark.Ad.Defined() && w.pending == 0 && w.above == 0 && w.scans == 0 && len(t.s.publisher(pub).info.addrs) == 0
}

func checkAnnounced(a Announced) error {
	if err := checkPeer("publisher", a.Publisher); err != nil {
		return err
	}
	if err := checkCID("head", a.Head); err != nil {
		return err
	}
	if len(a.Addrs) > MaxAnnouncedAddrs {
		return fmt.Errorf("%d announced addresses: %w", len(a.Addrs), ErrInvalid)
	}
	for _, addr := range a.Addrs {
		if len(addr) > MaxAnnouncedAddrBytes {
			return fmt.Errorf("announced address of %d bytes: %w", len(addr), ErrInvalid)
		}
	}
	return nil
}

// Announced returns what is kept, in the order of publishers.
func (s *Store) Announced() ([]Announced, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	var all []Announced
	err := scanPrefix(s.db, []byte{prefixAnnounced}, func(k, v []byte) error {
		pub, err := parsePeerKey(prefixAnnounced, k)
		if err != nil {
			return err
		}
		row, err := decodeAnnounced(v)
		all = append(all, Announced{pub, row.head, row.addrs, row.time})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list announced heads: %w", err)
	}
	return all, nil
}

// DropAnnounced forgets what is kept of a publisher if it names head, or
// whatever it names if head is undefined.
func (s *Store) DropAnnounced(publisher peer.ID, head cid.Cid) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	_, err := s.update(func(t *tx) error {
		key := peerKey(prefixAnnounced, publisher)
		row, ok, err := getRow(t.b, key, decodeAnnounced)
		if err != nil || !ok || (head.Defined() && !row.head.Equals(head)) {
			return err
		}
		t.after(func() { s.announced-- })
		return t.delete(key)
	})
	if err != nil {
		return fmt.Errorf("forget head announced for %s: %w", publisher, err)
	}
	return nil
}
