// Lanyard-netavark is a netavark plugin: "podman network create -d lanyard -o network=web50 NAME"
// makes a network of podman from one of "lanyard network create". The addresses are Lanyard's:
// podman's own IPAM is off. It is for root's podman only.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// timeout is the maximum time for one command.
const timeout = 30 * time.Second

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		text := "lanyard: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": text})
		os.Exit(1)
	}
}

// run runs one command of the API: info, create, setup NETNS or teardown NETNS.
func run(args []string, stdin io.Reader, stdout io.Writer) error {
	words := map[string]int{"info": 1, "create": 1, "setup": 2, "teardown": 2}
	if len(args) == 0 || len(args) != words[args[0]] {
		return fmt.Errorf("%q: this is a netavark plugin, which podman calls: "+
			`use "podman network create -d lanyard -o network=web50 NAME"`, args)
	}
	if args[0] == "info" {
		return json.NewEncoder(stdout).Encode(map[string]string{
			"version": cmp.Or(version, "unreleased"), "api_version": "1.0.0",
		})
	}
	l, err := wiring.OpenPrivileged(wiring.PathsFromEnv())
	if errors.Is(err, hook.ErrUnprivileged) {
		return errors.New(`only root's podman can use the driver: a rootless container uses ` +
			`"--network none --annotation io.lanyard.network=NETWORK"`)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if args[0] == "create" {
		return create(l.Networks, stdin, stdout)
	}
	var in input
	if err := json.NewDecoder(stdin).Decode(&in); err != nil {
		return fmt.Errorf("read the request of netavark: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if args[0] == "teardown" {
		return l.Detach(ctx, in.holder())
	}
	return setup(ctx, l, in, args[1], stdout)
}

// create checks a new network of podman, and prints it with podman's IPAM and DNS off. Fields that
// it does not know stay as they are.
func create(networks string, stdin io.Reader, stdout io.Writer) error {
	var fields map[string]any
	text, err := io.ReadAll(stdin)
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	var p podmanNetwork
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return fmt.Errorf("read the network of podman: %w", err)
	}
	w, err := p.want()
	if err != nil {
		return err
	}
	if _, err := network.Load(networks, w.Network); err != nil {
		return err
	}
	for _, set := range []struct {
		flag string
		is   bool
	}{
		{"--subnet", len(p.Subnets) > 0}, {"--interface-name", p.Interface != ""}, {"--internal", p.Internal},
		{"--route", len(p.Routes) > 0},
	} {
		if set.is {
			return fmt.Errorf("%s: the Lanyard network %q decides that: leave it out", set.flag, w.Network)
		}
	}
	fields["dns_enabled"], fields["ipam_options"] = false, map[string]string{"driver": "none"}
	return json.NewEncoder(stdout).Encode(fields)
}

// setup attaches the namespace at a path, and prints what the interface got.
func setup(ctx context.Context, l *wiring.Lanyard, in input, netns string, stdout io.Writer) error {
	w, err := in.Network.want()
	if err != nil {
		return err
	}
	w.Interface, w.Addrs = in.Options.Interface, in.Options.StaticIPs
	if in.Options.StaticMAC != "" {
		if err := w.MAC.UnmarshalText([]byte(in.Options.StaticMAC)); err != nil {
			return fmt.Errorf("--mac-address: %w", err)
		}
	}
	if err := errors.Join(w.Validate(), hook.ValidID(in.holder())); err != nil {
		return err
	}
	def, err := network.Load(l.Networks, w.Network)
	if err != nil {
		return err
	}
	got, err := l.Attach(ctx, hook.Request{
		Container: in.holder(), Name: in.Name, Netns: netns, Wants: []hook.Want{w},
	})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(statusOf(def, got[0])); err != nil {
		return errors.Join(err, l.Detach(ctx, in.holder()))
	}
	return nil
}

// statusOf returns the status block of netavark for an attachment. podman writes its name servers
// to the container's resolv.conf.
func statusOf(def *network.Definition, a hook.Attachment) status {
	i := netInterface{MAC: a.MAC.String(), Subnets: []netAddress{}}
	for _, p := range a.Addrs {
		n := netAddress{IPNet: p}
		if g := slices.IndexFunc(a.Gateways, p.Contains); g >= 0 {
			n.Gateway = &a.Gateways[g]
		}
		i.Subnets = append(i.Subnets, n)
	}
	return status{
		Search: append([]string{}, def.DNSSearch...), Servers: append([]netip.Addr{}, def.DNS...),
		Interfaces: map[string]netInterface{a.Interface: i},
	}
}
