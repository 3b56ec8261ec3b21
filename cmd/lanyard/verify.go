package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) verify() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "probe the gateways again, now, and print verdicts",
		UsageText: "lanyard verify [OPTIONS] ID|NETWORK\n       lanyard verify [OPTIONS] --all",
		Description: `ID is the id of a container or of an attachment, or a prefix of one; NAMESPACE/NAME
of a Kubernetes pod; or the name of a container of root's podman or of Docker, which are asked
for it if it is no id. NETWORK means all attachments of a network. A name that is both means the
network.

Examples:
  lanyard verify web50
  lanyard verify my-container
  lanyard verify 3f2a9c || echo "the container is off the LAN"
  lanyard verify --all --format json    a monitoring check
  lanyard verify --mtu web50

The command probes each gateway from inside the container's namespace, with the
container's MAC, and changes nothing there. It first compares the interface with what it
was given: if traffic cannot work with what a container has changed, that is the verdict,
and other changes are notes. The exit status is 1 if any verdict is bad.

With --mtu, it also sends echo requests as large as the interface's MTU, which must not be
fragmented, to each gateway that answers and to another container of the network, and looks for
the largest size that is answered. The exit status is 1 if that is less than the MTU. A gateway
that answers no echo request leaves the MTU unknown, which is not a fault.`,
		Flags: []cli.Flag{
			flagFormat[verifyRow](), &cli.BoolFlag{Name: "all", Usage: "verify all attachments"},
			&cli.BoolFlag{Name: "mtu", Usage: "also find the largest packet (path MTU) that each gateway answers"},
		},
		Action: e.runVerify,
	}
}

// verifyRow is one gateway in the JSON of "verify".
type verifyRow struct {
	Containers []string      `json:"containers"`
	Attachment string        `json:"attachment"`
	Network    string        `json:"network"`
	Interface  string        `json:"interface"`
	Gateway    netip.Addr    `json:"gateway"` // "" for a network without a gateway
	MAC        ether.MAC     `json:"gateway_mac"`
	Verdict    verify.Code   `json:"verdict"`
	Good       bool          `json:"good"`
	RTT        time.Duration `json:"gateway_rtt_ns"`
	Text       string        `json:"text"`
	// MTU are the paths to the gateway and to another container of the network, with --mtu.
	MTU []verify.PathMTU `json:"mtu,omitempty"`
}

// openTargets opens Lanyard and returns the attachments that the command line names: by an ID or a
// NETWORK, or all with --all.
func openTargets(c *cli.Context) (l *wiring.Lanyard, format rowFormat, targets []hook.Attachment, err error) {
	everything, wants := c.Bool("all"), 1
	if everything {
		wants = 0
	}
	if l, format, err = openListing(wants, c, "ID or NETWORK"); err != nil {
		return nil, format, nil, err
	}
	if targets, err = verifyTargets(c.Context, l, c.Args().First(), everything); err != nil {
		return nil, format, nil, errors.Join(err, l.Close())
	}
	return l, format, targets, nil
}

func (e env) runVerify(c *cli.Context) error {
	l, format, targets, err := openTargets(c)
	if err != nil {
		return err
	}
	defer l.Close()
	if len(targets) == 0 && !c.Bool("all") {
		e.say("note: nothing is attached to network %q: no container to probe from", c.Args().First())
	}
	rows, bad := e.ask(c.Context, l, targets, c.Bool("mtu"))
	e.noteLinkChanges(c.Context, l)
	if !format.table() {
		err = printRows(e.stdout, format, rows)
	} else if len(rows) > 0 {
		err = printTable(e.stdout, verifyTable(rows))
	}
	if err == nil && bad {
		err = errReported
	}
	return err
}

// verifyTargets returns the attachments of a network, of a container, or all. It leaves
// out those that a hook is still attaching, since that hook verifies them.
func verifyTargets(ctx context.Context, l *wiring.Lanyard, word string, everything bool) (targets []hook.Attachment,
	err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	if everything {
		return attached(recs), nil
	}
	_, err = network.Load(l.Networks, word)
	switch {
	case err == nil:
		for _, a := range recs {
			if a.Network == word && a.State == hook.Attached {
				targets = append(targets, a)
			}
		}
		return targets, nil
	case network.ValidName(word) == nil && !errors.Is(err, network.ErrNotExist):
		return nil, err // its file is broken
	}
	id, err := idOf(ctx, recs, word)
	if errors.Is(err, errNoAttachment) {
		err = fmt.Errorf("no container, attachment or network %q: \"lanyard ps\" and \"lanyard network ls\" list them", word)
	}
	if err != nil {
		return nil, err
	}
	found, err := find(recs, id)
	if err != nil {
		return nil, err
	}
	targets = attached(found)
	if len(targets) == 0 {
		return nil, fmt.Errorf("%q is being attached by process %d, which verifies it", word, found[0].Hook.Pid)
	}
	return targets, nil
}

