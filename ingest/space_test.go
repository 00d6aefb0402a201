package ingest

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// TestFullDiskLeavesTheAdPending: content waits for room, with back-off, and is
// neither rejected nor skipped; what needs no room is applied.
func TestFullDiskLeavesTheAdPending(t *testing.T) {
	c := newTestChain(t)
	c.remove("gone") // needs no room
	mhs := testMultihashes(t, "a", 40)
	ad := c.put("a", mhs)
	update := c.ad(schema.Advertisement{ContextID: []byte("b"), Metadata: bitswap}) // needs none either
	fs := vfs.NewMem()
	setFree := func(free uint64) {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40})
	}
	setFree(1 << 20)
	n := openNode(t, fs, c)
	n.notify(c, c.head)
	n.until("the disk is named as the trouble", func() bool {
		p, ok, err := n.store.Provider(c.id())
		return err == nil && ok && strings.Contains(p.LastError, "space")
	})
	if st := n.verdict(ad); st.Verdict != store.Pending {
		t.Errorf("verdict %v with a full disk, want pending", st.Verdict)
	}
	n.until("what needs no room is done", func() bool {
		st, ok, err := n.store.AdState(update)
		return err == nil && ok && st.Verdict == store.Applied
	})
	if p := n.store.Progress(c.id()); !p.Mark.Ad.Defined() || p.Pending != 1 {
		t.Errorf("mark %v and %d pending with a full disk, want the removal done and one ad pending", p.Mark, p.Pending)
	}
	n.wantGone(mhs)
	setFree(1 << 40)
	n.idle()
	n.wantFound(mhs, "a")
	if st := n.verdict(ad); st.Verdict != store.Applied {
		t.Errorf("verdict %v when there is room again", st.Verdict)
	}
}
