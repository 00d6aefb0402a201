package indexer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/signpost-index/signpost/ingest/mirror"
)

// mirrorTimeout bounds finding out whether a mirror is there.
const mirrorTimeout = 30 * time.Second

// openMirrors opens what Config.MirrorTo and MirrorFrom name; once if they name
// the same.
func (ix *Indexer) openMirrors() error {
	ctx, cancel := context.WithTimeout(context.Background(), mirrorTimeout)
	defer cancel()
	var err error
	if url := ix.cfg.MirrorTo; url != "" {
		spool := filepath.Join(ix.cfg.DataDir, "mirror-spool")
		if ix.mirror, err = mirror.Open(ctx, mirror.Config{URL: url, SpoolDir: spool, Logger: ix.log}); err != nil {
			return fmt.Errorf("open mirror to write: %w", err)
		}
	}
	switch url := ix.cfg.MirrorFrom; url {
	case "":
	case ix.cfg.MirrorTo:
		ix.mirrorFrom = ix.mirror
	default:
		if ix.mirrorFrom, err = mirror.Open(ctx, mirror.Config{URL: url, Logger: ix.log}); err != nil {
			return fmt.Errorf("open mirror to read: %w", err)
		}
	}
	return nil
}

func (ix *Indexer) closeMirrors() error {
	var errs []error
	if ix.mirror != nil {
		errs = append(errs, ix.mirror.Close())
	}
	if ix.mirrorFrom != nil && ix.mirrorFrom != ix.mirror {
		errs = append(errs, ix.mirrorFrom.Close())
	}
	return errors.Join(errs...)
}
