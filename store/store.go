package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store/keyset"
	"github.com/signpost-index/signpost/store/postings"
	"github.com/signpost-index/signpost/store/wal"
)

// Sentinels a caller may test for with errors.Is.
var (
	// ErrFrozen: the latch is set, content is not taken.
	ErrFrozen = errors.New("store is frozen")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrNotFound is for callers that turn a missing entry into an error.
	ErrNotFound = errors.New("not found")
	// ErrNewerFormat: the directory was written by a newer program; nothing
	// was changed.
	ErrNewerFormat = errors.New("store has a newer format")
	// ErrOldFormat: the directory was written by a development version and
	// cannot be converted; nothing was changed.
	ErrOldFormat = errors.New("store has a format that is not read any more")
	// ErrInUse: another process, or another Store of this one, has the
	// directory open.
	ErrInUse = errors.New("directory is in use")
	// ErrNoSpace: less than Config.ReserveBytes is free where the store is, and
	// content is not taken. Nothing was added; try again later.
	ErrNoSpace = errors.New("no space for content")
	// ErrFailed: a write to disk failed. Finds go on; nothing is written any
	// more until the disk is well again. Then the store goes on by itself, from
	// what was durable (heal.go); see Recovered. Opening it anew instead finds it
	// as a crash at the failure would have left it.
	ErrFailed = errors.New("store stopped after a failed write")
	// ErrOtherSecret: the directory was made with another Config.Secret.
	ErrOtherSecret = errors.New("store belongs to another secret")
	// ErrFull: there is no place for more of its kind.
	ErrFull = errors.New("store holds no more of these")
	// ErrCorrupt: something read from disk is not what was written.
	ErrCorrupt = errors.New("store is corrupt")
	// ErrInvalid: an argument is out of its bounds.
	ErrInvalid = errors.New("invalid argument")
	// ErrConflict: while an ad was written, an ad of another publisher removed
	// its record. Begin it again.
	ErrConflict = errors.New("record was removed by another publisher meanwhile")
	// ErrTaken: what an ad brings was to be left out as the store was frozen, or the
	// publisher closed, which is not so any more, or not yet. Begin it again, soon.
	ErrTaken = errors.New("content of the publisher is not left out now")
)

// Store is an open data directory. It is safe for concurrent use.
//
// Locks, in the order they are taken: life (held for reading by every method,
// for writing by Close and while the parts are opened anew), admin (one Freeze,
// Unfreeze, Assign or Unassign at a time, until it is on disk), latch (held for reading while postings are
// written), mu (one change of rows at a time), view (what readers see).
// publishers, frozenTime and frozenWhy are written under mu and view, so either is enough
// to read them.
type Store struct {
	cfg     Config
	disk    *failStop
	space   *space
	lock    *pebble.Lock
	db      *pebble.DB // rows
	log     *wal.Log
	logged  atomic.Pointer[wal.Log] // log, once there is one
	index   *postings.Index
	dead    deadSet
	peers   *peerTable
	metrics *metrics
	syncer  *syncer
	tail    *tail // of keys
	changes atomic.Uint64

	life      sync.RWMutex
	closed    bool
	lives     uint64        // how often the parts were opened anew
	down      error         // why they are not open: ErrFailed
	recovered chan struct{} // closed and replaced with each life

	safe      atomic.Uint64 // the log is durable below, for certain
	stopWatch context.CancelFunc
	watcher   sync.WaitGroup

	admin sync.Mutex

	latch   sync.RWMutex
	latched bool             // Put refuses
	held    map[peer.ID]bool // Put refuses for these: their holder is this store
	frozen  atomic.Bool      // latched, and on disk

	mu     sync.Mutex
	ids    idAllocator
	totals totals
	rowSeq uint64 // of the last frame of rows

	posting sync.Mutex // one frame of postings at a time, in order of positions

	keySecret [32]byte // of keyHash

	reclaiming sync.Mutex    // one pass at a time
	garbage    chan struct{} // capacity 1: the reclaimer may look
	tidying    sync.Mutex    // held while the log is shortened, or must not be

	move   chan struct{}    // capacity 1: the mover may look
	moving map[peer.ID]bool // marks on their way; guarded by mu

	announced int // rows under prefixAnnounced; guarded by mu
	cursors   int // rows under prefixCursor; guarded by mu

	stats statsCache

	logBytes int64         // the janitor shortens a log longer than this
	tidy     chan struct{} // capacity 1: the janitor may look
	stopTidy context.CancelFunc
	janitors sync.WaitGroup

	view        sync.RWMutex
	publishers  map[peer.ID]*publisher
	assignments map[peer.ID]Assignment
	stops       stops
	redo        map[peer.ID]redo // wishes that bear on marks; guarded by mu and view
	elsewhere   map[peer.ID]int  // rows under prefixElsewhere; guarded by mu and view
	frozenTime  time.Time
	frozenWhy   string
	shown       totals // as of the last change
}

