package snapshot

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	"golang.org/x/time/rate"

	"github.com/signpost-index/signpost/store/objects"
)

// Folders of a place.
const (
	filesDir     = "files"
	manifestsDir = "snapshots"
)

// place is a directory or a part of a bucket. Safe for concurrent use.
type place interface {
	// list returns the sizes of the files in a folder by their names.
	list(ctx context.Context, folder string) (map[string]int64, error)
	// keep makes a file of this machine, which does not change, visible in
	// filesDir under its SHA-256 in hex, whole or not at all, unless have says that
	// it is there.
	keep(ctx context.Context, file string, sizeBytes int64, have func(sum string) bool) (sum string, copied bool, err error)
	// put makes b visible under name, at once and in place of what was there.
	put(ctx context.Context, name string, b []byte) error
	// get streams a file. ErrNotFound.
	get(ctx context.Context, name string) (io.ReadCloser, error)
	// remove removes a file; it is no error if it is not there.
	remove(ctx context.Context, name string) error
	// flush makes what was kept and put durable.
	flush() error
	// again tells whether a get that failed may succeed when repeated.
	again(err error) bool
	close()
}

// openPlace opens the place of a URL; with write, a directory is made.
func openPlace(ctx context.Context, url string, write bool, pace *rate.Limiter) (place, error) {
	p, err := objects.Parse(url)
	if err != nil {
		return nil, err
	}
	if p.Dir != "" {
		return openDirectory(p.Dir, write, pace)
	}
	return openBucket(ctx, p, pace)
}

// listIDs returns the snapshots of a place, oldest first.
func listIDs(ctx context.Context, p place) ([]string, error) {
	names, err := p.list(ctx, manifestsDir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if id := idOf(name); id != "" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func manifestName(id string) string { return path.Join(manifestsDir, id+".json") }

func readManifest(ctx context.Context, p place, id string) (m Manifest, err error) {
	err = retry(ctx, p.again, func() error {
		r, err := p.get(ctx, manifestName(id))
		if err != nil {
			return err
		}
		defer r.Close()
		m, err = decodeManifest(r, id)
		return err
	})
	if err != nil {
		return m, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	return m, nil
}

// pacedReader reads no faster than pace, if there is one.
type pacedReader struct {
	ctx  context.Context
	r    io.Reader
	pace *rate.Limiter
}

func (p pacedReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	if p.pace == nil {
		return p.r.Read(b)
	}
	n, err := p.r.Read(b[:min(len(b), p.pace.Burst())])
	if n > 0 {
		if err := p.pace.WaitN(p.ctx, n); err != nil {
			return 0, err
		}
	}
	return n, err
}

// newPace is nil for no limit.
func newPace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/10, 4<<10), copyBytes)))
}
