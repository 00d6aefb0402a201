package indexer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
)

const (
	// checkpointDir is where checkpoints are, in the data directory, so that they
	// are links.
	checkpointDir = "checkpoint"
	// checkpointLease is how long a checkpoint stays when nobody renews it. Tables
	// that were merged away take space as long as it stands.
	checkpointLease = 5 * time.Minute
)

// checkpoints lends out copies of the store, one at a time.
type checkpoints struct {
	ix    *Indexer
	log   *slog.Logger
	dir   string
	lease time.Duration

	mu     sync.Mutex
	lent   string      // the ID of the one there is; "" for none
	making bool        // one is being made or removed
	timer  *time.Timer // ends the loan
	closed bool
	idle   *sync.Cond // with mu: making has become false
}

// openCheckpoints removes what an earlier life has left.
func openCheckpoints(ix *Indexer) (*checkpoints, error) {
	c := &checkpoints{ix: ix, log: ix.log, dir: filepath.Join(ix.cfg.DataDir, checkpointDir), lease: checkpointLease}
	c.idle = sync.NewCond(&c.mu)
	if err := os.RemoveAll(c.dir); err != nil {
		return nil, fmt.Errorf("remove old checkpoints: %w", err)
	}
	return c, nil
}

// Snapshots lends out checkpoints.
func (ix *Indexer) Snapshots() admin.Snapshotter { return ix.checkpoints }

func (c *checkpoints) BeginSnapshot(context.Context) (admin.Checkpoint, error) {
	id := rand.Text()
	if err := c.reserve(id); err != nil {
		return admin.Checkpoint{}, err
	}
	start := time.Now()
	point, err := c.make(id)
	if err != nil {
		err = errors.Join(err, c.clear())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.making = false
	c.idle.Broadcast()
	if err != nil {
		c.lent = ""
		return point, err
	}
	c.timer = time.AfterFunc(c.lease, func() { c.expire(id) })
	c.log.Info("checkpoint made for a snapshot", "checkpoint", id, "records", point.Records, "mhs", point.Postings, "elapsed", time.Since(start))
	return point, nil
}

// reserve makes id the one that is lent.
func (c *checkpoints) reserve(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("%w: node is stopping", admin.ErrUnavailable)
	case c.lent != "" || c.making:
		return fmt.Errorf("%w: a snapshot is being taken; one that was given up is forgotten after %s", admin.ErrBusy, c.lease)
	}
	c.lent, c.making = id, true
	return nil
}

func (c *checkpoints) make(id string) (admin.Checkpoint, error) {
	st := c.ix.store
	stats, err := st.Stats()
	if err != nil {
		return admin.Checkpoint{}, err
	}
	point := admin.Checkpoint{
		ID: id, Dir: filepath.Join(c.dir, id), DataDir: c.ix.cfg.DataDir, LeaseSeconds: c.lease.Seconds(), Time: time.Now().UTC(),
		Node: c.ix.id, Format: store.FormatNumber, Secret: store.SecretID(c.ix.cfg.IndexSecret), Postings: stats.Postings, Records: stats.Records,
	}
	for _, dir := range []*string{&point.Dir, &point.DataDir} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return point, err
		}
	}
	for _, p := range st.Publishers() {
		if mark := st.Progress(p).Mark; mark.Ad.Defined() {
			point.Marks = append(point.Marks, admin.CheckpointMark{Publisher: p, Ad: mark.Ad.String()})
		}
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return point, err
	}
	return point, st.Checkpoint(filepath.Join(c.dir, id))
}

// clear removes what there is.
func (c *checkpoints) clear() error { return os.RemoveAll(c.dir) }

func (c *checkpoints) RenewSnapshot(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.known(id); err != nil {
		return err
	}
	if !c.timer.Stop() {
		return c.gone(id) // expire waits for mu
	}
	c.timer.Reset(c.lease)
	return nil
}

func (c *checkpoints) known(id string) error {
	if c.lent != id || id == "" || c.making {
		return c.gone(id)
	}
	return nil
}

func (c *checkpoints) gone(string) error { return fmt.Errorf("checkpoint %w", admin.ErrNotFound) }

func (c *checkpoints) EndSnapshot(_ context.Context, id string) error {
	c.mu.Lock()
	if err := c.known(id); err != nil {
		c.mu.Unlock()
		return err
	}
	c.timer.Stop()
	c.making = true
	c.mu.Unlock()
	return c.end(id)
}

func (c *checkpoints) expire(id string) {
	c.mu.Lock()
	if c.known(id) != nil {
		c.mu.Unlock()
		return
	}
	c.making = true
	c.mu.Unlock()
	c.log.Warn("checkpoint removed: whoever took the snapshot has not been heard of", "checkpoint", id, "lease", c.lease)
	if err := c.end(id); err != nil {
		c.log.Warn("checkpoint could not be removed", "checkpoint", id, "err", err)
	}
}

// end removes the checkpoint; making is set.
func (c *checkpoints) end(id string) error {
	err := c.clear()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent, c.making = "", false
	c.idle.Broadcast()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove checkpoint %s: %w", id, err)
	}
	return nil
}

// close ends the loan.
func (c *checkpoints) close() error {
	c.mu.Lock()
	c.closed = true
	for c.making {
		c.idle.Wait()
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.lent = ""
	c.mu.Unlock()
	return c.clear()
}
