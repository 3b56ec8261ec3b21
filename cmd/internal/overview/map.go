package overview

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// Node is a part of the picture, and what is on it.
type Node struct {
	Kind   string `json:"kind"` // host, trunk, parent, network, container
	Name   string `json:"name"`
	Detail string `json:"detail"`
	// State is good, bad, or unknown. A network or parent is also bad if none of its containers works;
	// one bad container of several makes nothing else bad.
	State string `json:"state"`
	// Text says why it is bad; for a container, the sentence of its verdict.
	Text       string      `json:"text,omitempty"`
	Verdict    verify.Code `json:"verdict,omitempty"`
	Anomalies  uint64      `json:"anomalies,omitempty"`
	OutRate    *float64    `json:"out_bytes_per_second,omitempty"`
	InRate     *float64    `json:"in_bytes_per_second,omitempty"`
	Children   []*Node     `json:"children,omitempty"`
	Attachment string      `json:"attachment,omitempty"` // of a container
}

// States of a node.
const (
	Good    = "good"
	Bad     = "bad"
	Unknown = "unknown"
)

// Draw returns the host's node with all others. The containers of a network are sorted by their ids. port
// returns what is known of the switch port of a trunk.
func Draw(l *wiring.Lanyard, port func(trunk string) lldp.Known, rows []Row) *Node {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.Container, b.Container) })
	name, err := os.Hostname()
	if err != nil {
		name = "host"
	}
	host := &Node{Kind: "host", Name: name, State: Good}
	defs, broken := network.LoadAll(l.Networks)
	for _, def := range defs {
		p := ParentOf(l, def)
		trunks := len(host.Children)
		at := host.child("trunk", cmp.Or(p.Trunk, "?"))
		if len(host.Children) > trunks && p.Trunk != "" {
			at.Detail = port(p.Trunk).String()
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
			at.Detail, at.State, at.Text = "", Bad, p.Why
		}
		at = at.child("network", def.Name)
		at.Detail = JoinSubnets(def.Subnets, ", ")
		at.addContainers(def.Name, rows)
	}
	addUndefined(host, defs, rows)
	host.judge()
	for _, err := range broken {
		host.Children = append(host.Children, &Node{Kind: "network", Name: "?", State: Bad, Text: err.Error()})
	}
	return host
}

// addContainers adds the containers of a network to its node.
func (n *Node) addContainers(network string, rows []Row) {
	for _, r := range rows {
		if r.Network == network {
			n.Children = append(n.Children, containerNode(r))
		}
	}
}

// addUndefined adds the containers of networks that are not in defs: the file of such a network is
// invalid or missing.
func addUndefined(host *Node, defs []*network.Definition, rows []Row) {
	for _, r := range rows {
		if slices.ContainsFunc(defs, func(d *network.Definition) bool { return d.Name == r.Network }) {
			continue
		}
		at := host.child("trunk", "?").child("parent", "?").child("network", r.Network)
		if at.State == Good {
			at.State, at.Text = Bad, "its definition is invalid or missing"
			at.addContainers(r.Network, rows)
		}
	}
}

// child returns the child with that name. It adds a missing one.
func (n *Node) child(kind, name string) *Node {
	at := slices.IndexFunc(n.Children, func(c *Node) bool { return c.Kind == kind && c.Name == name })
	if at < 0 {
		at = len(n.Children)
		n.Children = append(n.Children, &Node{Kind: kind, Name: name, State: Good})
	}
	return n.Children[at]
}

func containerNode(r Row) *Node {
	n := &Node{
		Kind: "container", Name: cmp.Or(Abbreviate(r.Container), r.Pod, r.Attachment),
		Detail: r.AllAddresses(), State: Bad, Verdict: r.Verdict, Text: r.Text,
		Anomalies: AnomalyFrames(r), Attachment: r.Attachment,
	}
	switch {
	case r.State != hook.Attached || r.Verdict == verify.Unverified:
		n.State = Unknown
	case r.Verdict.Good() && n.Anomalies == 0:
		n.State = Good
	}
	return n
}

// judge marks the networks and parents below n of which no container works, and returns how many
// containers work and how many do not.
func (n *Node) judge() (good, bad int) {
	switch {
	case n.Kind == "container" && n.Verdict.Good(): // also with anomalies
		return 1, 0
	case n.Kind == "container" && n.State == Bad:
		return 0, 1
	}
	for _, c := range n.Children {
		g, b := c.judge()
		good, bad = good+g, bad+b
	}
	judged := n.Kind == "network" || n.Kind == "parent" && n.Name != "?"
	if judged && n.State == Good && good == 0 && bad > 0 {
		n.State, n.Text = Bad, fmt.Sprintf("%d of %d containers work", good, good+bad)
	}
	return good, bad
}

// Rates are bytes per second by attachment.
type Rates map[string]Rate

// Rate are the bytes per second of one attachment.
type Rate struct{ Out, In float64 }

// RatesOf returns the rates between two readings. It has no rate for an attachment that is not
// watched, or with counters that have begun again.
func RatesOf(before, after []Row, elapsed time.Duration) Rates {
	was := map[string]*verify.Counters{}
	for _, r := range before {
		was[r.Attachment] = r.Counters
	}
	rates := Rates{}
	for _, r := range after {
		was, is := was[r.Attachment], r.Counters
		if was == nil || is == nil || is.OutBytes < was.OutBytes || is.InBytes < was.InBytes {
			continue
		}
		rates[r.Attachment] = Rate{
			Out: float64(is.OutBytes-was.OutBytes) / elapsed.Seconds(),
			In:  float64(is.InBytes-was.InBytes) / elapsed.Seconds(),
		}
	}
	return rates
}

// AddRates adds the rates of the containers below n.
func (n *Node) AddRates(rates Rates) {
	for _, c := range n.Children {
		c.AddRates(rates)
	}
	if r, ok := rates[n.Attachment]; ok {
		n.OutRate, n.InRate = &r.Out, &r.In
	}
}

// status returns the texts of a container's node after its name and detail.
func (n *Node) status() (words []string) {
	if n.Verdict != "" {
		words = append(words, string(n.Verdict))
	}
	if n.Anomalies > 0 {
		words = append(words, fmt.Sprintf("%d anomalies", n.Anomalies))
	}
	if n.OutRate != nil {
		words = append(words, fmt.Sprintf("out %s/s, in %s/s", Bytes(*n.OutRate), Bytes(*n.InRate)))
	}
	return words
}
