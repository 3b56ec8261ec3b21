package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

// watchInterval is the interval for reading the trunks' maps. The trunk programs see every
// frame, so that an event that is read late is not lost.
const watchInterval = 250 * time.Millisecond

func (e env) watch() *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "show what goes wrong on the trunks, as it happens",
		UsageText: "lanyard watch [OPTIONS] [ID|NETWORK]",
		Description: `The command prints one line for each event that should not happen: another station, or
this host, uses a container's address (conflict) or its MAC (duplicate-mac), frames sent
to all come back, by a loop or a hairpin port (returned), frames leave or arrive with a wrong VLAN tag (wrong-tag-out,
wrong-tag-in), a gateway has another MAC (gateway-moved), an unleased MAC sends frames
(unleased-mac), a network's parent was removed (interface-gone) or has no carrier or is down
(parent-down), another program has put an address on a link of the host that Lanyard created,
or has deleted the host's own link on a network or its routes (link-changed). It begins with
earlier events, also of containers that are gone: the trunk program keeps the last few events
of each address and MAC. A repeated event is one line with a count; --format json prints one
object per line. Ctrl-C ends the command. On a terminal, the last line shows the incoming
frames per second of each VLAN.

With --rates, it prints the bytes per second of each VLAN and container instead, each second,
the highest first. VERDICT is as in "lanyard ps".

Examples:
  lanyard watch
  lanyard watch web50
  lanyard watch --once --since 24h
  lanyard watch --rates
  lanyard watch --format json | jq -r 'select(.kind == "conflict") | .mac'`,
		Flags: []cli.Flag{
			flagFormat[watchLine](),
			&cli.BoolFlag{Name: "once", Usage: "print the events until now, or rates once, and end"},
			&cli.BoolFlag{Name: "rates", Usage: "print rates instead of events"},
			&cli.DurationFlag{Name: "since",
				Usage: "`DURATION` maximum age of the first event, such as 10m or 0s (default: all events that are kept)"},
		},
		Action: e.runWatch,
	}
}

// watchLine is one event in the JSON of "watch".
type watchLine struct {
	Time       time.Time `json:"time"` // of the last frame
	Containers []string  `json:"containers"`
	Attachment string    `json:"attachment"`
	Network    string    `json:"network"`
	Interface  string    `json:"interface"`
	Trunk      string    `json:"trunk"`
	verify.Event
	Since time.Time `json:"since"` // of the first frame
	Text  string    `json:"text"`
}

