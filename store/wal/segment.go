package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	magic       = "signpwal"
	format      = 1
	headerBytes = 32
)

// segment is one file of the log: frames at first ≤ position < end, and behind
// them what a crash may have left.
type segment struct {
	number uint32
	first  Pos
	end    Pos
	salt   uint32
	size   int64 // of the file
}

func (s *segment) offset(pos Pos) int64 { return headerBytes + int64(pos-s.first) }

func segmentName(number uint32) string { return fmt.Sprintf("%08d.wal", number) }

// segmentNumber is the reverse of segmentName; false for any other file.
func segmentNumber(name string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, ".wal")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n == 0 || segmentName(uint32(n)) != name {
		return 0, false
	}
	return uint32(n), true
}

func (s *segment) header() []byte {
	b := append(make([]byte, 0, headerBytes), magic...)
	b = binary.BigEndian.AppendUint32(b, format)
	b = binary.BigEndian.AppendUint32(b, s.number)
	b = binary.BigEndian.AppendUint64(b, uint64(s.first))
	b = binary.BigEndian.AppendUint32(b, s.salt)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errTorn is an end in the middle of something.
var errTorn = errors.New("torn")

// readHeader fills in all but end. The error is errTorn for a header that was
// never complete on disk: there is nothing behind it.
func (s *segment) readHeader(file vfs.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	s.size = info.Size()
	if s.size < headerBytes {
		return errTorn
	}
	b := make([]byte, headerBytes)
	if err := readAt(file, b, 0); err != nil {
		return err
	}
	if string(b[:8]) != magic || crc32.Checksum(b[:28], castagnoli) != binary.BigEndian.Uint32(b[28:]) {
		if s.size == headerBytes {
			return errTorn
		}
		return corrupt(s.number, 0, "bad header")
	}
	if f := binary.BigEndian.Uint32(b[8:]); f != format {
		return fmt.Errorf("%w: %s has format %d, known is %d", ErrNewerFormat, segmentName(s.number), f, format)
	}
	if n := binary.BigEndian.Uint32(b[12:]); n != s.number {
		return corrupt(s.number, 12, fmt.Sprintf("is segment %d", n))
	}
	s.first = Pos(binary.BigEndian.Uint64(b[16:]))
	if s.first == 0 || s.first > maxPos-Pos(s.size) {
		return corrupt(s.number, 16, fmt.Sprintf("impossible position %d", s.first))
	}
	s.salt = binary.BigEndian.Uint32(b[24:])
	return nil
}

func corrupt(number uint32, offset int64, what string) error {
	return fmt.Errorf("%w: %s at offset %d: %s", ErrCorrupt, segmentName(number), offset, what)
}

// readAt reads all of b.
func readAt(file vfs.File, b []byte, offset int64) error {
	n, err := file.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// create begins the segment that holds what is written from now on: when it
// returns, the header and the file's name are durable. Log.io is held.
func (l *Log) create(salt uint32) error {
	if len(l.segments) == 0 {
		if err := l.makeDir(); err != nil {
			return err
		}
	}
	if l.number == math.MaxUint32 {
		return errors.New("no segment numbers left")
	}
	s := segment{number: l.number, first: l.written, end: l.written, salt: salt, size: headerBytes}
	file, err := l.fs.Create(l.path(s.number), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	err = writeAll(file, s.header())
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = syncDir(l.fs, l.cfg.Dir)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.hinted = file, 0
	l.segments = append(l.segments, s)
	l.bytes.Add(headerBytes)
	l.number++
	return nil
}

// makeDir makes the directory and makes its name durable, and the names of all
// above it: one of them may be new, or left unsynced by a process that ended
// right here. One that may not be opened, or that cannot be synced, was not
// made by us.
func (l *Log) makeDir() error {
	if err := l.fs.MkdirAll(l.cfg.Dir, 0o755); err != nil {
		return err
	}
	for dir := l.cfg.Dir; dir != l.fs.PathDir(dir); {
		dir = l.fs.PathDir(dir)
		err := syncDir(l.fs, dir)
		if err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
	return nil
}

func (l *Log) path(number uint32) string {
	return l.fs.PathJoin(l.cfg.Dir, segmentName(number))
}

func writeAll(file vfs.File, b []byte) error {
	n, err := file.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

func syncDir(fs vfs.FS, name string) error {
	dir, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
