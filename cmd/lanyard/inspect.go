package main

import (
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) inspect() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show all that is known of a container's interfaces, as JSON",
		UsageText: "lanyard inspect ID",
		Description: `ID is a container's, an attachment's, or the beginning of either.

Examples:
  lanyard inspect 3f2a9c
  lanyard inspect 3f2a9c | jq '.[].evidence_now.counters'

"evidence" is what the trunk had seen when the verdict was drawn, and
"evidence_now" what it has seen until now.`,
		Action: e.runInspect,
	}
}

// inspection is one interface in the JSON of "inspect".
type inspection struct {
	hook.Attachment
	Now   *verify.Evidence `json:"evidence_now"`    // null where the trunk is not watched
	Blind string           `json:"blind,omitempty"` // why not
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
	var all []inspection
	for _, a := range found {
		i := inspection{Attachment: a}
		if seen, err := l.Evidence(a); err != nil {
			i.Blind = err.Error()
		} else {
			i.Now = &seen
		}
		all = append(all, i)
	}
	return printJSON(e.stdout, all)
}
