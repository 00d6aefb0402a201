package publish

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func peak() string {
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range []string{"VmHWM"} {
		i := string(b)
		for j := 0; j+5 < len(i); j++ {
			if i[j:j+5] == l {
				return i[j : j+25]
			}
		}
	}
	return ""
}

func TestZZMeasure(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	dir := t.TempDir()
	switch os.Getenv("WHAT") {
	case "file":
		f, _ := os.Create(filepath.Join(dir, "big"))
		w := bufio.NewWriter(f)
		w.ReadFrom(random(9, 1<<30))
		w.Flush()
		f.Close()
	case "car":
		f, _ := os.Create(filepath.Join(dir, "x.car"))
		w := bufio.NewWriterSize(f, 1<<20)
		w.Write(carv1Head(rawCID([]byte("0")).Bytes()))
		for i := range 5_000_000 {
			d := fmt.Appendf(nil, "%d", i)
			w.Write(section(rawCID(d), d))
		}
		w.Flush()
		f.Close()
	default:
		t.Skip()
	}
	runtime.GC()
	es, _ := os.ReadDir(dir)
	begin := time.Now()
	last := begin
	var st Stage
	a, err := p.Add(t.Context(), filepath.Join(dir, es[0].Name()), func(pr Progress) {
		if pr.Stage != st {
			fmt.Println(st, time.Since(last))
			st, last = pr.Stage, time.Now()
		}
	})
	fmt.Println(err, a.Multihashes, len(a.Ads), time.Since(begin), peak())
	p.Close()
	begin = time.Now()
	q, err := Open(p.cfg)
	fmt.Println("reopen", time.Since(begin), err)
	begin = time.Now()
	for i := range 2000 {
		k := rawCID(fmt.Appendf(nil, "%d", i))
		if _, err := q.ReadBlock(t.Context(), k); err != nil && i < 1 {
			fmt.Println(err)
		}
	}
	fmt.Println("2000 reads", time.Since(begin))
	q.Close()
}
