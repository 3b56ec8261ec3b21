package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// wordy creates macvlan links in mode source with many source MACs each, which makes their netlink
// messages long.
func wordy(t *testing.T, n *testenv.Namespace, links, heard int) {
	t.Helper()
	_, err := n.Exec("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	must(t, err)
	var macs []net.HardwareAddr
	for i := range heard {
		macs = append(macs, net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	const atOnce = 5000 // as many as one message can carry
	for i := range links {
		name := fmt.Sprintf("wordy%d", i)
		_, err = n.Exec("ip", "link", "add", name, "link", "v0", "type", "macvlan", "mode", "source")
		must(t, err)
		l, err := n.Netlink().LinkByName(name)
		must(t, err)
		must(t, n.Netlink().MacvlanMACAddrSet(l, macs[:min(heard, atOnce)]))
		for _, m := range macs[min(heard, atOnce):] {
			must(t, n.Netlink().MacvlanMACAddrAdd(l, m))
		}
	}
}

// unreadable is a number of source MACs whose description is longer than one netlink
// message.
const unreadable = 5500

// loseDatabase deletes the database while the service is down.
func (b *brokered) loseDatabase() {
	b.tb.Helper()
	b.kill()
	must(b.tb, os.Remove(filepath.Join(wiring.PathsUnder(b.root).Run, "lanyard.db")))
	b.start()
}

// TestAttackRebuild checks that a user whose namespace cannot be read does not block the
// rebuild of a lost database. The user loses the attachments there. Root's namespaces are
// never skipped.
func TestAttackRebuild(t *testing.T) {
	testenv.Alone(t)
	p := newPrisoner(t, direct)
	rootful := testenv.NewContainer(t)
	p.MustAttach("rootful", rootful, "network=web", "ip=192.168.50.11")
	was := map[verify.ID]hook.Attachment{}
	for _, a := range p.Records() {
		was[a.ID] = a
	}
	wordy(t, p.c.Namespace, 1, unreadable)
	if _, err := p.c.Netlink().LinkList(); err == nil || errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("the list of links can be read: %v", err)
	}
	p.loseDatabase()
	next := testenv.NewRootless(t, bob)
	p.mustAttachBy(bob, "next", next.Pid, "network=web")
	for _, a := range p.Records() {
		old, adopted := was[a.ID]
		if adopted && (a.Owner == alice || a.Owner != old.Owner || fmt.Sprint(a.Addrs) != fmt.Sprint(old.Addrs)) {
			t.Errorf("%+v was adopted as %+v", old, a)
		}
		if !adopted && a.Containers[0].ID != "next" {
			t.Errorf("there is %+v", a)
		}
	}
	if n := len(p.Records()); n != 3 || p.Held("web") != 6 || p.Watched() != 3 {
		t.Errorf("%d records, %d leases, %d endpoints", n, p.Held("web"), p.Watched())
	}
	var st unix.Stat_t
	must(t, unix.Stat(p.c.Path(), &st))
	if !strings.Contains(p.logged(), fmt.Sprintf("that could not be read: its attachments are lost\" inode=%d uid=%d ",
		st.Ino, alice)) {
		t.Errorf("the log does not name namespace %d", st.Ino)
	}
	tap := mustTap(t, p.Switch)
	mark := []byte("!attack!")
	p.shout(t, "eth0", p.own, mark)
	hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
	hooklab.Pings(t, rootful.Namespace, "192.168.50.1")
	end := []byte("-the-end-of-it-")
	mustRaw(t, p.victim.Namespace, "eth0").mustSend(t, etherFrame(broadcast, p.its, 0x0800,
		packet4("192.168.50.10", "255.255.255.255", 17, append(udpPorts(4242, 4242), end...)...)))
	for _, f := range tap.until(t, end) {
		if bytes.Contains(f, mark) {
			t.Errorf("the switch saw %x", f)
		}
	}

	wordy(t, rootful.Namespace, 1, unreadable)
	p.loseDatabase()
	look := func() error {
		return p.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Attachments(ctx)
			return err
		})
	}
	if err := look(); err == nil || !strings.Contains(err.Error(), "of root") {
		t.Errorf("a namespace of root was skipped: %v", err)
	}
	_, err := rootful.Exec("ip", "link", "del", "v0")
	must(t, err)
	must(t, look())
}

// TestAttackFullPool checks that such a namespace does not block addresses either: the
// leases of other ended containers are released.
func TestAttackFullPool(t *testing.T) {
	testenv.Alone(t)
	b := newBrokered(t, testenv.Config{})
	b.AddGateway(0, "192.168.50.1/29")
	b.Define("web", b.Trunk, func(d *network.Definition) {
		direct(d)
		d.AllowUsers = []string{fmt.Sprint(alice)}
	}, "192.168.50.0/29")
	kept := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "kept", kept.Pid, "network=web")
	testenv.JoinNamespace(t, kept.Namespace) // a process that outlives the container
	wordy(t, kept.Namespace, 1, unreadable)
	must(t, kept.Kill())
	for i := range 4 {
		c := testenv.NewContainer(t)
		b.MustAttach(fmt.Sprintf("c%d", i), c, "network=web")
		if i == 0 {
			c.End(t)
		}
	}
	b.MustAttach("next", testenv.NewContainer(t), "network=web")
	if !strings.Contains(b.logged(), "could not release all attachments that are not in use") {
		t.Errorf("the service logged %s", b.logged())
	}
}

// TestAttackRebuildMark checks that a user without privilege gets no lease for a macvlan beside its
// own, with the mark, when the database is lost.
func TestAttackRebuildMark(t *testing.T) {
	p := newPrisoner(t, direct)
	before := len(p.Records())
	for _, args := range []string{
		"link add evil link eth0 address 02:00:00:00:00:66 type macvlan", "link set evil alias lanyard up",
		"addr add 192.168.50.99/24 dev evil",
	} {
		_, err := p.c.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	p.loseDatabase()
	if recs := p.Records(); len(recs) != before {
		t.Errorf("%d records before, then %+v", before, recs)
	}
}
