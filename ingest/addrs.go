package ingest

import (
	"slices"

	"github.com/multiformats/go-multiaddr"
)

// maxPublisherAddrs bounds the addresses remembered for a publisher, and
// maxAnnouncedAddrs those of announces that one sync tries; together they are
// what ipnisync takes.
const (
	maxPublisherAddrs = 4
	maxAnnouncedAddrs = 12
)

// rememberAddr keeps the address that served the verified head. Of a publisher
// heard of for the first time it is on disk before anything else is done, so
// that a killed node resumes unasked. A further address goes behind those known
// before: a replayed old head is validly signed too, and must not push aside
// the address new content comes from. promoteAddr moves it up.
func (s *session) rememberAddr(pub Publisher, known []multiaddr.Multiaddr) error {
	a := pub.Addr()
	if a == nil || slices.ContainsFunc(known, a.Equal) || len(known) >= maxPublisherAddrs {
		return nil
	}
	if err := s.setAddrs(mergeAddrs(known, []multiaddr.Multiaddr{a})); err != nil {
		return err
	}
	if len(known) > 0 {
		return nil
	}
	return s.i.cfg.Store.Sync()
}

// promoteAddr puts the address that served new ads first.
func (s *session) promoteAddr() error {
	a := s.addr()
	known := parseAddrs(s.i.cfg.Store.PublisherAddrs(s.publisher))
	if a == nil || (len(known) > 0 && known[0].Equal(a)) {
		return nil
	}
	return s.setAddrs(mergeAddrs([]multiaddr.Multiaddr{a}, known))
}

func (s *session) setAddrs(addrs []multiaddr.Multiaddr) error {
	addrs = addrs[:min(len(addrs), maxPublisherAddrs)]
	texts := make([]string, len(addrs))
	for n, m := range addrs {
		texts[n] = m.String()
	}
	return s.i.cfg.Store.SetPublisherAddrs(s.publisher, texts)
}

func parseAddrs(texts []string) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, t := range texts {
		if a, err := multiaddr.NewMultiaddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// mergeAddrs returns first followed by those of then that first does not have.
func mergeAddrs(first, then []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	out := slices.Clone(first)
	for _, a := range then {
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}
