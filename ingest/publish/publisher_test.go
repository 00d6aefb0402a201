package publish

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/metadata"
	"github.com/signpost-index/signpost/ingest/schema"
)

// kinds is the story a chain tells: put, remove, metadata or address, oldest first.
func kinds(t *testing.T, p *Publisher) string {
	t.Helper()
	var out []string
	seen := make(map[string]bool)
	for _, ad := range walk(t, p) {
		id := string(ad.ContextID)
		switch {
		case ad.IsRm:
			out = append(out, "remove")
			delete(seen, id)
		case ad.Entries == schema.NoEntries:
			out = append(out, "address")
		case seen[id]:
			out = append(out, "again")
		default:
			out = append(out, "put")
			seen[id] = true
		}
	}
	return strings.Join(out, " ")
}

func TestAdvertisementSaysWhatWasAdded(t *testing.T) {
	for _, codec := range []schema.Codec{schema.DagJSON, schema.DagCBOR} {
		t.Run(codec.String(), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Codec, cfg.Topic = codec, "/test/topic"
			p := open(t, cfg)
			if _, err := p.Head(t.Context()); !errors.Is(err, ipnisync.ErrNoHead) {
				t.Errorf("head of an empty chain: %v", err)
			}
			dir := write(t, map[string]string{"a": randomBytes(1, 600_000), "b": "hello world"})
			a := add(t, p, dir)
			ads := walk(t, p)
			if len(ads) != 1 {
				t.Fatalf("%d ads", len(ads))
			}
			ad := ads[0]
			gateway, err := metadata.Encode(metadata.IPFSGatewayHTTP)
			if err != nil {
				t.Fatal(err)
			}
			want := &schema.Advertisement{
				Provider: p.ID().String(), Addresses: []string{testAddr.String()}, Signature: ad.Signature,
				Entries: ad.Entries, ContextID: a.ContextID, Metadata: gateway,
			}
			if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", ad)); diff != "" {
				t.Error(diff)
			}
			if got := schema.Codec(a.Ad.Type()); got != codec {
				t.Errorf("ad is %s", got)
			}
			mhs, _ := entries(t, p, ad)
			// Three chunks and their node, one small file, the directory.
			if len(mhs) != 6 || a.Multihashes != 6 || a.Blocks != 6 || !slices.Contains(mhs, string(rawCID([]byte("hello world")).Hash())) {
				t.Errorf("%d multihashes, added %+v", len(mhs), a)
			}
			head, err := p.Head(t.Context())
			if err != nil || head.Topic != "/test/topic" || !head.Head.Equals(a.Ad) {
				t.Errorf("head %+v, %v", head, err)
			}
		})
	}
}

func TestProviderMayBeAnother(t *testing.T) {
	other, err := peer.IDFromPrivateKey(testKey(2))
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir())
	cfg.ProviderID = other
	p := open(t, cfg)
	add(t, p, tempFile(t, "f", []byte("x")))
	if got := walk(t, p)[0].Provider; got != other.String() {
		t.Errorf("provider is %s", got)
	}
}

func TestUnchangedContentIsNotAdvertisedAgain(t *testing.T) {
	state := t.TempDir()
	p := open(t, testConfig(state))
	dir := write(t, map[string]string{"a": "hello", "b": "world"})
	car := tempFile(t, "x.car", carV1(numbered("block", 5)...))
	for range 2 {
		first := add(t, p, dir)
		second := add(t, p, car)
		if again := add(t, p, dir); !again.Unchanged || !again.Ad.Equals(first.Ad) || !bytes.Equal(again.ContextID, first.ContextID) {
			t.Errorf("the directory again: %+v", again)
		}
		if again := add(t, p, car); !again.Unchanged || !again.Ad.Equals(second.Ad) {
			t.Errorf("the CAR again: %+v", again)
		}
		if got := kinds(t, p); got != "put put" {
			t.Errorf("chain is %s", got)
		}
		if files, _ := os.ReadDir(p.cars); len(files) != 2 {
			t.Errorf("%d files in cars, want a CAR and an index", len(files))
		}
		p.Close()
		p = open(t, testConfig(state)) // nor after a restart
	}
}

