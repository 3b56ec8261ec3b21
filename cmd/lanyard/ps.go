package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) ps() *cli.Command {
	return &cli.Command{
		Name:      "ps",
		Usage:     "list what every container got, and whether it works",
		UsageText: "lanyard ps [OPTIONS]",
		Description: `Examples:
  lanyard ps
  lanyard ps --format '{{.Container}} {{.Address}} {{.Verdict}}'
  lanyard ps --format json | jq -r '.[] | select(.verdict != "ok") | .container'

CONTAINER is NAMESPACE/NAME of the pod if none of its containers runs. VERDICT and
GATEWAY-RTT are from the start of the container, or from a later verification that found
another verdict: by "lanyard verify", or by the service if it serves --web or --metrics. A note
below the table has the sentence of a bad verdict, and its time. If traffic cannot work now,
because the container has ended or has changed its interface, or the parent is gone or has no
carrier, VERDICT says so. OUT and IN count frames until now: with the right
tag / with a wrong tag.
ANOMALIES counts what the trunk program has seen since the start and should not be:
another station that uses the address, a wrong tag, a gateway with another MAC.
ADDRESS ends with the addresses that the container has from routers now (--ipv6-mode slaac);
one that is not for new connections is marked (deprecated).
"lanyard watch" shows details and times. GUARDED counts the frames of a rootless
container that its guard dropped; "lanyard inspect" counts them by reason.

--all-hosts adds the containers of the other hosts on networks with --leases etcd, by
name, interface, address and HOST: the store knows no more of them.`,
		Flags: []cli.Flag{
			flagFormat[overview.Row](), flagQuiet("container ids"),
			&cli.BoolFlag{Name: "all-hosts", Usage: "containers of other hosts with shared leases, too (asks etcd)"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print container ids in full"},
		},
		Action: e.runPs,
	}
}

func (e env) runPs(c *cli.Context) error {
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	defs, broken := network.LoadAll(l.Networks)
	for _, err := range broken {
		e.say("%v", err)
	}
	r, unread, err := overview.Read(c.Context, l)
	if err != nil {
		return err
	}
	if unread != nil {
		e.say("%v", unread)
	}
	rows := r.Rows
	if c.Bool("all-hosts") {
		others, err := otherHosts(c.Context, l, defs, r.Records)
		if err != nil {
			return err
		}
		rows = append(rows, others...)
	}
	slices.SortStableFunc(rows, func(a, b overview.Row) int {
		return cmp.Or(
			cmp.Compare(a.Network, b.Network), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Container, b.Container),
			cmp.Compare(a.Interface, b.Interface),
		)
	})
	switch {
	case !format.table():
		return printRows(e.stdout, format, rows)
	case c.Bool("quiet"):
		return e.printIDs(rows, c.Bool("no-trunc"))
	}
	if err := printTable(e.stdout, psTable(rows, c.Bool("no-trunc"))); err != nil {
		return err
	}
	for _, a := range r.Records {
		for _, c := range r.Now[a.ID].Changes {
			e.say("note: %s on network %q: %s", describe(a), a.Network, c.Text)
		}
	}
	e.noteVerdicts(r)
	e.noteLinkChanges(c.Context, l)
	e.noteAhead(l, r.Records)
	return e.noteUnleased(c.Context, l)
}

// noteVerdicts notes the sentences of bad verdicts: one for each network and code, because a VLAN's fault
// affects all its containers. runPs has already noted changes of interfaces.
func (e env) noteVerdicts(r overview.Reading) {
	type fault struct {
		network string
		code    verify.Code
	}
	counts, shown := map[fault]int{}, map[verify.ID]bool{}
	var first []hook.Attachment
	for _, a := range r.Records {
		v, _ := a.LastVerdict()
		changed := slices.ContainsFunc(r.Now[a.ID].Changes, func(c verify.Change) bool { return c.Code != "" })
		if a.State != hook.Attached || v.Code.Good() || v.Code == verify.Unverified || changed || shown[a.ID] {
			continue
		}
		shown[a.ID] = true
		f := fault{a.Network, v.Code}
		counts[f]++
		if counts[f] == 1 {
			first = append(first, a)
		}
	}
	for _, a := range first {
		v, since := a.LastVerdict()
		others := ""
		if n := counts[fault{a.Network, v.Code}] - 1; n > 0 {
			others = fmt.Sprintf(" (and %d more)", n)
		}
		e.say("note: %s%s on network %q: %s since %s: %s", describe(a), others, a.Network, v.Code,
			since.Local().Format(time.DateTime), v.Text)
	}
}

