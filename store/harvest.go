package store

import (
	"bytes"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store/wal"
)

// harvest is what can still be read of a damaged store's rows about whom it
// followed.
type harvest struct {
	publishers map[peer.ID]bool
	addrs      map[peer.ID][]string
	roles      map[peer.ID]Role
	policy     []byte
}

// version is the newest known value of a key.
type version struct {
	seq     uint64
	deleted bool
	value   []byte
}

// harvested are the prefixes that are read.
var harvested = []byte{prefixPublisher, prefixProgress, prefixAssignment, keyPolicy[0]}

// harvest reads each table by itself, past Pebble, and then the log as far as it
// goes. What cannot be read is passed over.
func (c Config) harvest() (harvest, error) {
	s := &Store{cfg: c}
	s.disk = s.newDisk()
	rows := make(map[string]version)
	dir := c.FS.PathJoin(c.Dir, "rows")
	names, err := c.FS.List(dir)
	if err != nil && !isMissing(err) {
		return harvest{}, err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		if err := s.harvestTable(c.FS.PathJoin(dir, name), rows); err != nil {
			c.Logger.Warn("a table is passed over, in part or as a whole", "table", name, "err", err)
		}
	}
	if err := c.harvestLog(rows); err != nil {
		c.Logger.Warn("the log is read up to where it is damaged", "err", err)
	}
	return sortOut(rows), nil
}

func (s *Store) harvestTable(path string, rows map[string]version) (err error) {
	r, err := s.openTable(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, prefix := range harvested {
		for kv := it.SeekGE([]byte{prefix}, 0); kv != nil && kv.K.UserKey[0] == prefix; kv = it.Next() {
			value, _, err := kv.Value(nil)
			if err != nil {
				break // with it.Error
			}
			see(rows, kv.K.UserKey, version{uint64(kv.K.SeqNum()), kv.K.Kind() != pebble.InternalKeyKindSet, bytes.Clone(value)})
		}
	}
	return it.Error()
}

func see(rows map[string]version, key []byte, v version) {
	if old, ok := rows[string(key)]; !ok || v.seq >= old.seq {
		rows[string(key)] = v
	}
}

func (c Config) harvestLog(rows map[string]version) error {
	log, err := wal.Open(wal.Config{FS: c.FS, Dir: c.FS.PathJoin(c.Dir, "log"), Logger: c.Logger})
	if err != nil {
		return err
	}
	seq := uint64(1) << 60 // above all of a table
	err = log.Replay(0, func(pos wal.Pos, kind byte, payload []byte) error {
		if kind != kindRows || len(payload) < 8 {
			return nil
		}
		var b pebble.Batch
		if err := b.SetRepr(bytes.Clone(payload[8:])); err != nil {
			return errLog(pos)
		}
		for r := b.Reader(); ; {
			kind, key, value, ok, err := r.Next()
			if err != nil || !ok {
				return err
			}
			seq++
			if len(key) > 0 && bytes.IndexByte(harvested, key[0]) >= 0 {
				see(rows, key, version{seq, kind != pebble.InternalKeyKindSet, bytes.Clone(value)})
			}
		}
	})
	return errors.Join(err, log.Close())
}

func sortOut(rows map[string]version) harvest {
	h := harvest{publishers: make(map[peer.ID]bool), addrs: make(map[peer.ID][]string), roles: make(map[peer.ID]Role)}
	for key, v := range rows {
		if v.deleted {
			continue
		}
		if key == keyPolicy {
			if checkPolicy(v.value) == nil {
				h.policy = v.value
			}
			continue
		}
		p, err := parsePeerKey(key[0], []byte(key))
		if err != nil || checkPeer("publisher", p) != nil {
			continue
		}
		switch key[0] {
		case prefixPublisher:
			if w, err := decodePublisher(v.value); err == nil && checkAddrs(w.addrs) == nil {
				h.addrs[p] = w.addrs
			}
		case prefixAssignment:
			if w, err := decodeAssignment(v.value); err == nil {
				h.roles[p] = w.Role
			}
		}
		h.publishers[p] = true
	}
	return h
}
