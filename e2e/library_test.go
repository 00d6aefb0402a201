package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// libraryShelves is the number of publishers the library is split over.
const libraryShelves = 3

// gateway is the metadata that signpost publish advertises by itself.
var gateway = []byte{0xa0, 0x12, 0x00} // transport-ipfs-gateway-http

// shelf is one publisher and the part of the library it publishes.
type shelf struct {
	*process
	dir    string
	listen string
	paths  []string
	id     peer.ID
	books  map[string]*book // by path
}

// book is one published path: one context.
type book struct {
	contextID []byte
	root      cid.Cid
	mhs       []multihash.Multihash
	sample    map[string][]byte // the bytes of a few blocks, by multihash
}

// TestStandardLibraryIsFoundEverywhere publishes the sources of the Go
// standard library from three publishers into a pool of two indexers and asks
// the frontend for every CID in every way; then a removal and an update of
// metadata change what they name and nothing else.
func TestStandardLibraryIsFoundEverywhere(t *testing.T) {
	dir := workDir(t)
	p := startPool(t, dir, 2)
	shelves := publishLibrary(t, p)

	want := make(index)
	ads := 0
	for _, s := range shelves {
		for _, b := range s.books {
			want.with(newHolding(s.id, b.contextID, gateway), b.mhs)
			ads++
		}
	}
	t.Logf("%d publishers, %d contexts, %d multihashes", len(shelves), ads, len(want))
	if ads < 6 || len(want) < 5000 {
		t.Fatalf("the library is too small for this story")
	}
	libraryIsSpread(t, p, shelves)

	start := time.Now()
	if err := want.each(func(key cid.Cid, held []holding) error { return findEveryWay(p.frontend, key, held) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("every CID found in three ways, %d finds in %v", 3*len(want), time.Since(start).Round(time.Millisecond))

	libraryIsFetched(t, p, shelves[1])
	removeBook(t, p, shelves[0], want)
	updateMetadata(t, p, shelves[2], want)
}

// publishLibrary starts the publishers and waits until the pool has
// everything. They go on serving.
func publishLibrary(t *testing.T, p *pool) []*shelf {
	shelves := make([]*shelf, libraryShelves)
	for i := range shelves {
		shelves[i] = &shelf{dir: filepath.Join(p.dir, fmt.Sprintf("publisher-%d", i+1)), listen: freeAddr(t)}
	}
	src := librarySource(t)
	entries, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		s := shelves[i%len(shelves)]
		s.paths = append(s.paths, filepath.Join(src, e.Name()))
	}
	start := time.Now()
	for _, s := range shelves {
		args := publishArgs(s.dir, s.listen, p.announce, p.frontend, append([]string{"--hidden"}, s.paths...)...)
		s.process = spawn(t, p.dir, filepath.Base(s.dir), args...)
	}
	for _, s := range shelves {
		s.event("indexed")
		s.read(t)
	}
	t.Logf("published and indexed in %v", time.Since(start).Round(time.Millisecond))
	return shelves
}

// librarySource is the folder of the standard library's sources.
func librarySource(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src"))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// read learns from the publisher's events and CARs what it has published.
func (s *shelf) read(t *testing.T) {
	t.Helper()
	var err error
	if s.id, err = peer.Decode(s.event("serving")["id"].(string)); err != nil {
		t.Fatal(err)
	}
	byRoot := readCARs(t, filepath.Join(s.dir, "cars"))
	s.books = make(map[string]*book)
	added := s.events("added")
	if len(added) != len(s.paths) {
		t.Fatalf("%s: %d paths added, want %d", s.name, len(added), len(s.paths))
	}
	for _, e := range added {
		if e["unchanged"] == true {
			continue // the same bytes under another name
		}
		root := e["roots"].([]any)[0].(string)
		b := byRoot[root]
		if b == nil {
			t.Fatalf("%s: no CAR has root %s of %s", s.name, root, e["path"])
		}
		b.contextID = unbase64(t, e["context"].(string))
		if n := int(e["multihashes"].(float64)); n != len(b.mhs) {
			t.Errorf("%s: %s has %d multihashes advertised, its CAR %d", s.name, e["path"], n, len(b.mhs))
		}
		s.books[e["path"].(string)] = b
	}
	if len(s.books) != len(byRoot) {
		t.Errorf("%s: %d contexts, %d CARs", s.name, len(s.books), len(byRoot))
	}
}

// readCARs reads the CARs of a publisher with a reader that is not ours.
func readCARs(t *testing.T, dir string) map[string]*book {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.car"))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*book)
	for _, name := range files {
		if err := readCAR(name, out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return out
}

func readCAR(name string, into map[string]*book) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := car.NewBlockReader(f)
	if err != nil {
		return err
	}
	if len(r.Roots) != 1 {
		return fmt.Errorf("%d roots", len(r.Roots))
	}
	b := &book{root: r.Roots[0], sample: make(map[string][]byte)}
	seen := make(map[string]bool)
	for {
		block, err := r.Next()
		if errors.Is(err, io.EOF) {
			into[b.root.String()] = b
			return nil
		}
		if err != nil {
			return err
		}
		mh := block.Cid().Hash()
		if !seen[string(mh)] {
			seen[string(mh)] = true
			b.mhs = append(b.mhs, mh)
		}
		if len(b.sample) < 3 || block.Cid() == b.root {
			b.sample[string(mh)] = block.RawData()
		}
	}
}

// findEveryWay asks for one CID as JSON, as NDJSON and by delegated routing.
func findEveryWay(base string, key cid.Cid, want []holding) error {
	for how, ask := range map[string]func(string, cid.Cid) ([]holding, error){"JSON": findJSON, "NDJSON": findNDJSON} {
		got, err := ask(base, key)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("held by %q, want %q", got, want)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", how, err)
		}
	}
	got, err := findRouting(base, key)
	if err != nil {
		return fmt.Errorf("delegated routing: %w", err)
	}
	var providers []string
	for _, h := range want {
		id, _, _ := strings.Cut(string(h), " ")
		providers = append(providers, id)
	}
	var ids []string
	for _, id := range got {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	slices.Sort(providers)
	if providers = slices.Compact(providers); !slices.Equal(ids, providers) {
		return fmt.Errorf("delegated routing: provided by %q, want %q", ids, providers)
	}
	return nil
}

// libraryIsSpread: each publisher is with one indexer, and both have some.
func libraryIsSpread(t *testing.T, p *pool, shelves []*shelf) {
	t.Helper()
	placed := 0
	for _, ix := range p.indexers {
		assigned := ix.assigned()
		if len(assigned) == 0 {
			t.Errorf("%s has no publisher", ix.name)
		}
		placed += len(assigned)
		for _, s := range shelves {
			_, here := assigned[s.id]
			for _, b := range s.books {
				got, err := findJSON(ix.Find, b.root)
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(got, newHolding(s.id, b.contextID, gateway)) != here {
					t.Errorf("%s: %s assigned: %v, but its root %s is held by %q", ix.name, s.name, here, b.root, got)
				}
			}
		}
	}
	if placed != len(shelves) {
		t.Errorf("%d assignments for %d publishers", placed, len(shelves))
	}
}

// libraryIsFetched: signpost find --fetch brings the bytes that were published.
func libraryIsFetched(t *testing.T, p *pool, s *shelf) {
	t.Helper()
	b := s.books[slices.Sorted(maps.Keys(s.books))[0]]
	for mh, want := range b.sample {
		file := filepath.Join(p.dir, "fetched")
		key := raw(multihash.Multihash(mh)).String()
		if mh == string(b.root.Hash()) {
			key = b.root.String()
		}
		r := commandOK(t, "find", key, "--fetch", "--output", file, "--find", p.frontend)
		if !strings.Contains(r.stdout, s.id.String()) {
			t.Errorf("find %s does not show provider %s:\n%s", key, s.id, r.stdout)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("find %s --fetch: %d bytes, want the %d published", key, len(got), len(want))
		}
	}
}

// removeBook removes the largest context of a publisher: just what only that
// context had is gone.
func removeBook(t *testing.T, p *pool, s *shelf, want index) {
	t.Helper()
	path := ""
	for name, b := range s.books {
		if path == "" || len(b.mhs) > len(s.books[path].mhs) {
			path = name
		}
	}
	b := s.books[path]
	s.change(t, p, "--remove", path)
	want.drop(newHolding(s.id, b.contextID, gateway), b.mhs)
	gone := 0
	for _, held := range want {
		if len(held) == 0 {
			gone++
		}
	}
	if gone == 0 || gone == len(want) {
		t.Fatalf("the removal of %s leaves nothing to tell apart: %d of %d are gone", path, gone, len(want))
	}
	want.mustFind(t, p.frontend, "after the removal of "+path)
	t.Logf("removed %s: %d of %d CIDs are gone, the rest is found", path, gone, len(want))

	absent := raw(multihash.Multihash(b.root.Hash())).String()
	if a := mustGet(t, p.frontend+"/cid/"+absent, asJSON); a.status != 404 {
		t.Errorf("removed root as JSON: status %d, want 404", a.status)
	}
	if a := mustGet(t, p.frontend+"/cid/"+absent, asNDJSON); a.status != 404 {
		t.Errorf("removed root as NDJSON: status %d, want 404", a.status)
	}
	if ids, err := findRouting(p.frontend, b.root); err != nil || len(ids) != 0 {
		t.Errorf("removed root by delegated routing: %v, %v; want an empty answer", ids, err)
	}
	if r := command(t, "find", absent, "--find", p.frontend); r.code != 1 {
		t.Errorf("signpost find of a removed CID: status %d, want 1", r.code)
	}
}

// updateMetadata gives a publisher's contexts other protocols: its results
// change, and no other.
func updateMetadata(t *testing.T, p *pool, s *shelf, want index) {
	t.Helper()
	s.change(t, p, "--update-metadata", "bitswap,ipfs-gateway-http")
	for _, b := range s.books {
		want.drop(newHolding(s.id, b.contextID, gateway), b.mhs)
		want.with(newHolding(s.id, b.contextID, bitswapGateway), b.mhs)
	}
	want.mustFind(t, p.frontend, "after the update of metadata")
}

// change stops the publisher, makes a change with its directory, and waits
// until the pool has it.
func (s *shelf) change(t *testing.T, p *pool, flags ...string) {
	t.Helper()
	s.stop()
	args := append([]string{"--wait", "--wait-limit", patience.String()}, flags...)
	commandOK(t, publishArgs(s.dir, s.listen, p.announce, p.frontend, args...)...)
}
