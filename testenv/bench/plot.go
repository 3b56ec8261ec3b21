package main

import (
	"bytes"
	"fmt"
)

// plot draws the medians of attach and detach as bars, with p10 to p90 as a line.
func (r *results) plot() []byte {
	const width, left, line, top = 720, 210, 22, 34
	var rows []series
	longest := 0.0
	for _, s := range r.Series {
		if s.Subject == "attach" || s.Subject == "detach" {
			rows = append(rows, s)
			longest = max(longest, s.P90)
		}
	}
	scale := func(ms float64) float64 { return ms / longest * (width - left - 90) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, top+line*len(rows)+30)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-size="14">Whole processes, ms: median, and p10 to p90. Only lanyard-hook looks at the wire.</text>`+"\n")
	for i, s := range rows {
		y, color := top+line*i, "#9aa5b1"
		if s.Name == ours {
			color = "#1769aa"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s: %s</text>`, left-6, y+14, s.Subject, s.Name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/>`, left, y+3, scale(s.Median), color)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`, left+scale(s.P10), left+scale(s.P90), y+10, y+10)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.1f</text>`+"\n", left+scale(s.P90)+6, y+14, s.Median)
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" fill="#555">%s, %d cores, Linux %s</text>`+"\n</svg>\n", top+line*len(rows)+18, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel)
	return b.Bytes()
}