func (e env) runWatch(c *cli.Context) error {
	if c.NArg() > 1 {
		return checkArgs(1, c, "ID or NETWORK")
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	if c.Bool("rates") && (c.IsSet("format") || c.IsSet("since")) {
		return usagef("--rates cannot be used with --format or --since: \"lanyard metrics\" has counters for programs")
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	filter, err := watched(c.Context, l, c.Args().First())
	if err != nil {
		return err
	}
	if c.Bool("rates") {
		return e.watchRates(c, l, filter)
	}
	w := watcher{Lanyard: l, out: e.stdout, format: format, filter: filter, seen: map[int]map[string]uint64{},
		rateFrames: map[string]uint64{}}
	if c.IsSet("since") {
		w.since = time.Now().Add(-c.Duration("since"))
	}
	if e.terminal && format.table() && !c.Bool("once") {
		w.rateOutput = e.stderr
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		targets, err := verifyTargets(c.Context, l, w.filter, c.NArg() == 0)
		if err == nil {
			err = w.poll(c.Context, targets)
		}
		if c.Err() != nil {
			err = nil // interrupted
		}
		if err != nil || c.Bool("once") {
			return err
		}
		select {
		case <-c.Done():
			w.eraseRates()
			return nil
		case <-tick.C:
		}
	}
}

// watched resolves the command's argument once: to the network, or to the id of the container or attachment
// that it names. A watch looks its result up four times a second, and must ask no engine for it.
func watched(ctx context.Context, l *wiring.Lanyard, word string) (string, error) {
	if word == "" {
		return "", nil
	}
	if _, err := network.Load(l.Networks, word); err == nil {
		return word, nil
	}
	recs, err := l.Attachments(ctx)
	if err != nil {
		return "", err
	}
	id, err := idOf(ctx, recs, word)
	if errors.Is(err, errNoAttachment) {
		return word, nil // verifyTargets says what is wrong
	}
	if err != nil || len(withID(recs, id)) > 0 {
		return id, err
	}
	found, err := find(recs, id) // id is a prefix
	if err != nil {
		return "", err
	}
	for _, whole := range append(ids(found[0]), found[0].ID.String()) {
		if strings.HasPrefix(whole, id) {
			return whole, nil
		}
	}
	return id, nil
}

// A watcher prints the events that it has not printed before.
type watcher struct {
	*wiring.Lanyard
	out        io.Writer
	format     rowFormat
	filter     string                    // id or network to watch; "" for all
	since      time.Time                 // earlier events are not printed
	hostEvents map[string]bool           // those that were there at the last call
	rateOutput io.Writer                 // for the line of rates; nil for none
	seen       map[int]map[string]uint64 // printed frames of each event, by trunk's ifindex
	rateFrames map[string]uint64         // frames at ratesAt, by trunk and VLAN
	ratesAt    time.Time                 // time of the last line of rates
}

// poll prints new events. It skips a trunk that was removed in the meantime.
func (w *watcher) poll(ctx context.Context, targets []hook.Attachment) error {
	trunks, err := w.Datapath.Trunks()
	if err != nil {
		return err
	}
	for _, trunk := range trunks {
		events, err := w.Datapath.Events(trunk)
		if err != nil {
			continue
		}
		events = w.newEvents(trunk, events)
		if len(events) == 0 {
			continue
		}
		happened, err := w.Attribute(ctx, trunk, events)
		if err != nil {
			return err
		}
		for _, h := range happened {
			if h.At.Before(w.since) || !w.matches(h, targets) {
				continue
			}
			if err := w.print(h); err != nil {
				return err
			}
		}
	}
	if err := w.printHostEvents(ctx, targets); err != nil {
		return err
	}
	w.drawRates(w.framesPerVLAN(targets))
	return nil
}

// printHostEvents prints what has become of this host's links since the last call, and no trunk
// program sees: containers' addresses that the host has taken, parents that are gone or down, and
// addresses of other programs on links that Lanyard created.
func (w *watcher) printHostEvents(ctx context.Context, targets []hook.Attachment) error {
	claims, err := w.HostClaims(ctx)
	if err != nil {
		return err
	}
	faults, err := w.ParentFaults(ctx)
	if err != nil {
		return err
	}
	changes, err := w.LinkChanges(ctx)
	if err != nil {
		return err
	}
	now := map[string]bool{}
	for _, h := range slices.Concat(claims, faults, changes) {
		key := fmt.Sprint(h.Key(), h.Text)
		if h.Attachment != nil {
			key += h.Attachment.ID.String()
		}
		now[key] = true
		if !w.hostEvents[key] && w.matches(h, targets) {
			if err := w.print(h); err != nil {
				return err
			}
		}
	}
	w.hostEvents = now
	return nil
}

// newEvents returns the events that are new or were repeated since the last call, with the
// number of new frames, and records them as printed.
func (w *watcher) newEvents(trunk int, events []verify.Event) (news []verify.Event) {
	seen := map[string]uint64{}
	for _, e := range events {
		key := fmt.Sprint(e.First, e.Key())
		seen[key] = e.Frames
		if before := w.seen[trunk][key]; e.Frames > before {
			if before > 0 {
				e.First = e.Last
			}
			e.Frames -= before
			news = append(news, e)
		}
	}
	w.seen[trunk] = seen
	return news
}

// matches reports whether an event belongs to the container or network to watch.
func (w *watcher) matches(h admin.TrunkEvent, targets []hook.Attachment) bool {
	if w.filter == "" || w.filter == h.Network {
		return true
	}
	return h.Attachment != nil && slices.ContainsFunc(targets,
		func(a hook.Attachment) bool { return a.ID == h.Attachment.ID })
}

func (w *watcher) print(h admin.TrunkEvent) error {
	w.eraseRates()
	line := watchLine{Time: h.At.UTC(), Since: h.Since.UTC(), Containers: []string{}, Network: h.Network, Trunk: h.Trunk,
		Event: h.Event, Text: h.String()}
	who := fmt.Sprintf("trunk %q", h.Trunk)
	switch a := h.Attachment; {
	case a != nil:
		line.Containers, line.Attachment, line.Interface = ids(*a), a.ID.String(), a.Interface
		who = fmt.Sprintf("%s of network %q", describe(*a), a.Network)
	case !h.EndpointMAC.IsZero():
		who = fmt.Sprintf("%s on trunk %q, which is no longer attached", h.EndpointMAC, h.Trunk)
	case h.Network != "":
		who = fmt.Sprintf("network %q", h.Network)
	}
	switch {
	case w.format.json: // one object per line
		return json.NewEncoder(w.out).Encode(line)
	case w.format.template != nil:
		return printRow(w.out, w.format.template, line)
	}
	count := fmt.Sprint(h.Frames)
	if h.At.Sub(h.Since) >= time.Second {
		count += " since " + clockTime(h.Since)
	}
	_, err := fmt.Fprintln(w.out, clean(fmt.Sprintf("%s  %s  %s: %s (%s)", clockTime(h.At), h.Kind, who, h, count)))
	return err
}

// clockTime formats a time, with the date if it is not today.
func clockTime(t time.Time) string {
	t = t.Local()
	if now := time.Now(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format(time.DateTime)
	}
	return t.Format(time.TimeOnly)
}

// framesPerVLAN returns the incoming frames of each VLAN, by trunk and VLAN.
func (w *watcher) framesPerVLAN(targets []hook.Attachment) map[string]uint64 {
	vlans := map[string]uint64{}
	if w.rateOutput == nil {
		return vlans
	}
	for _, a := range targets {
		now, err := w.Evidence(a)
		if err != nil {
			continue
		}
		for _, v := range now.VLANs {
			name := "untagged"
			if v.VID != 0 {
				name = fmt.Sprintf("VLAN %d", v.VID)
			}
			vlans[a.Trunk+" "+name] = v.Frames
		}
	}
	return vlans
}

// rateInterval is the interval over which rates are computed.
const rateInterval = time.Second

// drawRates replaces the line of rates.
func (w *watcher) drawRates(vlans map[string]uint64) {
	now := time.Now()
	if w.rateOutput == nil || now.Sub(w.ratesAt) < rateInterval {
		return
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(vlans)) {
		if old, ok := w.rateFrames[name]; ok && vlans[name] >= old {
			parts = append(parts, fmt.Sprintf("%s %.0f/s", name, float64(vlans[name]-old)/now.Sub(w.ratesAt).Seconds()))
		}
	}
	w.rateFrames, w.ratesAt = vlans, now
	w.eraseRates()
	fmt.Fprint(w.rateOutput, clean(strings.Join(parts, "  ")))
}

// eraseRates clears the line of rates (ECMA-48, EL).
func (w *watcher) eraseRates() {
	if w.rateOutput != nil {
		fmt.Fprint(w.rateOutput, "\r\x1b[K")
	}
}
