package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/verify"
)

// A plot is a history, drawn. X is the index of a point, Y goes from 0 at the top to plotHeight.
type plot struct {
	Width, Height int
	Verdicts      []band
	RTT           string // path; "" for none
	Traffic       string
	Anomalies     []bar
	// Figures as text: for the caption, and for screen readers.
	Works, MostRTT, MedianRTT, MostTraffic string
	AnomalyCount                           uint64
}

// band is a time with verdicts of one class.
type band struct {
	X, Width int
	Class    string
}

type bar struct{ X, Y, Height int }

const (
	plotHeight   = 40
	sparkSamples = 60
)

// verdictClass returns the class of a verdict in the style sheet; "" for none.
func verdictClass(c verify.Code) string {
	switch {
	case c == "":
		return ""
	case c == verify.Unverified:
		return overview.Unknown
	case c.Good():
		return overview.Good
	}
	return overview.Bad
}

// coarse joins points to at most n: the worst verdict, the longest RTT, all anomalies, the mean traffic.
func coarse(points []point, n int) (list []point) {
	size := (len(points) + n - 1) / n
	for chunk := range slices.Chunk(points, size) {
		var sum point
		for _, p := range chunk {
			sum.code = worse(sum.code, p.code)
			sum.rtt = max(sum.rtt, p.rtt)
			sum.anomalies += p.anomalies
			sum.bytes += p.bytes / float32(len(chunk))
		}
		list = append(list, sum)
	}
	return list
}

// draw draws points, the oldest first.
func draw(points []point) plot {
	d := plot{Width: len(points), Height: plotHeight, Verdicts: bands(points)}
	var rtts, bytes []float32
	var most, good, known float32
	for _, p := range points {
		d.AnomalyCount += uint64(p.anomalies)
		most = max(most, float32(p.anomalies))
		if p.rtt > 0 {
			rtts = append(rtts, p.rtt)
		}
		if p.code != "" {
			known++
			bytes = append(bytes, p.bytes)
		}
		if p.code.Good() {
			good++
		}
	}
	for i, p := range points {
		if p.anomalies > 0 {
			h := max(4, int(plotHeight*float32(p.anomalies)/most))
			d.Anomalies = append(d.Anomalies, bar{i, plotHeight - h, h})
		}
	}
	if known > 0 {
		d.Works = fmt.Sprintf("%.4g %%", 100*good/known)
		d.MostTraffic = overview.Bytes(float64(slices.Max(bytes))) + "/s"
		d.Traffic = line(points, slices.Max(bytes), func(p point) (float32, bool) { return p.bytes, p.code != "" })
	}
	if len(rtts) > 0 {
		slices.Sort(rtts)
		d.MedianRTT, d.MostRTT = seconds(rtts[len(rtts)/2]), seconds(rtts[len(rtts)-1])
		d.RTT = line(points, rtts[len(rtts)-1], func(p point) (float32, bool) { return p.rtt, p.rtt > 0 })
	}
	return d
}

// seconds formats a number of seconds with three digits.
func seconds(s float32) string {
	return overview.Rounded(time.Duration(float64(s) * float64(time.Second)))
}

// bands joins neighbouring points of one class.
func bands(points []point) (list []band) {
	for i, p := range points {
		class := verdictClass(p.code)
		if last := len(list) - 1; last >= 0 && list[last].Class == class && list[last].X+list[last].Width == i {
			list[last].Width++
		} else if class != "" {
			list = append(list, band{i, 1, class})
		}
	}
	return list
}

// line returns an SVG path through the values of points, with a gap where value returns false. A single
// point is a short line.
func line(points []point, most float32, value func(point) (float32, bool)) string {
	var b strings.Builder
	drawing := false
	for i, p := range points {
		v, ok := value(p)
		if !ok {
			drawing = false
			continue
		}
		y := float32(plotHeight - 1)
		if most > 0 {
			y -= (plotHeight - 2) * v / most
		}
		if drawing {
			fmt.Fprintf(&b, "L%d %.1f", i, y)
		} else {
			fmt.Fprintf(&b, "M%d %.1fh.5", i, y)
		}
		drawing = true
	}
	return b.String()
}
