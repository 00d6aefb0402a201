package main

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheSecondSignalEndsTheDrainWheneverItComes: also if one or both came before
// there was anything to drain.
func TestTheSecondSignalEndsTheDrainWheneverItComes(t *testing.T) {
	for before := range 3 {
		synctest.Test(t, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			ctx, stop := untilSignalled(signals)
			defer stop()
			for range before {
				signals <- syscall.SIGTERM
			}
			later, leave := lingering(ctx, time.Hour)
			defer leave()
			for n := before; n < 2; n++ {
				synctest.Wait()
				if later.Err() != nil {
					t.Fatalf("%d signals ended the drain", n)
				}
				signals <- syscall.SIGTERM
			}
			synctest.Wait()
			if later.Err() == nil {
				t.Errorf("it drains after two signals, %d of which came before it began", before)
			}
		})
	}
}

// TestOneSignalEndsTheDrainWhenItsTimeIsOver, and not before.
func TestOneSignalEndsTheDrainWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		ctx, stop := untilSignalled(signals)
		defer stop()
		later, leave := lingering(ctx, time.Hour)
		defer leave()
		signals <- syscall.SIGTERM
		<-ctx.Done()
		began := time.Now()
		<-later.Done()
		if took := time.Since(began); took != time.Hour {
			t.Errorf("it drained for %v, want %v", took, time.Hour)
		}
	})
}
