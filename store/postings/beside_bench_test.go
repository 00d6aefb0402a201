package postings

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
)

// BenchmarkBeside reports lookups that come over the network while an index
// is filled: at half of full speed, and as fast as it goes; with the pacer and
// without. Times are from when a lookup was to be sent, so that none is left
// out for the ones before it. POSTINGS_N and POSTINGS_MEMORY_MIB as in
// BenchmarkIndex; with GOMAXPROCS at twice the processors a processor always
// waits for the network.
func BenchmarkBeside(b *testing.B) {
	n := benchN(b)
	full := 0.0
	b.Run("alone", func(b *testing.B) { full = beside(b, n, 0, 0, true) })
	b.Run("quiet", func(b *testing.B) { beside(b, n/100, full/100, 700, true) })
	for _, paced := range []bool{false, true} {
		name := map[bool]string{false: "free", true: "paced"}[paced]
		b.Run(name+"/half", func(b *testing.B) { beside(b, n, full/2, 700, paced) })
		b.Run(name+"/full", func(b *testing.B) { beside(b, n, 0, 700, paced) })
	}
}

// beside fills an index at so many puts a second, 0 for as many as it takes,
// beside so many lookups a second, and returns the puts a second it came to.
func beside(b *testing.B, n uint64, puts, lookups float64, paced bool) (speed float64) {
	for b.Loop() {
		x, err := Open(Config{Dir: b.TempDir(), MemoryBytes: benchMemory(b), Alive: func(id uint64) bool { return id != 1<<40 }})
		if err != nil {
			b.Fatal(err)
		}
		if !paced {
			x.pace.procs = 1 << 30
		}
		stop := make(chan struct{})
		var took []time.Duration
		var asking sync.WaitGroup
		if lookups > 0 {
			ready := make(chan struct{})
			asking.Go(func() { took = askBeside(b, x, lookups, ready, stop) })
			<-ready
		}
		start, cpu := time.Now(), cpuTime()
		fillBeside(b, x, n, puts)
		speed = float64(n) / time.Since(start).Seconds()
		b.ReportMetric(speed/1e6, "Mputs/s")
		b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(n), "cpu-us/put")
		b.ReportMetric(0, "ns/op")
		close(stop)
		asking.Wait()
		if len(took) > 0 {
			slices.Sort(took)
			for name, part := range map[string]float64{"p50-us": .5, "p99-us": .99, "p99.9-us": .999} {
				b.ReportMetric(float64(took[int(float64(len(took))*part)].Microseconds()), name)
			}
			b.ReportMetric(float64(len(took)), "lookups")
		}
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return speed
}

func fillBeside(b *testing.B, x *Index, n uint64, puts float64) {
	mhs := make([]multihash.Multihash, 16384)
	for i := range mhs {
		mhs[i] = make([]byte, 34)
	}
	var hs []Hash
	start := time.Now()
	for i := uint64(0); i < n; i += uint64(len(mhs)) {
		for j := range mhs {
			mhs[j] = benchMultihash(mhs[j], i+uint64(j))
		}
		hs = x.HashAll(hs[:0], mhs)
		if err := x.Put(i+1, i/benchPerRecord, hs); err != nil {
			b.Fatal(err)
		}
		if puts > 0 {
			time.Sleep(time.Duration(float64(i)/puts*1e9) - time.Since(start))
		}
	}
	if err := x.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// askBeside looks hashes up over loopback connections, as clients that do not
// wait for one another.
func askBeside(b *testing.B, x *Index, rate float64, ready chan<- struct{}, stop <-chan struct{}) []time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var asking sync.WaitGroup
	defer asking.Wait()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Error(err)
		return nil
	}
	asking.Go(func() { serveBeside(b, x, l) })
	free := make(chan net.Conn, 256)
	for range cap(free) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = ask(c, 0)
		}
		if err != nil {
			b.Error(err)
			return nil
		}
		free <- c
	}
	close(ready)
	var calls sync.WaitGroup
	rng := rand.New(rand.NewPCG(1, 7))
	at := time.Now()
	for asked := true; asked; {
		at = at.Add(time.Duration(rng.ExpFloat64() / rate * 1e9))
		select {
		case <-stop:
			asked = false
			continue
		case <-time.After(time.Until(at)):
		}
		due, key, c := at, rng.Uint64N(1<<40), <-free
		calls.Go(func() {
			if err := ask(c, key); err != nil {
				b.Error(err)
			}
			mu.Lock()
			took = append(took, time.Since(due))
			mu.Unlock()
			free <- c
		})
	}
	calls.Wait()
	for range cap(free) {
		_ = (<-free).Close()
	}
	_ = l.Close()
	return took
}

func ask(c net.Conn, key uint64) error {
	var buf [8]byte
	binary.LittleEndian.PutUint64(buf[:], key)
	if _, err := c.Write(buf[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf[:])
	return err
}

func serveBeside(b *testing.B, x *Index, l net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer c.Close()
			var buf [8]byte
			var mh []byte
			for {
				if _, err := io.ReadFull(c, buf[:]); err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
						b.Error(err)
					}
					return
				}
				mh = benchMultihash(mh, binary.LittleEndian.Uint64(buf[:]))
				if _, err := x.Find(x.HashOf(mh)); err != nil {
					b.Error(err)
				}
				if _, err := c.Write(buf[:]); err != nil {
					b.Error(err)
				}
			}
		})
	}
}
