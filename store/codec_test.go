package store

import (
	"bytes"
	"github.com/ipfs/go-cid"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

// rowKinds decodes and encodes again every kind of row.
var rowKinds = []struct {
	name   string
	recode func([]byte) ([]byte, error)
}{
	{"ref", func(b []byte) ([]byte, error) { w, err := decodeRef(b); return w.encode(), err }},
	{"progress", func(b []byte) ([]byte, error) { w, err := decodeProgress(b); return w.encode(), err }},
	{"waiting", func(b []byte) ([]byte, error) { w, err := decodeWaiting(b); return w.encode(), err }},
	{"again", func(b []byte) ([]byte, error) { w, err := decodeProgress(b); return w.encode(), err }},
	{"scan", func(b []byte) ([]byte, error) { w, err := decodeScan(b); return w.encode(), err }},
	{"deep scan", func(b []byte) ([]byte, error) { w, err := decodeScan(b); return w.encode(), err }},
	{"revisit", func(b []byte) ([]byte, error) { w, err := decodeRevisit(b); return w.encode(), err }},
	{"announced", func(b []byte) ([]byte, error) { w, err := decodeAnnounced(b); return w.encode(), err }},
	{"publisher", func(b []byte) ([]byte, error) { w, err := decodePublisher(b); return w.encode(), err }},
	{"ledger", func(b []byte) ([]byte, error) { w, err := decodeLedger(b); return w.encode(), err }},
	{"record", func(b []byte) ([]byte, error) { w, err := decodeRecord(77, b); return w.encode(), err }},
	{"removed record", func(b []byte) ([]byte, error) { w, err := decodeRecord(77, b); return w.encode(), err }},
	{"small record", func(b []byte) ([]byte, error) { w, err := decodeRecord(77, b); return w.encode(), err }},
	{"generation", func(b []byte) ([]byte, error) { w, err := decodeGeneration(b); return w.encode(), err }},
	{"forward", func(b []byte) ([]byte, error) { id, err := decodeForward(b); return encodeForward(id), err }},
	{"cursor", func(b []byte) ([]byte, error) { w, err := decodeCursor(b); return w.encode(), err }},
	{"number", func(b []byte) ([]byte, error) { n, err := decodeNumber(b); return appendNumber(n), err }},
	{"extended", func(b []byte) ([]byte, error) { w, err := decodeExtended(b); return w.encode(), err }},
	{"provider", func(b []byte) ([]byte, error) { w, err := decodeProvider(b); return w.encode(), err }},
	{"assignment", func(b []byte) ([]byte, error) { w, err := decodeAssignment(b); return w.encode(), err }},
	{"totals", func(b []byte) ([]byte, error) { w, err := decodeTotals(b); return w.encode(), err }},
	{"state", func(b []byte) ([]byte, error) { w, err := decodeState(b); return w.encode(), err }},
	{"registered", func(b []byte) ([]byte, error) { w, err := decodeRegistered(b); return w.encode(), err }},
	{"why", func(b []byte) ([]byte, error) { why, err := decodeWhy(b); return appendString(nil, why), err }},
	{"latch", func(b []byte) ([]byte, error) { at, err := decodeLatch(b); return appendTime(nil, at), err }},
	{"height", func(b []byte) ([]byte, error) { w, err := decodeProgress(b); return w.encode(), err }},
	{"frozen publisher", func(b []byte) ([]byte, error) { w, err := decodePublisher(b); return w.encode(), err }},
	{"places", func(b []byte) ([]byte, error) { w, err := decodeRuns(b); return w.encode(), err }},
	{"own wish", func(b []byte) ([]byte, error) { w, err := decodeRevisit(b); return w.encode(), err }},
	{"wish to follow", func(b []byte) ([]byte, error) { w, err := decodeRevisit(b); return w.encode(), err }},
}

// sampleRows has one full row of each kind, in the order of rowKinds.
func sampleRows() [][]byte {
	at := time.Unix(1_700_000_000, 123)
	trouble := Trouble{Attempts: 300, Since: at, Next: at.Add(time.Minute), Reason: "why"}
	reg := register{publisher: "pub", pos: 7, seens: seens{{"pub", 7, 3}, {"other", 1 << 40, 0}}}
	return [][]byte{
		refRow{testCID(1), testCID(2)}.encode(),
		progressRow{mark: link(9, 8), markTime: at, above: 1, pending: 300, tombs: 70000}.encode(),
		waitingRow{refRow{testCID(1), testCID(2)}, trouble}.encode(),
		progressRow{mark: link(9, 8), markTime: at, above: 1, again: 300, scans: 2, againFrom: 7}.encode(),
		scanRow{next: testCID(1), trouble: trouble}.encode(),
		scanRow{next: testCID(1), depth: 300, trouble: trouble}.encode(),
		Revisit{All: true, Depth: 300, Ads: []cid.Cid{testCID(1), testCID(2)}, Number: 70000}.encode(),
		announcedRow{testCID(1), at, []string{"/a", "/b"}}.encode(),
		publisherRow{addrs: []string{"/a", ""}, lastError: "e", lastErrorTime: at, frozenAt: testCID(3)}.encode(),
		ledgerRow{publisher: 3, pos: 5 << 32, verdict: Rejected, reason: "why", time: at}.encode(),
		recordRow{provider: 1, ctx: []byte("ctx"), register: reg, by: 2, metadata: []byte("md"),
			own: generation{id: 77, publisher: 3, first: 1, max: 9, postings: 1 << 30}, others: 300}.encode(),
		recordRow{provider: 1, register: register{seens: reg.seens}}.encode(),
		recordRow{provider: 1, ctx: []byte("ctx"), register: register{publisher: "pub", pos: 9 << 32}, by: 2,
			own: generation{id: 77, publisher: 2, first: 9 << 32, max: 9 << 32, postings: 10}}.encode(),
		generation{id: 77, max: 9, postings: 1 << 30}.encode(),
		encodeForward(300),
		cursorRow{ad: testCID(5), id: 7, first: 1 << 32, puts: 8, cursor: []byte("cursor")}.encode(),
		appendNumber(70000),
		extendedRow{register: reg, set: ExtendedSet{Override: true, Providers: xp("x", "y").Providers}}.encode(),
		providerRow{last: reg, lastAd: testCID(4), lastAdTime: at, addrsFrom: reg, addrs: []string{"/b"}}.encode(),
		assignmentRow{Continued: "frozen", Time: at, Role: RoleHolder, tail: 9, stop: Stand{testCID(3), 1 << 32, 7}, applied: []cid.Cid{testCID(4)}, Ranges: []Range{{To: testCID(5)}, {From: testCID(5), To: testCID(3)}}}.encode(),
		totals{1, 2, 3, 4}.encode(),
		stateRow(PublisherState{Phase: PhaseRemoved, Contact: at, Tried: at, Silent: time.Hour, PollInterval: -1, PollRetry: time.Minute,
			Removed: at, Removals: 300, Addrs: []string{"/a"}, LastAd: testCID(6)}).encode(),
		registeredRow{seq: 1 << 60, bare: true}.encode(),
		appendString(nil, "request: why"),
		appendTime(nil, at),
		progressRow{mark: link(9, 8), markTime: at, above: 1, height: 300, mhs: 1 << 40, epoch: 1 << 33}.encode(),
		publisherRow{addrs: []string{"/a"}, frozenAt: testCID(3), frozenPos: 7 << 32, frozenHeight: 300}.encode(),
		runs{{pos: 5, end: 7}, {pos: 1 << 32, step: 1 << 32, end: 3 << 32, Place: Place{ChainID{1}, 300}}, {pos: 4<<32 - 1, Place: Place{ChainID{2}, 1}}}.encode(),
		Revisit{Skipped: true, Floor: Stand{testCID(1), 1 << 32, 7}, Fill: true, Top: link(9, 0), Walked: true, Number: 3}.encode(),
		Revisit{Follow: true, Since: AdRef{Ad: testCID(9), Pos: 9}, Until: AdRef{Ad: testCID(5), Pos: 5}, Number: 4}.encode(),
	}
}

func TestRowsComeBackAsWritten(t *testing.T) {
	// The length of rows without what is written only if it is there.
	at := time.Unix(1_700_000_000, 123)
	bare := map[string]int{
		"waiting": len(refRow{testCID(1), testCID(2)}.encode()),
		"scan":    len(scanRow{next: testCID(1)}.encode()),
		"again":   len(progressRow{mark: link(9, 8), markTime: at, above: 1}.encode()),
	}
	bare["assignment"] = len(assignmentRow{Continued: "frozen", Time: at, legacy: true}.encode())
	bare["height"] = bare["again"]
	bare["frozen publisher"] = len(publisherRow{addrs: []string{"/a"}, frozenAt: testCID(3)}.encode())
	bare["deep scan"] = len(scanRow{next: testCID(1), depth: 300}.encode())
	for i, row := range sampleRows() {
		kind := rowKinds[i]
		again, err := kind.recode(row)
		if err != nil || !bytes.Equal(again, row) {
			t.Errorf("%s: %x came back as %x, %v", kind.name, row, again, err)
		}
		for n := range row {
			if kind.name == "ledger" && n >= len(row)-len("why") {
				break // a reason is what is left
			}
			if n > 0 && n == bare[kind.name] {
				continue // what may be left out
			}
			if _, err := kind.recode(row[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes were accepted", kind.name, n, len(row))
			}
		}
		if _, err := kind.recode(append(row[:len(row):len(row)], 0)); err == nil && kind.name != "ledger" {
			t.Errorf("%s: a trailing byte was accepted", kind.name)
		}
	}
	if got, err := decodeProgress(progressRow{}.encode()); err != nil || got != (progressRow{}) {
		t.Errorf("empty progress: %+v %v", got, err)
	}
}

// FuzzRows: no decoder panics, and what one accepts is what its encoder writes.
func FuzzRows(f *testing.F) {
	for i, row := range sampleRows() {
		f.Add(byte(i), row)
		f.Add(byte(i), row[:len(row)/2])
	}
	f.Fuzz(func(t *testing.T, kind byte, row []byte) {
		k := rowKinds[int(kind)%len(rowKinds)]
		again, err := k.recode(row)
		if err == nil && !bytes.Equal(again, row) {
			t.Errorf("%s: accepted %x, writes %x", k.name, row, again)
		}
	})
}

func TestKeysSortByTheirParts(t *testing.T) {
	keys := [][]byte{
		peerPosKey(prefixPending, "p", 0),
		peerPosKey(prefixPending, "p", 1),
		peerPosKey(prefixPending, "p", 256),
		peerPosKey(prefixPending, "p", MaxPosition),
		keyEnd(peerKey(prefixPending, "p")),
		peerPosKey(prefixPending, "q", 0),
		peerPosKey(prefixPending, "pp", 0),
	}
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1], keys[i]) > 0 {
			t.Errorf("%x sorts after %x", keys[i-1], keys[i])
		}
	}
	// No peer's keys lie among those of a peer whose ID begins alike.
	long := contextKey(prefixExtended, "pq", nil)
	if prefix := peerKey(prefixExtended, "p"); bytes.HasPrefix(long, prefix) {
		t.Errorf("%x begins with %x", long, prefix)
	}
	if got := keyEnd([]byte{1, 0xff, 0xff}); !bytes.Equal(got, []byte{2}) {
		t.Errorf("end of keys with 01ffff is %x", got)
	}
	if got := keyEnd([]byte{0xff}); got != nil {
		t.Errorf("end of keys with ff is %x", got)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("publisher"), uint64(7), []byte("provider"), []byte("ctx"))
	f.Add([]byte{}, uint64(1<<63), []byte{0xff}, []byte{})
	f.Fuzz(func(t *testing.T, pub []byte, pos uint64, prov, ctx []byte) {
		pub, prov, ctx = pub[:min(len(pub), maxPeerBytes)], prov[:min(len(prov), maxPeerBytes)], ctx[:min(len(ctx), MaxContextIDBytes)]
		type parts struct {
			Pub, Prov peer.ID
			Pos       Position
			Ctx       string
		}
		want := parts{peer.ID(pub), peer.ID(prov), Position(pos), string(ctx)}
		var got parts
		check := func(k []byte, c []byte, err error) {
			t.Helper()
			got.Ctx = string(c)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("key %x: %v (-want +got):\n%s", k, err, diff)
			}
		}
		var c []byte
		var err error
		k := tombstoneKey(want.Pub, want.Pos, want.Prov, ctx)
		got.Pub, got.Pos, got.Prov, c, err = parseTombstoneKey(k)
		check(k, c, err)
		k = contextKey(prefixExtended, want.Prov, ctx)
		got.Prov, c, err = parseContextKey(prefixExtended, k)
		check(k, c, err)
		k = peerPosKey(prefixAbove, want.Pub, want.Pos)
		got.Pub, got.Pos, err = parsePeerPosKey(prefixAbove, k)
		check(k, ctx, err)
		k = generationKey(uint64(pos), uint32(pos), want.Pos)
		if id, pub, first, err := parseGenerationKey(k); err != nil || id != pos || pub != uint32(pos) || first != want.Pos {
			t.Errorf("key %x: %d %d %d %v", k, id, pub, first, err)
		}
		k = peerKey(prefixProgress, want.Pub)
		got.Pub, err = parsePeerKey(prefixProgress, k)
		check(k, ctx, err)
	})
}

