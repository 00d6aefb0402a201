package wal

import (
	"fmt"
	"testing"
)

// BenchmarkAppend appends to a log on disk, which drops what it has written
// and syncs every 64 MiB, so the disk's share is in it.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{100, 4 << 10, 160 << 10} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			l, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, n)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			b.ReportAllocs()
			b.SetBytes(int64(n))
			written := 0
			for b.Loop() {
				if _, err := l.Append(1, payload); err != nil {
					b.Fatal(err)
				}
				if written += n; written >= 64<<20 {
					written = 0
					if err := l.Drop(l.Durable()); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkSync is one small append and its fsync, alone and shared by many.
func BenchmarkSync(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 100)
			b.SetParallelism(callers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Append(1, payload); err != nil {
						b.Error(err)
						return
					}
					if _, err := l.Sync(); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkReplay reads a log back from the page cache.
func BenchmarkReplay(b *testing.B) {
	for _, n := range []int{100, 4 << 10, 160 << 10} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			l, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			const total = 128 << 20
			payload := make([]byte, n)
			for range total / n {
				if _, err := l.Append(1, payload); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.SetBytes(total)
			for b.Loop() {
				if err := l.Replay(0, func(Pos, byte, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
