package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

func (e env) mapping() *cli.Command {
	return &cli.Command{
		Name:      "map",
		Usage:     "draw the host's trunks, VLANs, networks and containers, with verdicts",
		UsageText: "lanyard map [OPTIONS]",
		Description: `Examples:
  lanyard map
  lanyard map --rate 1s
  lanyard map --out map.svg

A container's line has its address, its verdict as in "lanyard ps", and how many anomalies the
trunk has seen since its start, such as another station with its address. Each line that does not
work begins with "!". A trunk's line has the switch's port, if "lanyard lldp" has heard it.

With --rate the command counts each container's bytes on the trunk for that time.
With --out it draws the same as an SVG that needs no other file.`,
		Flags: []cli.Flag{
			flagFormat[mapNode](),
			&cli.StringFlag{Name: "out", Usage: "`FILE` to write an SVG to (default: no SVG, text on stdout)"},
			&cli.StringFlag{Name: "rate", Usage: "`DURATION` how long to count bytes (default: not at all)"},
		},
		Action: e.runMap,
	}
}

// mapNode is a part of the picture, and what is on it.
type mapNode struct {
	Kind   string `json:"kind"` // host, trunk, parent, network, container
	Name   string `json:"name"`
	Detail string `json:"detail"`
	// State is good, bad, or unknown. A bad container makes nothing else bad.
	State string `json:"state"`
	// Text says why it is bad; for a container, the sentence of its verdict.
	Text       string      `json:"text,omitempty"`
	Verdict    verify.Code `json:"verdict,omitempty"`
	Anomalies  uint64      `json:"anomalies,omitempty"`
	OutRate    *float64    `json:"out_bytes_per_second,omitempty"`
	InRate     *float64    `json:"in_bytes_per_second,omitempty"`
	Children   []*mapNode  `json:"children,omitempty"`
	attachment string      // of a container
}

const (
	mapGood    = "good"
	mapBad     = "bad"
	mapUnknown = "unknown"
)

func (e env) runMap(c *cli.Context) error {
	rate, err := listenTime(c, "rate")
	if err != nil {
		return err
	}
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	if c.String("out") != "" && !format.table() {
		return usagef("--out and --format cannot be used together: --out always writes an SVG")
	}
	rows, err := e.mapRows(c.Context, l)
	if err != nil {
		return err
	}
	started := time.Now()
	host := drawMap(l, paths(c).Switches(), rows)
	if rate > 0 {
		select {
		case <-c.Done():
			return c.Err()
		case <-time.After(rate):
		}
		later, err := e.mapRows(c.Context, l)
		if err != nil {
			return err
		}
		host.addRates(rows, later, time.Since(started))
	}
	switch out := c.String("out"); {
	case out != "":
		svg, err := host.svg()
		if err != nil {
			return err
		}
		return os.WriteFile(out, svg, 0o644)
	case !format.table():
		return printRows(e.stdout, format, []*mapNode{host})
	}
	host.print(e.stdout, "", "")
	return nil
}

// mapRows returns the rows of ps.
func (e env) mapRows(ctx context.Context, l *wiring.Lanyard) (rows []psRow, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	now, err := l.Now(recs)
	if err != nil {
		e.say("%v", err)
	}
	for _, a := range recs {
		rows = append(rows, psRows(a, now[a.ID], l)...)
	}
	slices.SortStableFunc(rows, func(a, b psRow) int { return cmp.Compare(a.Container, b.Container) })
	return rows, nil
}

// drawMap returns the host's node with all others.
func drawMap(l *wiring.Lanyard, heard lldp.Memory, rows []psRow) *mapNode {
	name, err := os.Hostname()
	if err != nil {
		name = "host"
	}
	host := &mapNode{Kind: "host", Name: name, State: mapGood}
	defs, broken := network.LoadAll(l.Networks)
	for _, def := range defs {
		p := inspectParent(l, def)
		at := host.child("trunk", cmp.Or(p.Trunk, "?"))
		if n, when, err := heard.Load(at.Name); err == nil && n != nil {
			at.Detail = fmt.Sprintf("%s (heard %v ago)", n, time.Since(when).Round(time.Second))
		}
		at = at.child("parent", p.Name)
		at.Detail = "untagged"
		if p.VLAN != "" {
			at.Detail = "VLAN " + p.VLAN
		}
		if p.MTU != 0 {
			at.Detail += ", MTU " + strconv.Itoa(p.MTU)
		}
		if p.State != "up" {
			at.Detail, at.State, at.Text = "", mapBad, p.Why
		}
		at = at.child("network", def.Name)
		at.Detail = joinSubnets(def.Subnets, ", ")
		at.addContainers(def.Name, rows)
	}
	addUndefined(host, defs, rows)
	for _, err := range broken {
		host.Children = append(host.Children, &mapNode{Kind: "network", Name: "?", State: mapBad, Text: err.Error()})
	}
	return host
}

