package main

import (
	"bytes"
	"fmt"
)

// plot draws the medians of attach and detach as bars, with p10 to p90 as a line.
func (r *results) plot() []byte {
	const width, left, line, top = 780, 270, 22, 34
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
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" `+
		`font-size="12">`+"\n", width, top+line*len(rows)+30)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-size="14">Whole `+
		`processes, ms: median, and p10 to p90. Only Lanyard looks at the wire.</text>`+"\n")
	for i, s := range rows {
		y, color := top+line*i, "#9aa5b1"
		if s.Name == ours {
			color = "#1769aa"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s: %s</text>`, left-6, y+14, s.Subject, s.Name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/>`, left, y+3, scale(s.Median), color)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`, left+scale(s.P10), left+scale(s.P90),
			y+10, y+10)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.1f</text>`+"\n", left+scale(s.P90)+6, y+14, s.Median)
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" fill="#555">%s, %d cores, Linux %s</text>`+"\n</svg>\n", top+line*len(rows)+18,
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel)
	return b.Bytes()
}

// plotGrowth draws a panel for each kind of curve, with axes from zero.
func (r *results) plotGrowth() []byte {
	const width, height, left, top = 360, 220, 46, 34
	var panels []string
	byPanel := map[string][]curve{}
	for _, c := range r.Curves {
		key := c.Title + " by " + c.X
		if byPanel[key] == nil {
			panels = append(panels, key)
		}
		byPanel[key] = append(byPanel[key], c)
	}
	var b bytes.Buffer
	rows := (len(panels) + 1) / 2
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" `+
		`font-size="11"><rect width="100%%" height="100%%" fill="white"/>`+"\n", 2*width, rows*height+24)
	for i, key := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)"><text x="%d" y="18" font-size="13">%s (ms)</text>`+"\n", i%2*width,
			i/2*height, left, key)
		drawPanel(&b, byPanel[key], width-left-20, height-top-30, left, top)
		fmt.Fprintln(&b, "</g>")
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" fill="#555">Whole processes. %s, %d cores, Linux %s</text>`+"\n</svg>\n",
		rows*height+14, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel)
	return b.Bytes()
}

var colors = []string{"#1769aa", "#c25b12", "#5b8c2a", "#777777"}

func drawPanel(b *bytes.Buffer, curves []curve, width, height, left, top float64) {
	most, highest := 0.0, 0.0
	for _, c := range curves {
		for _, p := range c.Points {
			most, highest = max(most, p.X), max(highest, p.Ms)
		}
	}
	highest *= 1.1
	x := func(v float64) float64 { return left + v/most*width }
	y := func(v float64) float64 { return top + height - v/highest*height }
	for _, t := range ticks(highest) {
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" `+
			`text-anchor="end">%g</text>`, left, left+width, y(t), y(t), left-4, y(t)+4, t)
	}
	for _, t := range ticks(most) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%g</text>`, x(t), top+height+14, t)
	}
	for i, c := range curves {
		fmt.Fprintf(b, "\n"+`<polyline fill="none" stroke="%s" stroke-width="2" points="`, colors[i%len(colors)])
		for _, p := range c.Points {
			fmt.Fprintf(b, "%.1f,%.1f ", x(p.X), y(p.Ms))
		}
		fmt.Fprintf(b, `"/><text x="%.1f" y="%.1f" fill="%s">%s</text>`, left+8, top+14+float64(i)*14, colors[i%len(colors)],
			c.Name)
	}
	fmt.Fprintln(b)
}
