package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
)

// vlans measures an attach to one VLAN for a growing number of VLANs on the trunk, each with a
// network.
func vlans(w *world, _ options, r *results) error {
	const runs = 20
	grows := curve{Title: "attach", X: "VLANs on the trunk", Name: ours}
	have := 0
	for _, n := range []int{1, 64, 512, 2048, 4094} {
		err := w.addVLANs(have+1, n)
		if errors.Is(err, errNoVLANs) {
			r.Missing = append(r.Missing, fmt.Sprintf("attach by VLANs on the trunk: %v (they can be measured in a virtual "+
				"machine: bin/vm -kernel 6.12 -- bin/bench -only vlans)", err))
			return nil
		}
		if err != nil {
			return err
		}
		have = n
		var took []sample
		made, err := w.newContainers(runs)
		defer endAll(made)
		if err != nil {
			return err
		}
		c := w.hookOn(ours, lan{trunk: vlanNet})
		for _, one := range made {
			s, err := c.attach(one).run()
			if err != nil {
				return err
			}
			took = append(took, s)
		}
		if err := w.proven(); err != nil {
			return err
		}
		grows.Points = append(grows.Points, point{float64(n), medianWall(took)})
		if err := w.clear(c, made); err != nil {
			return err
		}
	}
	r.Curves = append(r.Curves, grows)
	return nil
}

// vlanNet is the network of the first VLAN, which has the gateway.
const vlanNet = "vlan1"

var errNoVLANs = errors.New("the kernel has no 802.1Q VLANs")

// addVLANs makes sub-interfaces and networks, from VID first to last.
func (w *world) addVLANs(first, last int) error {
	probe := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, VlanId: 4094}
	trunk := w.lans[ours].trunk
	lower, err := netlink.LinkByName(trunk)
	if err != nil {
		return err
	}
	probe.ParentIndex = lower.Attrs().Index
	switch err := netlink.LinkAdd(probe); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errNoVLANs
	case err == nil:
		if err := netlink.LinkDel(probe); err != nil {
			return err
		}
	}
	var batch strings.Builder
	for vid := first; vid <= last; vid++ {
		fmt.Fprintf(&batch, "link add link %s name %s.%d up type vlan id %d\n", trunk, trunk, vid, vid)
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + vid>>8), byte(vid), 0}), 24)
		def := &network.Definition{
			Name: fmt.Sprintf("vlan%d", vid), ID: network.NewID(), Driver: network.DriverMacvlan, Mode: network.ModeBridge,
			Parent: fmt.Sprintf("%s.%d", trunk, vid), Subnets: []network.Subnet{{Subnet: subnet, Gateway: subnet.Addr().Next()}},
		}
		if err := errors.Join(def.Validate(), def.Create(filepath.Join(w.root(), "networks.d"))); err != nil {
			return err
		}
	}
	file := filepath.Join(state, "vlans")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "-batch", file).CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	if first > 1 {
		return nil
	}
	return w.gateway.within(func(h handle) error {
		nic, err := h.LinkByName(w.lans[ours].nic())
		if err != nil {
			return err
		}
		v := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "to-vlan1", ParentIndex: nic.Attrs().Index}, VlanId: 1}
		if err := h.LinkAdd(v); err != nil {
			return err
		}
		return h.address("to-vlan1", netip.MustParsePrefix("10.64.1.1/24"))
	})
}
