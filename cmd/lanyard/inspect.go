package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) inspect() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show all that is known of a container's interfaces, as JSON",
		UsageText: "lanyard inspect [--timing] ID",
		Description: `ID is a container's, an attachment's, or the beginning of either; or a Kubernetes
pod's NAMESPACE/NAME.

Examples:
  lanyard inspect 3f2a9c
  lanyard inspect prod/web-0
  lanyard inspect 3f2a9c | jq '.[].evidence_now.counters'
  lanyard inspect --timing 3f2a9c

"evidence" is what the trunk had seen when the verdict was drawn, and
"evidence_now" what it has seen until now. "guarded_now" counts what a rootless
container's guard let through, and what it stopped, by reason. Timing is kept of
containers whose hook has LANYARD_TRACE=1 in its "env": what each step took, up to
the one that made the attachment final.`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "timing", Usage: "show what each step of the attach took, as a table"}},
		Action: e.runInspect,
	}
}

// inspection is one interface in the JSON of "inspect".
type inspection struct {
	hook.Attachment
	Now   *verify.Evidence `json:"evidence_now"`    // null where the trunk is not watched
	Blind string           `json:"blind,omitempty"` // why not
	// Guarded is what the guard of a rootless container has let through and
	// stopped.
	Guarded *verify.Guarded `json:"guarded_now,omitempty"`
}

func (e env) runInspect(c *cli.Context) error {
	if err := exactly(1, c, "ID"); err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	recs, err := l.Attachments(c.Context)
	if err != nil {
		return err
	}
	found, err := find(recs, c.Args().First())
	if err != nil {
		return err
	}
	if c.Bool("timing") {
		return e.printTiming(found)
	}
	var all []inspection
	for _, a := range found {
		i := inspection{Attachment: a}
		if seen, err := l.Evidence(a); err != nil {
			i.Blind = err.Error()
		} else {
			i.Now = &seen
		}
		if i.Guarded, err = l.Guarded(a); err != nil {
			e.say("%v", err)
		}
		all = append(all, i)
	}
	return printJSON(e.stdout, all)
}

// printTiming shows where the time of attaches went.
func (e env) printTiming(found []hook.Attachment) error {
	rows := [][]string{{"INTERFACE", "NETWORK", "STEP", "TOOK", "SHARE"}}
	for _, a := range found {
		if len(a.Timing) == 0 {
			return fmt.Errorf("%q on network %q was not traced: put LANYARD_TRACE=1 into the hook's \"env\", and start the container again", a.Interface, a.Network)
		}
		var sum time.Duration
		for _, s := range a.Timing {
			sum += s.Took
		}
		for _, s := range append(a.Timing, hook.Step{Name: "sum", Took: sum}) {
			rows = append(rows, []string{a.Interface, a.Network, s.Name, s.Took.String(), fmt.Sprintf("%.0f%%", 100*s.Took.Seconds()/sum.Seconds())})
		}
	}
	return printTable(e.stdout, rows)
}
