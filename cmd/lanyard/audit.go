package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/verify"
)

func (e env) audit() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "look for MACs on the parents that nobody was given",
		UsageText: "lanyard audit [OPTIONS]",
		Description: `Examples:
  lanyard audit || echo "somebody is on the LAN who was not let on"
  lanyard audit --format json | jq '.[].strangers'

A user who has a macvlan can make more of them on the same parent, with MACs of
their own choice: while they are up they are in the parent's list (STRANGERS), and
what they have sent in the last hour, the trunk has seen (SENT, with the frames of
each; the last 128 are kept, and "lanyard watch" says when). STOPPED counts what the
guard of the parent's egress did not let out; below Linux 6.6 the trunk has not seen
that. The exit status is 1 if there are any
strangers, or were within the hour.`,
		Flags:  []cli.Flag{flagFormat()},
		Action: e.runAudit,
	}
}

// auditRow is one network in the JSON of "audit".
type auditRow struct {
	Network   string            `json:"network"`
	Parent    string            `json:"parent"`
	Strangers []verify.MAC      `json:"strangers"`
	Sent      []sentRow         `json:"sent"`
	Stopped   map[string]uint64 `json:"stopped,omitempty"`
}

// sentRow is what one stranger has sent.
type sentRow struct {
	MAC    verify.MAC `json:"mac"`
	Frames uint64     `json:"frames"`
	Since  time.Time  `json:"since"`
	Time   time.Time  `json:"time"` // of the last
}

func (e env) runAudit(c *cli.Context) error {
	l, inJSON, err := openListing(0, c, "argument")
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
		row := auditRow{a.Network, a.Parent, append([]verify.MAC{}, a.Strangers...), []sentRow{}, a.Dropped}
		for _, h := range a.Sent {
			row.Sent = append(row.Sent, sentRow{h.MAC, h.Frames, h.Since.UTC(), h.At.UTC()})
		}
		rows = append(rows, row)
		bad = bad || len(a.Strangers)+len(a.Sent) > 0
	}
	for _, err := range broken {
		e.say("%v", err)
	}
	if inJSON {
		err = printJSON(e.stdout, rows)
	} else {
		err = printTable(e.stdout, auditTable(rows))
	}
	if err == nil && (bad || len(broken) > 0) {
		err = errReported
	}
	return err
}

func auditTable(rows []auditRow) [][]string {
	table := [][]string{{"NETWORK", "PARENT", "STRANGERS", "SENT", "STOPPED"}}
	for _, r := range rows {
		var macs, sent, stopped []string
		for _, m := range r.Strangers {
			macs = append(macs, m.String())
		}
		for _, s := range r.Sent {
			sent = append(sent, fmt.Sprintf("%s %d", s.MAC, s.Frames))
		}
		for _, why := range slices.Sorted(maps.Keys(r.Stopped)) {
			stopped = append(stopped, fmt.Sprintf("%s %d", why, r.Stopped[why]))
		}
		table = append(table, []string{r.Network, r.Parent, strings.Join(macs, ","), strings.Join(sent, ", "), strings.Join(stopped, ", ")})
	}
	return table
}
