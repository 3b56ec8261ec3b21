package overview

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"unicode/utf8"
)

// Print writes the tree as text. lead begins the line of n, and below those of its children.
func (n *Node) Print(w io.Writer, lead, below string) {
	mark := ""
	if n.State == Bad {
		mark = "! "
	}
	words := []string{n.Name}
	if n.Detail != "" {
		words = append(words, n.Detail)
	}
	words = append(words, n.status()...)
	if n.State == Bad && n.Text != "" {
		words = append(words, n.Text)
	}
	fmt.Fprintln(w, lead+mark+Printable(strings.Join(words, "  ")))
	for i, c := range n.Children {
		if i == len(n.Children)-1 {
			c.Print(w, below+"└─ ", below+"   ")
		} else {
			c.Print(w, below+"├─ ", below+"│  ")
		}
	}
}

//go:embed map.svg.tmpl
var mapSVG string

// Sizes of the drawing, in pixels.
const (
	mapRow    = 58
	mapColumn = 250
	mapBox    = 210
)

// mapBoxes is the drawing of a tree: boxes in columns, and a line from each to the box that it is on.
type mapBoxes struct {
	Width, Height int
	Boxes         []mapRect
	Lines         []mapLine
}

type mapRect struct {
	X, Y                       int
	Class                      string // the node's state
	Name, Detail, Status, Text string
}

type mapLine struct{ X1, Y1, X2, Y2 int }

// SVG returns the drawing as an SVG.
func (n *Node) SVG() ([]byte, error) {
	var d mapBoxes
	d.place(n, 0)
	d.Width += mapRow
	d.Height += mapRow
	t, err := template.New("map.svg").Parse(mapSVG)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, d)
	return out.Bytes(), err
}

// place adds a node and all below it, and returns the y of its middle: that of its children's.
func (d *mapBoxes) place(n *Node, depth int) int {
	x := mapRow/2 + depth*mapColumn
	d.Width = max(d.Width, x+mapBox)
	var ends []int
	for _, c := range n.Children {
		ends = append(ends, d.place(c, depth+1))
	}
	y := d.Height + mapRow
	if len(ends) > 0 {
		y = (ends[0] + ends[len(ends)-1]) / 2
	} else {
		d.Height = y
	}
	for _, end := range ends {
		d.Lines = append(d.Lines, mapLine{x + mapBox, y, x + mapColumn, end})
	}
	d.Boxes = append(d.Boxes, mapRect{X: x, Y: y, Class: n.State, Name: shorten(Printable(n.Name), 28),
		Detail: shorten(Printable(n.Detail), 38), Status: shorten(Printable(strings.Join(n.status(), " · ")), 38),
		Text: Printable(n.Text)})
	return y
}

// shorten cuts a text that is too long for its box.
func shorten(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
