package indexer

import (
	"math"
	"time"
)

const (
	// forecastOver is the time growth is smoothed over: compactions, which make
	// a store larger and then smaller, take less.
	forecastOver = time.Minute
	// forecastMin is how long growth must have been seen to be foreseen.
	forecastMin = 5 * time.Second
	// forecastMax is what is not looked beyond.
	forecastMax = 365 * 24 * time.Hour
)

// forecast tells from values seen over time how fast they grow, and when they
// will have grown by so much. It knows no clock.
type forecast struct {
	first, at time.Time
	value     float64
	seen      int
	// The smoothed rate is sum/weight: an average in which what is older than
	// forecastOver counts less than a third, right from the second value on.
	sum, weight float64
	last        float64 // rate between the last two values
}

// see adds a value. One that is not later than the last is passed over.
func (f *forecast) see(at time.Time, value float64) {
	dt := at.Sub(f.at).Seconds()
	if f.seen > 0 && dt <= 0 {
		return
	}
	if f.seen > 0 {
		f.last = (value - f.value) / dt
		keep := math.Exp(-dt / forecastOver.Seconds())
		f.sum = f.sum*keep + f.last*(1-keep)
		f.weight = f.weight*keep + (1 - keep)
	}
	if f.seen == 0 {
		f.first = at
	}
	f.at, f.value, f.seen = at, value, f.seen+1
}

// rate is the smoothed growth, units a second; 0 as long as it is not known.
func (f *forecast) rate() float64 {
	if f.weight == 0 {
		return 0
	}
	return f.sum / f.weight
}

// pace is the faster of the smoothed growth and that of late.
func (f *forecast) pace() float64 { return max(f.rate(), f.last) }

// until is when room will be used up at the smoothed rate; false if there is no
// growth that would do it in a year, or it was not watched for long enough.
func (f *forecast) until(room float64) (time.Duration, bool) {
	if room <= 0 {
		return 0, true
	}
	if rate := f.rate(); rate > 0 && f.at.Sub(f.first) >= forecastMin && room/rate < forecastMax.Seconds() {
		return time.Duration(room / rate * float64(time.Second)), true
	}
	return 0, false
}
