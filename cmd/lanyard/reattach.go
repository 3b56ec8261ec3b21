package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) reattach() *cli.Command {
	return &cli.Command{
		Name:      "reattach",
		Usage:     "create interfaces again that running containers have lost",
		UsageText: "lanyard reattach [OPTIONS] ID|NETWORK\n       lanyard reattach [OPTIONS] --all",
		Description: `When a network card or a sub-interface is removed, the kernel deletes the interfaces of all
containers on it, and does not create them again when it returns. This command does, in
the running containers: with the same name, MAC, addresses and routes, and with a new
verdict. Connections that the container has open continue. Programs that were bound to the
interface itself (SO_BINDTODEVICE, packet sockets, multicast groups) have to be started again.

ID and NETWORK are as in "lanyard verify". Interfaces that exist are left as they are. The
exit status is 1 if an interface could not be created, or if its verdict is bad.

Examples:
  lanyard reattach web50
  lanyard reattach 3f2a9c
  lanyard reattach --all`,
		Flags: []cli.Flag{
			flagFormat[reattachRow](),
			&cli.BoolFlag{Name: "all", Usage: "reattach all attachments without an interface"},
		},
		Action: e.runReattach,
	}
}

// reattachRow is one interface in the JSON of "reattach".
type reattachRow struct {
	Containers []string       `json:"containers"`
	Attachment string         `json:"attachment"`
	Network    string         `json:"network"`
	Interface  string         `json:"interface"`
	Addresses  []netip.Prefix `json:"addresses"`
	Verdict    verify.Code    `json:"verdict"`
	Good       bool           `json:"good"`
	Text       string         `json:"text"`
}

func (e env) runReattach(c *cli.Context) error {
	l, format, targets, err := openTargets(c)
	if err != nil {
		return err
	}
	defer l.Close()
	rows, exist, bad := e.createAgain(c.Context, l, targets)
	switch {
	case !format.table():
		err = printRows(e.stdout, format, rows)
	case len(rows) > 0:
		err = printTable(e.stdout, reattachTable(rows))
	case len(targets) == 0 && c.Bool("all"):
		e.say("note: nothing is attached: no interface to create")
	case len(targets) == 0:
		e.say("note: nothing is attached to network %q: no interface to create", c.Args().First())
	case exist == len(targets):
		e.say("note: all interfaces exist: there is nothing to create")
	}
	if err == nil && bad {
		err = errReported
	}
	return err
}

// createAgain creates the interfaces that are gone, and counts those that exist. An error of one does not
// prevent the others.
func (e env) createAgain(
	ctx context.Context, l *wiring.Lanyard, targets []hook.Attachment,
) (rows []reattachRow, exist int, bad bool) {
	for _, a := range targets {
		done := e.slow("creating %q of %s on network %q …", a.Interface, describe(a), a.Network)
		now, err := l.Reattach(ctx, a.ID)
		done()
		switch {
		case errors.Is(err, attach.ErrNotGone):
			exist++
			continue
		case errors.Is(err, hook.ErrGone):
			e.say("note: %s on network %q was detached during the call: nothing was created", describe(a), a.Network)
			continue
		case err != nil:
			e.say("reattach %s to network %q: %v", describe(a), a.Network, err)
			bad = true
			continue
		}
		v := now.Verdict
		rows = append(rows, reattachRow{
			Containers: ids(now), Attachment: now.ID.String(), Network: now.Network, Interface: now.Interface,
			Addresses: now.Addrs, Verdict: v.Code, Good: v.Code.Good(), Text: v.Text,
		})
		bad = bad || !v.Code.Good() && v.Code != verify.Unverified
	}
	return rows, exist, bad
}

func reattachTable(rows []reattachRow) [][]string {
	table := [][]string{{"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "VERDICT", "SEEN"}}
	for _, r := range rows {
		table = append(table, []string{
			firstOf(r.Containers), r.Network, r.Interface, overview.JoinPrefixes(r.Addresses), string(r.Verdict), r.Text,
		})
	}
	return table
}
