package sim

import "slices"

// Shares between which load is even, see balance in package assigner.
const lowShare, highShare = 0.85, 1.05

// fewestMoves is how many moves bring loads near their mean at least, that of
// spreadable, if no node both gives and gets. loads are the rates of each node's
// publishers, empty nodes included. Two bounds hold, the larger one is returned:
//
//   - a node above highShare of the mean, or of the largest publisher, gives at
//     least as many publishers as its largest ones needed to come down to that, of
//     those it can give without falling below lowShare and another can take;
//   - nodes below lowShare get at least as many as the largest of all that nodes
//     above lowShare can give, needed to bring them up to it.
func fewestMoves(loads [][]float64) int {
	total, sums := 0.0, make([]float64, len(loads))
	for i, rates := range loads {
		for _, r := range rates {
			sums[i] += r
		}
		total += sums[i]
	}
	mean := spreadable(loads, total)
	low := lowShare * mean
	largest := 0.0
	for _, rates := range loads {
		for _, r := range rates {
			largest = max(largest, r)
		}
	}
	room := highShare*max(mean, largest) - slices.Min(sums) // what is more finds no place
	out, lacking := 0, 0.0
	var givable []float64
	for i, rates := range loads {
		if sums[i] < low {
			lacking += low - sums[i]
			continue
		}
		most := sums[i] - low
		var can []float64
		for _, r := range rates {
			if r <= min(most, room) {
				can = append(can, r)
			}
		}
		out += take(can, sums[i]-highShare*max(mean, largest))
		givable = append(givable, capped(can, most)...)
	}
	return max(out, take(givable, lacking))
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
