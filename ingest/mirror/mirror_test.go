package mirror

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		for n := range 4 {
			blocks := adOf(uint64(n), n)
			if has, err := m.Has(t.Context(), blocks[0].c); has || err != nil {
				t.Errorf("has the ad before it is written: %v, %v", has, err)
			}
			write(t, m, blocks)
			if has, err := m.Has(t.Context(), blocks[0].c); !has || err != nil {
				t.Errorf("has the ad: %v, %v", has, err)
			}
			expect(t, m, blocks)
		}
		reader := openAs(t, Config{URL: cfg.URL}) // looks for .car.gz first
		expect(t, reader, adOf(3, 3))
		if _, err := reader.Create(adOf(1, 1)[0].c, cid.Undef); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Create without a spool: %v", err)
		}
	})
}

func TestWhatIsMissingIsNotFound(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		blocks := adOf(1, 3)
		if _, err := m.Ad(t.Context(), blocks[0].c); !errors.Is(err, ErrNotFound) {
			t.Errorf("ad: %v", err)
		}
		if _, err := m.Entries(t.Context(), blocks[0].c); !errors.Is(err, ErrNotFound) {
			t.Errorf("entries: %v", err)
		}
		if _, err := m.Ad(t.Context(), cid.Undef); err == nil {
			t.Error("an undefined CID is found")
		}
		write(t, m, blocks) // what was missing a moment ago is there now
		expect(t, m, blocks)
		e := entries(t, m, blocks[0].c)
		if _, err := e.Block(blocks[2].c); err != nil {
			t.Errorf("a reader that begins in the middle: %v", err)
		}
		for range 2 {
			if _, err := e.Block(blocks[1].c); !errors.Is(err, ErrNotFound) {
				t.Errorf("a block that was passed: %v", err)
			}
		}
	})
}

func TestWhatAnotherWroteIsFoundAMinuteLater(t *testing.T) {
	dir := t.TempDir()
	m, other := open(t, Config{URL: dir}), open(t, Config{URL: dir})
	now := time.Now()
	m.now = func() time.Time { return now }
	blocks := adOf(1, 1)
	if _, err := m.Ad(t.Context(), blocks[0].c); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	write(t, other, blocks)
	if _, err := m.Ad(t.Context(), blocks[0].c); !errors.Is(err, ErrNotFound) {
		t.Errorf("it was not remembered as missing: %v", err)
	}
	now = now.Add(missingFor)
	expect(t, m, blocks)
}

func TestHeadIsTheOneSetLast(t *testing.T) {
	provider, err := peer.Decode("12D3KooWNaMHeXWQbN7WP2Cm8rzdRhEBVFn7hkuRWmTGBKWDkTGc")
	if err != nil {
		t.Fatal(err)
	}
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		if _, err := m.Head(t.Context(), provider); !errors.Is(err, ErrNotFound) {
			t.Errorf("head before there is one: %v", err)
		}
		for i := range uint64(2) {
			want := adOf(i, 0)[0].c
			if err := m.SetHead(t.Context(), provider, want); err != nil {
				t.Fatal(err)
			}
			if got, err := m.Head(t.Context(), provider); err != nil || got != want {
				t.Errorf("head %s, %v, want %s", got, err, want)
			}
		}
		if err := m.SetHead(t.Context(), "", adOf(1, 0)[0].c); err == nil {
			t.Error("a head of nobody was set")
		}
	})
}

func TestWritingAnAdAgainChangesNothing(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		blocks := adOf(1, 3)
		write(t, m, blocks[:1])
		expect(t, m, blocks[:1])
		for range 2 {
			write(t, m, blocks)
			expect(t, m, blocks)
		}
		write(t, m, blocks[:1]) // one without entries does not replace it
		expect(t, m, blocks)
		if used := m.spool.used.Load(); used != 0 {
			t.Errorf("%d bytes of the spool stay in use", used)
		}
		if left := filesBelow(t, m.spool.dir); len(left) != 1 {
			t.Errorf("left in the spool: %v", left)
		}
	})
}

func TestWritersOfOneAdAtTheSameTime(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		blocks := adOf(1, 20)
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				w, err := m.Create(blocks[0].c, blocks[1].c)
				if err != nil {
					return err
				}
				for _, b := range blocks {
					if err := w.Block(b.c, b.data); err != nil {
						return err
					}
				}
				if err := w.Commit(t.Context()); err != nil {
					return err
				}
				if ad, err := m.Ad(t.Context(), blocks[0].c); err != nil || string(ad) != string(blocks[0].data) {
					return fmt.Errorf("ad right after it was written: %w", err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		expect(t, m, blocks)
	})
}

func TestALargeAdIsReadBeyondTheWindow(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		blocks := []block{blockOf(1, 5*adWindow), blockOf(2, 100)}
		write(t, m, blocks)
		expect(t, m, blocks)
	})
}