// addContainers adds the containers of a network to its node.
func (n *mapNode) addContainers(network string, rows []psRow) {
	for _, r := range rows {
		if r.Network == network {
			n.Children = append(n.Children, mapContainer(r))
		}
	}
}

// addUndefined adds the containers of networks that are not in defs: the file of such a network is
// invalid or missing.
func addUndefined(host *mapNode, defs []*network.Definition, rows []psRow) {
	for _, r := range rows {
		if slices.ContainsFunc(defs, func(d *network.Definition) bool { return d.Name == r.Network }) {
			continue
		}
		at := host.child("trunk", "?").child("parent", "?").child("network", r.Network)
		if at.State == mapGood {
			at.State, at.Text = mapBad, "its definition is invalid or missing"
			at.addContainers(r.Network, rows)
		}
	}
}

// child returns the child with that name. It adds a missing one.
func (n *mapNode) child(kind, name string) *mapNode {
	at := slices.IndexFunc(n.Children, func(c *mapNode) bool { return c.Kind == kind && c.Name == name })
	if at < 0 {
		at = len(n.Children)
		n.Children = append(n.Children, &mapNode{Kind: kind, Name: name, State: mapGood})
	}
	return n.Children[at]
}

func mapContainer(r psRow) *mapNode {
	n := &mapNode{
		Kind: "container", Name: cmp.Or(abbreviate(r.Container, false), r.Pod, r.Attachment),
		Detail: r.allAddresses(), State: mapBad, Verdict: r.Verdict, Text: r.Text,
		Anomalies: total(r.Anomalies), attachment: r.Attachment,
	}
	switch {
	case r.State != hook.Attached || r.Verdict == verify.Unverified:
		n.State = mapUnknown
	case r.Verdict.Good() && n.Anomalies == 0:
		n.State = mapGood
	}
	return n
}

// addRates adds the rates of the containers below n, from two readings.
func (n *mapNode) addRates(before, after []psRow, elapsed time.Duration) {
	for _, c := range n.Children {
		c.addRates(before, after, elapsed)
	}
	if n.attachment == "" {
		return
	}
	counters := func(rows []psRow) *verify.Counters {
		at := slices.IndexFunc(rows, func(r psRow) bool { return r.Attachment == n.attachment })
		if at < 0 {
			return nil
		}
		return rows[at].Counters
	}
	was, is := counters(before), counters(after)
	if was == nil || is == nil || is.OutBytes < was.OutBytes || is.InBytes < was.InBytes {
		return // not watched, or its counters have begun again
	}
	rate := func(bytes uint64) *float64 {
		r := float64(bytes) / elapsed.Seconds()
		return &r
	}
	n.OutRate, n.InRate = rate(is.OutBytes-was.OutBytes), rate(is.InBytes-was.InBytes)
}

// status returns the texts of a container's node after its name and detail.
func (n *mapNode) status() (words []string) {
	if n.Verdict != "" {
		words = append(words, string(n.Verdict))
	}
	if n.Anomalies > 0 {
		words = append(words, fmt.Sprintf("%d anomalies", n.Anomalies))
	}
	if n.OutRate != nil {
		words = append(words, fmt.Sprintf("out %s/s, in %s/s", bytesText(*n.OutRate), bytesText(*n.InRate)))
	}
	return words
}

// bytesText formats a number of bytes: "3.2 kB".
func bytesText(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	at := 0
	for ; n >= 1000 && at < len(units)-1; at++ {
		n /= 1000
	}
	return strconv.FormatFloat(n, 'g', 3, 64) + " " + units[at]
}