// Open opens the store in cfg.Dir, making it if there is none. It fails with
// ErrNewerFormat, ErrInUse or ErrCorrupt, and then has left the directory as
// it was but for the lock file.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" {
		return nil, fmt.Errorf("open store: no directory given: %w", ErrInvalid)
	}
	if _, err := checkFormat(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	if err := makeDir(cfg.FS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("make store directory %s: %w", cfg.Dir, err)
	}
	lock, err := lockDir(cfg.FS, cfg.Dir, cfg.lockPatience)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(cfg, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func openLocked(cfg Config, lock *pebble.Lock) (*Store, error) {
	start := time.Now()
	exists, err := checkFormat(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	if !exists {
		if err := writeFormat(cfg.FS, cfg.Dir); err != nil {
			return nil, fmt.Errorf("write format number of store %s: %w", cfg.Dir, err)
		}
	}
	s := &Store{
		cfg:      cfg,
		lock:     lock,
		metrics:  newMetrics(),
		tidy:     make(chan struct{}, 1),
		logBytes: cfg.logBytes,
		garbage:  make(chan struct{}, 1),
		move:     make(chan struct{}, 1),
		tail:     newTail(), keySecret: sha256.Sum256(append([]byte("signpost row key\x00"), cfg.Secret...)),
		recovered: make(chan struct{}),
	}
	s.space = newSpace(cfg, s.metrics.noSpace)
	s.disk = s.newDisk()
	if err := s.openParts(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", cfg.Dir, err), s.closeParts())
	}
	// After all that may refuse the directory, and before anything that an older
	// program would not understand.
	older, err := upgradeFormat(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write format number of store %s: %w", cfg.Dir, err), s.closeParts())
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", cfg.Dir, err), s.closeParts())
	}
	if older < rolesFormat {
		s.countHeights()
	}
	s.upgradeAssignments()
	publishers, t := s.sizes()
	cfg.Logger.Info("opened store", "dir", cfg.Dir, "publishers", publishers,
		"records", t.records, "mhs", t.postings, "bytes", s.diskUsage(),
		"frozen", s.frozen.Load(), "elapsed", time.Since(start))
	return s, nil
}

// newDisk is the disk of one life.
func (s *Store) newDisk() *failStop {
	disk := newFailStop(s.cfg.FS, s.onFailure)
	disk.beforeTable = s.syncLog
	return disk
}

// openParts opens the rows, the log and the index, in this order, brings the
// rows and then the index up to the end of the log, as the index's compactions
// ask which record IDs are dead, which the rows tell, and loads what is kept
// in memory. All that was read is durable: so is all a log replays.
func (s *Store) openParts() (err error) {
	fs, dir := s.disk, s.cfg.Dir
	if s.db, err = pebble.Open(fs.PathJoin(dir, "rows"), s.pebbleOptions()); err != nil {
		return inPart("rows", err)
	}
	s.log, err = wal.Open(wal.Config{FS: fs, Dir: fs.PathJoin(dir, "log"), Before: wal.Pos(s.safe.Load()),
		SegmentBytes: min(s.logBytes/logSegments, 64<<20), Logger: s.cfg.Logger})
	if err != nil {
		return inPart("log", err)
	}
	s.logged.Store(s.log)
	if err := s.replayRows(); err != nil {
		return err
	}
	if err := s.dead.load(s.db); err != nil {
		return inPart("rows", err)
	}
	s.index, err = postings.Open(postings.Config{
		FS: fs, Dir: fs.PathJoin(dir, "postings"), Secret: postings.Secret(keyset.SecretOf(s.cfg.Secret)),
		MemoryBytes: memoryOf(s.cfg.MemoryBytes).postings, Alive: s.dead.alive,
		BeforeIngest: func(uint64) error { return s.syncLog() }, Processors: s.cfg.Processors,
		Logger: s.cfg.Logger, Registerer: s.cfg.Registerer, LeaveDamage: s.cfg.leaveDamage,
	})
	if errors.Is(err, postings.ErrSecret) {
		return fmt.Errorf("%w: %w", ErrOtherSecret, err)
	}
	if err != nil {
		return inPart("postings", err)
	}
	if err := s.replayPostings(); err != nil {
		return err
	}
	if err := s.syncLog(); err != nil {
		return err
	}
	return inPart("rows", s.load())
}

// syncLog makes the log durable, unless it is. A table written before there is
// a log says nothing that is not durable. The log is on the disk that hides
// failures (failStop), so that is asked last.
func (s *Store) syncLog() error {
	log := s.logged.Load()
	if log == nil {
		return nil
	}
	durable := log.Durable()
	if durable < log.Next() {
		var err error
		if durable, err = log.Sync(); err != nil {
			return err
		}
	}
	if err := s.disk.err(); err != nil {
		return err
	}
	s.isSafe(durable)
	return nil
}

// isSafe notes that the log is durable below pos. No sync before the call has
// failed.
func (s *Store) isSafe(pos wal.Pos) {
	for {
		safe := s.safe.Load()
		if safe >= uint64(pos) || s.safe.CompareAndSwap(safe, uint64(pos)) {
			return
		}
	}
}

// closeParts closes what openParts has opened.
func (s *Store) closeParts() error {
	var errs []error
	defer func() {
		s.index, s.db, s.log = nil, nil, nil
		s.logged.Store(nil)
	}()
	if s.index != nil {
		errs = append(errs, s.index.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(errs...)
}

// start starts the background work of a store that was just opened.
func (s *Store) start() error {
	s.syncer = startSyncer(s)
	if err := s.metrics.register(s); err != nil {
		return errors.Join(err, s.syncer.stop())
	}
	s.startJanitor()
	ctx, stop := context.WithCancel(context.Background())
	s.stopWatch = stop
	s.watcher.Go(func() { s.watch(ctx) })
	return nil
}

func (s *Store) startJanitor() {
	ctx, stop := context.WithCancel(context.Background())
	s.stopTidy = stop
	s.janitors.Go(func() { s.janitor(ctx, s.tidy) })
	s.janitors.Go(func() { s.reclaimer(ctx, s.garbage) })
	s.janitors.Go(func() { s.mover(ctx, s.move) })
}

// load reads what is kept in memory, in place of what was there before. After
// an error the store is not used.
func (s *Store) load() (err error) {
	s.view.Lock() // some methods take only this one
	defer s.view.Unlock()
	publishers, assignments := s.publishers, s.assignments
	s.publishers, s.assignments = make(map[peer.ID]*publisher), make(map[peer.ID]Assignment)
	defer func() {
		if err != nil {
			s.publishers, s.assignments = publishers, assignments
		}
	}()
	s.totals = totals{}
	if err := loadRow(s.db, []byte(keyTotals), decodeTotals, &s.totals); err != nil {
		return err
	}
	s.shown = s.totals
	if err := s.ids.load(s.db); err != nil {
		return err
	}
	s.peers = newPeerTable()
	if err := s.peers.load(s.db); err != nil {
		return err
	}
	if err := s.loadLatch(); err != nil {
		return err
	}
	if err := s.loadAssignments(); err != nil {
		return err
	}
	if err := errors.Join(s.loadPublishers(), s.loadRuns()); err != nil {
		return err
	}
	if err := s.loadRedo(); err != nil {
		return err
	}
	if err := s.loadElsewhere(); err != nil {
		return err
	}
	if err := s.loadMoving(); err != nil {
		return err
	}
	if err := s.loadCursors(); err != nil {
		return err
	}
	return s.loadAnnounced()
}

// Close makes everything durable and closes the store. Methods that are under
// way end first; later ones give ErrClosed. Closing twice is fine.
func (s *Store) Close() error {
	s.stopWatch()
	s.watcher.Wait() // it takes life
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	start := time.Now()
	s.metrics.unregister(s.cfg.Registerer)
	err := s.down
	if err == nil {
		if err = s.disk.err(); err == nil {
			err = s.syncer.sync()
		}
		s.stopTidy()
		s.janitors.Wait()
	}
	err = errors.Join(err, s.syncer.stop(), s.closeParts(), s.lock.Close())
	s.cfg.Logger.Info("closed store", "dir", s.cfg.Dir, "elapsed", time.Since(start), "err", err)
	return err
}

// enter is called first by every exported method, exit last.
func (s *Store) enter() error {
	s.life.RLock()
	err := s.down
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.life.RUnlock()
	}
	return err
}

// enterWrite is enter for methods that write.
func (s *Store) enterWrite() error {
	if err := s.enter(); err != nil {
		return err
	}
	if err := s.disk.err(); err != nil {
		s.exit()
		return err
	}
	return nil
}

func (s *Store) exit() { s.life.RUnlock() }

func (s *Store) onFailure(err error) {
	s.metrics.failed.Set(1)
	s.cfg.Logger.Error("write to disk failed: lookups go on, writes when the disk is well again", "dir", s.cfg.Dir, "err", err)
}

// frozenAt is the durable contiguous mark a publisher had when it was closed or
// the latch fell. The caller holds mu or view.
func (s *Store) frozenAt(id peer.ID) (cid.Cid, time.Time) {
	if a := s.assignments[id]; a.Role == RoleHolder && a.stop.Ad.Defined() {
		return a.stop.Ad, a.Time
	}
	if !s.frozen.Load() {
		return cid.Undef, time.Time{}
	}
	p := s.publishers[id]
	if p == nil || !p.info.frozenAt.Defined() {
		return cid.Undef, time.Time{}
	}
	return p.info.frozenAt, s.frozenTime
}

// DiskUsage returns the bytes the store takes on disk, the write-ahead log
// included; 0 when closed.
func (s *Store) DiskUsage() int64 {
	if s.enter() != nil {
		return 0
	}
	defer s.exit()
	return s.diskUsage()
}

func (s *Store) diskUsage() int64 {
	return int64(s.db.Metrics().DiskSpaceUsage()+s.index.DiskBytes()) + s.log.Size()
}
