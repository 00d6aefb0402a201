package snapshot

import (
	"context"
	"path"

	"golang.org/x/sync/errgroup"
)

// prune removes all but the newest snapshots, and then the files that none of
// these names. Manifests go first: whenever it is interrupted, each snapshot
// there is has its files. If one that stays cannot be read, no file is removed.
func (t *taker) prune(ctx context.Context) error {
	if t.cfg.Keep <= 0 {
		return nil
	}
	over := max(0, len(t.ids)-t.cfg.Keep)
	for _, id := range t.ids[:over] {
		if err := t.place.remove(ctx, manifestName(id)); err != nil {
			return err
		}
		t.taken.Removed++
	}
	t.ids = t.ids[over:]
	if err := t.place.flush(); err != nil {
		return err
	}
	named := make(map[string]bool)
	for _, id := range t.ids {
		m, err := readManifest(ctx, t.place, id)
		if err != nil {
			return err
		}
		for _, f := range m.Files {
			named[f.SHA256] = true
		}
	}
	if err := t.cfg.Held(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for name := range t.there {
		if named[name] {
			continue
		}
		t.taken.RemovedFile++
		g.Go(func() error { return t.place.remove(ctx, path.Join(filesDir, name)) })
	}
	return g.Wait()
}
