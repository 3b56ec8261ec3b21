package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

// watchEvery is how often the trunks' maps are read. The trunk sees every frame
// all the same: what is read late is not lost.
const watchEvery = 250 * time.Millisecond

func (e env) watch() *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "show what goes wrong on the trunks, as it happens",
		UsageText: "lanyard watch [OPTIONS] [ID|NETWORK]",
		Description: `One line for each anomaly of what is attached: another host claims an address,
frames leave or come with a wrong VLAN tag, a gateway has another MAC. It begins
with those that there were since each container's start, and ends with Ctrl-C.
On a terminal the last line shows the frames a second of each VLAN that comes in.

Examples:
  lanyard watch
  lanyard watch web50
  lanyard watch --once
  lanyard watch --format json | jq -r 'select(.kind == "conflict") | .mac'`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT` table, or json: one object a line (default: table)"},
			&cli.BoolFlag{Name: "once", Usage: "show what there was until now, and end"},
		},
		Action: e.runWatch,
	}
}

// watchLine is one anomaly in the JSON of "watch".
type watchLine struct {
	Time       time.Time `json:"time"`
	Containers []string  `json:"containers"`
	Attachment string    `json:"attachment"`
	Network    string    `json:"network"`
	Interface  string    `json:"interface"`
	Trunk      string    `json:"trunk"`
	verify.Anomaly
}

func (e env) runWatch(c *cli.Context) error {
	if c.NArg() > 1 {
		return exactly(1, c, "ID or NETWORK")
	}
	inJSON, err := asJSON(c)
	if err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	w := watcher{Lanyard: l, out: e.stdout, json: inJSON, last: map[verify.ID]verify.Evidence{}, vlans: map[string]uint64{}}
	if e.terminal && !inJSON && !c.Bool("once") {
		w.picture = e.stderr
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		targets, err := verifyTargets(c.Context, l, c.Args().First(), c.NArg() == 0)
		if err == nil {
			err = w.look(targets)
		}
		if err != nil || c.Bool("once") {
			return err
		}
		select {
		case <-c.Done():
			w.erase()
			return nil
		case <-tick.C:
		}
	}
}

// A watcher compares the evidence of each attachment with what it was.
type watcher struct {
	*wiring.Lanyard
	out     io.Writer
	json    bool
	picture io.Writer // nil: nobody watches the rates
	last    map[verify.ID]verify.Evidence
	vlans   map[string]uint64 // frames by then, by trunk and VLAN
	at      time.Time         // when that was
}

// look reads the evidence of all and prints what is new. An attachment that is
// gone meanwhile has nothing to tell any more.
func (w *watcher) look(targets []hook.Attachment) error {
	vlans := map[string]uint64{}
	seen := map[verify.ID]bool{}
	for _, a := range targets {
		now, err := w.Evidence(a)
		if err != nil {
			continue
		}
		seen[a.ID] = true
		list := since(a, now)
		if old, ok := w.last[a.ID]; ok {
			list = verify.Anomalies(old, now)
		}
		w.last[a.ID] = now
		for _, anomaly := range list {
			if err := w.print(a, anomaly); err != nil {
				return err
			}
		}
		for _, v := range now.VLANs {
			name := "untagged"
			if v.VID != 0 {
				name = fmt.Sprintf("VLAN %d", v.VID)
			}
			vlans[a.Trunk+" "+name] = v.Frames
		}
	}
	maps.DeleteFunc(w.last, func(id verify.ID, _ verify.Evidence) bool { return !seen[id] })
	w.draw(vlans)
	return nil
}

func (w *watcher) print(a hook.Attachment, anomaly verify.Anomaly) error {
	w.erase()
	at := time.Now()
	if anomaly.At != 0 {
		at = at.Add(-verify.Now().Sub(anomaly.At))
	}
	if w.json {
		return json.NewEncoder(w.out).Encode(watchLine{at.UTC(), ids(a), a.ID.String(), a.Network, a.Interface, a.Trunk, anomaly})
	}
	_, err := fmt.Fprintln(w.out, clean(fmt.Sprintf("%s  %s  %s of network %q: %s (%d)",
		at.Format(time.TimeOnly), anomaly.Kind, whose(a), a.Network, anomaly.Text, anomaly.Count)))
	return err
}

// rateTime is over what the rates are taken.
const rateTime = time.Second

// draw writes the rates of all VLANs over the line that has the last ones.
func (w *watcher) draw(vlans map[string]uint64) {
	now := time.Now()
	if w.picture == nil || now.Sub(w.at) < rateTime {
		return
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(vlans)) {
		if old, ok := w.vlans[name]; ok && vlans[name] >= old {
			parts = append(parts, fmt.Sprintf("%s %.0f/s", name, float64(vlans[name]-old)/now.Sub(w.at).Seconds()))
		}
	}
	w.vlans, w.at = vlans, now
	w.erase()
	fmt.Fprint(w.picture, clean(strings.Join(parts, "  ")))
}

// erase makes the line of rates empty (ECMA-48, EL).
func (w *watcher) erase() {
	if w.picture != nil {
		fmt.Fprint(w.picture, "\r\x1b[K")
	}
}
