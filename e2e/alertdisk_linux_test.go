package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/signpost-index/signpost/announce"
)

// TestAlertsWhenADiskFills: something else fills the disk of a node, a real one,
// until the node warns, freezes, takes nothing any more, and in the end cannot
// write.
func TestAlertsWhenADiskFills(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	disk := smallDisk(t, filepath.Join(dir, "small"), 128<<20)
	ix := startIndexer(t, dir, "indexer", "--data", filepath.Join(disk, "data"), "--freeze-at", "80", "--disk-reserve", "8MiB",
		"--store-memory", "64MiB", "--ingest-memory", "32MiB")
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	o.untilHealthy()
	fillTo := func(percent int64) func() {
		return func() {
			t.Helper()
			size, free := fileSystem(t, disk)
			f, err := os.OpenFile(filepath.Join(disk, "somebody else's"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(bytes.Repeat([]byte{1}, int(size*percent/100-(size-free)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	f := o.after(fillTo(75), map[string]string{"indexer": "disk-filling"})
	f.fires(t, dir, map[string][]string{"SignpostDiskFilling": {"indexer"}, "SignpostFrozen": nil})
	f = o.after(fillTo(85), map[string]string{"indexer": "frozen"})
	f.fires(t, dir, map[string][]string{"SignpostFrozen": {"indexer"}, "SignpostNoSpace": nil})
	f = o.after(fillTo(97), map[string]string{"indexer": "no-space"})
	f.fires(t, dir, map[string][]string{"SignpostNoSpace": {"indexer"}, "SignpostStoreFailed": nil})

	c := newChain(t, "has something to write down")
	f = o.after(func() {
		fillDisk(t, disk)
		eventually(t, "a write fails", func() error { return o.saysOnce(c, ix.Ingest, "indexer", "store-failed") })
	}, map[string]string{"indexer": "store-failed"})
	f.fires(t, dir, map[string][]string{"SignpostStoreFailed": {"indexer"}, "SignpostStoreDamaged": nil})
	ix.kill() // told to stop it would say, with its status, that it could not write
}

// TestAlertsWhenAMirrorIsGone: the disk of a mirror is pulled out. Nobody knows how
// full it is, and what is applied from then on is not mirrored.
func TestAlertsWhenAMirrorIsGone(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	disk := smallDisk(t, filepath.Join(dir, "small"), 16<<20)
	ix := startIndexer(t, dir, "indexer", "--mirror", filepath.Join(disk, "mirror"))
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	c := newChain(t, "mirrored for a while")
	c.add("before", multihashes("before", 10))
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	o.untilHealthy()

	f := o.after(func() {
		if err := errors.Join(os.Remove(disk), os.Symlink("nothing", disk)); err != nil {
			t.Fatal(err)
		}
	}, map[string]string{"indexer": "disk-unmeasured"})
	f.fires(t, dir, map[string][]string{"SignpostDiskUnmeasured": {"indexer"}, "SignpostMirrorFailing": nil})
	f = o.after(func() {
		c.add("after", multihashes("after", 10))
		c.announce(ix.Ingest)
		untilDone(t, ix.Ingest, c)
	}, map[string]string{"indexer": "mirror-failing"})
	f.fires(t, dir, map[string][]string{"SignpostDiskUnmeasured": {"indexer"}, "SignpostMirrorFailing": {"indexer"}})
}

// TestAlertsWhenAJournalHasNoRoom: something else fills the disk of an assigner's
// journal.
func TestAlertsWhenAJournalHasNoRoom(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	disk := smallDisk(t, filepath.Join(dir, "small"), 1<<20)
	p := startPool(t, dir, 1, "--listen-metrics", anyPort, "--journal", filepath.Join(disk, "journal"))
	o := &observed{t: t, dir: dir, daemons: map[string]string{"assigner": p.assigner.ready().Metrics}}
	c := newChain(t, "announces")
	c.add("all", multihashes("announces", 10))
	c.announce(p.announce)
	untilDone(t, p.holder(t, c.id).Ingest, c)
	o.untilHealthy()

	f := o.after(func() {
		fillDisk(t, disk)
		eventually(t, "a write fails", func() error { return o.saysOnce(c, p.announce, "assigner", "journal-failed") })
	}, map[string]string{"assigner": "journal-failed"})
	f.fires(t, dir, map[string][]string{"SignpostJournalFailed": {"assigner"}})
}

// saysOnce has a publisher announce something new, and reports nil if a daemon says
// the code. What has no room may be refused.
func (o *observed) saysOnce(c *chain, url, daemon, code string) error {
	c.add("more", multihashes("more", 1))
	_ = announce.NewSender(client).Send(o.t.Context(), url, c.announced())
	codes, err := o.conditions(daemon)
	if err == nil && codes[code] == "" {
		err = fmt.Errorf("it says %v", codes)
	}
	return err
}

// fillDisk fills a disk to the last byte.
func fillDisk(t *testing.T, disk string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(disk, "somebody else's"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