// attached removes attachments that are not finished, or are being removed.
func attached(recs []hook.Attachment) []hook.Attachment {
	return slices.DeleteFunc(recs, func(a hook.Attachment) bool { return a.State != hook.Attached })
}

// ask verifies the attachments one after the other, and measures their paths with mtu. One that cannot
// be verified counts as bad, and the others are still verified.
func (e env) ask(
	ctx context.Context, l *wiring.Lanyard, targets []hook.Attachment, mtu bool,
) (rows []verifyRow, bad bool) {
	changes, err := l.Changes(targets)
	if err != nil {
		e.say("%v", err)
		bad = true
	}
	for i, a := range targets {
		e.noteChanges(a, changes[a.ID])
		done := e.slow("probing the gateways of %q on network %q (%d of %d) …", a.Interface, a.Network, i+1, len(targets))
		verdicts, err := l.Verify(ctx, a)
		var paths []verify.PathMTU
		var merr error
		if err == nil && mtu {
			paths, merr = l.PathMTUs(ctx, a, answered(verdicts), true)
		}
		done()
		if err != nil {
			e.say("verify %s: %v", describe(a), err)
			bad = true
			continue
		}
		if merr != nil {
			e.say("MTU of %s: %v", describe(a), merr)
			bad = true
		}
		for _, v := range verdicts {
			own := pathsOf(&v, &paths)
			rows = append(rows, verifyRow{
				Containers: ids(a), Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface,
				Gateway: v.Gateway, MAC: v.MAC, Verdict: v.Code, Good: v.Code.Good(), RTT: v.RTT, Text: v.Text, MTU: own,
			})
			bad = bad || !v.Code.Good() || slices.ContainsFunc(own, verify.PathMTU.Short)
		}
	}
	return rows, bad
}

// answered returns the MACs of the gateways that have answered.
func answered(verdicts []verify.Verdict) map[netip.Addr]ether.MAC {
	macs := map[netip.Addr]ether.MAC{}
	for _, v := range verdicts {
		if v.Code.Good() {
			macs[v.Gateway] = v.MAC
		}
	}
	return macs
}

// pathsOf takes the paths that belong to the row of a verdict: that to its gateway, and, to the first
// row, that to a sibling.
func pathsOf(v *verify.Verdict, paths *[]verify.PathMTU) (own []verify.PathMTU) {
	*paths = slices.DeleteFunc(*paths, func(p verify.PathMTU) bool {
		mine := p.Sibling != "" || p.To == v.Gateway
		if mine {
			own = append(own, p)
		}
		return mine
	})
	return own
}

// noteChanges notes the changes of an interface that traffic can work with.
func (e env) noteChanges(a hook.Attachment, changes []verify.Change) {
	for _, c := range changes {
		if c.Code == "" {
			e.say("note: %s on network %q: %s", describe(a), a.Network, c.Text)
		}
	}
}

func verifyTable(rows []verifyRow) [][]string {
	table := [][]string{{"CONTAINER", "NETWORK", "GATEWAY", "RTT", "VERDICT", "SEEN"}}
	for _, r := range rows {
		gateway := ""
		if r.Gateway.IsValid() {
			gateway = r.Gateway.String()
		}
		text := r.Text
		for _, p := range r.MTU {
			text += "; " + p.Text
		}
		table = append(table, []string{
			firstOf(r.Containers), r.Network, gateway, overview.Rounded(r.RTT), string(r.Verdict), text,
		})
	}
	return table
}

// firstOf names containers that share an interface: the first, and how many more.
func firstOf(containers []string) string {
	switch len(containers) {
	case 0:
		return ""
	case 1:
		return abbreviate(containers[0], false)
	}
	return fmt.Sprintf("%s+%d", abbreviate(containers[0], false), len(containers)-1)
}

// describe names an attachment in messages.
func describe(a hook.Attachment) string {
	switch {
	case len(a.Containers) > 0:
	case a.Pod.Sandbox != "":
		return fmt.Sprintf("pod %q", a.Pod)
	default:
		return "attachment " + a.ID.String()
	}
	return fmt.Sprintf("container %q", a.Containers[0].ID)
}
