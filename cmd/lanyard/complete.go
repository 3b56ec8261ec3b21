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
	words, key := joinSplit(words)
	before, last := words[:len(words)-1], strings.TrimLeft(words[len(words)-1], `'"`) // a quoted template
	l := line{flags: app.Flags, verbs: app.Commands}
	if err := l.read(app, before); err != nil && !errors.Is(err, errNoValue) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	for _, candidate := range l.candidates(ctx, app, last) {
		if strings.HasPrefix(candidate, last) {
			fmt.Fprintln(e.stdout, strings.TrimPrefix(candidate, key))
		}
	}
}

// joinSplit joins what bash splits: "-o", "parent", "=", "e" for -o parent=e, and "--format", "=", "j"
// for --format=j. If the last word is such a KEY=VALUE, bash replaces the value only, and key is "KEY=".
func joinSplit(words []string) (joined []string, key string) {
	for i := 0; i < len(words); i++ {
		if words[i] != "=" || i == 0 {
			joined = append(joined, words[i])
			key = ""
			continue
		}
		value := ""
		i++
		if i < len(words) {
			value = words[i]
		}
		if before := &joined[len(joined)-1]; strings.HasPrefix(*before, "-") {
			joined = append(joined, value)
		} else {
			key = *before + "="
			*before = key + value
		}
	}
	return joined, key
}

// candidates returns the words that may be next: values, flags, commands or arguments.
func (l *line) candidates(ctx context.Context, app *cli.App, last string) (words []string) {
	switch {
	case l.pending != nil:
		return l.values(last)
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
func (l *line) values(last string) []string {
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
		return []string{string(network.IPAMNone), string(network.IPAMDHCP)}
	case "ipv6-mode":
		return []string{string(network.IPv6Leased), string(network.IPv6SLAAC), string(network.IPv6Both),
			string(network.IPv6DHCP)}
	case "ipv6-addresses":
		return []string{string(network.IPv6EUI64), string(network.IPv6StablePrivacy)}
	case "leases":
		return []string{string(network.LeasesEtcd)}
	case "on-outage":
		return []string{string(network.OnOutageRefuse), string(network.OnOutageSlice)}
	case "allocate":
		return []string{string(network.AllocateSequential), string(network.AllocateStable)}
	case "mac-from":
		return []string{string(network.MACFromHost), string(network.MACFromAddress)}
	case "vlan-proto":
		return []string{string(network.VLANProto8021Q), string(network.VLANProto8021AD)}
	case "gateway":
		return []string{noGateway}
	case "option":
		return optionValues(last)
	case "parent":
		return hostLinks()
	}
	return nil
}

// optionValues returns the keys of -o, or, if the word has a key, that key with its values.
func optionValues(word string) (words []string) {
	key, _, hasKey := keyValue(word)
	if !hasKey {
		for _, key := range dockerKeys {
			words = append(words, key+"=")
		}
		return words
	}
	values := map[string][]string{
		"macvlan_mode": macvlanModes, "ipvlan_mode": ipvlanModes, "ipvlan_flag": macvlanModes[:3], "parent": hostLinks(),
		"vlan_proto": {string(network.VLANProto8021Q), string(network.VLANProto8021AD)},
	}
	for _, v := range values[key] {
		words = append(words, key+"="+v)
	}
	return words
}

var (
	macvlanModes = []string{
		string(network.ModeBridge), string(network.ModePrivate), string(network.ModeVEPA), string(network.ModePassthru),
	}
	ipvlanModes = []string{string(network.ModeL2), string(network.ModeL3), string(network.ModeL3S)}
)

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
	case "network rm", "network inspect", "network update":
		return networkNames(p)
	case "inspect":
		return containerIDs(ctx, p)
	case "verify", "watch", "reattach":
		return append(networkNames(p), containerIDs(ctx, p)...)
	case "doctor", "lldp":
		return hostLinks()
	case "completion":
		return []string{"bash", "zsh", "fish"}
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
