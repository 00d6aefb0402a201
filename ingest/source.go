package ingest

import (
	"context"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/ipnisync"
)

// FromSource makes a Publisher of a chain in this process, such as an
// *ipnisync.Memory: no network is involved and Addr is nil.
func FromSource(id peer.ID, src ipnisync.Source) Publisher { return local{src, id} }

type local struct {
	ipnisync.Source
	id peer.ID
}

func (l local) ID() peer.ID               { return l.id }
func (l local) Addr() multiaddr.Multiaddr { return nil }
func (l local) Fetch(ctx context.Context, c cid.Cid, _ ipnisync.Hint, _ *ipnisync.Budget) (ipnisync.Block, error) {
	b, err := l.Source.Block(ctx, c)
	return ipnisync.Block{Bytes: b}, err
}
