package ipnisync

import (
	"context"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/schema"
)

// Memory is a chain held in memory: a [Source]. Safe for concurrent use.
type Memory struct {
	key   crypto.PrivKey
	id    peer.ID
	topic string

	mu     sync.RWMutex
	blocks map[cid.Cid][]byte // guarded by mu; the slices never change
	head   *schema.SignedHead // guarded by mu; nil while the chain is empty; replaced, never changed
}

// NewMemory returns an empty chain of the publisher with this key. topic goes
// into the signed head and may be empty. It panics if the key has no peer ID,
// which no key of package crypto is without.
func NewMemory(key crypto.PrivKey, topic string) *Memory {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		panic(fmt.Sprintf("ipnisync: publisher key: %v", err))
	}
	return &Memory{key: key, id: id, topic: topic, blocks: make(map[cid.Cid][]byte)}
}

// ID is the publisher's peer ID.
func (m *Memory) ID() peer.ID { return m.id }

// Put stores a block, which may not be changed afterwards, and returns its CID.
func (m *Memory) Put(block []byte, codec schema.Codec) cid.Cid {
	c := schema.LinkOf(codec, block)
	m.PutCID(c, block)
	return c
}

// PutCID stores a block under a given CID, matching or not. The block may not
// be changed afterwards.
func (m *Memory) PutCID(c cid.Cid, block []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[c] = block
}

// Delete removes a block; removing an unknown one does nothing.
func (m *Memory) Delete(c cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocks, c)
}

// SetHead signs c as the head; cid.Undef makes the chain empty. After an error
// the head is as before.
func (m *Memory) SetHead(c cid.Cid) error {
	var head *schema.SignedHead
	if c.Defined() {
		var err error
		if head, err = schema.SignHead(c, m.topic, m.key); err != nil {
			return fmt.Errorf("set head %s: %w", c, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.head = head
	return nil
}

// Head returns the signed head, which may not be changed, or [ErrNoHead].
func (m *Memory) Head(context.Context) (*schema.SignedHead, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.head == nil {
		return nil, ErrNoHead
	}
	return m.head, nil
}

// Block returns the bytes of block c, which may not be changed, or
// [ErrNotFound].
func (m *Memory) Block(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	block, ok := m.blocks[c]
	if !ok {
		return nil, fmt.Errorf("block %s: %w", c, ErrNotFound)
	}
	return block, nil
}
