// Package wiring puts the concrete parts together for both binaries: the only
// place that knows all of them. What it imports, the hook pays for at every
// container start.
package wiring

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/lanyard-net/lanyard/bpf"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/broker"
	"github.com/lanyard-net/lanyard/hook/hostid"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// Lanyard is an attacher with all its parts.
type Lanyard struct {
	*hook.Local
	datapath *bpf.Datapath
}

// OpenPrivileged is Open for who is going to change the host's network:
// hook.ErrUnprivileged where the process may not.
func OpenPrivileged(p Paths) (*Lanyard, error) {
	may, err := link.Privileged()
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, hook.ErrUnprivileged
	}
	return Open(p)
}

// Open opens the calling thread's network namespace as the host. It makes
// nothing on disk yet.
func Open(p Paths) (*Lanyard, error) {
	host, err := link.OpenHost(filepath.Join(p.Run, "locks"))
	if err != nil {
		return nil, err
	}
	store := boltstore.Open(filepath.Join(p.Run, "lanyard.db"))
	datapath := bpf.New(bpf.Options{Root: p.BPF})
	return &Lanyard{
		Local: &hook.Local{
			Host:     host,
			Networks: p.Networks,
			HostID:   sync.OnceValues(hostid.Files{Own: p.HostID, Machine: "/etc/machine-id"}.Load),
			DB:       database{store},
			Leases:   store,
			Datapath: datapath,
			Probers:  probers{datapath},

			Guards:     bpf.NewGuards(bpf.Options{Root: p.BPF}),
			GuardNetns: p.Guards,

			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		},
		datapath: datapath,
	}, nil
}

// Attacher opens what attaches: in process, or where the process has no
// privilege, through the broker. The caller closes it.
// What it has to say beside its errors goes to log.
func Attacher(p Paths, log *slog.Logger) (hook.Attacher, io.Closer, error) {
	l, err := OpenPrivileged(p)
	if errors.Is(err, hook.ErrUnprivileged) {
		return broker.Client{Socket: p.Socket}, io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, nil, err
	}
	l.Log = log
	return l, l, nil
}

// Close lets go of everything that Open and later calls opened.
func (l *Lanyard) Close() error {
	l.Host.Close()
	return l.datapath.Close()
}

// probers opens what asks on the wire.
type probers struct{ datapath *bpf.Datapath }

// Quick sends through the trunk's maps and listens to the neighbour table: no
// packet socket, whose closing waits for RCU. Where there is no BPF, a packet
// socket it is.
func (p probers) Quick(ifindex int, mac verify.MAC, watched bool) (verify.Prober, error) {
	if !watched {
		return p.Exact(ifindex, mac)
	}
	sender, err := p.datapath.Emitter()
	if err != nil {
		return nil, err
	}
	return probe.OpenTable(ifindex, mac, sender)
}

// Ask sends through the trunk's maps.
func (p probers) Ask(ifindex int, mac verify.MAC, q verify.Question) error {
	sender, err := p.datapath.Emitter()
	if err != nil {
		return err
	}
	return probe.Send(sender, ifindex, mac, q)
}

func (p probers) Announcer(ifindex int, mac verify.MAC, watched bool) (verify.Announcer, error) {
	if !watched {
		return announcer{probe.SocketSender{}, ifindex, mac}, nil
	}
	sender, err := p.datapath.Emitter()
	return announcer{sender, ifindex, mac}, err
}

// Exact reads every answer from a packet socket itself.
func (probers) Exact(ifindex int, mac verify.MAC) (verify.Prober, error) {
	return probe.OpenSocket(ifindex, mac)
}

// announcer builds the frame that fits an address's family.
type announcer struct {
	sender  verify.Sender
	ifindex int
	mac     verify.MAC
}

func (a announcer) Announce(addr netip.Addr) (err error) {
	build := arp.Announce
	if addr.Is6() {
		build = ndp.Announce
	}
	frame, err := build(a.mac, addr)
	if err != nil {
		return err
	}
	return a.sender.Send(a.ifindex, frame)
}

// database gives the hook its rows.
type database struct{ *boltstore.DB }

func (d database) View(ctx context.Context, f func(hook.Tx) error) error {
	return d.DB.View(ctx, func(tx *boltstore.Tx) error { return f(tx) })
}

func (d database) Update(ctx context.Context, f func(hook.Tx) error) error {
	return d.DB.Update(ctx, func(tx *boltstore.Tx) error { return f(tx) })
}
