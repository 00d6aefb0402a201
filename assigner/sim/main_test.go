package sim

import (
	"flag"
	"os"
	"strconv"
	"testing"
)

var plots = flag.String("plots", "", "directory to write the plots of doc/scale.md to")

// soak tells whether the full sizes are to be run.
func soak() bool { return os.Getenv("SIGNPOST_SOAK") != "" }

// seed is that of a run, and logged; SIGNPOST_SEED sets it.
func seed(t *testing.T) uint64 {
	n := uint64(1)
	if text := os.Getenv("SIGNPOST_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SIGNPOST_SEED=%d", n)
	return n
}

// plot writes a plot if that was asked for.
func plot(t *testing.T, p Plot, name string) {
	if *plots == "" {
		return
	}
	if err := os.WriteFile(*plots+"/scale-"+name+".svg", p.SVG(), 0o644); err != nil {
		t.Fatal(err)
	}
}
