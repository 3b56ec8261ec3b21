package main

import (
	"math/rand/v2"
	"slices"
)

// quantile returns the q-quantile of values, q from 0 to 1, interpolated linearly; 0 if there are
// no values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// resamples is the number of draws for a confidence interval. The seed is fixed, so that the same
// samples give the same interval.
const resamples = 2000

// ratio returns the median of a over that of b, and its 95 % interval by bootstrap. If the two were
// run in turn, both are drawn by the same turns, so that a temporary load on the machine counts on
// both sides.
func ratio(a, b []float64) (value, low, high float64) {
	rng := rand.New(rand.NewPCG(1, 2))
	paired := len(a) == len(b)
	draw := func(from []float64, turns []int) []float64 {
		out := make([]float64, len(from))
		for i := range out {
			if turns != nil {
				out[i] = from[turns[i]]
			} else {
				out[i] = from[rng.IntN(len(from))]
			}
		}
		return out
	}
	var all []float64
	for range resamples {
		var turns []int
		if paired {
			turns = make([]int, len(a))
			for i := range turns {
				turns[i] = rng.IntN(len(a))
			}
		}
		all = append(all, median(draw(a, turns))/median(draw(b, turns)))
	}
	return median(a) / median(b), quantile(all, 0.025), quantile(all, 0.975)
}
