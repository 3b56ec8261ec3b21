package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) inspect() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about a container's interfaces, as JSON",
		UsageText: "lanyard inspect [OPTIONS] ID",
		Description: `ID is the id of a container or of an attachment, or a prefix of one; NAMESPACE/NAME
of a Kubernetes pod; or the name of a container of root's podman or of Docker, which are asked
for it if it is no id.

Examples:
  lanyard inspect 3f2a9c
  lanyard inspect prod/web-0
  lanyard inspect 3f2a9c | jq '.[].evidence_now.counters'
  lanyard inspect --format '{{.Address}}' 3f2a9c
  lanyard inspect --timing 3f2a9c

"evidence" is what the trunk program had seen when the verdict was computed, and
"evidence_now" what it has seen until now. "slaac_now" has the addresses from routers, with
the time until each is deprecated and removed, in nanoseconds. "dhcp" and "dhcp6" are leases of
DHCP servers. "guarded_now" counts the frames that a
rootless container's guard passed, and those that it dropped, by reason. --timing
shows the time of each step of the attach, up to the commit. It is recorded for
containers with LANYARD_TRACE=1 in the "env" of their hook.`,
		Flags: []cli.Flag{
			flagFormatJSON[inspection](),
			&cli.BoolFlag{Name: "timing", Usage: "show the time of each step of the attach, as a table"},
		},
		Action: e.runInspect,
	}
}

// inspection is one interface in the JSON of "inspect".
type inspection struct {
	hook.Attachment
	Now       *verify.Evidence `json:"evidence_now"`        // null if the trunk is not watched
	Unwatched string           `json:"unwatched,omitempty"` // why not
	// Expires is when the lease of a DHCP server ends, by the clock as it is set now; zero: never.
	Expires  time.Time `json:"dhcp_expires,omitzero"`
	Expires6 time.Time `json:"dhcp6_expires,omitzero"`
	// Changes are the ways in which the interface is not as it was given.
	Changes []verify.Change `json:"changes_now,omitempty"`
	// Auto are the addresses from router advertisements.
	Auto []verify.AutoAddr `json:"slaac_now,omitempty"`
	// Guarded counts the frames that the guard of a rootless container passed and
	// dropped; nil if the attachment is not guarded.
	Guarded *verify.Guarded `json:"guarded_now,omitempty"`
}

// Address returns the first address, without its prefix length, for templates.
func (i inspection) Address() string { return overview.FirstAddress(i.Addrs) }

func (e env) runInspect(c *cli.Context) error {
	l, format, err := openListing(1, c, "ID")
	if err != nil {
		return err
	}
	defer l.Close()
	recs, err := l.Attachments(c.Context)
	if err != nil {
		return err
	}
	id, err := idOf(c.Context, recs, c.Args().First())
	if err != nil {
		return err
	}
	found, err := find(recs, id)
	if err != nil {
		return err
	}
	if c.Bool("timing") {
		return e.printTiming(found)
	}
	now, err := l.Now(found)
	if err != nil {
		e.say("%v", err)
	}
	var all []inspection
	for _, a := range found {
		i := inspection{Attachment: a, Changes: now[a.ID].Changes, Auto: now[a.ID].Auto}
		if a.DHCP != nil {
			i.Expires = a.DHCP.Expires.Wall()
		}
		if a.DHCP6 != nil {
			i.Expires6 = a.DHCP6.Expires.Wall()
		}
		if seen, err := l.Evidence(a); err != nil {
			i.Unwatched = err.Error()
		} else {
			i.Now = &seen
		}
		if i.Guarded, err = l.Guarded(a); err != nil {
			e.say("%v", err)
		}
		all = append(all, i)
	}
	return printRows(e.stdout, format, all)
}

// printTiming prints the time of each step of the attaches.
func (e env) printTiming(found []hook.Attachment) error {
	rows := [][]string{{"INTERFACE", "NETWORK", "STEP", "TOOK", "SHARE"}}
	for _, a := range found {
		if len(a.Timing) == 0 {
			return fmt.Errorf("interface %q on network %q was not traced: "+
				"set LANYARD_TRACE=1 in the hook's \"env\" and restart the container", a.Interface, a.Network)
		}
		var sum time.Duration
		for _, s := range a.Timing {
			sum += s.Took
		}
		for _, s := range append(a.Timing, hook.Step{Name: "sum", Took: sum}) {
			share := fmt.Sprintf("%.0f%%", 100*s.Took.Seconds()/sum.Seconds())
			rows = append(rows, []string{a.Interface, a.Network, s.Name, s.Took.String(), share})
		}
	}
	return printTable(e.stdout, rows)
}
