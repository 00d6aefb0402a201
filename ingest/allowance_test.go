package ingest

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestAllowanceIsAnAverage: a minute's worth at once, and over an hour what was
// given, whatever a publisher tries.
func TestAllowanceIsAnAverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAllowances(Allowance{AdsAnHour: 3600})
		start, ads := time.Now(), 0
		for time.Since(start) < time.Hour {
			err := a.use("greedy", 1, 1<<20)
			ads++
			var over *overAllowance
			if errors.As(err, &over) {
				if d := time.Until(over.until); d < leastHold || d > 2*leastHold {
					t.Fatalf("held for %v", d)
				}
				time.Sleep(time.Until(over.until))
			}
			if err := a.use("other", 1, 0); err != nil && ads < 60 {
				t.Fatalf("another publisher pays too: %v", err)
			}
		}
		if ads < 3600 || ads > 3600+60+400 { // with each pause one ad more
			t.Errorf("%d ads in an hour, want some 3600", ads)
		}
	})
}

func TestAllowanceOfBytesLetsAWholeBlockIn(t *testing.T) {
	a := newAllowances(Allowance{BytesAnHour: 1000})
	if err := a.use("p", 0, 8<<20); err != nil {
		t.Errorf("one block: %v", err)
	}
	if err := a.use("p", 0, 100); !errors.Is(err, errOverBudget) || !strings.Contains(err.Error(), "1000 bytes an hour") {
		t.Errorf("after it: %v, want over budget with the limit named", err)
	}
}

// TestPublisherOverItsAllowanceIsPausedWithAReason: what it was given before is
// indexed, the reason is its last error, and announces do not end the pause.
func TestPublisherOverItsAllowanceIsPausedWithAReason(t *testing.T) {
	c, ads := longChain(t, 40)
	n := openNode(t, vfs.NewMem(), c)
	n.i.allowances = newAllowances(Allowance{AdsAnHour: 600}) // 10 at once
	n.know(c)
	n.notify(c, c.head)
	n.until("the pause has a reason", func() bool {
		text, _ := n.store.PublisherError(c.id())
		return strings.Contains(text, "over its budget of 600 ads an hour")
	})
	for range 5 {
		n.notify(c, c.head)
	}
	asked := 0
	for _, ad := range ads {
		if c.timesAsked(ad) > 0 {
			asked++
		}
	}
	if asked < 10 || asked > 12 {
		t.Errorf("%d ads were fetched, want some 10", asked)
	}
	scans, err := n.store.Scans(c.id())
	if err != nil || len(scans) != 1 || !scans[0].Trouble.IsZero() {
		t.Errorf("walks %+v, %v; want one that goes on, without trouble", scans, err)
	}
	if st, ok, err := n.store.AdState(ads[0]); err != nil || ok {
		t.Errorf("the oldest ad is %v, %v", st.Verdict, err)
	}
	if p := n.store.Progress(c.id()); p.Pending+p.AppliedCount == 0 {
		t.Error("nothing was taken on before the pause")
	}
}
