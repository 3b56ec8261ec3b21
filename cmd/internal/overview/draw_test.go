package overview

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestMapSVG checks that the drawing is XML that refers to no other file, with a box for each node, a
// line to each but the first, and the texts as they are.
func TestMapSVG(t *testing.T) {
	hostile := `</text><script>"&'` + "\x1b[2J"
	leaf := func(name string) *Node {
		return &Node{Kind: "container", Name: name, State: Bad, Text: hostile, Detail: "192.168.50.2/24"}
	}
	host := &Node{Name: "host", State: Good, Children: []*Node{
		{Name: "eth0", State: Good, Children: []*Node{leaf(hostile), leaf("c2"), leaf("c3")}},
		{Name: "eth1", State: Good},
	}}
	svg, err := host.SVG()
	if err != nil {
		t.Fatal(err)
	}
	counts, texts := map[string]int{}, ""
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		switch e := token.(type) {
		case xml.StartElement:
			counts[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("refers to %q", a.Value)
				}
			}
		case xml.CharData:
			texts += string(e)
		}
	}
	if counts["rect"] != 6 || counts["path"] != 5 || counts["script"] != 0 {
		t.Errorf("got elements %v", counts)
	}
	if want := `</text><script>"&'?[2J`; strings.Count(texts, want) != 4 {
		t.Errorf("got texts %q, want %q 4 times", texts, want)
	}
}
