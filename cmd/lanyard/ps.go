package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/attach"
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
GATEWAY-RTT are from the start of the container; "lanyard verify" probes again. If traffic
cannot work now, because the container has changed its interface, or the parent is gone or
has no carrier, VERDICT says so. OUT and
IN count frames until now: with the right tag / with a wrong tag.
ANOMALIES counts what the trunk program has seen since the start and should not be:
another station that uses the address, a wrong tag, a gateway with another MAC.
ADDRESS ends with the addresses that the container has from routers now (--ipv6-mode slaac);
one that is not for new connections is marked (deprecated).
"lanyard watch" shows details and times. GUARDED counts the frames of a rootless
container that its guard dropped; "lanyard inspect" counts them by reason.`,
		Flags: []cli.Flag{
			flagFormat[psRow](), flagQuiet("container ids"),
			&cli.BoolFlag{Name: "no-trunc", Usage: "print container ids in full"},
		},
		Action: e.runPs,
	}
}

// psRow is one container's interface in the JSON of "ps".
type psRow struct {
	Container  string         `json:"container"` // "" if no container of the pod runs, or after a rebuild
	Name       string         `json:"name,omitempty"`
	Pod        string         `json:"pod,omitempty"` // namespace/name, in Kubernetes
	Attachment string         `json:"attachment"`
	State      hook.State     `json:"state"`
	Network    string         `json:"network"`
	Interface  string         `json:"interface"`
	Addresses  []netip.Prefix `json:"addresses"`
	// SLAAC are the addresses that the container has from router advertisements now.
	SLAAC     []verify.AutoAddr `json:"slaac,omitempty"`
	MAC       ether.MAC         `json:"mac"`
	VLAN      string            `json:"vlan"` // "50"; "100.200" for QinQ; "" for none
	Verdict   verify.Code       `json:"verdict"`
	Text      string            `json:"text"`
	RTT       time.Duration     `json:"gateway_rtt_ns"`
	Counters  *verify.Counters  `json:"counters"`            // null if the trunk is not watched
	Anomalies []verify.Anomaly  `json:"anomalies"`           // since the start
	Unwatched string            `json:"unwatched,omitempty"` // why the trunk is not watched
	Changes   []verify.Change   `json:"changes,omitempty"`   // how the interface is not as it was given
	Owner     uint32            `json:"owner_uid,omitempty"` // the user of a rootless container; 0 for root
	Guarded   *verify.Guarded   `json:"guarded,omitempty"`
}

// Address returns the first address, without its prefix length, for templates.
func (r psRow) Address() string { return firstAddress(r.Addresses) }

// allAddresses returns the addresses in one line, those from routers with their state.
func (r psRow) allAddresses() string {
	auto := strings.NewReplacer(", ", ",", " (", "(").Replace(verify.AutoText(r.SLAAC))
	return strings.Trim(joinPrefixes(r.Addresses)+","+auto, ",")
}

func firstAddress(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return ""
	}
	return prefixes[0].Addr().String()
}

func (e env) runPs(c *cli.Context) error {
	l, format, err := openListing(0, c, "argument")
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
	now, err := l.Now(recs)
	if err != nil {
		e.say("%v", err)
	}
	for _, a := range recs {
		rows = append(rows, psRows(a, now[a.ID], l)...)
	}
	slices.SortStableFunc(rows, func(a, b psRow) int {
		return cmp.Or(
			cmp.Compare(a.Network, b.Network), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Interface, b.Interface),
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
	for _, a := range recs {
		for _, c := range now[a.ID].Changes {
			e.say("note: %s on network %q: %s", describe(a), a.Network, c.Text)
		}
	}
	e.noteLinkChanges(l)
	e.noteAhead(l, recs)
	return e.noteUnleased(c.Context, l)
}

// noteLinkChanges notes what other programs have done to the host's links that Lanyard created.
func (e env) noteLinkChanges(l *wiring.Lanyard) {
	changes, err := l.LinkChanges()
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

// noteUnleased says that there is more to see, which is no container's.
func (e env) noteUnleased(ctx context.Context, l *wiring.Lanyard) error {
	sent, err := l.RecentEvents(ctx)
	sent = slices.DeleteFunc(sent, func(h admin.TrunkEvent) bool { return h.Kind != verify.UnleasedMAC })
	if n := len(sent); n > 0 {
		e.say("note: unleased MACs have sent frames (%d): see \"lanyard audit\"", n)
	}
	return err
}

// psRows returns a row for each container of an attachment. They share the interface, and
// users look for each of them by its id.
func psRows(a hook.Attachment, now attach.Now, l *wiring.Lanyard) []psRow {
	changes := now.Changes
	row := psRow{
		Attachment: a.ID.String(), State: a.State, Network: a.Network, Interface: a.Interface,
		Addresses: append([]netip.Prefix{}, a.Addrs...), MAC: a.MAC, VLAN: vlan(a.Endpoint.Tags),
		Verdict: a.Verdict.Code, Text: a.Verdict.Text, RTT: a.Verdict.RTT, Owner: a.Owner, Anomalies: []verify.Anomaly{},
		Changes: changes, SLAAC: now.Auto,
	}
	if i := slices.IndexFunc(changes, func(c verify.Change) bool { return c.Code != "" }); i >= 0 {
		row.Verdict, row.Text, row.RTT = changes[i].Code, changes[i].Text, 0
	}
	if a.Pod.Sandbox != "" {
		row.Pod = a.Pod.String()
	}
	seen, err := l.Evidence(a)
	if err == nil {
		row.Counters, row.Anomalies = &seen.Counters, append(row.Anomalies, anomaliesSince(a, seen)...)
		_, err = l.Datapath.Ahead(a.Endpoint.Trunk)
	}
	if err != nil {
		row.Unwatched = err.Error()
	}
	if row.Guarded, err = l.Guarded(a); err != nil {
		row.Unwatched = err.Error()
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

func psTable(rows []psRow, full bool) [][]string {
	table := [][]string{{
		"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "VLAN", "VERDICT", "GATEWAY-RTT", "OUT", "IN", "ANOMALIES",
	}}
	// The column is left out on the many hosts without rootless containers.
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
			cmp.Or(abbreviate(r.Container, full), r.Pod), r.Network, r.Interface, r.allAddresses(),
			macOrNone(r.MAC), r.VLAN,
			verdict, rounded(r.RTT), out, in, anomalies,
		}
		if guards {
			row = append(row, droppedFrames(r.Guarded))
		}
		table = append(table, row)
	}
	return table
}

// droppedFrames returns the number of frames that a guard dropped, "" without a guard.
func droppedFrames(g *verify.Guarded) string {
	if g == nil {
		return ""
	}
	return strconv.FormatUint(g.Dropped(), 10)
}

// anomaliesSince returns the anomalies of an attachment after its verdict.
func anomaliesSince(a hook.Attachment, now verify.Evidence) []verify.Anomaly {
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

func (e env) printIDs(rows []psRow, full bool) error {
	seen := map[string]bool{"": true}
	for _, r := range rows {
		if !seen[r.Container] {
			fmt.Fprintln(e.stdout, clean(abbreviate(r.Container, full)))
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

func macOrNone(m ether.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}
