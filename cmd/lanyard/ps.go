package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) ps() *cli.Command {
	return &cli.Command{
		Name:      "ps",
		Usage:     "list what containers got, and whether it works",
		UsageText: "lanyard ps [OPTIONS]",
		Description: `Examples:
  lanyard ps
  lanyard ps --format json | jq -r '.[] | select(.verdict != "ok") | .container'

CONTAINER is the pod's NAMESPACE/NAME where none of its containers runs. VERDICT and
GATEWAY-RTT are from the start of the container; "lanyard verify" asks again. OUT and IN are the frames until now, those with the right tag and
those with a wrong one. ANOMALIES counts what the trunk has seen since the start
that should not be: others who claim the address, frames with a wrong tag, a gateway
that is another MAC now. "lanyard watch" says which and when. GUARDED counts
the frames that a rootless container was not allowed to send; "lanyard inspect" has
them by reason.`,
		Flags: []cli.Flag{
			flagFormat(), flagQuiet("container ids"),
			&cli.BoolFlag{Name: "no-trunc", Usage: "print ids in full"},
		},
		Action: e.runPs,
	}
}

// psRow is one container's interface in the JSON of "ps".
type psRow struct {
	Container  string           `json:"container"` // "" where none of a pod's runs, or the records were lost
	Name       string           `json:"name,omitempty"`
	Pod        string           `json:"pod,omitempty"` // namespace/name, in Kubernetes
	Attachment string           `json:"attachment"`
	State      hook.State       `json:"state"`
	Network    string           `json:"network"`
	Interface  string           `json:"interface"`
	Addresses  []netip.Prefix   `json:"addresses"`
	MAC        verify.MAC       `json:"mac"`
	VLAN       string           `json:"vlan"` // "50", "100.200" for QinQ, "" for none
	Verdict    verify.Code      `json:"verdict"`
	Text       string           `json:"text"`
	RTT        time.Duration    `json:"gateway_rtt_ns"`
	Counters   *verify.Counters `json:"counters"`            // null where the trunk is not watched
	Anomalies  []verify.Anomaly `json:"anomalies"`           // since the start
	Blind      string           `json:"blind,omitempty"`     // why not
	Owner      uint32           `json:"owner_uid,omitempty"` // whose rootless container it is
	Guarded    *verify.Guarded  `json:"guarded,omitempty"`
}

func (e env) runPs(c *cli.Context) error {
	l, inJSON, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	recs, err := l.Attachments(c.Context)
	if err != nil {
		return err
	}
	_, broken := network.LoadAll(l.Networks)
	for _, err := range broken {
		e.say("%v", err)
	}
	var rows []psRow
	for _, a := range recs {
		rows = append(rows, psRows(a, l)...)
	}
	slices.SortStableFunc(rows, func(a, b psRow) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Interface, b.Interface))
	})
	switch {
	case inJSON:
		return printJSON(e.stdout, rows)
	case c.Bool("quiet"):
		return e.printIDs(rows, c.Bool("no-trunc"))
	}
	if err := printTable(e.stdout, psTable(rows, c.Bool("no-trunc"))); err != nil {
		return err
	}
	e.noteAhead(l, recs)
	return e.noteStrangers(c.Context, l)
}

// noteAhead names whoever may hide frames from what is counted.
func (e env) noteAhead(l *wiring.Lanyard, recs []hook.Attachment) {
	seen := map[int]bool{}
	for _, a := range recs {
		if seen[a.Endpoint.Trunk] || a.State != hook.Attached {
			continue
		}
		seen[a.Endpoint.Trunk] = true
		if _, err := l.Evidence(a); err != nil {
			continue // not watched, as its row says
		}
		ahead, err := l.Datapath.Ahead(a.Endpoint.Trunk)
		if err != nil {
			e.say("note: %v: nothing is counted; \"lanyard verify\" puts it back", err)
		}
		for _, way := range []struct {
			name  string
			names []string
		}{{"egress", ahead.Out}, {"ingress", ahead.In}} {
			if len(way.names) > 0 {
				e.say("note: %s comes before ours on the %s of trunk %q, and may hide frames: \"lanyard verify\" says whether it does", strings.Join(way.names, ", "), way.name, a.Trunk)
			}
		}
	}
}

