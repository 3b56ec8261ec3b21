package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) verify() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "ask the gateways again, now, and judge the answers",
		UsageText: "lanyard verify [OPTIONS] ID|NETWORK\n       lanyard verify [OPTIONS] --all",
		Description: `ID is a container's, an attachment's, or the beginning of either; a Kubernetes
pod's is NAMESPACE/NAME. A network's name means everything attached to it, and comes
first where both are the same.

Examples:
  lanyard verify web50
  lanyard verify 3f2a9c || echo "the container is off the LAN"
  lanyard verify --all --format json    a monitoring check

Each gateway is asked from inside the container's namespace, with the container's
own MAC; nothing is changed there. The exit status is 1 if any verdict is bad.`,
		Flags:  []cli.Flag{flagFormat(), &cli.BoolFlag{Name: "all", Usage: "everything that is attached"}},
		Action: e.runVerify,
	}
}

// verifyRow is one gateway in the JSON of "verify".
type verifyRow struct {
	Containers []string      `json:"containers"`
	Attachment string        `json:"attachment"`
	Network    string        `json:"network"`
	Interface  string        `json:"interface"`
	Gateway    netip.Addr    `json:"gateway"` // "" where the network has none
	MAC        verify.MAC    `json:"gateway_mac"`
	Verdict    verify.Code   `json:"verdict"`
	Good       bool          `json:"good"`
	RTT        time.Duration `json:"gateway_rtt_ns"`
	Text       string        `json:"text"`
}

func (e env) runVerify(c *cli.Context) error {
	everything, wants := c.Bool("all"), 1
	if everything {
		wants = 0
	}
	l, inJSON, err := openListing(wants, c, "ID or NETWORK")
	if err != nil {
		return err
	}
	defer l.Close()
	targets, err := verifyTargets(c.Context, l, c.Args().First(), everything)
	if err != nil {
		return err
	}
	if len(targets) == 0 && !everything {
		e.say("note: nothing is attached to network %q: nobody to ask from", c.Args().First())
	}
	rows, bad := e.ask(c.Context, l, targets)
	if inJSON {
		err = printJSON(e.stdout, rows)
	} else if len(rows) > 0 {
		err = printTable(e.stdout, verifyTable(rows))
	}
	if err == nil && bad {
		err = errReported
	}
	return err
}

// verifyTargets finds what is to be verified: a network's attachments, a
// container's, or all. What is being attached has a hook that verifies it.
func verifyTargets(ctx context.Context, l *wiring.Lanyard, word string, everything bool) (targets []hook.Attachment, err error) {
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
	found, err := find(recs, word)
	if err != nil {
		return nil, fmt.Errorf("%w, and no network either", err)
	}
	if targets = attached(found); len(targets) == 0 {
		return nil, fmt.Errorf("%q is being attached by process %d, which verifies it", word, found[0].Hook.Pid)
	}
	return targets, nil
}

// attached leaves out what is only being attached.
func attached(recs []hook.Attachment) []hook.Attachment {
	return slices.DeleteFunc(recs, func(a hook.Attachment) bool { return a.State != hook.Attached })
}

// ask verifies one after the other. What cannot be asked counts as bad, and
// does not stop the rest.
func (e env) ask(ctx context.Context, l *wiring.Lanyard, targets []hook.Attachment) (rows []verifyRow, bad bool) {
	for i, a := range targets {
		done := e.slow("asking the gateways of %q on network %q (%d of %d) …", a.Interface, a.Network, i+1, len(targets))
		verdicts, err := l.Verify(ctx, a)
		done()
		if err != nil {
			e.say("verify %s: %v", whose(a), err)
			bad = true
			continue
		}
		for _, v := range verdicts {
			rows = append(rows, verifyRow{
				Containers: ids(a), Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface,
				Gateway: v.Gateway, MAC: v.MAC, Verdict: v.Code, Good: v.Code.Good(), RTT: v.RTT, Text: v.Text,
			})
			bad = bad || !v.Code.Good()
		}
	}
	return rows, bad
}

func verifyTable(rows []verifyRow) [][]string {
	table := [][]string{{"CONTAINER", "NETWORK", "GATEWAY", "RTT", "VERDICT", "SEEN"}}
	for _, r := range rows {
		gateway := ""
		if r.Gateway.IsValid() {
			gateway = r.Gateway.String()
		}
		table = append(table, []string{firstOf(r.Containers), r.Network, gateway, rounded(r.RTT), string(r.Verdict), r.Text})
	}
	return table
}

// firstOf names those who share an interface by the first, and their number.
func firstOf(containers []string) string {
	switch len(containers) {
	case 0:
		return ""
	case 1:
		return abbreviate(containers[0], false)
	}
	return fmt.Sprintf("%s+%d", abbreviate(containers[0], false), len(containers)-1)
}

// whose names an attachment in a message.
func whose(a hook.Attachment) string {
	switch {
	case len(a.Containers) > 0:
	case a.Pod.Sandbox != "":
		return fmt.Sprintf("pod %q", a.Pod)
	default:
		return "attachment " + a.ID.String()
	}
	return fmt.Sprintf("container %q", a.Containers[0].ID)
}
