package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrOldSequence: the sequence number is not above the last one.
var ErrOldSequence = errors.New("sequence less than or equal to last seen")

// ErrTooMany: a bound on what strangers may make is reached.
var ErrTooMany = errors.New("too many registered providers")

// MaxRegistered bounds the providers that are in the registry because they
// registered and for no other reason: anybody can make any number of keys.
const MaxRegistered = 10_000

// registeredRow is the last register request of a provider. bare says that the
// registry did not know the provider before.
type registeredRow struct {
	seq  uint64
	bare bool
}

func (w registeredRow) encode() []byte {
	return appendBool(binary.AppendUvarint(nil, w.seq), w.bare)
}

func decodeRegistered(b []byte) (registeredRow, error) {
	r := &reader{b: b}
	w := registeredRow{seq: r.uvarint(), bare: r.bool()}
	return w, r.done("registered provider")
}

// Register sets the retrieval addresses of a provider, which asked for it in a
// signed request with sequence number seq; it is made if there is none. An ad
// with addresses that comes later replaces them. When MaxRegistered is reached,
// providers that only registered, with a number below expired, are forgotten.
// It is on disk when Register returns nil. ErrOldSequence, ErrTooMany.
func (s *Store) Register(provider peer.ID, addrs []string, seq, expired uint64) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := errors.Join(checkPeer("provider", provider), checkAddrs(addrs)); err != nil {
		return err
	}
	if _, err := s.update(func(t *tx) error { return t.registerAddrs(provider, addrs, seq, expired) }); err != nil {
		return fmt.Errorf("register %s: %w", provider, err)
	}
	return s.syncWrites("register")
}

func (t *tx) registerAddrs(p peer.ID, addrs []string, seq, expired uint64) error {
	key := peerKey(prefixRegistered, p)
	reg, again, err := getRow(t.b, key, decodeRegistered)
	if err != nil {
		return err
	}
	if again && seq <= reg.seq {
		return ErrOldSequence
	}
	w, known, err := getRow(t.b, peerKey(prefixProvider, p), decodeProvider)
	if err != nil {
		return err
	}
	if !known && !reg.bare {
		if err := t.roomForRegistered(expired); err != nil {
			return err
		}
	}
	reg = registeredRow{seq: seq, bare: !known || (reg.bare && w.last.publisher == "")}
	w.addrs = addrs
	if err := t.set(peerKey(prefixProvider, p), w.encode()); err != nil {
		return err
	}
	return t.set(key, reg.encode())
}

// roomForRegistered makes room for one more provider that only registered.
func (t *tx) roomForRegistered(expired uint64) error {
	n := 0
	var old []peer.ID
	err := scanPrefix(t.b, []byte{prefixRegistered}, func(k, v []byte) error {
		w, err := decodeRegistered(v)
		if err != nil || !w.bare {
			return err
		}
		n++
		p, err := parsePeerKey(prefixRegistered, k)
		if w.seq < expired {
			old = append(old, p)
		}
		return err
	})
	if err != nil || n < t.s.cfg.maxRegistered {
		return err
	}
	if len(old) == 0 {
		return ErrTooMany
	}
	for _, p := range old {
		if err := t.forgetRegistered(p); err != nil {
			return err
		}
	}
	return nil
}

// forgetRegistered removes a registration, and the provider if there was no ad
// since.
func (t *tx) forgetRegistered(p peer.ID) error {
	key := peerKey(prefixProvider, p)
	w, ok, err := getRow(t.b, key, decodeProvider)
	if err == nil && ok && w.last.publisher == "" {
		err = t.delete(key)
	}
	return errors.Join(err, t.delete(peerKey(prefixRegistered, p)))
}
