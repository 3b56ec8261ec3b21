package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// completeTime is the deadline for a completion, since the user waits at a prompt.
const completeTime = time.Second

// complete prints the completions of the last word, one per line. On any error it prints
// nothing, because the output goes to a prompt.
func (e env) complete(ctx context.Context, app *cli.App, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	// bash splits --format=js into "--format", "=", "js".
	words = slices.DeleteFunc(words, func(w string) bool { return w == "=" })
	before, last := words[:len(words)-1], strings.TrimLeft(words[len(words)-1], `'"`) // a quoted template
	l := line{flags: app.Flags, verbs: app.Commands}
	if err := l.read(app, before); err != nil && !errors.Is(err, errNoValue) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	for _, candidate := range l.candidates(ctx, app, last) {
		if strings.HasPrefix(candidate, last) {
			fmt.Fprintln(e.stdout, candidate)
		}
	}
}

// candidates returns the words that may be next: values, flags, commands or arguments.
func (l *line) candidates(ctx context.Context, app *cli.App, last string) (words []string) {
	switch {
	case l.pending != nil:
		return l.values()
	case strings.HasPrefix(last, "-"):
		for _, f := range l.knownFlags(app) {
			for _, n := range f.Names() {
				if len(n) > 1 && n != "root" {
					words = append(words, "--"+n)
				}
			}
		}
		return words
	case len(l.verbs) > 0:
		for _, v := range l.verbs {
			words = append(words, v.Name)
		}
		return words
	}
	return slices.DeleteFunc(l.arguments(ctx), func(w string) bool { return slices.Contains(l.args, w) })
}

// values returns the possible values of the flag before the last word.
func (l *line) values() []string {
	if f, ok := l.pending.(formatFlag); ok {
		return f.values()
	}
	switch l.pending.Names()[0] {
	case "driver":
		return network.Drivers()
	case "mode":
		return network.Modes()
	case "verify":
		return []string{"off", "warn", "strict"}
	case "guard":
		return []string{string(network.On), string(network.Off)}
	case "brokered":
		return []string{string(network.BrokeredGuarded), string(network.BrokeredDirect)}
	case "log":
		return []string{"text", "json"}
	case "ipam":
		return []string{string(network.IPAMNone)}
	case "leases":
		return []string{string(network.LeasesEtcd)}
	case "allocate":
		return []string{string(network.AllocateSequential), string(network.AllocateStable)}
	case "mac-from":
		return []string{string(network.MACFromHost), string(network.MACFromAddress)}
	case "vlan-proto":
		return []string{string(network.VLANProto8021Q), string(network.VLANProto8021AD)}
	case "gateway":
		return []string{noGateway}
	case "option":
		words := []string{}
		for _, key := range dockerKeys {
			words = append(words, key+"=")
		}
		return words
	case "parent":
		return hostLinks()
	}
	return nil
}

func hostLinks() (names []string) {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range links {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

// arguments returns the networks, containers or shells that the command takes.
func (l *line) arguments(ctx context.Context) []string {
	p := wiring.DefaultPaths()
	for _, g := range l.global {
		if root, ok := strings.CutPrefix(g, "--"+flagRoot.Name+"="); ok {
			p = wiring.PathsUnder(root)
		}
	}
	switch strings.TrimPrefix(l.path(), "lanyard ") {
	case "network rm", "network inspect":
		return networkNames(p)
	case "inspect":
		return containerIDs(ctx, p)
	case "verify", "watch":
		return append(networkNames(p), containerIDs(ctx, p)...)
	case "doctor", "lldp":
		return hostLinks()
	case "completion":
		return []string{"bash", "zsh"}
	}
	return nil
}

func networkNames(p wiring.Paths) (names []string) {
	defs, _ := network.LoadAll(p.Networks)
	for _, d := range defs {
		names = append(names, d.Name)
	}
	return names
}

func containerIDs(ctx context.Context, p wiring.Paths) (names []string) {
	l, err := wiring.OpenPrivileged(p)
	if err != nil {
		return nil
	}
	defer l.Close()
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil
	}
	for _, a := range recs {
		names = append(names, ids(a)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
