package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// networkdScript runs systemd-networkd with the .network files of a directory. It has its own /run,
// so that it reaches no bus and no udev; with /sys read-only it does not wait for udev.
const networkdScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/systemd/network
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases
chown -R systemd-network:systemd-network /run/systemd/netif
umount -l /sys
mount -t sysfs -o ro sysfs /sys
cp "$1"/*.network /etc/systemd/network
exec /lib/systemd/systemd-networkd
`

// greedy is a .network file that matches too much, as installers and tutorials have it. Without
// IPv6AcceptRA, systemd 262 configures nothing before it has a DUID, for which it needs a machine-id.
const greedy = "[Match]\nName=eth* ly-*\n[Network]\nAddress=10.77.0.9/24\nLinkLocalAddressing=ipv6\n" +
	"IPv6AcceptRA=no\n"

// networkd runs systemd-networkd on the lab's host until it has enumerated the links and configured
// some, and ends it, as an update of its package does. files are .network files by their names.
func (w *world) networkd(t *testing.T, files map[string]string, configured ...string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", networkdScript, "sh", dir)
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	must(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	var notify *net.UnixConn // of sd_notify(3): systemd-networkd tells it that it is ready
	must(t, w.Host.Do(func() (err error) {
		notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@networkd", Net: "unixgram"})
		return err
	}))
	defer notify.Close()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=@networkd")
	must(t, w.Host.Start(cmd))
	defer cmd.Wait()
	defer func() { must(t, cmd.Process.Signal(unix.SIGTERM)) }()
	must(t, notify.SetReadDeadline(time.Now().Add(time.Minute)))
	for message := make([]byte, 4096); !bytes.Contains(message, []byte("READY=1")); {
		if _, err := notify.Read(message); err != nil {
			text, _ := os.ReadFile(log)
			t.Fatalf("systemd-networkd is not ready: %v: %s", err, text)
		}
	}
	for _, link := range configured {
		testenv.Eventually(t, "the host's address on "+link, func() error {
			if addrs := w.addrsOn(t, link); !strings.Contains(addrs, "10.77.0.9") {
				text, _ := os.ReadFile(log)
				return fmt.Errorf("it has %q: %s", addrs, text)
			}
			return nil
		})
	}
}

// addrsOn returns the addresses of a link of the host, as ip(8) shows them. The kernel's own
// link-local address is tentative for a second (RFC 4862 §5.4), which is left out.
func (w *world) addrsOn(t *testing.T, link string) string {
	t.Helper()
	out, err := w.Host.Exec("ip", "-o", "addr", "show", "dev", link)
	must(t, err)
	return strings.ReplaceAll(out, " tentative", "")
}

// TestNetworkd checks that the shipped .network file keeps systemd-networkd off the host's own link
// on a network, and that without it the link is taken over: it is needed.
func TestNetworkd(t *testing.T) {
	shipped, err := os.ReadFile("../../packaging/systemd-network/05-lanyard.network")
	must(t, err)
	for what, files := range map[string]map[string]string{
		"shipped": {"50-all.network": greedy, "05-lanyard.network": string(shipped)},
		"without": {"50-all.network": greedy},
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) { d.HostAccess = true })
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, "network=web", "ip=192.168.50.77")
			own := ""
			for _, l := range w.Links(w.Host) {
				if strings.HasPrefix(l, "ly-") {
					own = l
				}
			}
			before := w.addrsOn(t, own)
			if what == "without" { // from systemd 257 on, the host then has no route to its containers
				w.networkd(t, files, "eth9", own)
			} else {
				w.networkd(t, files, "eth9")
				if now := w.addrsOn(t, own); now != before {
					t.Errorf("%q has\n%s, had\n%s", own, now, before)
				}
				hooklab.Pings(t, w.Host, "192.168.50.77")
			}
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
		})
	}
}
