package store

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where the store lives and what it may use. Only Dir is required.
type Config struct {
	Dir string
	FS  vfs.FS // nil: the disk
	// Secret keys the hashes of multihashes, so that nobody outside the pool
	// can make two of them collide. A directory made with another is refused.
	Secret []byte
	// MemoryBytes is what the store may hold in memory (memory.go): memtables,
	// caches, and what flushes, compactions and the log need to work. Default
	// DefaultMemoryBytes, at least 16 MiB. Not in it is what grows with the number
	// of publishers.
	MemoryBytes int64
	// ReserveBytes is what must be free on the file system of Dir for content
	// to be taken: below, Put refuses with ErrNoSpace and all else goes on.
	// Default: what may still have to be written then, 4 times MemoryBytes and
	// 256 MiB (see defaultReserve for the sum); negative: none is kept. Of a file
	// system that does not say how much is free none is kept either.
	ReserveBytes int64
	// SyncEvery is how long a commit may wait to become durable; default
	// DefaultSyncEvery.
	SyncEvery time.Duration
	// SyncBytes makes a sync come earlier when that much is written; default
	// DefaultSyncBytes.
	SyncBytes int64
	// Processors is how many this process may use, if that is not what the
	// runtime says (GOMAXPROCS, or the machine's if less): while there are
	// lookups, writing content takes half of their time only.
	Processors int
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics

	leaveDamage      bool          // damage stays until Repair is called
	lockPatience     time.Duration // tests shorten it
	maxFound         int           // tests lower it
	maxRegistered    int           // tests lower it
	minReclaim       uint64        // tests lower it
	moveRows         int           // tests lower it
	logBytes         int64         // tests lower it
	healMin, healMax time.Duration // tests change them
	onReclaimed      func()        // tests wait for a pass that began by itself
	onMoved          func()        // tests wait for marks that were on their way
}

// Defaults of Config.
const (
	DefaultMemoryBytes = 256 << 20
	DefaultSyncEvery   = 500 * time.Millisecond
	DefaultSyncBytes   = 4 << 20

	minMemoryBytes = 16 << 20
	minLogBytes    = 16 << 20
)

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = DefaultMemoryBytes
	}
	c.MemoryBytes = max(c.MemoryBytes, minMemoryBytes)
	if c.ReserveBytes == 0 {
		c.ReserveBytes = defaultReserve(c.MemoryBytes)
	}
	if c.SyncEvery <= 0 {
		c.SyncEvery = DefaultSyncEvery
	}
	if c.SyncBytes <= 0 {
		c.SyncBytes = DefaultSyncBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.lockPatience == 0 {
		c.lockPatience = lockPatience
	}
	if c.logBytes == 0 {
		c.logBytes = max(c.MemoryBytes/4, minLogBytes)
	}
	if c.minReclaim == 0 {
		c.minReclaim = minReclaim
	}
	if c.moveRows == 0 {
		c.moveRows = moveRows
	}
	if c.healMin == 0 {
		c.healMin, c.healMax = healMin, healMax
	}
	if c.maxFound == 0 {
		c.maxFound = defaultMaxFound
	}
	if c.maxRegistered == 0 {
		c.maxRegistered = MaxRegistered
	}
	return c
}