// FuzzParseKeys: no parser panics, and what one accepts is a key of its kind.
func FuzzParseKeys(f *testing.F) {
	f.Add(generationKey(300, 2, 7))
	f.Add(idKey(prefixDead, 9))
	f.Add(numberKey(prefixPeer, 9))
	f.Add(tombstoneKey("pub", 7, "prov", []byte("ctx")))
	f.Add(peerPosKey(prefixAbove, "pub", 7))
	f.Add(contextKey(prefixExtended, "prov", nil))
	f.Fuzz(func(t *testing.T, k []byte) {
		check := func(again []byte, err error) {
			t.Helper()
			if err == nil && !bytes.Equal(again, k) {
				t.Errorf("accepted %x, which would be written %x", k, again)
			}
		}
		id, n, first, err := parseGenerationKey(k)
		check(generationKey(id, n, first), err)
		id, err = parseIDKey(prefixDead, k)
		check(idKey(prefixDead, id), err)
		n, err = parseNumberKey(prefixPeer, k)
		check(numberKey(prefixPeer, n), err)
		pub, pos, prov, ctx, err := parseTombstoneKey(k)
		check(tombstoneKey(pub, pos, prov, ctx), err)
		prov, ctx, err = parseContextKey(prefixExtended, k)
		check(contextKey(prefixExtended, prov, ctx), err)
		pub, pos, err = parsePeerPosKey(prefixAbove, k)
		check(peerPosKey(prefixAbove, pub, pos), err)
		pub, err = parsePeerKey(prefixProvider, k)
		check(peerKey(prefixProvider, pub), err)
	})
}
