package indexer

import (
	"math"
	"testing"
	"time"
)

// TestForecast is the table of series, one value a second, and what is foreseen
// of 1000 units of room.
func TestForecast(t *testing.T) {
	for _, tc := range []struct {
		name    string
		seconds int
		value   func(s float64) float64
		rate    float64
		want    time.Duration // 0: nothing is foreseen
	}{
		{"one value", 0, func(float64) float64 { return 7 }, 0, 0},
		{"not growing", 60, func(float64) float64 { return 7 }, 0, 0},
		{"shrinking", 60, func(s float64) float64 { return 1000 - s }, -1, 0},
		{"steady, just begun", 3, func(s float64) float64 { return 10 * s }, 10, 0},
		{"steady", 6, func(s float64) float64 { return 10 * s }, 10, 100 * time.Second},
		{"steady for long", 600, func(s float64) float64 { return 10 * s }, 10, 100 * time.Second},
		{"so slow that it takes years", 60, func(s float64) float64 { return s * 1e-5 }, 1e-5, 0},
		{"up and down by compactions", 600, func(s float64) float64 { return 10*s + 50*math.Sin(s) }, 10, 100 * time.Second},
		{"stopped long ago", 1200, func(s float64) float64 { return min(s, 60) }, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var f forecast
			begin := time.Unix(1e9, 0)
			for s := range tc.seconds + 1 {
				at := begin.Add(time.Duration(s) * time.Second)
				f.see(at, tc.value(float64(s)))
				f.see(at, 1e9) // no time has passed
			}
			if rate := f.rate(); math.Abs(rate-tc.rate) > 0.1*math.Abs(tc.rate)+1e-6 {
				t.Errorf("rate %v, want %v", rate, tc.rate)
			}
			left, ok := f.until(1000)
			if ok != (tc.want > 0) || (left-tc.want).Abs() > tc.want/10 {
				t.Errorf("%v left (foreseen: %v), want %v", left, ok, tc.want)
			}
			if left, ok := f.until(0); left != 0 || !ok {
				t.Errorf("without room %v left (foreseen: %v)", left, ok)
			}
		})
	}
}

// TestForecastFollowsAChange: after a minute two thirds of a new rate are seen,
// and the pace is there at once.
func TestForecastFollowsAChange(t *testing.T) {
	var f forecast
	begin, value := time.Unix(1e9, 0), 0.0
	for s := range 360 {
		if s > 300 {
			value += 100
		}
		f.see(begin.Add(time.Duration(s)*time.Second), value)
		if s == 301 && f.pace() != 100 {
			t.Errorf("pace %v a second after growth began, want 100", f.pace())
		}
	}
	if r := f.rate(); r < 60 || r > 70 {
		t.Errorf("rate %v a minute after growth began, want some 63", r)
	}
}
