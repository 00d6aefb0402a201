package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"
)

// manifestFormat is the number in the first line of the manifest. A program
// that does not know it refuses the directory.
const manifestFormat = 1

// A change is one line of the manifest: everything that one operation makes
// true, at once. Put and Drop are what is different, the rest is all that holds.
type change struct {
	Format    int             `json:"format,omitempty"` // first line only
	Time      time.Time       `json:"time"`
	Head      cid.Cid         `json:"head,omitzero"` // newest advertisement
	Ads       int             `json:"ads"`           // advertisements in the chain
	Publisher string          `json:"publisher,omitempty"`
	Provider  string          `json:"provider,omitempty"`
	Addrs     []string        `json:"addrs"`              // those of the newest advertisement
	Metadata  []byte          `json:"metadata,omitempty"` // for contents to come
	Put       []contentRecord `json:"put,omitempty"`
	Drop      [][]byte        `json:"drop,omitempty"` // context IDs
}

// A contentRecord is one context: its advertisements and where its blocks are.
type contentRecord struct {
	ContextID   []byte         `json:"context"`
	Ads         []cid.Cid      `json:"ads"`     // that carry its entries, oldest first
	Entries     []cid.Cid      `json:"entries"` // of each of those
	Metadata    []byte         `json:"metadata"`
	Multihashes int            `json:"multihashes"`
	Blocks      int            `json:"blocks"`
	Bytes       int64          `json:"bytes"`
	Sources     []sourceRecord `json:"sources"` // by path
}

// A sourceRecord is one path that has the blocks of a context.
type sourceRecord struct {
	Path       string    `json:"path"`            // absolute, as it was given
	Roots      []cid.Cid `json:"roots,omitempty"` // of the CAR
	CAR        string    `json:"car,omitempty"`   // file in cars/; empty: the CAR is at Path
	Index      string    `json:"index,omitempty"` // file in cars/; empty: in the CAR
	IndexAt    int64     `json:"indexAt"`
	DataOffset int64     `json:"dataOffset"`
	DataSize   int64     `json:"dataSize"`
	Size       int64     `json:"size"` // of the CAR file
	ModTime    time.Time `json:"modTime"`
}

// A manifest is the append-only file of changes.
//
//	[crc32c of the JSON, 8 hex digits] [JSON] \n
//
// The last line that is whole is what holds: a line cut short by a crash is
// dropped at the next start. A damaged line with whole ones after it is no
// crash, and refused.
type manifest struct {
	path string
	f    *os.File
	size int64
	err  error // of a write that failed: the file's end is unknown, no further change
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openManifest opens or creates the manifest and returns its changes.
func openManifest(path string) (*manifest, []change, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	changes, whole, err := parseManifest(data)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest %s: %w", path, err)
	}
	m := &manifest{path: path}
	if len(data) == 0 {
		if err := m.replace(change{Time: time.Now().UTC()}); err != nil {
			return nil, nil, fmt.Errorf("manifest %s: %w", path, err)
		}
		return m, nil, nil
	}
	m.size = int64(whole)
	if m.f, err = os.OpenFile(path, os.O_RDWR, 0o644); err != nil {
		return nil, nil, err
	}
	if whole < len(data) {
		if err := errors.Join(m.f.Truncate(m.size), m.f.Sync()); err != nil {
			m.f.Close()
			return nil, nil, fmt.Errorf("manifest %s: %w", path, err)
		}
	}
	return m, changes, nil
}

// parseManifest returns the changes and the length of the lines that hold. The
// first line is never cut short, as it is written beside the file and renamed.
func parseManifest(data []byte) (changes []change, whole int, err error) {
	for rest := data; len(rest) > 0; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		c, ok := parseLine(line)
		if !found || !ok {
			if len(changes) == 0 {
				return nil, 0, errors.New("line 1 is damaged")
			}
			for l := range bytes.Lines(after) {
				if _, ok := parseLine(bytes.TrimSuffix(l, []byte("\n"))); ok {
					return nil, 0, fmt.Errorf("line %d is damaged", len(changes)+1)
				}
			}
			return changes, whole, nil
		}
		if len(changes) == 0 && c.Format != manifestFormat {
			return nil, 0, fmt.Errorf("format %d, this program knows %d", c.Format, manifestFormat)
		}
		changes = append(changes, c)
		whole += len(line) + 1
		rest = after
	}
	return changes, whole, nil
}

func parseLine(line []byte) (c change, ok bool) {
	if len(line) < 9 || line[8] != ' ' || string(line[:8]) != checksum(line[9:]) {
		return c, false
	}
	return c, json.Unmarshal(line[9:], &c) == nil
}

func checksum(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

func (c change) line() ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(checksum(body)+" "), body...), '\n'), nil
}

// append makes a change hold: when it returns nil, the change is durable. After
// an error it does not hold, and no other change is taken.
func (m *manifest) append(c change) error {
	if m.err != nil {
		return m.err
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	_, err = m.f.WriteAt(line, m.size)
	if err == nil {
		err = m.f.Sync()
	}
	if err != nil {
		m.err = fmt.Errorf("write manifest %s: %w", m.path, err)
		_ = m.f.Truncate(m.size) // best effort; a restart drops what is left
		return m.err
	}
	m.size += int64(len(line))
	return nil
}

// replace puts one change in the place of all so far, or makes the file.
func (m *manifest) replace(c change) error {
	c.Format = manifestFormat
	line, err := c.line()
	if err != nil {
		return err
	}
	if err := writeFile(m.path+".new", line); err != nil {
		return err
	}
	if err := os.Rename(m.path+".new", m.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(m.path)); err != nil {
		return err
	}
	f, err := os.OpenFile(m.path, os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if m.f != nil {
		m.f.Close()
	}
	m.f, m.size = f, int64(len(line))
	return nil
}

func (m *manifest) close() error { return m.f.Close() }

// writeFile writes a whole new file and syncs it.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
