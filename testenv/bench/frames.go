package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// frames measures what the program on the trunk costs per frame, compared with a program that does
// nothing. Both run in turns over the same frames, in the kernel (BPF_PROG_TEST_RUN). One container
// is attached to the trunk.
func frames(w *world, o options, r *results) error {
	c := w.contenders()[0]
	made, err := w.newContainers(1)
	defer endAll(made)
	if err != nil {
		return err
	}
	if _, err := c.attach(made[0]).run(); err != nil {
		return err
	}
	mac, err := made[0].mac()
	if err != nil {
		return err
	}
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("load an empty program: %w", err)
	}
	defer empty.Close()
	programs := map[string]*ebpf.Program{}
	for _, way := range []string{"out", "in"} {
		p, err := w.pinnedOnTrunk(map[string]string{"out": "egress", "in": "ingress"}[way])
		if err != nil {
			return err
		}
		defer p.Close()
		programs[way] = p
	}
	if err := w.endProbeTime(); err != nil {
		return err
	}
	worst := 0.0
	for _, f := range framesOf(mac, w.lans[ours].gateway) {
		above, base, err := above(programs[f.way], empty, f.bytes, o.quick)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", f.way, f.what, err)
		}
		worst = max(worst, above)
		r.figure("program on the trunk, a frame "+f.way, f.what, above,
			fmt.Sprintf("ns above the %.0f of an empty one", base))
	}
	r.most("program on the trunk above an empty one, worst frame, ns", worst, 40)
	return w.clear(c, made)
}

// pinned returns the path of what the hook has pinned under a name for the hook's trunk.
func (w *world) pinned(name string) (string, error) {
	trunk, err := netlink.LinkByName(w.lans[ours].trunk)
	if err != nil {
		return "", err
	}
	pins, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/*/trunk-%d-v*/%s", trunk.Attrs().Index, name))
	if err == nil && len(pins) != 1 {
		err = fmt.Errorf("%d objects %q are pinned, want 1", len(pins), name)
	}
	if err != nil {
		return "", err
	}
	return pins[0], nil
}

// pinnedOnTrunk opens a program that the hook has attached to its trunk.
func (w *world) pinnedOnTrunk(name string) (*ebpf.Program, error) {
	path, err := w.pinned(name)
	if err != nil {
		return nil, err
	}
	return ebpf.LoadPinnedProgram(path, nil)
}

// endProbeTime ends the time after a start during which the program reads the exact clock for each
// question and answer (bpf/wire.c, struct clock): the frames of a container that started a while
// ago are to be measured.
func (w *world) endProbeTime() error {
	path, err := w.pinned("times")
	if err != nil {
		return err
	}
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Put(uint32(0), make([]byte, m.ValueSize()))
}

// above returns how many ns the program takes more than the empty one, and what that one takes. It
// uses the quickest of many short turns of each, since disturbances only add time.
func above(p, empty *ebpf.Program, frame []byte, quick bool) (ns, base float64, err error) {
	turns, runs := 300, 20_000
	if quick {
		turns = 40
	}
	full := 0.0
	for range turns {
		for _, one := range []struct {
			p    *ebpf.Program
			best *float64
		}{{empty, &base}, {p, &full}} {
			_, took, berr := one.p.Benchmark(frame, runs, nil)
			err = errors.Join(err, berr)
			if ns := float64(took.Nanoseconds()); *one.best == 0 || ns < *one.best {
				*one.best = ns
			}
		}
	}
	return full - base, base, err
}

type frame struct {
	way, what string
	bytes     []byte
}

// framesOf returns kinds of frames on a trunk with a container of the given MAC.
func framesOf(mac ether.MAC, gateway netip.Addr) []frame {
	unleased, router, all := ether.MAC{0x0a, 1}, ether.MAC{0x0a, 2}, ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	data := func(to, from ether.MAC, tags ...byte) []byte {
		b := append(append(append([]byte{}, to[:]...), from[:]...), tags...)
		return append(append(b, 0x08, 0x00, 0x45), make([]byte, 99)...)
	}
	frame60 := []byte{0x81, 0x00, 0, 60}
	qinq := []byte{0x88, 0xa8, 0, 100, 0x81, 0x00, 0, 60}
	ask, _ := arp.Probe(mac, gateway)
	reply, _ := arp.Packet{Destination: mac, Source: router, Reply: true, Sender: router, SenderIP: gateway, Target: mac,
		TargetIP: gateway}.Frame()
	others, _ := arp.Probe(unleased, gateway.Next().Next())
	return []frame{
		{"out", "of a container", data(router, mac)},
		{"out", "of an unleased MAC", data(router, unleased)},
		{"out", "of an unleased MAC, QinQ", data(router, unleased, qinq...)},
		{"out", "of a container, with a tag (dropped)", data(router, mac, frame60...)},
		{"out", "ARP for the gateway", ask},
		{"in", "for a container", data(mac, router)},
		{"in", "for an unleased MAC", data(unleased, router)},
		{"in", "for an unleased MAC, QinQ", data(unleased, router, qinq...)},
		{"in", "broadcast", data(all, router)},
		{"in", "ARP of others", others},
		{"in", "the gateway's ARP reply", reply},
	}
}
