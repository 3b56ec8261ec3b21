package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
their own choice: they are in the parent's list. STOPPED counts what the guard of
the parent's egress did not let out. The exit status is 1 if there are any.`,
		Flags:  []cli.Flag{flagFormat()},
		Action: e.runAudit,
	}
}

// auditRow is one network in the JSON of "audit".
type auditRow struct {
	Network   string            `json:"network"`
	Parent    string            `json:"parent"`
	Strangers []verify.MAC      `json:"strangers"`
	Stopped   map[string]uint64 `json:"stopped,omitempty"`
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
		rows = append(rows, auditRow{a.Network, a.Parent, append([]verify.MAC{}, a.Strangers...), a.Dropped})
		bad = bad || len(a.Strangers) > 0
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
	table := [][]string{{"NETWORK", "PARENT", "STRANGERS", "STOPPED"}}
	for _, r := range rows {
		var macs, stopped []string
		for _, m := range r.Strangers {
			macs = append(macs, m.String())
		}
		for _, why := range slices.Sorted(maps.Keys(r.Stopped)) {
			stopped = append(stopped, fmt.Sprintf("%s %d", why, r.Stopped[why]))
		}
		table = append(table, []string{r.Network, r.Parent, strings.Join(macs, ","), strings.Join(stopped, ", ")})
	}
	return table
}
