package store

import (
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// quotaFS is a disk of limited size that others use too. When it is full,
// creating files, writing and syncing them fails with ENOSPC. As on a real
// system, a write may be done in part, and what a failed sync should have
// covered stays readable but is not written by any later sync.
type quotaFS struct {
	vfs.FS
	mu      sync.Mutex
	total   int64 // bytes of the disk
	used    int64 // by our files
	outside int64 // by others
	files   map[string]*quotaFile
	ops     int64 // write operations so far
	fillAt  int64 // the number of the one at which others take all there is
	filled  bool
}

// quotaFile is what names lead to.
type quotaFile struct {
	size, names int64
	stale       bool // a sync has failed
}

// nameBytes is what a name costs.
const nameBytes = 64

func newQuotaFS(fs vfs.FS, total int64) *quotaFS {
	return &quotaFS{FS: fs, total: total, files: make(map[string]*quotaFile)}
}

// fill has others use the disk until so much is free.
func (q *quotaFS) fill(free int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outside = q.total - q.used - free
}

// hit tells whether the disk was filled at the operation chosen.
func (q *quotaFS) hit() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.filled
}

// op counts a write operation. The caller holds mu, as for all below.
func (q *quotaFS) op() {
	if q.ops++; q.ops == q.fillAt {
		q.filled = true
		q.outside = q.total - q.used
	}
}

func (q *quotaFS) free() int64 { return max(0, q.total-q.used-q.outside) }

func (q *quotaFS) drop(name string) {
	f := q.files[name]
	if f == nil {
		return
	}
	delete(q.files, name)
	q.used -= nameBytes
	if f.names--; f.names == 0 {
		q.used -= f.size
	}
}

func (q *quotaFS) name(name string, f *quotaFile) {
	q.drop(name)
	q.files[name] = f
	f.names++
	q.used += nameBytes
}

func (q *quotaFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: uint64(q.free()), TotalBytes: uint64(q.total), UsedBytes: uint64(q.total - q.free())}, nil
}

func (q *quotaFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.op(); q.free() < nameBytes {
		return nil, syscall.ENOSPC
	}
	file, err := q.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	f := &quotaFile{}
	q.name(name, f)
	return &quotaHandle{file, q, f}, nil
}

func (q *quotaFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	file, err := q.FS.Open(name, opts...)
	if f := q.files[name]; err == nil && f != nil {
		return &quotaHandle{file, q, f}, nil
	}
	return file, err
}

func (q *quotaFS) Link(oldname, newname string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.op()
	if err := q.FS.Link(oldname, newname); err != nil {
		return err
	}
	q.name(newname, q.files[oldname])
	return nil
}

func (q *quotaFS) Rename(oldname, newname string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.op()
	if err := q.FS.Rename(oldname, newname); err != nil {
		return err
	}
	q.name(newname, q.files[oldname])
	q.drop(oldname)
	return nil
}

func (q *quotaFS) Remove(name string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.FS.Remove(name); err != nil {
		return err
	}
	q.drop(name)
	return nil
}

func (q *quotaFS) RemoveAll(name string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.FS.RemoveAll(name); err != nil {
		return err
	}
	for n := range q.files {
		if n == name || strings.HasPrefix(n, name+"/") {
			q.drop(n)
		}
	}
	return nil
}

// Stores do not use these.
func (q *quotaFS) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, syscall.ENOSYS
}

func (q *quotaFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, syscall.ENOSYS
}

type quotaHandle struct {
	vfs.File
	q *quotaFS
	f *quotaFile
}

func (h *quotaHandle) Write(p []byte) (int, error) {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	h.q.op()
	fits := min(int64(len(p)), h.q.free())
	n, err := h.File.Write(p[:fits])
	h.f.size += int64(n)
	if h.f.names > 0 {
		h.q.used += int64(n)
	}
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return n, err
}

func (h *quotaHandle) sync(do func() error) error {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	if h.q.op(); h.q.filled && h.q.free() == 0 {
		h.f.stale = true
		return syscall.ENOSPC
	}
	if h.f.stale {
		return nil
	}
	return do()
}

func (h *quotaHandle) Sync() error     { return h.sync(h.File.Sync) }
func (h *quotaHandle) SyncData() error { return h.sync(h.File.SyncData) }

func (h *quotaHandle) SyncTo(length int64) (full bool, err error) {
	err = h.sync(func() error { full, err = h.File.SyncTo(length); return err })
	return full, err
}
