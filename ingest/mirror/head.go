package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxHeadBytes bounds the text of a head file.
const maxHeadBytes = 512

func headName(provider peer.ID) (string, error) {
	if err := provider.Validate(); err != nil {
		return "", fmt.Errorf("mirror head: %w", err)
	}
	name := provider.String() + headSuffix
	if len(name) > maxName {
		return "", fmt.Errorf("mirror head: peer ID of %d characters", len(name)-len(headSuffix))
	}
	return name, nil
}

// Head returns the CID of the newest ad that was mirrored of a provider's chain
// (the publisher's peer ID, where another than the provider publishes it). It is
// unsigned: the word of whoever can write to the mirror, a place to begin and no
// proof. Errors as of [Mirror.Ad].
func (m *Mirror) Head(ctx context.Context, provider peer.ID) (cid.Cid, error) {
	name, err := headName(provider)
	if err != nil {
		return cid.Undef, err
	}
	r, err := m.files.get(ctx, name, maxHeadBytes+1)
	if err != nil {
		return cid.Undef, fmt.Errorf("read %s: %w", name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxHeadBytes+1))
	if err != nil {
		return cid.Undef, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > maxHeadBytes {
		return cid.Undef, fmt.Errorf("read %s: %w: too long", name, ErrCorrupt)
	}
	head, err := cid.Decode(strings.TrimSpace(string(text)))
	if err != nil {
		return cid.Undef, fmt.Errorf("read %s: %w: %w", name, ErrCorrupt, err)
	}
	return head, nil
}

// SetHead makes head the newest ad of a provider's chain. The files of the ad
// and of those before it should be there already. The last of several writers
// wins. Errors: [ErrReadOnly], [ErrSpoolFull], those of the disk or the bucket.
func (m *Mirror) SetHead(ctx context.Context, provider peer.ID, head cid.Cid) error {
	if m.spool == nil {
		return ErrReadOnly
	}
	name, err := headName(provider)
	if err != nil {
		return err
	}
	if !head.Defined() {
		return errors.New("mirror head: undefined CID")
	}
	f, err := m.spool.create()
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer f.release()
	// No newline: the reference reads the whole text as a CID.
	if _, err := io.WriteString(f, head.String()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := m.files.put(ctx, name, f.path()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