// noteLinkChanges notes what other programs have done to the host's links that Lanyard created.
func (e env) noteLinkChanges(ctx context.Context, l *wiring.Lanyard) {
	changes, err := l.LinkChanges(ctx)
	if err != nil {
		e.say("%v", err)
	}
	for _, h := range changes {
		e.say("note: %s", h)
	}
}

// noteAhead names other programs that may hide frames from the trunk programs.
func (e env) noteAhead(l *wiring.Lanyard, recs []hook.Attachment) {
	seen := map[int]bool{}
	for _, a := range recs {
		if seen[a.Endpoint.Trunk] || a.State != hook.Attached {
			continue
		}
		seen[a.Endpoint.Trunk] = true
		if _, err := l.Host.ParentAt(a.Endpoint.Trunk); errors.Is(err, link.ErrNoLink) {
			continue // removed, as its row says
		}
		if _, err := l.Evidence(a); err != nil {
			continue // not watched, as its row says
		}
		ahead, err := l.Datapath.Ahead(a.Endpoint.Trunk)
		if err != nil {
			e.say("note: %v: no frames are counted: attach the program again with \"lanyard verify\"", err)
		}
		for _, way := range []struct {
			name  string
			names []string
		}{{"egress", ahead.Out}, {"ingress", ahead.In}} {
			if len(way.names) > 0 {
				e.say("note: %s runs before Lanyard's program on the %s of trunk %q and may hide frames: "+
					"check with \"lanyard verify\"", strings.Join(way.names, ", "), way.name, a.Trunk)
			}
		}
	}
}

// noteUnleased notes frames from unleased MACs, which belong to no row.
func (e env) noteUnleased(ctx context.Context, l *wiring.Lanyard) error {
	sent, err := l.RecentEvents(ctx)
	sent = slices.DeleteFunc(sent, func(h admin.TrunkEvent) bool { return h.Kind != verify.UnleasedMAC })
	if n := len(sent); n > 0 {
		e.say("note: unleased MACs have sent frames (%d): see \"lanyard audit\"", n)
	}
	return err
}

func psTable(rows []overview.Row, full bool) [][]string {
	table := [][]string{{
		"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "VLAN", "VERDICT", "GATEWAY-RTT", "OUT", "IN", "ANOMALIES",
	}}
	// The column is left out on the many hosts without rootless containers.
	guards := slices.ContainsFunc(rows, func(r overview.Row) bool { return r.Guarded != nil })
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
			anomalies = fmt.Sprint(overview.AnomalyFrames(r))
		}
		row := []string{
			cmp.Or(abbreviate(r.Container, full), r.Pod, r.Name), r.Network, r.Interface, r.AllAddresses(),
			macOrNone(r.MAC), r.VLAN,
			verdict, overview.Rounded(r.RTT), out, in, anomalies,
		}
		if guards {
			row = append(row, droppedFrames(r.Guarded))
		}
		table = append(table, row)
	}
	return withHosts(table, rows)
}

// droppedFrames returns the number of frames that a guard dropped, "" without a guard.
func droppedFrames(g *verify.Guarded) string {
	if g == nil {
		return ""
	}
	return strconv.FormatUint(g.Dropped(), 10)
}

func (e env) printIDs(rows []overview.Row, full bool) error {
	seen := map[string]bool{"": true}
	for _, r := range rows {
		if !seen[r.Container] {
			fmt.Fprintln(e.stdout, clean(abbreviate(r.Container, full)))
		}
		seen[r.Container] = true
	}
	return nil
}

func macOrNone(m ether.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}
