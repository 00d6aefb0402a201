package ingest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/mirror"
	"github.com/signpost-index/signpost/ingest/schema"
)

func openMirror(t *testing.T, dir, spool string) *mirror.Mirror {
	t.Helper()
	m, err := mirror.Open(t.Context(), mirror.Config{URL: dir, SpoolDir: spool, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// mirrorOfChain has a node write the chain into a new mirror, and waits for it.
func mirrorOfChain(t *testing.T, c *testChain, ads ...cid.Cid) (dir string) {
	t.Helper()
	dir = t.TempDir()
	m := openMirror(t, dir, filepath.Join(t.TempDir(), "spool"))
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.Mirror = m
	n.sync(c)
	for _, ad := range ads {
		n.until("the ad is mirrored", func() bool { ok, err := m.Has(t.Context(), ad); return err == nil && ok })
	}
	n.notify(c, cid.Undef) // by now everything is durable
	n.until("the head is mirrored", func() bool { head, err := m.Head(t.Context(), c.id()); return err == nil && head == c.head })
	n.close()
	return dir
}

// TestNewNodeReadsTheMirrorInsteadOfThePublisher: the publisher serves its head
// alone; HAMTs, removals and updates are among what is read.
func TestNewNodeReadsTheMirrorInsteadOfThePublisher(t *testing.T) {
	c := vectorChain(t, vectorHead)
	var ads []cid.Cid
	for link := c.head; link.Defined(); {
		b, err := c.mem.Block(t.Context(), link)
		if err != nil {
			t.Fatal(err)
		}
		ad, err := schema.DecodeAdvertisement(link, b)
		if err != nil {
			t.Fatal(err)
		}
		if ad.IsRm || ad.Entries == schema.NoEntries || string(ad.ContextID) != "context-two" {
			ads = append(ads, link) // the content of context-two is superseded: it is not fetched
		}
		link = ad.PreviousID
	}
	dir := mirrorOfChain(t, c, ads...)
	before := c.timesAskedAll()
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.MirrorFrom = openMirror(t, dir, "")
	n.sync(c)
	n.wantFound(testMultihashes(t, "hamt1000", 1000), "context-hamt")
	if asked := c.timesAskedAll() - before; asked > 2 { // superseded ads are not in the mirror
		t.Errorf("the publisher was asked for %d blocks", asked)
	}
}

// TestBrokenMirrorCostsNothingButItself: files cut short or missing are made
// good by the publisher.
func TestBrokenMirrorCostsNothingButItself(t *testing.T) {
	c := newTestChain(t)
	var ads []cid.Cid
	for k := range 6 {
		ad, _ := c.content(fmt.Sprint(k), 30)
		ads = append(ads, ad)
	}
	dir := mirrorOfChain(t, c, ads...)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".gz" {
			return err
		}
		switch files++; files % 3 {
		case 0:
			return os.Remove(path)
		case 1:
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()*3/4)
		}
		return nil
	})
	if err != nil || files != len(ads) {
		t.Fatalf("%d files, %v; want %d", files, err, len(ads))
	}
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.MirrorFrom = openMirror(t, dir, "")
	n.sync(c)
	for k := range ads {
		n.wantFound(testMultihashes(t, fmt.Sprint(k), 30), fmt.Sprint(k))
	}
}