func TestChangedContentReplacesTheOld(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	dir := write(t, map[string]string{"a": "hello"})
	first := add(t, p, dir)
	if err := os.WriteFile(filepath.Join(dir, "b"), []byte("world"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := add(t, p, dir)
	if second.Unchanged || bytes.Equal(first.ContextID, second.ContextID) || !second.Removed.Defined() {
		t.Errorf("second time: %+v", second)
	}
	if got := kinds(t, p); got != "put remove put" {
		t.Errorf("chain is %s", got)
	}
	removal := walk(t, p)[1]
	if !bytes.Equal(removal.ContextID, first.ContextID) || len(removal.Metadata) > 0 ||
		removal.Entries != schema.NoEntries || !slices.Equal(removal.Addresses, []string{testAddr.String()}) {
		t.Errorf("removal is %+v", removal)
	}
	if got := slices.Collect(maps.Keys(indexer(t, p))); !slices.Equal(got, []string{string(second.ContextID)}) {
		t.Errorf("an indexer knows contexts %x", got)
	}
	if files, _ := os.ReadDir(p.cars); len(files) != 1 {
		t.Errorf("%d CARs left", len(files))
	}
	if _, err := p.ReadBlock(t.Context(), first.Roots[0]); err == nil {
		t.Error("the old root is still served")
	}
	// And back: the same context a second time.
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if third := add(t, p, dir); !bytes.Equal(third.ContextID, first.ContextID) || third.Unchanged {
		t.Errorf("third time: %+v", third)
	}
	if got := kinds(t, p); got != "put remove put remove put" {
		t.Errorf("chain is %s", got)
	}
}

func TestContentOfTwoPathsIsOneContext(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	one := write(t, map[string]string{"a": "hello"})
	two := write(t, map[string]string{"a": "hello"})
	a := add(t, p, one)
	if b := add(t, p, two); !b.Unchanged || !bytes.Equal(a.ContextID, b.ContextID) {
		t.Errorf("the second path: %+v", b)
	}
	if files, _ := os.ReadDir(p.cars); len(files) != 1 {
		t.Errorf("%d CARs for one content", len(files))
	}
	ad, err := p.Remove(t.Context(), one)
	if err != nil || ad.Defined() {
		t.Errorf("removing one of two paths: ad %s, %v", ad, err)
	}
	if _, err := p.ReadBlock(t.Context(), a.Roots[0]); err != nil {
		t.Errorf("the other path's root: %v", err)
	}
	if ad, err = p.Remove(t.Context(), two); err != nil || !ad.Defined() {
		t.Errorf("removing the last path: ad %s, %v", ad, err)
	}
	if got := kinds(t, p); got != "put remove" {
		t.Errorf("chain is %s", got)
	}
}

func TestRemove(t *testing.T) {
	for _, c := range []struct {
		name string
		arg  func(path string, a Added) string
	}{
		{"by path", func(path string, a Added) string { return path }},
		{"by a path that is gone", func(path string, a Added) string { os.RemoveAll(path); return path }},
		{"by context in base64", func(path string, a Added) string { return ContextText(a.ContextID) }},
		{"by context in URL base64", func(path string, a Added) string { return base64.RawURLEncoding.EncodeToString(a.ContextID) }},
		{"by context in hex", func(path string, a Added) string { return hex.EncodeToString(a.ContextID) }},
		{"by root", func(path string, a Added) string { return a.Roots[0].String() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := open(t, testConfig(t.TempDir()))
			add(t, p, tempFile(t, "other", []byte("stays")))
			path := write(t, map[string]string{"a": "hello"})
			a := add(t, p, path)
			ad, err := p.Remove(t.Context(), c.arg(path, a))
			if err != nil {
				t.Fatal(err)
			}
			head, err := p.Head(t.Context())
			if err != nil || !head.Head.Equals(ad) {
				t.Errorf("removal is %s, head %v, %v", ad, head, err)
			}
			if got := kinds(t, p); got != "put put remove" {
				t.Errorf("chain is %s", got)
			}
			if known := indexer(t, p); len(known) != 1 || len(p.Contents()) != 1 {
				t.Errorf("%d contexts in an indexer, %d contents", len(known), len(p.Contents()))
			}
			if _, err := p.Remove(t.Context(), c.arg(path, a)); !errors.Is(err, ErrNotPublished) {
				t.Errorf("removing it again: %v", err)
			}
		})
	}
}

func TestRemoveByARootOfTwoContentsIsAmbiguous(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	add(t, p, tempFile(t, "1.car", carV1([]byte("root"), []byte("one"))))
	add(t, p, tempFile(t, "2.car", carV1([]byte("root"), []byte("two"))))
	if _, err := p.Remove(t.Context(), rawCID([]byte("root")).String()); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v", err)
	}
}

func TestUpdateMetadataRepeatsTheEntries(t *testing.T) {
	state := t.TempDir()
	p := open(t, testConfig(state))
	a := add(t, p, tempFile(t, "1", []byte("one")))
	add(t, p, tempFile(t, "2", []byte("two")))
	both, err := metadata.Encode(metadata.Bitswap, metadata.IPFSGatewayHTTP)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do, also after a restart
		ads, err := p.UpdateMetadata(t.Context(), both)
		if err != nil {
			t.Fatal(err)
		}
		if got := kinds(t, p); got != "put put again again" {
			t.Errorf("chain is %s, %d ads", got, len(ads))
		}
		p.Close()
		p = open(t, testConfig(state))
	}
	entriesOf := make(map[string]string)
	for i, ad := range walk(t, p) {
		if i < 2 {
			entriesOf[string(ad.ContextID)] = ad.Entries.String()
		} else if ad.Entries.String() != entriesOf[string(ad.ContextID)] || !bytes.Equal(ad.Metadata, both) {
			t.Errorf("update is %+v", ad)
		}
	}
	add(t, p, tempFile(t, "3", []byte("three")))
	if ads := walk(t, p); !bytes.Equal(ads[len(ads)-1].Metadata, both) {
		t.Error("new content has the old metadata")
	}
	if got := p.Contents()[0].Metadata; !bytes.Equal(got, both) {
		t.Errorf("contents have metadata %x, context %x", got, a.ContextID)
	}
	if _, err := p.UpdateMetadata(t.Context(), make([]byte, schema.MaxMetadataBytes+1)); err == nil {
		t.Error("metadata that is too long is taken")
	}
}

