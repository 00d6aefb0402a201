package publish

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// importStream imports bytes as one file and returns its root.
func importStream(t *testing.T, r io.Reader) (cid.Cid, *carWriter) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "out.car"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := newCARWriter(f, newSorter(dir))
	im := importer{car: w, logger: slog.New(slog.DiscardHandler)}
	root, err := im.stream(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return root.Cid(), w
}

// The CIDs were made by go-unixfsnode v1.10.6, data/builder, chunker
// size-262144, which shares no code with what we import with.
func TestFileHasTheCIDOthersGiveIt(t *testing.T) {
	for _, c := range []struct {
		name         string
		data         io.Reader
		want         string
		leaves, node int
	}{
		{"empty", strings.NewReader(""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", 1, 0},
		{"hello world", strings.NewReader("hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e", 1, 0},
		{"one full chunk", random(1, 262144), "bafkreicl2jnivjcro3zfyvodpsvcxq2gmgfagv2gja24ooqvrwwvolnhli", 1, 0},
		{"one byte more", random(1, 262145), "bafybeibg5bui4werbbaihft3ptynvkwh2jvnk6sjvvoydin6f2jrmj3uhi", 2, 1},
		{"174 chunks, one node", random(1, 174*262144), "bafybeigluovkfqu5u3o2uembikgxf7kwwbyazqrqlzgasadpyp755fzho4", 174, 1},
		{"178 chunks", random(1, 177*262144+17), "bafybeibpxgpj2u6gxypskjs3zixsc3vow5yhipaqsvnqc4v7jxjxq6frdu", 178, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, w := importStream(t, c.data)
			if got := root.String(); got != c.want {
				t.Errorf("root is %s, want %s", got, c.want)
			}
			if got, want := w.blocks, c.leaves+c.node; got != want {
				t.Errorf("%d blocks, want %d", got, want)
			}
		})
	}
}

// The same by hand, from the UnixFS specification. The node over a single last
// chunk is Kubo's; go-unixfsnode links the chunk itself.
func TestFileIsTheDAGOfTheSpecification(t *testing.T) {
	for _, chunks := range []int{2, 175, 349} {
		t.Run(fmt.Sprint(chunks), func(t *testing.T) {
			data := []byte(randomBytes(3, (chunks-1)*262144+5))
			want := layersByHand(data)
			if got, _ := importStream(t, bytes.NewReader(data)); !got.Equals(want) {
				t.Errorf("root is %s, want %s", got, want)
			}
		})
	}
}

// layersByHand builds the balanced DAG of data layer by layer.
func layersByHand(data []byte) cid.Cid {
	type part struct {
		link pbLink
		size uint64 // of the file's bytes below
	}
	var layer []part
	for rest := data; len(rest) > 0; {
		chunk := rest[:min(262144, len(rest))]
		rest = rest[len(chunk):]
		n := uint64(len(chunk))
		layer = append(layer, part{pbLink{cid: rawCID(chunk), tsize: n}, n})
	}
	for len(layer) > 1 {
		var above []part
		for children := range slices.Chunk(layer, 174) {
			var sum, tsize uint64
			var links []pbLink
			for _, c := range children {
				sum, tsize = sum+c.size, tsize+c.link.tsize
				links = append(links, c.link)
			}
			unixfs := pb(nil).varint(1, 2).varint(3, sum)
			for _, c := range children {
				unixfs = unixfs.varint(4, c.size)
			}
			node, k := dagPB(unixfs, links...)
			above = append(above, part{pbLink{cid: k, tsize: tsize + uint64(len(node))}, sum})
		}
		layer = above
	}
	return layer[0].link.cid
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestRepeatedChunksAreStoredOnce(t *testing.T) {
	_, w := importStream(t, io.LimitReader(zeros{}, 200*262144))
	// One leaf of zeros, the full inner node, the short one, the root.
	if w.blocks != 4 {
		t.Errorf("%d blocks, want 4", w.blocks)
	}
}

// Directories of n small files. CIDs as above, BuildUnixFSDirectory.
func TestDirectoryIsShardedAboveTheThreshold(t *testing.T) {
	for _, c := range []struct {
		files   int
		want    string
		sharded bool
	}{
		{3, "bafybeibgq5e5eq2lackdvaex3vtso36xb6fkuhpsk2t4nplm5bl6gyu6q4", false},
		{5577, "bafybeic6b673hdnjpdeawl5ozim5piqi2ay55ti5wd4sf43n7gjmbbmkye", false}, // 262,119 bytes of links
		{5578, "bafybeih6toz2fw4ucw2gtcb7ix2ckx3qlpg7ggk3wemhfrnxls7bjwabhi", true},  // 262,166
	} {
		t.Run(fmt.Sprint(c.files), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i := range c.files {
				name := filepath.Join(dir, fmt.Sprintf("file-%06d", i))
				if err := os.WriteFile(name, fmt.Appendf(nil, "content of %d\n", i), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p := open(t, testConfig(t.TempDir()))
			a := add(t, p, dir)
			if got := a.Roots[0].String(); got != c.want {
				t.Errorf("root is %s, want %s", got, c.want)
			}
			if sharded := a.Blocks > c.files+1; sharded != c.sharded {
				t.Errorf("%d blocks for %d files", a.Blocks, c.files)
			}
			if got := readTree(t, p, a.Roots[0]); len(got) != c.files || got["file-000002"] != "content of 2\n" {
				t.Errorf("reading back gives %d files", len(got))
			}
		})
	}
}

// readTree reads a UnixFS DAG back through another implementation's eyes: boxo's
// reader. Symbolic links are "-> target", directories end in a slash.
func readTree(t *testing.T, p *Publisher, root cid.Cid) map[string]string {
	t.Helper()
	store := blockReader{p}
	dag := merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))
	node, err := dag.Get(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	f, err := unixfile.NewUnixfsFile(t.Context(), dag, node)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	err = files.Walk(f, func(path string, n files.Node) error {
		switch n := n.(type) {
		case *files.Symlink:
			out[path] = "-> " + n.Target
		case files.Directory:
			if path != "" {
				out[path+"/"] = ""
			}
		case files.File:
			b, err := io.ReadAll(n)
			if err != nil {
				return err
			}
			out[path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDirectoryTreeByHand(t *testing.T) {
	dir := write(t, map[string]string{"a": "", "sub/hello": "hello world", ".hidden": "x", "sub/.h/y": "z"})
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	directory := pb(nil).varint(1, 1)
	hello, empty := rawCID([]byte("hello world")), rawCID(nil)
	subNode, sub := dagPB(directory, pbLink{hello, "hello", 11})
	linkNode, link := dagPB(pb(nil).varint(1, 4).bytes(2, []byte("a")))
	_, want := dagPB(directory, pbLink{empty, "a", 0},
		pbLink{link, "link", uint64(len(linkNode))},
		pbLink{sub, "sub", uint64(len(subNode)) + 11})

	p := open(t, testConfig(t.TempDir()))
	a := add(t, p, dir)
	if !a.Roots[0].Equals(want) {
		t.Errorf("root is %s, want %s", a.Roots[0], want)
	}
	if a.Skipped != 1 {
		t.Errorf("%d files skipped, want the pipe", a.Skipped)
	}
	got := fmt.Sprint(readTree(t, p, a.Roots[0]))
	if want := "map[a: link:-> a sub/: sub/hello:hello world]"; got != want {
		t.Errorf("read back %s, want %s", got, want)
	}

	cfg := testConfig(t.TempDir())
	cfg.Hidden = true
	p = open(t, cfg)
	a = add(t, p, dir)
	got = fmt.Sprint(readTree(t, p, a.Roots[0]))
	if want := "map[.hidden:x a: link:-> a sub/: sub/.h/: sub/.h/y:z sub/hello:hello world]"; got != want {
		t.Errorf("with hidden files read back %s, want %s", got, want)
	}
}

func TestEmptyDirectory(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	a := add(t, p, t.TempDir())
	if got, want := a.Roots[0].String(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"; got != want {
		t.Errorf("root is %s, want %s", got, want)
	}
}

func TestAPathThatIsASymbolicLinkIsFollowed(t *testing.T) {
	dir := write(t, map[string]string{"a": "hello world"})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "a"), link); err != nil {
		t.Fatal(err)
	}
	p := open(t, testConfig(t.TempDir()))
	if got := add(t, p, link).Roots[0]; !got.Equals(rawCID([]byte("hello world"))) {
		t.Errorf("root is %s", got)
	}
}

func TestSkippedDirectoriesAreNotPublished(t *testing.T) {
	dir := write(t, map[string]string{"a": "hello world", "pool/b": "data", "pool/c/d": "data"})
	cfg := testConfig(filepath.Join(dir, "pool", "state"))
	cfg.Skip = []string{filepath.Join(dir, "pool")}
	p := open(t, cfg)
	a := add(t, p, dir)
	if got := fmt.Sprint(readTree(t, p, a.Roots[0])); got != "map[a:hello world]" {
		t.Errorf("published %s", got)
	}
}

func TestStateDirectoryIsNotPublished(t *testing.T) {
	dir := write(t, map[string]string{"a": "hello world"})
	p := open(t, testConfig(filepath.Join(dir, "state")))
	a := add(t, p, dir)
	if got := fmt.Sprint(readTree(t, p, a.Roots[0])); got != "map[a:hello world]" {
		t.Errorf("published %s", got)
	}
	if _, err := p.Add(t.Context(), filepath.Join(dir, "state", "chain"), nil); err == nil {
		t.Error("part of the state directory was published")
	}
}

func TestImportEndsWithItsContext(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	file := tempFile(t, "big", []byte(randomBytes(1, 4<<20)))
	_, err := p.Add(ctx, file, func(pr Progress) {
		if pr.Stage == StageReading {
			cancel()
		}
	})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("got %v", err)
	}
	if left, _ := os.ReadDir(p.tmp); len(left) > 0 {
		t.Errorf("%d working directories left", len(left))
	}
}
