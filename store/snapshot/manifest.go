package snapshot

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

// Sentinels a caller may test for.
var (
	// ErrNotFound: the place has no such snapshot, or none.
	ErrNotFound = errors.New("no such snapshot")
	// ErrDamaged: the place has other bytes than were written.
	ErrDamaged = errors.New("snapshot is damaged")
	// ErrOtherNode: the place has snapshots of another node; nothing was written.
	ErrOtherNode = errors.New("place has snapshots of another node")
	// ErrNotEmpty: the directory to restore to has something in it, which was left
	// as it is.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrNoSecret: the snapshot has no index secret, and none was given.
	ErrNoSecret = errors.New("index secret is not in the snapshot")
)

const (
	manifestVersion  = 1
	maxManifestBytes = 256 << 20
	maxFiles         = 1 << 20
	maxPathBytes     = 512

	// idLayout makes the names of snapshots sort by time.
	idLayout = "20060102T150405.000Z"
)

// Names in a data directory, with / between their parts.
const (
	storeDir     = "store"
	formatFile   = "store/FORMAT"
	IdentityFile = "identity.key"
	SecretFile   = "index-secret"
)

// Manifest says what a snapshot is made of.
type Manifest struct {
	Version int
	ID      string
	Time    time.Time // when the copy was begun: all that was committed before is in it
	Node    peer.ID
	Format  int    // of the store: store.FormatNumber of the program that wrote it
	Secret  string // store.SecretID of the index secret, which is not in it unless Files has it
	// Postings and Records are about how many there are.
	Postings, Records uint64
	// Marks are where the publishers stood at least.
	Marks []Mark `json:",omitempty"`
	Files []File
}

// Mark is the newest ad of a publisher of which, and of all older ones, nothing
// is to be done.
type Mark struct {
	Publisher peer.ID
	Ad        string
}

// File is one file of the data directory.
type File struct {
	Path    string // from the data directory, with / between its parts
	Bytes   int64
	SHA256  string    // hex
	Changed time.Time // when the original was changed last
}

// emptySum is that of files without content, Pebble's markers among them. They
// are in manifests only: some servers refuse empty objects.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Bytes is the size of all files.
func (m Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Bytes
	}
	return n
}

// Has tells whether the snapshot has a file.
func (m Manifest) Has(path string) bool {
	for _, f := range m.Files {
		if f.Path == path {
			return true
		}
	}
	return false
}

// Private tells whether keys are in it.
func (m Manifest) Private() bool { return m.Has(IdentityFile) || m.Has(SecretFile) }

func decodeManifest(r io.Reader, id string) (m Manifest, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return m, err
	}
	if len(b) > maxManifestBytes {
		return m, fmt.Errorf("manifest of more than %d bytes: %w", maxManifestBytes, ErrDamaged)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", ErrDamaged, err)
	}
	if m.Version > manifestVersion {
		return m, fmt.Errorf("manifest of version %d, this program knows up to %d: %w", m.Version, manifestVersion, store.ErrNewerFormat)
	}
	if m.ID != id {
		return m, fmt.Errorf("manifest %s says it is %q: %w", id, m.ID, ErrDamaged)
	}
	return m, m.check()
}

// check holds the files against what a data directory may have.
func (m Manifest) check() error {
	if len(m.Files) > maxFiles {
		return fmt.Errorf("manifest with %d files: %w", len(m.Files), ErrDamaged)
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		if !f.valid() || seen[f.Path] {
			return fmt.Errorf("manifest names file %q: %w", f.Path, ErrDamaged)
		}
		seen[f.Path] = true
	}
	if !seen[formatFile] {
		return fmt.Errorf("manifest without %s: %w", formatFile, ErrDamaged)
	}
	return nil
}

func (f File) valid() bool {
	if len(f.Path) > maxPathBytes || path.Clean(f.Path) != f.Path || strings.ContainsAny(f.Path, "\\\x00:") || f.Bytes < 0 {
		return false
	}
	if !strings.HasPrefix(f.Path, storeDir+"/") && f.Path != IdentityFile && f.Path != SecretFile {
		return false
	}
	sum, err := hex.DecodeString(f.SHA256)
	return err == nil && len(sum) == 32 && f.SHA256 == strings.ToLower(f.SHA256) && (f.Bytes == 0) == (f.SHA256 == emptySum)
}

// nextID is the name of a snapshot of now, above all others.
func nextID(now time.Time, ids []string) string {
	id := now.UTC().Format(idLayout)
	if len(ids) == 0 || id > ids[len(ids)-1] {
		return id
	}
	last, err := time.Parse(idLayout, ids[len(ids)-1])
	if err != nil {
		return id // not ours: idOf lets none pass
	}
	return last.Add(time.Millisecond).Format(idLayout)
}

// idOf is the name of the snapshot whose manifest a file is; "" for others.
func idOf(name string) string {
	id, ok := strings.CutSuffix(name, ".json")
	if _, err := time.Parse(idLayout, id); !ok || err != nil {
		return ""
	}
	return id
}
