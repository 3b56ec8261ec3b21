package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// marginOf returns by what factor the lower end of a ratio's interval may exceed the baseline. On a
// machine with two cores and other work to do, ten runs of the quick bench gave 1.09 to 1.46 for
// attach against netavark, the lower ends 0.74 to 1.34, and 3.06 to 3.59 against the bare program:
// noise does not reach a quarter. Detach gave 0.12 to 0.19: there the other contenders wait for
// RCU, which takes as long as the machine's load lets it. A guarded attach takes the RTNL three
// times as often as a direct one, and waits while other processes have it: three runs at a load of
// 8, 20 and 17 gave 1.33, 2.78 and 3.72 of the direct one, the lower ends 1.15, 1.70 and 2.14,
// while losing a first answer gave 10 to 13.
func marginOf(name string) float64 {
	switch {
	case strings.HasPrefix(name, "detach"):
		return 1.5
	case strings.Contains(name, guarded):
		return 2.5
	}
	return 1.25
}

// fit reports whether a ratio is stable enough to be compared. CNI's plugin closes a packet socket,
// and so waits for RCU: half a millisecond on a machine with a suitable load, fifteen on an idle
// one. That ratio went from 0.3 to 0.9 without a change in lanyard.
func fit(name string) bool {
	return !strings.Contains(name, cni) && !strings.Contains(name, "at once") && !strings.Contains(name, former)
}

// check compares the ratios with those of a baseline file. It returns an error if one is worse by
// more than its margin.
func (r *results) check(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var base results
	if err := json.Unmarshal(b, &base); err != nil {
		return fmt.Errorf("read baseline %q: %w", file, err)
	}
	baseline := map[string]float64{}
	for _, x := range base.Ratios {
		baseline[x.Name] = x.Value
	}
	var worse []string
	compared := 0
	for _, x := range r.Ratios {
		old, known := baseline[x.Name]
		if !known || !fit(x.Name) {
			continue
		}
		compared++
		if x.Low > old*marginOf(x.Name) {
			worse = append(worse, fmt.Sprintf("%s is %.2f (at least %.2f), in the baseline %.2f", x.Name, x.Value, x.Low, old))
		}
	}
	if compared == 0 {
		return fmt.Errorf("baseline %q has no ratio in common with this run", file)
	}
	if len(worse) > 0 {
		return fmt.Errorf("worse than the baseline beyond the margin: %s", strings.Join(worse, "; "))
	}
	return nil
}
