package indexer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// holdFile is the promise to stay frozen, in the data directory. Frontends rely
// on it while the node does not run: one that cannot be read stops the start.
const holdFile = "hold.json"

const maxHoldBytes = 4 << 10

// hold is a promise to stay frozen until a time. The zero value promises nothing.
type hold struct {
	Until  time.Time
	Reason string

	path string
}

func readHold(path string) (hold, error) {
	h := hold{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("read until when the node is held: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHoldBytes))
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return h, fmt.Errorf("read until when the node is held: %s: %w; if it was not held within the last hour, delete the file", path, err)
	}
	return h, nil
}

// left is how long it still holds. A promise is never longer than MaxHold: what
// a clock that was wrong has written does not bind for years.
func (h hold) left(now time.Time) time.Duration {
	return min(max(h.Until.Sub(now), 0), admin.MaxHold)
}

// holdFor freezes the node, if it is not frozen, and promises that it stays so
// for a time. Both are on disk when it returns nil.
func (d *diskWatch) holdFor(length time.Duration, reason string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.latch.Frozen() {
		if err := d.freeze(string(admin.FrozenByMaintenance) + ": " + reason); err != nil {
			return err
		}
	}
	h := hold{Until: time.Now().Add(length), Reason: reason, path: d.hold.path}
	if !h.Until.After(d.hold.Until) {
		return nil
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := replaceFile(h.path, b); err != nil {
		return fmt.Errorf("%w: the node is frozen, and not held: %w", admin.ErrUnavailable, err)
	}
	d.hold = h
	d.log.Info("held: it stays frozen", "for", length, "reason", reason)
	return nil
}

// heldFor is how long the node stays frozen whatever anybody asks; 0 if it is not
// held.
func (d *diskWatch) heldFor() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.latch.Frozen() {
		return 0
	}
	return d.hold.left(time.Now())
}
