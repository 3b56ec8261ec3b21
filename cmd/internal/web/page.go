package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/verify"
)

// Classes of the style sheet besides the states of nodes.
const warned = "warned" // it works, and anomalies were seen

// Item is a node of the map on a page, with what is below it.
type Item struct {
	*overview.Node
	Key   string // unique on the page, and the same in the next view
	Class string
	Row   *overview.Row // of a container
	Spark *plot         // of a container
	Items []*Item
	Above []*Item // the host first
}

// Label names the kind of node before its name, where the name does not say it.
func (i *Item) Label() string {
	switch i.Kind {
	case "trunk":
		return "Trunk"
	case "network":
		return "Network"
	}
	return ""
}

// AnomalyText counts the anomalies of a container, "" for none.
func (i *Item) AnomalyText() string {
	switch i.Anomalies {
	case 0:
		return ""
	case 1:
		return "1 anomaly"
	}
	return fmt.Sprintf("%d anomalies", i.Anomalies)
}

// Why returns why a node does not work, "" if it does, or if the node above says the same.
func (i *Item) Why() string {
	if i.Class != overview.Bad || len(i.Above) > 0 && i.Above[len(i.Above)-1].Text == i.Text {
		return ""
	}
	return i.Text
}

// Rates formats the rates of a container, "" if they are unknown.
func (i *Item) Rates() string {
	if i.OutRate == nil {
		return ""
	}
	return "↑ " + overview.Bytes(*i.OutRate) + "/s ↓ " + overview.Bytes(*i.InRate) + "/s"
}

// filter says which containers a page shows.
type filter struct {
	Text    string
	Verdict string // a code, "bad", or "" for all
}

// onlyBad is the value of the filter for containers that do not work.
const onlyBad = "bad"

func (f filter) none() bool { return f.Text == "" && f.Verdict == "" }

// matches reports whether a container with the items above it is shown.
func (f filter) matches(i *Item) bool {
	switch f.Verdict {
	case "":
	case onlyBad:
		if i.Class == overview.Good || i.Class == overview.Unknown {
			return false
		}
	default:
		if string(i.Verdict) != f.Verdict {
			return false
		}
	}
	words := []string{i.Name, i.Detail, i.Text, string(i.Verdict), i.Row.Container, i.Row.Name, i.Row.Pod, i.Row.Interface,
		i.Row.MAC.String(), i.Row.Attachment}
	for _, at := range i.Above {
		words = append(words, at.Name, at.Detail)
	}
	text := strings.ToLower(strings.Join(words, "\n"))
	return !slices.ContainsFunc(strings.Fields(strings.ToLower(f.Text)),
		func(word string) bool { return !strings.Contains(text, word) })
}

// overviewPage is what the template of the first page shows.
type overviewPage struct {
	common
	Filter               filter
	Verdicts             []verify.Code // of all containers
	All, Shown           int
	Good, Bad, Anomalous int
	Root                 *Item
}

// common is what all pages have.
type common struct {
	Title   string
	Host    string
	Version uint64
	At      time.Time
	Failed  string
}

// Summary says how many containers work.
func (p *overviewPage) Summary() string {
	text := fmt.Sprintf("%d of %d containers work", p.Good, p.All)
	if p.All == 0 {
		text = "No containers are attached"
	}
	if p.Anomalous > 0 {
		text += fmt.Sprintf(", %d with anomalies", p.Anomalous)
	}
	return text
}

// State returns the class of the summary.
func (p *overviewPage) State() string {
	switch {
	case p.Bad > 0 || p.Root != nil && slices.ContainsFunc(p.Root.Items, (*Item).broken):
		return overview.Bad
	case p.Anomalous > 0:
		return warned
	}
	return overview.Good
}

// broken reports whether i or a node below it does not work.
func (i *Item) broken() bool {
	return i.Class == overview.Bad || slices.ContainsFunc(i.Items, (*Item).broken)
}

// tree returns the items of a view, with all containers.
func tree(v *view, h *history) *Item {
	rows := map[string][]*overview.Row{}
	for i := range v.rows {
		r := &v.rows[i]
		rows[r.Attachment] = append(rows[r.Attachment], r)
	}
	t := treeBuilder{rows: rows, history: h}
	return t.item(v.host, nil, "n")
}

type treeBuilder struct {
	rows    map[string][]*overview.Row // by attachment
	history *history
}

func (t *treeBuilder) item(n *overview.Node, above []*Item, key string) *Item {
	i := &Item{Node: n, Above: above, Class: n.State, Key: key + "/" + n.Kind + " " + n.Name + n.Attachment}
	if n.Attachment != "" {
		shared := t.rows[n.Attachment]
		i.Row = shared[max(0, slices.IndexFunc(shared, func(r *overview.Row) bool {
			return overview.Abbreviate(r.Container) == n.Name
		}))]
		if n.State == overview.Bad && n.Verdict.Good() {
			i.Class = warned
		}
		d := t.history.spark(n.Attachment)
		i.Spark = &d
	}
	below := append(above[:len(above):len(above)], i)
	for _, c := range n.Children {
		i.Items = append(i.Items, t.item(c, below, i.Key))
	}
	return i
}

// count counts containers, by class.
func (p *overviewPage) count(i *Item) {
	if i.Row != nil {
		p.All++
		if !slices.Contains(p.Verdicts, i.Verdict) && i.Verdict != "" {
			p.Verdicts = append(p.Verdicts, i.Verdict)
		}
		switch i.Class {
		case overview.Good:
			p.Good++
		case overview.Bad:
			p.Bad++
		case warned:
			p.Good++
			p.Anomalous++
		}
	}
	for _, c := range i.Items {
		p.count(c)
	}
}

// keep removes the containers that the filter hides, and the nodes that have none left. It returns how
// many containers are left.
func (i *Item) keep(f filter) (shown int) {
	i.Items = slices.DeleteFunc(i.Items, func(c *Item) bool {
		if c.Row != nil && f.matches(c) {
			shown++
			return false
		}
		if c.Row != nil {
			return true
		}
		below := c.keep(f)
		shown += below
		shows := f.none() || f == filter{Verdict: onlyBad} && c.broken() // also a definition that is broken
		return below == 0 && !shows
	})
	return shown
}

// containerPage is what the template of a container shows.
type containerPage struct {
	common
	*Item
	Rows  []overview.Row // the containers that share the interface
	Plot  plot
	Asked time.Time // when the gateways were asked again, zero for never
	// NotAsked is why they could not be asked, "" if they could.
	NotAsked string
}

// RTT formats the round trip to the gateway.
func (p *containerPage) RTT() string { return overview.Rounded(p.Row.RTT) }

// find returns the first item of an attachment, nil if it has no item.
func (i *Item) find(attachment string) *Item {
	if i.Row != nil && i.Row.Attachment == attachment {
		return i
	}
	for _, c := range i.Items {
		if found := c.find(attachment); found != nil {
			return found
		}
	}
	return nil
}