// noteStrangers says that there is more to see, which is no container's.
func (e env) noteStrangers(ctx context.Context, l *wiring.Lanyard) error {
	sent, err := l.Strangers(ctx)
	if n := len(sent); n > 0 {
		e.say("note: MACs that nobody was given have sent (%d): see \"lanyard audit\"", n)
	}
	return err
}

// psRows gives a row for each container that holds an attachment: they share
// its interface, and each is looked for by its own id.
func psRows(a hook.Attachment, l *wiring.Lanyard) []psRow {
	row := psRow{
		Attachment: a.ID.String(), State: a.State, Network: a.Network, Interface: a.Interface,
		Addresses: append([]netip.Prefix{}, a.Addrs...), MAC: a.MAC, VLAN: vlan(a.Endpoint.Tags),
		Verdict: a.Verdict.Code, Text: a.Verdict.Text, RTT: a.Verdict.RTT, Owner: a.Owner, Anomalies: []verify.Anomaly{},
	}
	if a.Pod.Sandbox != "" {
		row.Pod = a.Pod.String()
	}
	seen, err := l.Evidence(a)
	if err == nil {
		row.Counters, row.Anomalies = &seen.Counters, append(row.Anomalies, since(a, seen)...)
		_, err = l.Datapath.Ahead(a.Endpoint.Trunk)
	}
	if err != nil {
		row.Blind = err.Error()
	}
	if row.Guarded, err = l.Guarded(a); err != nil {
		row.Blind = err.Error()
	}
	var rows []psRow
	for _, c := range a.Containers {
		row.Container, row.Name = c.ID, c.Name
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = append(rows, row)
	}
	return rows
}

func psTable(rows []psRow, whole bool) [][]string {
	table := [][]string{{"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "VLAN", "VERDICT", "GATEWAY-RTT", "OUT", "IN", "ANOMALIES"}}
	// Only rootless containers are guarded, and many hosts have none.
	guards := slices.ContainsFunc(rows, func(r psRow) bool { return r.Guarded != nil })
	if guards {
		table[0] = append(table[0], "GUARDED")
	}
	for _, r := range rows {
		verdict := string(r.Verdict)
		if r.State == hook.Attaching {
			verdict = string(r.State) + "…"
		}
		out, in, anomalies := "", "", ""
		if n := r.Counters; n != nil {
			out, in = fmt.Sprintf("%d/%d", n.OutFrames, n.OutWrong), fmt.Sprintf("%d/%d", n.InFrames, n.InWrong)
			anomalies = fmt.Sprint(total(r.Anomalies))
		}
		row := []string{
			cmp.Or(abbreviate(r.Container, whole), r.Pod), r.Network, r.Interface, joinPrefixes(r.Addresses), macOrNone(r.MAC), r.VLAN,
			verdict, rounded(r.RTT), out, in, anomalies,
		}
		if guards {
			row = append(row, stopped(r.Guarded))
		}
		table = append(table, row)
	}
	return table
}

// stopped is how many frames a guard did not let out, "" where there is none.
func stopped(g *verify.Guarded) string {
	if g == nil {
		return ""
	}
	return strconv.FormatUint(g.Dropped(), 10)
}

// since gives what was seen of an attachment after its verdict.
func since(a hook.Attachment, now verify.Evidence) []verify.Anomaly {
	if a.Evidence == nil {
		return verify.Anomalies(verify.Evidence{}, now)
	}
	return verify.Anomalies(*a.Evidence, now)
}

func total(list []verify.Anomaly) (n uint64) {
	for _, a := range list {
		n += a.Count
	}
	return n
}

func (e env) printIDs(rows []psRow, whole bool) error {
	seen := map[string]bool{"": true}
	for _, r := range rows {
		if !seen[r.Container] {
			fmt.Fprintln(e.stdout, clean(abbreviate(r.Container, whole)))
		}
		seen[r.Container] = true
	}
	return nil
}

func joinPrefixes(prefixes []netip.Prefix) string {
	list := make([]string, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.String()
	}
	return strings.Join(list, ",")
}

func macOrNone(m verify.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}
