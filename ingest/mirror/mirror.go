package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/store/objects"
)

var (
	// ErrNotFound says that the mirror does not have what was asked for.
	ErrNotFound = errors.New("not in the mirror")
	// ErrCorrupt says that a file of the mirror is not what its name says:
	// garbled, cut off, beyond a bound, or with blocks that are not what their
	// CIDs name. Asking again gives the same until the file is written again.
	ErrCorrupt = errors.New("corrupt mirror file")
	// ErrTooLarge is returned to the writer of a file that no reader would accept.
	ErrTooLarge = errors.New("too large for the mirror")
	// ErrSpoolFull says that the files being written have reached
	// Config.MaxSpoolBytes. It passes as others are committed.
	ErrSpoolFull = errors.New("mirror spool is full")
	// ErrReadOnly says that the mirror was opened without Config.SpoolDir.
	ErrReadOnly = errors.New("mirror is open for reading only")
	// ErrLocked says that another process, or another Mirror of this one, has
	// the spool directory.
	ErrLocked = errors.New("mirror spool is in use")
)

// The defaults of [Config].
const (
	// DefaultMaxFileBytes holds the entries of 900 chunks of publishers' usual
	// 16,384 multihashes in dag-json.
	DefaultMaxFileBytes  = 1 << 30
	DefaultMaxSpoolBytes = 4 << 30
	DefaultStallTimeout  = 30 * time.Second
)

// Config says where a mirror is and how it is used.
type Config struct {
	// URL is a directory (a path, or file:///path) or a bucket:
	// s3://bucket/prefix?region=R&endpoint=E. E is the base URL of a server
	// other than Amazon's, or its host:port for https; buckets are then part of
	// the path. R defaults to AWS_REGION, then AWS_DEFAULT_REGION. Credentials
	// come from the environment (AWS_ACCESS_KEY_ID …), the shared files
	// (AWS_PROFILE …), or the machine's role, in this order.
	URL string
	// SpoolDir is where files are written before they become visible: a
	// directory for this Mirror alone, made if missing, best on the file system
	// of a mirror directory. Everything a crash left in it is removed by Open.
	// Empty: the mirror is only read.
	SpoolDir string
	// Uncompressed makes files <ad CID>.car instead of .car.gz. Both are read
	// in any case, the kind that is written first.
	Uncompressed bool
	// MaxFileBytes bounds one file, decompressed, written or read.
	// 0: DefaultMaxFileBytes.
	MaxFileBytes int64
	// MaxSpoolBytes bounds all spool files together. 0: DefaultMaxSpoolBytes.
	MaxSpoolBytes int64
	// StallTimeout bounds how long a bucket may take to answer, and to send or
	// take bytes beyond what 64 KiB/s would need. 0: DefaultStallTimeout.
	StallTimeout time.Duration
	// Logger gets a line where nobody else would learn of a fault. nil: none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.MaxFileBytes < 0 || c.MaxSpoolBytes < 0 || c.StallTimeout < 0 {
		return c, errors.New("mirror: a bound is below 0")
	}
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = DefaultMaxFileBytes
	}
	if c.MaxSpoolBytes == 0 {
		c.MaxSpoolBytes = DefaultMaxSpoolBytes
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = DefaultStallTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

const (
	// missingAds bounds how many ads are remembered as missing, and missingFor
	// how long: long enough to spare the question for the entries after the one
	// for the ad.
	missingAds = 16_384
	missingFor = time.Minute
)

// A Mirror is safe for concurrent use. Its writers and entries are not.
type Mirror struct {
	cfg     Config
	files   files
	spool   *spool                         // nil: read only
	missing *lru.Cache[cid.Cid, time.Time] // ads that were missing, and when
	now     func() time.Time
	closed  atomic.Bool
}

// Open opens a mirror and checks that it is there. A directory is made if it is
// missing, unless the mirror is only read.
func Open(ctx context.Context, cfg Config) (*Mirror, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	place, err := objects.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	fs, err := openFiles(ctx, place, cfg)
	if err != nil {
		return nil, fmt.Errorf("open mirror %s: %w", place, err)
	}
	m, err := newMirror(cfg, fs)
	if err == nil && cfg.SpoolDir != "" {
		m.spool, err = openSpool(cfg.SpoolDir, cfg.MaxSpoolBytes, cfg.Logger)
	}
	if err != nil {
		fs.close()
		return nil, fmt.Errorf("open mirror %s: %w", place, err)
	}
	return m, nil
}

func openFiles(ctx context.Context, p objects.Place, cfg Config) (files, error) {
	if p.Dir != "" {
		return openDirectory(p.Dir, cfg)
	}
	return openBucket(ctx, p, cfg)
}

// Dir is the directory that a mirror's URL names, absolute; "" for a bucket and
// for what is no URL of a mirror.
func Dir(url string) string {
	p, err := objects.Parse(url)
	if err != nil {
		return ""
	}
	return p.Dir
}

func newMirror(cfg Config, fs files) (*Mirror, error) {
	missing, err := lru.New[cid.Cid, time.Time](missingAds)
	if err != nil {
		return nil, err
	}
	return &Mirror{cfg: cfg, files: fs, missing: missing, now: time.Now}, nil
}

// Close gives the spool directory and connections back. Writers and entries that are open must
// have ended before. Close is safe twice.
func (m *Mirror) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.files.close()
	if m.spool == nil {
		return nil
	}
	return m.spool.close()
}

// Has says whether the mirror has a file of the ad. It does not look inside.
func (m *Mirror) Has(ctx context.Context, ad cid.Cid) (bool, error) {
	names, err := m.names(ad)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		has, err := m.files.exists(ctx, name)
		if has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// maxName bounds a file's name in bytes. The name of an ad with the longest hash
// accepted in a link has 126.
const maxName = 160

const (
	carSuffix  = ".car"
	gzipSuffix = ".gz"
	headSuffix = ".head"
)

// names are the names a file of the ad may have, the one we would write first.
func (m *Mirror) names(ad cid.Cid) ([]string, error) {
	if !ad.Defined() {
		return nil, errors.New("mirror: undefined CID")
	}
	plain := ad.String() + carSuffix
	if len(plain) > maxName {
		return nil, fmt.Errorf("ad with a CID of %d characters: %w", len(plain), ErrNotFound)
	}
	if m.cfg.Uncompressed {
		return []string{plain, plain + gzipSuffix}, nil
	}
	return []string{plain + gzipSuffix, plain}, nil
}

// knownMissing says whether the ad was missing a moment ago.
func (m *Mirror) knownMissing(ad cid.Cid) bool {
	at, ok := m.missing.Get(ad)
	return ok && m.now().Sub(at) < missingFor
}

// removeQuietly removes a file of ours whose content no longer matters.
func removeQuietly(log *slog.Logger, path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("mirror file cannot be removed", "path", path, "err", err)
	}
}