func TestSetAddrsAdvertisesAChangeOnly(t *testing.T) {
	state := t.TempDir()
	p := open(t, testConfig(state))
	moved := multiaddr.StringCast("/dns4/new.example/tcp/443/https")
	set := func(want bool, addrs ...multiaddr.Multiaddr) {
		t.Helper()
		ad, err := p.SetAddrs(t.Context(), addrs)
		if err != nil || ad.Defined() != want {
			t.Errorf("set addresses: %s, %v", ad, err)
		}
	}
	set(false, testAddr) // nothing to tell yet
	add(t, p, tempFile(t, "1", []byte("one")))
	set(false, testAddr)
	set(true, moved)
	set(false, moved)
	p.Close()
	cfg := testConfig(state)
	cfg.Addrs = []multiaddr.Multiaddr{moved}
	p = open(t, cfg)
	set(false, moved)
	if got := kinds(t, p); got != "put address" {
		t.Errorf("chain is %s", got)
	}
	ad := walk(t, p)[1]
	if !slices.Equal(ad.Addresses, []string{moved.String()}) || len(ad.ContextID) > 0 || len(ad.Metadata) > 0 {
		t.Errorf("address ad is %+v", ad)
	}
	if _, err := p.SetAddrs(t.Context(), nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("no addresses: %v", err)
	}
	p.Close()
	cfg.Addrs = nil // goes on with what was advertised
	p = open(t, cfg)
	add(t, p, tempFile(t, "2", []byte("two")))
	if ad := walk(t, p)[2]; !slices.Equal(ad.Addresses, []string{moved.String()}) {
		t.Errorf("ad is %+v", ad)
	}
}

