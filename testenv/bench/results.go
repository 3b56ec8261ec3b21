package main

import (
	"fmt"
	"time"
)

// results is the content of latest.json.
type results struct {
	Machine machine  `json:"machine"`
	Quick   bool     `json:"quick"`
	Series  []series `json:"series"`
	Steps   []step   `json:"steps,omitempty"` // of an attach
	Figures []figure `json:"figures,omitempty"`
	Curves  []curve  `json:"curves,omitempty"`
	Ratios  []Ratio  `json:"ratios"`
	// Missing lists what could not be measured here, and why.
	Missing []string `json:"missing,omitempty"`
}

// A figure is a value that is not the time of a process.
type figure struct {
	Subject string  `json:"subject"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
}

func (r *results) figure(subject, name string, value float64, unit string) {
	r.Figures = append(r.Figures, figure{subject, name, value, unit})
}

// A curve is a cost as a function of a number.
type curve struct {
	Title  string  `json:"title"`
	X      string  `json:"x"` // what the number counts
	Name   string  `json:"name"`
	Points []point `json:"points"`
}

type point struct {
	X  float64 `json:"x"`
	Ms float64 `json:"median_ms"`
}

// atLeast adds a ratio that is to be at least target.
func (r *results) atLeast(name string, a, b []float64, target float64) {
	v, low, high := ratio(a, b)
	r.Ratios = append(r.Ratios, Ratio{Name: name, Value: v, Low: low, High: high, Target: target, AtLeast: true})
}

// most adds a value that is to be at most target.
func (r *results) most(name string, value, target float64) {
	r.Ratios = append(r.Ratios, Ratio{Name: name, Value: value, Low: value, High: value, Target: target})
}

// series is the times of one contender's runs.
type series struct {
	Subject string  `json:"subject"`
	Name    string  `json:"name"`
	Runs    int     `json:"runs"`
	Median  float64 `json:"median_ms"`
	P10     float64 `json:"p10_ms"`
	P90     float64 `json:"p90_ms"`
	CPU     float64 `json:"user_sys_ms"` // median
	RSS     int     `json:"peak_rss_kib,omitzero"`

	walls []float64
}

// A Ratio compares two series, and has the target for the ratio of their medians; 0 without a target.
type Ratio struct {
	Name   string  `json:"name"`
	Value  float64 `json:"ratio"`
	Low    float64 `json:"low"` // 95 % interval
	High   float64 `json:"high"`
	Target float64 `json:"target,omitzero"`
	// AtLeast says that the target is a lower bound.
	AtLeast bool `json:"at_least,omitzero"`
}

// met reports whether the target is reached.
func (r Ratio) met() bool {
	if r.AtLeast {
		return r.Value >= r.Target
	}
	return r.Target == 0 || r.Value <= r.Target
}

// bound returns the target as a condition; "" without a target.
func (r Ratio) bound() string {
	switch {
	case r.Target == 0:
		return ""
	case r.AtLeast:
		return fmt.Sprintf("≥ %.2f", r.Target)
	}
	return fmt.Sprintf("≤ %.2f", r.Target)
}

// measured returns the value with its interval.
func (r Ratio) measured() string {
	if r.Low == r.High {
		return fmt.Sprintf("%.2f", r.Value)
	}
	return fmt.Sprintf("%.2f (%.2f – %.2f)", r.Value, r.Low, r.High)
}

// verdict says whether the target is reached; "" without a target.
func (r Ratio) verdict() string {
	switch {
	case r.Target == 0:
		return ""
	case r.met():
		return "met"
	}
	return "**missed**"
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// add adds a series of samples.
func (r *results) add(subject, name string, samples []sample) {
	s := series{Subject: subject, Name: name, Runs: len(samples)}
	var cpus []float64
	for _, one := range samples {
		s.walls = append(s.walls, millis(one.wall))
		cpus = append(cpus, millis(one.cpu))
	}
	s.Median, s.P10, s.P90 = median(s.walls), quantile(s.walls, 0.1), quantile(s.walls, 0.9)
	s.CPU = median(cpus)
	r.Series = append(r.Series, s)
}

func (r *results) find(subject, name string) *series {
	for i := range r.Series {
		if s := &r.Series[i]; s.Subject == subject && s.Name == name {
			return s
		}
	}
	return nil
}

// compare adds the ratio of two series, if both were measured.
func (r *results) compare(subject, a, b string, target float64) {
	x, y := r.find(subject, a), r.find(subject, b)
	if x == nil || y == nil {
		return
	}
	v, low, high := ratio(x.walls, y.walls)
	r.Ratios = append(r.Ratios, Ratio{Name: fmt.Sprintf("%s: %s / %s", subject, a, b), Value: v, Low: low, High: high,
		Target: target})
}
