package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestClocksMayBeHalfAMinuteApart(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for ahead, skewed := range map[time.Duration]bool{0: false, maxSkew: false, -maxSkew: false, maxSkew + time.Second: true, -time.Hour: true} {
		var h assignerHeard
		h.note(now.Add(ahead), now, nil)
		if got := h.skewed(); (got != "") != skewed {
			t.Errorf("%s ahead: %q", ahead, got)
		}
	}
}

func TestAnAssignerThatIsSilentSaysNothingOfClocks(t *testing.T) {
	var h assignerHeard
	h.note(time.Time{}, time.Now(), errors.New("connection refused"))
	if h.skewed() != "" || !strings.Contains(h.trouble(), "refused") {
		t.Errorf("skew %q, trouble %q", h.skewed(), h.trouble())
	}
	h.note(time.Now(), time.Now(), nil)
	if h.trouble() != "" {
		t.Errorf("it answers, and is said to be silent: %q", h.trouble())
	}
}

// TestHealthOfNobodyIsUnknown: neither well nor critical.
func TestHealthOfNobodyIsUnknown(t *testing.T) {
	if code := run([]string{"signpost", "health", "http://127.0.0.1:1"}, io.Discard, io.Discard); code != exitUnknown {
		t.Errorf("status %d, want %d", code, exitUnknown)
	}
}