func TestNothingIsAdvertisedWithoutAnAddress(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Addrs = nil
	p := open(t, cfg)
	if _, err := p.Add(t.Context(), tempFile(t, "f", []byte("x")), nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v", err)
	}
	if _, err := p.SetAddrs(t.Context(), []multiaddr.Multiaddr{testAddr}); err != nil {
		t.Fatal(err)
	}
	add(t, p, tempFile(t, "f", []byte("x")))
}

func TestRestartContinuesTheChain(t *testing.T) {
	state := t.TempDir()
	var heads []string
	for i := range 4 {
		p := open(t, testConfig(state))
		before, err := p.Head(t.Context())
		if i > 0 && (err != nil || before.Head.String() != heads[i-1]) {
			t.Fatalf("start %d: head %v, %v, want %s", i, before, err, heads[i-1])
		}
		a := add(t, p, tempFile(t, "f", fmt.Appendf(nil, "content %d", i)))
		heads = append(heads, a.Ad.String())
		ads := walk(t, p)
		if len(ads) != i+1 || i > 0 && ads[i].PreviousID.String() != heads[i-1] {
			t.Fatalf("start %d: %d ads, newest after %s", i, len(ads), ads[i].PreviousID)
		}
		for j := range i + 1 {
			if _, err := p.ReadBlock(t.Context(), rawCID(fmt.Appendf(nil, "content %d", j))); err != nil {
				t.Errorf("start %d: %v", i, err)
			}
		}
		p.Close()
	}
}

func TestChainOfAnotherIdentityIsRefused(t *testing.T) {
	state := t.TempDir()
	p := open(t, testConfig(state))
	p.Close()
	cfg := testConfig(state)
	cfg.Key = testKey(2) // nothing has been signed yet
	p = open(t, cfg)
	add(t, p, tempFile(t, "f", []byte("x")))
	p.Close()
	if _, err := Open(testConfig(state)); !errors.Is(err, ErrOtherIdentity) {
		t.Errorf("another key: %v", err)
	}
	other := cfg
	other.ProviderID = "someone"
	if _, err := Open(other); !errors.Is(err, ErrOtherIdentity) {
		t.Errorf("another provider: %v", err)
	}
	open(t, cfg) // a refusal leaves the directory free
}

func TestBigContentIsSpreadOverAdvertisements(t *testing.T) {
	for _, c := range []struct {
		blocks, perChunk, perAd int
		want                    string // chunk lengths of each ad, head first
	}{
		{10, 4, 100, "[2 4 4]"},
		{8, 4, 100, "[4 4]"},
		{10, 4, 8, "[4 4] [2]"},
		{10, 4, 6, "[2 4] [4]"},
		{10, 4, 3, "[3] [3] [3] [1]"},
		{1, 4, 1, "[1]"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.ChunkSize, cfg.MaxAdEntries = c.perChunk, c.perAd
			p := open(t, cfg)
			a := add(t, p, tempFile(t, "x.car", carV1(numbered("block", c.blocks)...)))
			var got []string
			total := make(map[string]bool)
			for _, ad := range walk(t, p) {
				if !bytes.Equal(ad.ContextID, a.ContextID) {
					t.Error("another context")
				}
				mhs, chunks := entries(t, p, ad)
				got = append(got, fmt.Sprint(chunks))
				for _, mh := range mhs {
					total[mh] = true
				}
			}
			if s := strings.Join(got, " "); s != c.want || len(total) != c.blocks || len(a.Ads) != len(got) {
				t.Errorf("chunks %s with %d multihashes in %d ads, want %s", s, len(total), len(a.Ads), c.want)
			}
		})
	}
}

