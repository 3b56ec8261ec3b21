// Package netavark carries out the commands of netavark's plugin API for the plugin
// lanyard-netavark: in the service, or in lanyard-attach.
package netavark

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// Plugin carries out commands.
type Plugin struct {
	hook.Attacher
	Networks string // directory of the definitions
}

// Run carries out create, setup or teardown. netns is the path of the container's network namespace,
// for setup only. output is for the plugin's stdout, also after an error.
func (p Plugin) Run(ctx context.Context, command, netns string, input []byte) (output []byte, err error) {
	var answer any
	switch command {
	case "create":
		answer, err = p.create(input)
	case "setup", "teardown":
		answer, err = p.execute(ctx, command, netns, input)
	default:
		err = fmt.Errorf("%.20q is no command", command)
	}
	if err != nil {
		return Failure(err), err
	}
	if answer == nil {
		return nil, nil
	}
	return json.Marshal(answer)
}

// Failure returns an error as netavark reads it, in one line.
func Failure(err error) []byte {
	if errors.Is(err, hook.ErrUnprivileged) {
		err = errors.New(`only root's podman can use the driver: a rootless container uses ` +
			`"--network none --annotation io.lanyard.network=NETWORK"`)
	}
	text, err := json.Marshal(map[string]string{"error": "lanyard: " + strings.ReplaceAll(err.Error(), "\n", "; ")})
	if err != nil {
		panic(err) // a map of strings
	}
	return text
}

func (p Plugin) execute(ctx context.Context, command, netns string, request []byte) (any, error) {
	var in input
	if err := json.Unmarshal(request, &in); err != nil {
		return nil, fmt.Errorf("read the request of netavark: %w", err)
	}
	if command == "teardown" {
		return nil, p.Detach(ctx, in.holder())
	}
	return p.setup(ctx, in, netns)
}

// create checks a new network of podman, and returns it with podman's IPAM and DNS off. Fields that
// it does not know stay as they are.
func (p Plugin) create(text []byte) (map[string]any, error) {
	var fields map[string]any
	var created podmanNetwork
	err := errors.Join(json.Unmarshal(text, &fields), json.Unmarshal(text, &created))
	if err == nil && fields == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return nil, fmt.Errorf("read the network of podman: %w", err)
	}
	w, err := created.want()
	if err != nil {
		return nil, err
	}
	if _, err := network.Load(p.Networks, w.Network); err != nil {
		return nil, err
	}
	for _, set := range []struct {
		flag string
		is   bool
	}{
		{"--subnet", len(created.Subnets) > 0}, {"--interface-name", created.Interface != ""},
		{"--internal", created.Internal}, {"--route", len(created.Routes) > 0},
	} {
		if set.is {
			return nil, fmt.Errorf("%s: the Lanyard network %q decides that: leave it out", set.flag, w.Network)
		}
	}
	fields["dns_enabled"], fields["ipam_options"] = false, map[string]string{"driver": "none"}
	return fields, nil
}

// setup attaches the namespace at a path, and returns what the interface got.
func (p Plugin) setup(ctx context.Context, in input, netns string) (any, error) {
	w, err := in.Network.want()
	if err != nil {
		return nil, err
	}
	w.Interface = in.Options.Interface
	// After a restore, "podman network reload" lists a requested address twice.
	for _, a := range in.Options.StaticIPs {
		if !slices.Contains(w.Addrs, a) {
			w.Addrs = append(w.Addrs, a)
		}
	}
	if in.Options.StaticMAC != "" {
		if err := w.SetMAC(in.Options.StaticMAC); err != nil {
			return nil, fmt.Errorf("--mac-address: %w", err)
		}
	}
	if err := errors.Join(w.Validate(), hook.ValidID(in.holder())); err != nil {
		return nil, err
	}
	def, err := network.Load(p.Networks, w.Network)
	if err != nil {
		return nil, err
	}
	got, err := p.Attach(ctx, hook.Request{
		Container: in.holder(), Name: in.Name, Netns: netns, Wants: []hook.Want{w},
	})
	if err != nil {
		return nil, err
	}
	return statusOf(def, got[0]), nil
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
	names := a.ResolverFor(def)
	return status{
		Search: append([]string{}, names.Search...), Servers: append([]netip.Addr{}, names.DNS...),
		Interfaces: map[string]netInterface{a.Interface: i},
	}
}
