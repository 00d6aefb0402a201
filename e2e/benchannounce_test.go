package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/announce"
)

// What the announces figures are taken of.
const (
	floodIndexers   = 10
	floodPublishers = 10_000
	floodSenders    = 256
	floodRate       = 5000 // announces/s, when paced
	floodTime       = 15 * time.Second
)

// TestBenchAnnounces measures how many announces a second an assigner with a
// journal answers, each of them on disk by then, and how long an answer takes:
// as fast as the senders can, and at a rate given. Indexers and senders are in
// this process, which shares the machine. Only with SIGNPOST_BENCH=1.
func TestBenchAnnounces(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	var table strings.Builder
	table.WriteString("| journal | asked for | announces/s | p50 | p99 | longest | us assigner CPU/announce | peak memory MiB | forwarded |\n")
	table.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for _, journal := range []bool{true, false} {
		for _, rate := range []int{floodRate, 0} {
			table.WriteString(floodAssigner(t, journal, rate))
		}
	}
	t.Logf("\n%s", table.String())
}

// floodAssigner runs one case, a row of the table.
func floodAssigner(t *testing.T, journal bool, rate int) string {
	dir := workDir(t)
	ids := floodIDs(t)
	var fakes []*ownerIndexer
	for i := range floodIndexers {
		share := len(ids) / floodIndexers
		f := startOwner(t, floodPeer(t, fmt.Sprint("indexer ", i)), ids[i*share:(i+1)*share])
		fakes = append(fakes, f)
	}
	poolFile := ownerPool(t, dir, fakes...)
	args := []string{"assigner", "--listen", anyPort, "--listen-p2p", "none", "--listen-admin", anyPort, "--pool", poolFile}
	if journal {
		args = append(args, "--journal", filepath.Join(dir, "journal"))
	}
	p := spawn(t, dir, "assigner", args...)
	addr := strings.TrimPrefix(p.ready().HTTP, "http://")
	sendFlood(t, addr, ids, 0, time.Second) // the pool is read, connections stand

	cpu := cpuTime(t, p)
	before := taken(fakes)
	began := time.Now()
	took, last := sendFlood(t, addr, ids, rate, floodTime)
	elapsed := time.Since(began)
	used := cpuTime(t, p) - cpu
	slices.Sort(took)
	untilLastHeads(t, fakes, last)
	asked := "as fast as possible"
	if rate > 0 {
		asked = fmt.Sprintf("%d/s", rate)
	}
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("| %v | %s | %.0f | %v | %v | %v | %.0f | %d | %d |\n", journal, asked,
		float64(len(took))/elapsed.Seconds(), at(0.5), at(0.99), at(1), perUnit(used, len(took)), peakMemory(t, p)>>20, taken(fakes)-before)
}

// floodPeer is a made-up peer: nobody signs anything here.
func floodPeer(t testing.TB, name string) peer.ID {
	sum := sha256.Sum256([]byte(name))
	mh, err := multihash.Encode(append([]byte{8, 1, 0x12, 32}, sum[:]...), multihash.IDENTITY)
	if err != nil {
		t.Fatal(err)
	}
	return peer.ID(mh)
}

func floodIDs(t testing.TB) []peer.ID {
	var ids []peer.ID
	for i := range floodPublishers {
		ids = append(ids, floodPeer(t, fmt.Sprint("publisher ", i)))
	}
	return ids
}

// floodHead is a new CID for each n, in order.
func floodHead(n uint64) cid.Cid {
	digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	binary.BigEndian.PutUint64(digest[:], n)
	mh, err := multihash.Encode(digest[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.DagJSON, mh)
}

func floodNumber(c cid.Cid) uint64 { return binary.BigEndian.Uint64(c.Hash()[2:]) }

// sendFlood announces new heads of all publishers in turn for a while, from many
// connections, and returns how long each answer took, when paced from when it
// was due, and the last head of each publisher.
func sendFlood(t *testing.T, addr string, ids []peer.ID, rate int, during time.Duration) ([]time.Duration, map[peer.ID]uint64) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	last := make(map[peer.ID]uint64)
	var wg sync.WaitGroup
	for w := range floodSenders {
		wg.Go(func() {
			took, heads, err := floodFrom(addr, ids, w, rate, start, during)
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
			maps.Copy(last, heads)
		})
	}
	wg.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	return all, last
}

// floodFrom is one sender. Each has publishers of its own, so that the heads of
// one publisher come in order.
func floodFrom(addr string, ids []peer.ID, w, rate int, start time.Time, during time.Duration) (took []time.Duration, heads map[peer.ID]uint64, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	heads = make(map[peer.ID]uint64)
	defer conn.Close()
	r := bufio.NewReader(conn)
	timer := time.NewTimer(0)
	defer timer.Stop()
	location := multiaddr.StringCast("/dns4/publisher.example/tcp/443/https")
	for n := 0; time.Since(start) < during; n++ {
		began := time.Now()
		if rate > 0 {
			began = start.Add(time.Duration(n*floodSenders+w) * time.Second / time.Duration(rate))
			timer.Reset(time.Until(began))
			<-timer.C
		}
		publisher := ids[(n*floodSenders+w)%(len(ids)/floodSenders*floodSenders)]
		heads[publisher] = uint64(time.Now().UnixNano())
		m := announce.Message{Cid: floodHead(heads[publisher]), Addrs: []multiaddr.Multiaddr{
			multiaddr.Join(location, multiaddr.StringCast("/p2p/"+publisher.String())),
		}}
		body, err := m.EncodeCBOR()
		if err != nil {
			return took, heads, err
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "PUT /announce HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", addr, len(body))
		b.Write(body)
		if _, err := conn.Write(b.Bytes()); err != nil {
			return took, heads, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return took, heads, err
		}
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusNoContent {
			return took, heads, fmt.Errorf("answered %d %s", resp.StatusCode, text)
		}
		took = append(took, time.Since(began))
	}
	return took, heads, nil
}

// untilLastHeads waits until every owner has the newest announce of each of its
// publishers.
func untilLastHeads(t *testing.T, fakes []*ownerIndexer, last map[peer.ID]uint64) {
	t.Helper()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for end := time.Now().Add(patience); ; {
		missing := len(last)
		for _, f := range fakes {
			f.mu.Lock()
			for publisher, head := range f.heads {
				if head == last[publisher] {
					missing--
				}
			}
			f.mu.Unlock()
		}
		if missing == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the last announces of %d publishers were answered 204 and have not come", missing)
		}
		timer.Reset(100 * time.Millisecond)
		<-timer.C
	}
}
