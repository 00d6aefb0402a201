package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sys/unix"
)

// The shape of the DAGs we build. Every number is part of a content's CID: with
// these, Kubo's `ipfs add --cid-version=1` with its long-standing defaults
// makes the same one.
const (
	chunkBytes       = 262144 // of a file in one leaf
	linksPerNode     = 174    // of an inner node of a file
	shardWidth       = 256    // children of a HAMT node of a directory
	shardingBytes    = 262144 // of link names and CIDs; a directory with more becomes a HAMT
	sizeEstimateMode = uio.SizeEstimationLinks
)

// cidBuilder names blocks by CIDv1 and sha2-256.
var cidBuilder = cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256, MhLength: -1}

// An importer turns files and directories into UnixFS blocks, which it writes
// as soon as they are complete: of a file it holds one chunk and one inner node
// of each level, of a directory its names and links.
//
// Regular files become balanced DAGs with raw leaves, directories basic or
// HAMT-sharded ones, symbolic links UnixFS symbolic links; neither modes nor
// times are kept. Everything else is skipped with a log line, and so is the
// state directory itself. Hidden files, those whose name begins with a dot, are
// left out unless hidden is set; the path given is never hidden.
type importer struct {
	car     *carWriter
	hidden  bool
	never   []fs.FileInfo // directories left out: the state directory and Config.Skip
	logger  *slog.Logger
	skipped int
	read    func(n int) // told of bytes read from files; nil: nobody asks
}

// add imports path and returns its root node, nil if it was skipped.
func (im *importer) add(ctx context.Context, path string, info fs.FileInfo) (format.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return im.file(ctx, path)
	case mode.IsDir():
		if im.leavesOut(info) {
			im.skip(path, "data of this program")
			return nil, nil
		}
		return im.directory(ctx, path)
	case mode&fs.ModeSymlink != 0:
		return im.symlink(ctx, path)
	default:
		im.skip(path, "not a regular file")
		return nil, nil
	}
}

func (im *importer) leavesOut(dir fs.FileInfo) bool {
	return slices.ContainsFunc(im.never, func(n fs.FileInfo) bool { return os.SameFile(dir, n) })
}

func (im *importer) skip(path, reason string) {
	im.skipped++
	im.logger.Info("file skipped", "path", path, "reason", reason)
}

func (im *importer) file(ctx context.Context, path string) (format.Node, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	root, err := im.stream(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	return root, nil
}

// openRegular opens path for reading if it is a regular file. A pipe that has
// taken the file's place is refused instead of waited for.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// stream imports the bytes of one file.
func (im *importer) stream(ctx context.Context, r io.Reader) (format.Node, error) {
	params := helpers.DagBuilderParams{
		Maxlinks:   linksPerNode,
		RawLeaves:  true,
		CidBuilder: cidBuilder,
		Dagserv:    sink{im.car},
	}
	builder, err := params.New(chunk.NewSizeSplitter(&watchedReader{ctx, r, im.read}, chunkBytes))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(builder)
}

func (im *importer) symlink(ctx context.Context, path string) (format.Node, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	node := merkledag.NodeWithData(data)
	if err := node.SetCidBuilder(cidBuilder); err != nil {
		return nil, err
	}
	return node, sink{im.car}.Add(ctx, node)
}

func (im *importer) directory(ctx context.Context, path string) (format.Node, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	dir, err := newDirectory(im.car)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !im.hidden && e.Name()[0] == '.' {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		child, err := im.add(ctx, filepath.Join(path, e.Name()), info)
		if err != nil {
			return nil, err
		}
		if child == nil {
			continue
		}
		if err := dir.AddChild(ctx, e.Name(), child); err != nil {
			return nil, fmt.Errorf("import %s: add %q: %w", path, e.Name(), err)
		}
	}
	node, err := dir.GetNode()
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	return node, sink{im.car}.Add(ctx, node)
}

// newDirectory returns an empty directory that becomes a HAMT when it has to.
// All it depends on is said here, not left to boxo's package variables.
func newDirectory(w *carWriter) (uio.Directory, error) {
	dir, err := uio.NewDirectory(sink{w},
		uio.WithCidBuilder(cidBuilder),
		uio.WithMaxHAMTFanout(shardWidth),
		uio.WithSizeEstimationMode(sizeEstimateMode))
	if err != nil {
		return nil, err
	}
	dir.SetHAMTShardingSize(shardingBytes)
	return dir, nil
}

// importSize adds up the bytes of the files that add would read, for progress.
// It is an estimate: files may change, and what cannot be read now fails later.
func (im *importer) importSize(ctx context.Context, path string) int64 {
	var total int64
	_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return ctx.Err()
		}
		hidden := p != path && !im.hidden && e.Name()[0] == '.'
		info, err := e.Info()
		if e.IsDir() && (hidden || err == nil && im.leavesOut(info)) {
			return fs.SkipDir
		}
		if err == nil && !hidden && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

// A watchedReader ends with its context and reports what is read.
type watchedReader struct {
	ctx  context.Context
	r    io.Reader
	read func(int)
}

func (w *watchedReader) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.r.Read(b)
	if w.read != nil {
		w.read(n)
	}
	return n, err
}

// sink is the DAG service boxo's builders write to: it puts blocks into a CAR
// and has none to give back. The builders never ask for one, because directories
// are built new and their shards stay in memory until they are complete.
type sink struct{ w *carWriter }

var errWriteOnly = errors.New("blocks can only be added")

func (s sink) Add(ctx context.Context, n format.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.w.put(n.Cid(), n.RawData())
}

func (s sink) AddMany(ctx context.Context, nodes []format.Node) error {
	for _, n := range nodes {
		if err := s.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (sink) Get(context.Context, cid.Cid) (format.Node, error) { return nil, errWriteOnly }

func (sink) GetMany(context.Context, []cid.Cid) <-chan *format.NodeOption {
	out := make(chan *format.NodeOption, 1)
	out <- &format.NodeOption{Err: errWriteOnly}
	close(out)
	return out
}

func (sink) Remove(context.Context, cid.Cid) error       { return errWriteOnly }
func (sink) RemoveMany(context.Context, []cid.Cid) error { return errWriteOnly }
