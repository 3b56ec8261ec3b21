package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) audit() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "list unleased MACs on the parents, and other hosts that use leased ones",
		UsageText: "lanyard audit [OPTIONS]",
		Description: `Examples:
  lanyard audit || echo "an unleased MAC is on the LAN"
  lanyard audit --format json | jq '.[].unleased'

An unleased MAC is one that Lanyard did not give out. A user with a macvlan can
create more of them on the same parent, with any MAC.

UNLEASED lists such MACs that the parent accepts now. SENT lists those that have sent
frames in the last hour, with the number of frames. The trunk program keeps the last
128 of them; "lanyard watch" shows the times. DROPPED counts the frames that the guard
of the parent dropped, by reason. Below Linux 6.6, SENT does not contain these.

CLAIMED lists the stations on the LAN that have used an address or a MAC of a container
in the last hour, with the number of frames. A MAC that claims itself is that of another
station with the same MAC; a link's name is one of this host.

The exit status is 1 if UNLEASED, SENT or CLAIMED is not empty.`,
		Flags:  []cli.Flag{flagFormat[auditRow]()},
		Action: e.runAudit,
	}
}

// auditRow is one network in the JSON of "audit".
type auditRow struct {
	Network  string            `json:"network"`
	Parent   string            `json:"parent"`
	Unleased []ether.MAC       `json:"unleased"`
	Sent     []sentRow         `json:"sent"`
	Claimed  []claimedRow      `json:"claimed"`
	Dropped  map[string]uint64 `json:"dropped,omitempty"` // frames by reason
}

// claimedRow is an address or a MAC of a container that another station uses.
type claimedRow struct {
	Kind      verify.Kind `json:"kind"`
	Container []string    `json:"containers"`
	Addr      netip.Addr  `json:"addr"`           // "" for a MAC
	MAC       ether.MAC   `json:"mac"`            // of the station
	Link      string      `json:"link,omitempty"` // of this host, if it is the station
	Frames    uint64      `json:"frames"`
	Time      time.Time   `json:"time"` // of the last frame
}

func claimedRows(claims []admin.TrunkEvent) []claimedRow {
	rows := []claimedRow{}
	for _, h := range claims {
		row := claimedRow{h.Kind, []string{}, h.Addr, h.MAC, h.Link, h.Frames, h.At.UTC()}
		if h.Attachment != nil {
			row.Container = ids(*h.Attachment)
		}
		rows = append(rows, row)
	}
	return rows
}

func (r claimedRow) String() string {
	switch {
	case r.Link != "":
		return fmt.Sprintf("%s by %s", r.Addr, r.Link)
	case r.Addr.IsValid():
		return fmt.Sprintf("%s by %s %d", r.Addr, r.MAC, r.Frames)
	}
	return fmt.Sprintf("%s by %s %d", r.MAC, r.MAC, r.Frames)
}

// sentRow counts the frames of one unleased MAC.
type sentRow struct {
	MAC    ether.MAC `json:"mac"`
	Frames uint64    `json:"frames"`
	Since  time.Time `json:"since"`
	Time   time.Time `json:"time"` // of the last frame
}

func (e env) runAudit(c *cli.Context) error {
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	found, broken := l.Audit(c.Context)
	var rows []auditRow
	bad := false
	for _, a := range found {
		if a.Err != nil {
			broken = append(broken, fmt.Errorf("network %q: %w", a.Network, a.Err))
			continue
		}
		row := auditRow{a.Network, a.Parent, append([]ether.MAC{}, a.Unleased...), []sentRow{},
			claimedRows(a.Claims), a.Dropped}
		for _, h := range a.Sent {
			row.Sent = append(row.Sent, sentRow{h.MAC, h.Frames, h.Since.UTC(), h.At.UTC()})
		}
		rows = append(rows, row)
		bad = bad || len(a.Unleased)+len(a.Sent)+len(a.Claims) > 0
	}
	for _, err := range broken {
		e.say("%v", err)
	}
	if !format.table() {
		err = printRows(e.stdout, format, rows)
	} else {
		err = printTable(e.stdout, auditTable(rows))
	}
	if err == nil && (bad || len(broken) > 0) {
		err = errReported
	}
	return err
}

func auditTable(rows []auditRow) [][]string {
	table := [][]string{{"NETWORK", "PARENT", "UNLEASED", "SENT", "CLAIMED", "DROPPED"}}
	for _, r := range rows {
		var macs, sent, claimed, dropped []string
		for _, m := range r.Unleased {
			macs = append(macs, m.String())
		}
		for _, s := range r.Sent {
			sent = append(sent, fmt.Sprintf("%s %d", s.MAC, s.Frames))
		}
		for _, c := range r.Claimed {
			claimed = append(claimed, c.String())
		}
		for _, reason := range slices.Sorted(maps.Keys(r.Dropped)) {
			dropped = append(dropped, fmt.Sprintf("%s %d", reason, r.Dropped[reason]))
		}
		table = append(table, []string{r.Network, r.Parent, strings.Join(macs, ","), strings.Join(sent, ", "),
			strings.Join(claimed, ", "), strings.Join(dropped, ", ")})
	}
	return table
}
