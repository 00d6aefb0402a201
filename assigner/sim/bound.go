package sim

import "slices"

// Shares between which balance in package assigner brings loads.
const lowShare, highShare = 0.85, 1.045

// fewestMoves is how many moves bring loads near their mean at least, that of
// spreadable, if a publisher is moved only where there is room for it now. loads
// are the rates of each node's publishers, empty nodes included. It counts:
//
//   - of each node above highShare of the mean, or of the largest publisher, the
//     largest publishers that bring it down to that;
//   - and the largest of all nodes above lowShare that are needed, with those, to
//     bring the nodes below up to it.
//
// What a node gives beyond what it can spare it has to get back, and what the
// one that lacks most gets beyond that is wasted; neither counts.
func fewestMoves(loads [][]float64) int {
	total, largest, sums := 0.0, 0.0, make([]float64, len(loads))
	for i, rates := range loads {
		for _, r := range rates {
			sums[i] += r
			largest = max(largest, r)
		}
		total += sums[i]
	}
	mean := spreadable(loads, total)
	low, high := lowShare*mean, highShare*max(mean, largest)
	room := high - slices.Min(sums)
	lacking, lacks := 0.0, 0.0
	for _, sum := range sums {
		lacking += max(low-sum, 0)
		lacks = max(lacks, low-sum)
	}
	forced := 0
	var more []float64
	for i, rates := range loads {
		spare := sums[i] - low
		if spare < 0 {
			continue
		}
		var can, worth []float64
		for _, r := range rates {
			if r > room {
				continue
			}
			can = append(can, r)
			if r > lacks {
				r = min(lacks, spare+lacks-r)
			}
			if r > 0 {
				worth = append(worth, r)
			}
		}
		n := take(can, sums[i]-high)
		forced += n
		worth = capped(worth, spare)
		n = min(n, len(worth))
		for _, r := range worth[:n] {
			lacking -= r
		}
		more = append(more, worth[n:]...)
	}
	return forced + take(more, lacking)
}

// spreadable is the mean without publishers that are more than it, each with a
// node of its own.
func spreadable(loads [][]float64, total float64) float64 {
	rates, nodes := slices.Concat(loads...), float64(len(loads))
	take(rates, 0) // sorts
	for _, r := range rates {
		if r <= total/nodes || nodes == 1 {
			break
		}
		total -= r
		nodes--
	}
	return total / nodes
}

// take is how many of rates, the largest first, make sum; all if they do not.
func take(rates []float64, sum float64) int {
	slices.SortFunc(rates, func(a, b float64) int {
		if a > b {
			return -1
		}
		return 1
	})
	for n, r := range rates {
		if sum <= 0 {
			return n
		}
		sum -= r
	}
	return len(rates)
}

// capped are the largest of rates up to a sum of most, the last one cut.
func capped(rates []float64, most float64) []float64 {
	rates = slices.Clone(rates)
	take(rates, 0) // sorts
	for n, r := range rates {
		if most <= r {
			rates[n] = most
			return rates[:n+1]
		}
		most -= r
	}
	return rates
}