func TestChangeThatFailsLeavesNothingBehind(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	add(t, p, tempFile(t, "f", []byte("x")))
	before := fingerprint(t, p)
	check := func() {
		t.Helper()
		if got := fingerprint(t, p); got != before {
			t.Errorf("now %s, before %s", got, before)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.Add(ctx, tempFile(t, "g", []byte("y")), func(pr Progress) {
		if pr.Stage == StageEntries {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	check()
	if files, _ := os.ReadDir(p.cars); len(files) != 1 {
		t.Errorf("%d files in cars", len(files))
	}

	p.manifest.f.Close() // a disk that takes no more
	for range 2 {
		if _, err := p.Add(t.Context(), tempFile(t, "g", []byte("y")), nil); err == nil {
			t.Error("added without a manifest")
		}
		check()
	}
	if _, err := p.ReadBlock(t.Context(), rawCID([]byte("x"))); err != nil {
		t.Errorf("reading: %v", err)
	}
	p.Close() // says that its file is closed
	p = open(t, p.cfg)
	check()
	checkServed(t, p)
}

func TestProgressGoesThroughAllStages(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	for _, path := range []string{
		write(t, map[string]string{"a": randomBytes(1, 1<<20)}),
		tempFile(t, "x.car", carV1(numbered("block", 1000)...)),
	} {
		var stages []Stage
		var last Progress
		if _, err := p.Add(t.Context(), path, func(pr Progress) {
			if pr.Bytes < last.Bytes || pr.Bytes > pr.TotalBytes || pr.Path != path {
				t.Errorf("progress %+v after %+v", pr, last)
			}
			last = pr
			if len(stages) == 0 || stages[len(stages)-1] != pr.Stage {
				stages = append(stages, pr.Stage)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if want := []Stage{StageReading, StageIndexing, StageEntries, StageDone}; !slices.Equal(stages, want) {
			t.Errorf("stages %v", stages)
		}
		if last.Bytes != last.TotalBytes || last.Blocks == 0 || last.Multihashes != last.Blocks {
			t.Errorf("ends with %+v", last)
		}
	}
}

func TestAddsAtTheSameTime(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	done := make(chan error)
	const n = 12
	for i := range n {
		path := tempFile(t, "f", fmt.Appendf(nil, "content %d", i/2)) // each twice
		go func() {
			_, err := p.Add(t.Context(), path, nil)
			done <- err
		}()
		go func() { // readers meanwhile
			_, err := walkChain(t.Context(), p)
			done <- err
		}()
	}
	for range 2 * n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if ads := walk(t, p); len(ads) != n/2 || len(p.Contents()) != n/2 {
		t.Errorf("%d ads for %d contents", len(ads), len(p.Contents()))
	}
}

func TestClosedPublisherSaysSo(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	p.Close()
	if err := p.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := p.Add(t.Context(), t.TempDir(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("add: %v", err)
	}
	if _, err := p.Remove(t.Context(), "x"); !errors.Is(err, ErrClosed) {
		t.Errorf("remove: %v", err)
	}
}

func TestConfigIsJudgedBeforeAnythingIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for _, c := range []struct {
		name string
		edit func(*Config)
	}{
		{"no directory", func(c *Config) { c.Dir = "" }},
		{"no key", func(c *Config) { c.Key = nil }},
		{"codec", func(c *Config) { c.Codec = 0x55 }},
		{"chunk size", func(c *Config) { c.ChunkSize = MaxChunkSize + 1 }},
		{"ad entries", func(c *Config) { c.MaxAdEntries = -1 }},
		{"metadata", func(c *Config) { c.Metadata = make([]byte, schema.MaxMetadataBytes+1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(dir)
			c.edit(&cfg)
			if p, err := Open(cfg); err == nil {
				p.Close()
				t.Error("opened")
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("the directory was made")
			}
		})
	}
}
