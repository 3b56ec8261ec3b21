package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/doctor"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// lldpWait is the default time to listen for a frame: switches send every 30 s.
const lldpWait = "35s"

func (e env) lldp() *cli.Command {
	return &cli.Command{
		Name:      "lldp",
		Usage:     "show the switch port at the other end of each trunk, and its VLANs",
		UsageText: "lanyard lldp [OPTIONS] [LINK…]",
		Description: `Examples:
  lanyard lldp
  lanyard lldp eth0 --wait 60s
  lanyard lldp --format json | jq '.[].neighbour.vlans'

A switch that speaks LLDP says which port a link is connected to and, if it sends the TLVs of
802.1, its VLANs. Where lldpd runs, its answer is shown; on other trunks the command listens
until a frame comes. It sends nothing. Without LINK, it shows the trunks of all networks.
A network on a VLAN that the switch does not name for the port is noted; the switch may leave
out VLANs, so "lanyard verify" decides. The exit status is 1 if nothing came on a trunk. What was
heard is kept in /run/lanyard/lldp, and the verdict vlan-silent repeats it while it is valid.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "wait", Value: lldpWait,
				Usage: "`DURATION` how long to listen for a frame (default: " + lldpWait + ")"},
			flagFormat[doctor.Heard](),
		},
		Action: e.runLLDP,
	}
}

// listenTime returns the value of a flag with the time to listen.
func listenTime(c *cli.Context, flag string) (time.Duration, error) {
	d, err := time.ParseDuration(cmp.Or(c.String(flag), "0s"))
	if err != nil || d < 0 {
		return 0, usagef("--%s %q: use a duration, such as %s", flag, c.String(flag), lldpWait)
	}
	return d, nil
}

func (e env) runLLDP(c *cli.Context) error {
	wait, err := listenTime(c, "wait")
	if err != nil {
		return err
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	trunks, failed, err := trunksOf(l, c.Args().Slice())
	if err != nil {
		return err
	}
	done := e.slow("listening for LLDP frames for up to %v", wait)
	heard, more := hearAll(c.Context, l, trunks, wait, paths(c).Switches())
	done()
	if err := c.Err(); err != nil {
		return err
	}
	failed = append(failed, more...)
	for _, err := range failed {
		e.say("%v", err)
	}
	if !format.table() {
		err = printRows(e.stdout, format, heard)
	} else {
		err = printTable(e.stdout, lldpTable(heard))
	}
	if err != nil {
		return err
	}
	if silent := e.noteLLDP(l, heard, wait); silent || len(failed) > 0 {
		return errReported
	}
	return nil
}

// trunksOf returns the trunks of the links with these names, or of all networks. failed has the errors
// of networks without a known trunk.
func trunksOf(l *wiring.Lanyard, names []string) (trunks []link.Parent, failed []error, err error) {
	add := func(p link.Parent) {
		if !slices.ContainsFunc(trunks, func(t link.Parent) bool { return t.TrunkIndex == p.TrunkIndex }) {
			trunks = append(trunks, p)
		}
	}
	for _, name := range names {
		p, err := l.Host.ParentNamed(name)
		if err != nil {
			return nil, nil, err
		}
		add(p)
	}
	if len(names) > 0 {
		return trunks, nil, nil
	}
	defs, _ := network.LoadAll(l.Networks)
	for _, def := range defs {
		if def.Dummy() {
			continue
		}
		p, err := l.Parent(def)
		if err != nil {
			failed = append(failed, fmt.Errorf("network %q: %w", def.Name, err))
			continue
		}
		add(p)
	}
	return trunks, failed, nil
}

// hearAll listens on all trunks at once. An error on one of them does not prevent the others.
func hearAll(
	ctx context.Context, l *wiring.Lanyard, trunks []link.Parent, wait time.Duration, keep lldp.Memory,
) (heard []doctor.Heard, failed []error) {
	all, errs := make([]doctor.Heard, len(trunks)), make([]error, len(trunks))
	var group sync.WaitGroup
	for i, p := range trunks {
		group.Go(func() { all[i], errs[i] = doctor.Hear(ctx, l.Host, p, wait, keep) })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			failed = append(failed, fmt.Errorf("trunk %q: %w", trunks[i].Trunk, err))
		} else {
			heard = append(heard, all[i])
		}
	}
	return heard, failed
}

func lldpTable(heard []doctor.Heard) [][]string {
	table := [][]string{{"TRUNK", "SWITCH", "PORT", "PVID", "VLANS", "FROM"}}
	for _, h := range heard {
		row := []string{h.Trunk, "", "", "", "", h.From}
		if n := h.Neighbour; n != nil {
			row = []string{h.Trunk, n.Switch, n.Port, "", n.List(), h.From}
			if n.PVID != 0 {
				row[3] = strconv.Itoa(int(n.PVID))
			}
		}
		table = append(table, row)
	}
	return table
}

// noteLLDP notes where nothing was heard, and networks on VLANs that the switch does not name. silent
// reports whether nothing was heard on a trunk.
func (e env) noteLLDP(l *wiring.Lanyard, heard []doctor.Heard, wait time.Duration) (silent bool) {
	defs, _ := network.LoadAll(l.Networks)
	for _, h := range heard {
		if h.Neighbour == nil {
			silent = true
			e.say("%s", h.Silent(wait, "--wait"))
			continue
		}
		for _, def := range defs {
			p, err := l.Parent(def)
			if err != nil || p.Trunk != h.Trunk {
				continue
			}
			if text := h.Neighbour.Differs(p.Tags); text != "" {
				e.say("note: network %q: %s", def.Name, text)
			}
		}
	}
	return silent
}
