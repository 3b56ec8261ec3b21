// Package wiring connects the concrete parts for all programs. No other package imports all of
// them. Each of its imports costs time at the start of lanyard-attach.
package wiring

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/bpf"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/hostid"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// Lanyard attaches, and administers networks, with all its parts. Call Close after use.
type Lanyard struct {
	*admin.Admin
	datapath *bpf.Datapath
	shared   *sharedStores
}

// OpenPrivileged is Open for changes of the host's network. It returns
// hook.ErrUnprivileged if the process may not make them.
func OpenPrivileged(p Paths) (*Lanyard, error) {
	may, err := netns.Privileged()
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, hook.ErrUnprivileged
	}
	return Open(p)
}

// Open uses the calling thread's network namespace as the host's. It creates no files;
// the first use of a part does.
func Open(p Paths) (*Lanyard, error) {
	host, err := link.OpenHost(filepath.Join(p.Run, "locks"))
	if err != nil {
		return nil, err
	}
	store := boltstore.Open(filepath.Join(p.Run, "lanyard.db"))
	datapath := bpf.New(bpf.Options{Root: p.BPF})
	shared := &sharedStores{paths: p, opened: map[network.LeaseStore]ipam.Shared{}}
	return &Lanyard{
		Admin: admin.New(&parts.Parts{
			Host:     host,
			Networks: p.Networks,
			HostID:   sync.OnceValues(hostid.Files{Own: p.HostID, Machine: "/etc/machine-id"}.Load),
			DB:       database{store},
			Leases:   parts.Stores{Own: store, Shared: shared.open},
			Datapath: datapath,
			Probers:  probers{datapath},

			SwitchPort: p.switchPort,

			Guards:     bpf.NewGuards(bpf.Options{Root: p.BPF}),
			GuardNetns: p.Guards,

			Names:         p.Names(),
			ServiceRenews: func() bool { return listens(p.Socket) },

			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		}),
		datapath: datapath,
		shared:   shared,
	}, nil
}

// listens reports whether the service listens at a socket, or systemd does and starts it.
func listens(socket string) bool {
	c, err := net.DialTimeout("unixpacket", socket, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Attacher returns an attacher in this process, or, if the process has no privilege, one
// that uses the service. The caller closes the Closer. Warnings go to log.
func Attacher(p Paths, log *slog.Logger) (hook.Attacher, io.Closer, error) {
	l, err := OpenPrivileged(p)
	if errors.Is(err, hook.ErrUnprivileged) {
		return service.Client{Socket: p.Socket}, io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, nil, err
	}
	l.Log = log
	return orByService{l, service.Client{Socket: p.Socket}}, l, nil
}

// orByService attaches in this process. It forwards requests that need the client of a store to the
// service. A state that is longer than a message may be comes to this process although the service runs:
// the service gets it decoded.
type orByService struct {
	*Lanyard
	service service.Client
}

// Attach implements [hook.Attacher].
func (o orByService) Attach(ctx context.Context, r hook.Request) ([]hook.Attachment, error) {
	got, err := o.Lanyard.Attach(ctx, r)
	if errors.Is(err, parts.ErrNoClient) && listens(o.service.Socket) {
		return o.service.Attach(ctx, r)
	}
	return got, err
}

// Close closes everything that Open and later calls opened.
func (l *Lanyard) Close() error {
	l.Host.Close()
	return errors.Join(l.shared.close(), l.datapath.Close())
}

// probers implements hook.Probers: it opens the probers for ARP and ND.
type probers struct{ datapath *bpf.Datapath }

// Quick returns a prober on the link ifindex that sends through the trunk's maps and reads
// the neighbour table. It needs no packet socket, because closing one waits for RCU. If
// BPF does not watch the link (watched is false), it returns Exact's prober.
func (p probers) Quick(ifindex int, mac ether.MAC, watched bool) (verify.Prober, error) {
	if !watched {
		return p.Exact(ifindex, mac)
	}
	sender, err := p.datapath.Emitter()
	if err != nil {
		return nil, err
	}
	return probe.OpenTable(ifindex, mac, sender)
}

// Ask sends a question from the link ifindex through the trunk's maps.
func (p probers) Ask(ifindex int, mac ether.MAC, q verify.Question) error {
	sender, err := p.datapath.Emitter()
	if err != nil {
		return err
	}
	return probe.Send(sender, ifindex, mac, q)
}

// Announcer returns an announcer on the link ifindex. It sends through the trunk's maps
// if BPF watches the link, else from a packet socket.
func (p probers) Announcer(ifindex int, mac ether.MAC, watched bool) (verify.Announcer, error) {
	if !watched {
		return announcer{probe.SocketSender{}, ifindex, mac}, nil
	}
	sender, err := p.datapath.Emitter()
	return announcer{sender, ifindex, mac}, err
}

// Exact returns a prober on the link ifindex that reads every reply from a packet socket.
func (probers) Exact(ifindex int, mac ether.MAC) (verify.Prober, error) {
	return probe.OpenSocket(ifindex, mac)
}

// Pinger returns a pinger on the link ifindex.
func (probers) Pinger(ifindex int, ends verify.Ends) (verify.Pinger, error) {
	return probe.OpenPinger(ifindex, ends)
}

// announcer sends an ARP or ND announcement, by the family of the address.
type announcer struct {
	sender  verify.Sender
	ifindex int
	mac     ether.MAC
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

// database adapts a boltstore.DB to record.DB.
type database struct{ *boltstore.DB }

func (d database) View(ctx context.Context, f func(record.Tx) error) error {
	return d.DB.View(ctx, func(tx *boltstore.Tx) error { return f(tx) })
}

func (d database) Update(ctx context.Context, f func(record.Tx) error) error {
	return d.DB.Update(ctx, func(tx *boltstore.Tx) error { return f(tx) })
}
